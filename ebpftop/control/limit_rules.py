# SPDX-License-Identifier: Apache-2.0
"""What limits may be, and what they are in the kernel's units."""

from __future__ import annotations

import numpy as np

from ebpftop.bpf import layout
from ebpftop.errors import UsageError
from ebpftop.kernel.clock import tick_ns
from ebpftop.model import Limits

LOWEST_BPS = 8_000
"""One byte a millisecond: below it a single frame would cost seconds."""
CLOCK_TICKS_IN_BURST = 2
PACKETS_IN_BURST = 3
FULL_FRAME_BYTES = 1514
_NS = 1_000_000_000


def check_limits(limits: Limits) -> None:
    """Refuse limits that are out of range.

    Raises:
        UsageError: Names the value and what is right.
    """
    for name in ("pps", "bps", "syn", "grace_s", "block_for_s"):
        if getattr(limits, name) < 0:
            raise UsageError(f"{name} cannot be below 0", "0 switches a limit off")
    if 0 < limits.bps < LOWEST_BPS:
        raise UsageError("a limit below 8kbit would stop single frames", "say 8kbit or more")
    if max(limits.pps, limits.syn) > _NS or limits.bps > 1000 * _NS:
        raise UsageError("that limit is above any link's rate", "0 switches a limit off")
    if not 0 < limits.burst_s <= 3600:
        raise UsageError("a burst is above 0 and at most 1h", "say `1s`")
    if max(limits.grace_s, limits.block_for_s) > layout.BLOCK_LONGEST_S:
        raise UsageError("that is longer than 30 days", "block it by hand for longer")


def cost(rate: int, scale: int = 1) -> int:
    """Return what one packet, or byte, costs at `rate` a second; 0 where there is no limit."""
    return max(1, round(_NS * scale * (1 << layout.LIMITER_SHIFT) / rate)) if rate else 0


def burst(config: np.void) -> int:
    """Return the burst in the kernel's unit: the operator's, unless the limits need a longer one.

    A burst of fewer clock ticks would drop what arrives between two of them; one of fewer
    packets would never show that a source has fallen well below its limit again.
    """
    frame_cost = int(config["byte_cost"]) * FULL_FRAME_BYTES >> layout.BYTE_COST_SHIFT
    packet_cost = max(int(config["pps_cost"]), int(config["syn_cost"]), frame_cost)
    ticks_ns = int(CLOCK_TICKS_IN_BURST * tick_ns())
    burst_ns = max(int(config["burst_ns"]), ticks_ns)
    return max(burst_ns << layout.LIMITER_SHIFT, PACKETS_IN_BURST * packet_cost)
