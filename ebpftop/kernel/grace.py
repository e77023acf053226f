# SPDX-License-Identifier: Apache-2.0
"""Wait for packets that are under way."""

from __future__ import annotations

import ctypes
import platform
import time

MEMBARRIER_CMD_GLOBAL = 1
_SYS_MEMBARRIER = {"x86_64": 324, "ppc64le": 365, "s390x": 356, "armv7l": 389}
_SYS_MEMBARRIER_GENERIC = 283
_FALLBACK_S = 0.05
_libc = ctypes.CDLL(None, use_errno=True)


def wait_for_packets() -> None:
    """Return when no program runs any more that began before this was called.

    membarrier(2) with MEMBARRIER_CMD_GLOBAL waits for an RCU grace period, as no other system
    call does that a program of ours may make. Where it is refused (nohz_full), a time passes
    that is far above any packet's.
    """
    number = _SYS_MEMBARRIER.get(platform.machine(), _SYS_MEMBARRIER_GENERIC)
    if _libc.syscall(number, MEMBARRIER_CMD_GLOBAL, 0, 0):
        time.sleep(_FALLBACK_S)
