# SPDX-License-Identifier: Apache-2.0
"""What the dashboard itself takes, and the program for each packet: for its own header."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ebpftop import format as fmt
from ebpftop.model import Snapshot

PIPELINE_HOOK = "xdp"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class OwnCost:
    """Measures this process between one question and the next."""

    def __init__(self) -> None:
        self._before = (time.monotonic(), time.process_time())

    def words(self, snapshot: Snapshot | None) -> str:
        """Say which part of a core this process took since the last question, and its memory.

        Args:
            snapshot: What the time for each packet is taken from, where it is measured.
        """
        now = (time.monotonic(), time.process_time())
        wall_s, cpu_s = now[0] - self._before[0], now[1] - self._before[1]
        self._before = now
        share = 100 * cpu_s / wall_s if wall_s > 0 else 0.0
        words = f"self {share:.0f}% {fmt.size(resident_bytes())}"
        per_packet_ns = None if snapshot is None else ns_per_packet(snapshot)
        return words if per_packet_ns is None else f"{words} {per_packet_ns:.0f} ns/packet"


def resident_bytes() -> int:
    """Return the memory that this process has in RAM (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def ns_per_packet(snapshot: Snapshot) -> float | None:
    """Return the mean time of a run of the XDP program; None while it is not measured."""
    found = snapshot.inspection
    if found is None:
        return None
    costs = (found.programs.get(p.id) for p in snapshot.programs if p.hook == PIPELINE_HOOK)
    return next((cost.ns_per_run for cost in costs if cost is not None), None)
