# SPDX-License-Identifier: Apache-2.0
"""The last minute of the sources that send most, and of all others in one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebpftop.model import F64, U64, Prefix, Snapshot

KEPT_S = 60.0
MOST_ROWS = 2000
"""Sources of one tick that have a row of their own, at two ticks a second and fewer."""
_USUAL_S = 0.5
_SHORTEST_S = 0.08

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """What came in one tick. All arrays have one length, a row each for who sent most."""

    at_s: float
    """When it ended, in seconds of CLOCK_MONOTONIC."""
    length_s: float
    """How long it was."""
    high: U64
    """Upper 64 bits of the address."""
    low: U64
    """Lower 64 bits of the address."""
    pps: F32
    """Packets a second."""
    bps: F32
    """Bits a second."""
    dropped_pps: F32
    """Packets dropped a second."""
    rest: tuple[float, float, float]
    """The same three of all other sources together."""
    sent_bps: F32 | None = None
    """Bits a second sent to each; None where that was not counted."""
    received_pps: float = 0.0
    """Packets a second of all there are, those without a source's row included."""

    def within(self, prefix: Prefix) -> NDArray[np.bool_]:
        """Return which rows lie within `prefix`."""
        return in_prefix(self.high, self.low, prefix)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One source or prefix over the ticks that are kept. All arrays have one length."""

    times_s: F64
    """When each tick ended."""
    lengths_s: F64
    """How long it was."""
    pps: F64
    """Packets a second."""
    bps: F64
    """Bits a second."""
    dropped_pps: F64
    """Packets dropped a second."""

    def mean(self, rates: F64, last_s: float) -> float | None:
        """Return the mean of one of the rates over the last seconds; None where nothing is kept."""
        if not len(self.times_s):
            return None
        recent = self.times_s > self.times_s[-1] - last_s + 1e-6
        return float(np.average(rates[recent], weights=self.lengths_s[recent]))


@dataclass(frozen=True, slots=True, eq=False)
class SourceHistory:
    """The last `KEPT_S` seconds; each snapshot makes a new one."""

    ticks: Sequence[Tick] = ()
    """Oldest first."""

    def extended(self, snapshot: Snapshot) -> SourceHistory:
        """Return this history with one more tick, if the snapshot has rates worth keeping."""
        interval_s = snapshot.interval_s
        if interval_s is None or interval_s < _SHORTEST_S:
            return self
        now_s = snapshot.clock.monotonic_ns / 1e9
        if self.ticks and now_s <= self.ticks[-1].at_s:
            return self
        kept = [tick for tick in self.ticks if tick.at_s > now_s - KEPT_S]
        return SourceHistory((*kept, _tick(snapshot, now_s, interval_s)))

    def of(self, prefix: Prefix) -> Series:
        """Return what an address, or all addresses of a prefix, sent; 0 where it had no row."""
        rows = [(tick, tick.within(prefix)) for tick in self.ticks]
        return Series(
            times_s=np.array([tick.at_s for tick, _ in rows]),
            lengths_s=np.array([tick.length_s for tick, _ in rows]),
            pps=np.array([float(tick.pps[inside].sum()) for tick, inside in rows]),
            bps=np.array([float(tick.bps[inside].sum()) for tick, inside in rows]),
            dropped_pps=np.array([float(tick.dropped_pps[inside].sum()) for tick, inside in rows]),
        )

    def sent_to(self, prefix: Prefix) -> Series | None:
        """Return what was sent to the same: rates of bits alone, over the ticks that count them.

        Returns:
            None where nothing that is sent is counted.
        """
        ticks = [tick for tick in self.ticks if tick.sent_bps is not None]
        if self.ticks and not ticks:
            return None
        bps = [float(tick.sent_bps[tick.within(prefix)].sum())
               for tick in ticks if tick.sent_bps is not None]  # fmt: skip
        unknown = np.full(len(ticks), np.nan)
        return Series(
            times_s=np.array([tick.at_s for tick in ticks]),
            lengths_s=np.array([tick.length_s for tick in ticks]),
            pps=unknown,
            bps=np.array(bps),
            dropped_pps=unknown,
        )


def in_prefix(high: U64, low: U64, prefix: Prefix) -> NDArray[np.bool_]:
    """Return which addresses lie within a prefix."""
    upper = np.uint64(~0 << 64 - min(prefix.length, 64) & (1 << 64) - 1)
    lower = np.uint64(~0 << 128 - max(prefix.length, 64) & (1 << 64) - 1)
    inside: NDArray[np.bool_] = (high & upper) == np.uint64(prefix.high)
    inside &= (low & lower) == np.uint64(prefix.low)
    return inside


def _tick(snapshot: Snapshot, now_s: float, interval_s: float) -> Tick:
    sources = snapshot.sources
    pps = np.nan_to_num(sources.pps, nan=0.0)
    bps = np.nan_to_num(sources.bps, nan=0.0)
    dropped = np.nan_to_num(sources.dropped_pps, nan=0.0)
    most = max(1, round(MOST_ROWS * min(1.0, interval_s / _USUAL_S)))
    sending = np.flatnonzero(pps > 0)
    rows = sending
    if len(sending) > most:
        rows = sending[np.argpartition(pps[sending], -most)[-most:]]
    kept = [values[rows] for values in (pps, bps, dropped)]
    sums = [float(values.sum()) for values in (pps, bps, dropped)]
    rest = [max(0.0, total - float(own.sum())) for total, own in zip(sums, kept, strict=True)]
    single = [own.astype(np.float32) for own in kept]
    return Tick(
        now_s, interval_s, sources.high[rows], sources.low[rows], single[0], single[1], single[2],
        (rest[0], rest[1], rest[2]), _sent(snapshot, rows),
        max(sums[0], snapshot.rates.pps.get("received", 0.0) if snapshot.rates else 0.0),
    )  # fmt: skip


def _sent(snapshot: Snapshot, rows: NDArray[np.intp]) -> F32 | None:
    if snapshot.sent is None:
        return None
    return np.nan_to_num(snapshot.sent.bps[rows], nan=0.0).astype(np.float32)
