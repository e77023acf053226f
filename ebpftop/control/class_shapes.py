# SPDX-License-Identifier: Apache-2.0
"""What a token bucket is at a rate: its burst, its marks, the clock that will do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import shaper_layout as layout
from ebpftop.kernel import clock

MARK_SHARE = 2
"""ECN-capable packets are marked once one part in so many of the burst is used up."""
MOST_COARSE_TICKS = 2
"""What the coarse clock lags at the most, in its ticks."""
LEAST_BURST_LAGS = 4
"""A burst of fewer such lags is left to the exact clock."""


def bucket_shape(rate_bps: int, burst_bytes: int, *, may_be_coarse: bool) -> NDArray[Any]:
    """Return what a bucket is at a rate.

    With a long burst the coarse clock will do, if what it lags is taken off the burst: in no
    interval does more pass then than the rate times its length and the burst. A parent's bucket
    is read with the clocks of all its classes, and so is left to the exact one.
    """
    shape = np.zeros((), layout.BUCKET_SHAPE)
    burst = layout.line_time(burst_bytes, rate_bps)
    lag = int(MOST_COARSE_TICKS * clock.tick_ns()) << layout.TIME_SHIFT
    if may_be_coarse and burst >= LEAST_BURST_LAGS * lag:
        shape["coarse"] = 1
        burst -= lag
    shape["byte_cost"], shape["burst"] = layout.byte_cost(rate_bps), burst
    shape["mark"] = burst // MARK_SHARE
    return shape
