# SPDX-License-Identifier: Apache-2.0
"""The clock of the kernel's programs: CLOCK_MONOTONIC as of the latest timer tick."""

from __future__ import annotations

import time

CLOCK_MONOTONIC_COARSE = 6
"""Of linux/time.h; `time` does not name it."""


def coarse_ns() -> int:
    """Return what the programs take for the time, up to a tick behind `time.monotonic_ns`."""
    return time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)


def tick_ns() -> float:
    """Return how far apart its readings are."""
    return time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9
