# SPDX-License-Identifier: Apache-2.0
"""What the busiest addresses sent and were sent in the last minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebpftop.model import U64, Prefix, Snapshot, Sources
from ebpftop.screens.class_history import KEPT_S, SHORTEST_S, Samples
from ebpftop.screens.targets import within

BUSIEST = 1000
"""Addresses that are kept of each tick: those with the most bytes in both directions."""

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """The busiest addresses of one tick. All arrays have one length."""

    time_s: float
    """When it ended, in seconds of CLOCK_MONOTONIC."""
    length_s: float
    """How long it was."""
    high: U64
    """Upper halves of the addresses."""
    low: U64
    """Lower halves."""
    received: F32
    """Bytes received from each."""
    sent: F32 | None
    """Bytes sent to each; None where that was not counted."""

    def bytes_of(self, prefix: Prefix, direction: str) -> float:
        """Return the bytes of the addresses in a prefix that came in, or went out."""
        column = self.received if direction == "ingress" else self.sent
        return 0.0 if column is None else float(column[within(self, prefix)].sum())


@dataclass(frozen=True, slots=True, eq=False)
class AddressHistory:
    """The last minute of the busiest addresses; each snapshot makes a new one."""

    ticks: Sequence[Tick] = ()
    """The oldest first."""

    def of(self, prefix: Prefix, direction: str) -> Samples | None:
        """Return what came from the addresses of a prefix, or what was sent to them.

        Args:
            prefix: Which addresses.
            direction: A word of `DIRECTIONS`.

        Returns:
            The samples, from the first tick that it was seen in; None where that direction is
            not counted.
        """
        ticks = [tick for tick in self.ticks if direction == "ingress" or tick.sent is not None]
        if not ticks:
            return None if self.ticks else Samples.none()
        brought = np.array([tick.bytes_of(prefix, direction) for tick in ticks], np.float64)
        seen = np.flatnonzero(brought)
        first = int(seen[0]) if len(seen) else len(ticks)
        lengths = np.array([tick.length_s for tick in ticks], np.float64)
        times = np.array([tick.time_s for tick in ticks], np.float64)
        bps = brought * 8 / lengths
        return Samples(times[first:], lengths[first:], brought[first:], bps[first:])

    def extended(self, snapshot: Snapshot) -> AddressHistory:
        """Return this history with the rates of `snapshot`, if it has any worth keeping."""
        length_s = snapshot.interval_s
        if length_s is None or length_s < SHORTEST_S:
            return self
        now_s = snapshot.clock.monotonic_ns / 1e9
        kept = [tick for tick in self.ticks if tick.time_s > now_s - KEPT_S]
        return AddressHistory((*kept, _tick(snapshot, now_s, length_s)))


def _tick(snapshot: Snapshot, now_s: float, length_s: float) -> Tick:
    sources, sent = snapshot.sources, snapshot.sent
    received_bps = np.nan_to_num(sources.bps)
    sent_bps = None if sent is None else np.nan_to_num(sent.bps)
    rows = _busiest(sources, received_bps if sent_bps is None else received_bps + sent_bps)
    octets = length_s / 8
    return Tick(
        now_s,
        length_s,
        sources.high[rows].copy(),
        sources.low[rows].copy(),
        (received_bps[rows] * octets).astype(np.float32),
        None if sent_bps is None else (sent_bps[rows] * octets).astype(np.float32),
    )


def _busiest(sources: Sources, bps: NDArray[np.float64]) -> NDArray[np.intp]:
    if len(sources) <= BUSIEST:
        return np.flatnonzero(bps)
    rows = np.argpartition(bps, len(bps) - BUSIEST)[-BUSIEST:]
    found: NDArray[np.intp] = rows[bps[rows] > 0]
    return found
