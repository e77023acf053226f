# SPDX-License-Identifier: Apache-2.0
"""What the busiest sources sent in the last minute, and what an act would have stopped of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.model import F64, U64, Limits, Prefix, Snapshot

KEPT_S = 60.0
KEPT_SOURCES = 2000
"""Sources of each sample that are kept one by one; the others are one row."""
_SHORTEST_S = 0.08
_EVERY_S = 0.9
"""Samples are so far apart at the least, however short the interval is."""
_NAMED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What came in one stretch of time, of the busiest sources one by one."""

    at_s: float
    """When it ended, in seconds of CLOCK_MONOTONIC."""
    length_s: float
    """How long it was."""
    high: U64
    """Upper halves of the addresses."""
    low: U64
    """Lower halves of the addresses."""
    packets: F64
    """What each sent."""
    bytes: F64
    """The same in bytes."""
    dropped: F64
    """How much of each was dropped."""
    received: float
    """All packets that came, of any source."""
    rest: float
    """Packets of the sources that are not kept."""


@dataclass(frozen=True, slots=True)
class Foresight:
    """What an act would have stopped in the time that is known."""

    seconds: float
    """How long that was; 0 where nothing is known."""
    received: float
    """All packets that came."""
    packets: float
    """Packets that it would have stopped."""
    already: float
    """How many of these were dropped anyway."""
    rest: float
    """Packets of sources that are not kept, of which nothing can be said."""
    talkers: Sequence[tuple[Prefix, float]]
    """Whom it would have hit the most, and the part of 1 of their packets."""
    hit: int
    """How many sources it would have hit."""

    @property
    def share(self) -> float:
        """The part of 1 of all packets that it would have stopped."""
        return min(1.0, self.packets / self.received) if self.received > 0 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class SourceHistory:
    """The last `KEPT_S` seconds, oldest first; each snapshot makes a new one."""

    samples: tuple[Sample, ...] = ()
    """Stretches of time that follow each other."""
    _pending_s: float = 0.0

    def extended(self, snapshot: Snapshot) -> SourceHistory:
        """Return this history with what `snapshot` brought, if it is worth keeping."""
        length_s = snapshot.interval_s
        if length_s is None or snapshot.rates is None:
            return self
        now_s = snapshot.clock.monotonic_ns / 1e9
        if self.samples and now_s == self.samples[-1].at_s:
            return self
        length_s += self._pending_s
        if length_s < (_EVERY_S if self.samples else _SHORTEST_S):
            return SourceHistory(self.samples, length_s)
        # A recording can go back in time.
        kept = tuple(each for each in self.samples if now_s - KEPT_S < each.at_s < now_s)
        return SourceHistory((*kept, _sample(snapshot, now_s, length_s)))

    def if_blocked(self, prefix: Prefix, allowed: Sequence[Prefix] = ()) -> Foresight:
        """Say what a block of `prefix` would have stopped.

        Args:
            prefix: Whom.
            allowed: Who would have passed all the same.
        """
        spared = [each for each in allowed if prefix.contains(each)]
        table = _Table.of(self.samples, [_hit(sample, prefix, spared) for sample in self.samples])
        return self._foresight(table, table.packets)

    def if_limited(self, limits: Limits, allowed: Sequence[Prefix] = ()) -> Foresight:
        """Say what `limits` would have stopped; connection requests are not kept by source.

        Within a sample what came is taken as evenly spread, and each source by itself: an
        automatic block holds an address here, and an IPv6 /64 in the kernel.
        """
        loud = _loud(self.samples, limits)
        table = _Table.of(self.samples, loud)
        stopped = _limited(table, limits, [sample.length_s for sample in self.samples])
        for each in allowed:
            stopped[:, _within(table.high, table.low, each)] = 0.0
        return self._foresight(table, stopped)

    def around(self, address: Prefix, at_s: float) -> tuple[float, float]:
        """Return what of a source passed a second before an instant, and its drops since.

        Args:
            address: The source.
            at_s: The instant, in seconds of CLOCK_MONOTONIC.
        """
        before, dropped = float("nan"), 0.0
        for sample in self.samples:
            found = np.flatnonzero((sample.low == address.low) & (sample.high == address.high))
            packets = float(sample.packets[found].sum())
            lost = float(sample.dropped[found].sum())
            if sample.at_s <= at_s:
                before = (packets - lost) / sample.length_s
            else:
                dropped += lost * min(1.0, (sample.at_s - at_s) / sample.length_s)
        return max(0.0, before), dropped

    def _foresight(self, table: _Table, stopped: F64) -> Foresight:
        seconds = sum(sample.length_s for sample in self.samples)
        by_source = stopped.sum(axis=0)
        most = np.argsort(-by_source, kind="stable")[:_NAMED]
        whole = table.packets.sum(axis=0)
        return Foresight(
            seconds=seconds,
            received=sum(sample.received for sample in self.samples),
            packets=float(by_source.sum()),
            already=float(np.minimum(stopped, table.dropped).sum()),
            rest=sum(sample.rest for sample in self.samples),
            talkers=[
                (Prefix(int(table.high[i]), int(table.low[i])), float(by_source[i] / whole[i]))
                for i in most.tolist()
                if by_source[i] > 0
            ],
            hit=int(np.count_nonzero(by_source > 0)),
        )


def _sample(snapshot: Snapshot, now_s: float, length_s: float) -> Sample:
    sources, rates = snapshot.sources, snapshot.rates
    assert rates is not None
    pps = np.nan_to_num(sources.pps)
    rows = np.flatnonzero(pps > 0)
    if len(rows) > KEPT_SOURCES:
        rows = rows[np.argpartition(-pps[rows], KEPT_SOURCES)[:KEPT_SOURCES]]
    packets = pps[rows] * length_s
    received = max(rates.pps.get("received", 0.0) * length_s, float(packets.sum()))
    return Sample(
        at_s=now_s,
        length_s=length_s,
        high=sources.high[rows],
        low=sources.low[rows],
        packets=packets,
        bytes=np.nan_to_num(sources.bps[rows]) * length_s / 8,
        dropped=np.nan_to_num(sources.dropped_pps[rows]) * length_s,
        received=received,
        rest=max(0.0, float(pps.sum() - pps[rows].sum()) * length_s),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Samples against sources: a line a sample, a column a source."""

    high: U64
    low: U64
    packets: F64
    bytes: F64
    dropped: F64

    @classmethod
    def of(cls, samples: Sequence[Sample], chosen: Sequence[NDArray[np.bool_]]) -> _Table:
        """Return a table of the chosen sources of each sample."""
        pairs = list(zip(samples, chosen, strict=True))
        high, low, column = _numbered(
            _joined([sample.high[rows] for sample, rows in pairs]),
            _joined([sample.low[rows] for sample, rows in pairs]),
        )
        line = np.repeat(np.arange(len(samples)), [int(rows.sum()) for rows in chosen])

        def spread(name: str) -> F64:
            filled = np.zeros((len(samples), len(low)))
            filled[line, column] = _joined([getattr(sample, name)[rows] for sample, rows in pairs])
            return filled

        return cls(high, low, spread("packets"), spread("bytes"), spread("dropped"))


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _numbered(high: U64, low: U64) -> tuple[U64, U64, NDArray[np.intp]]:
    """Return the addresses, each once, and for each given one its number among them."""
    order = np.lexsort((low, high))
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    number = np.empty(len(order), np.intp)
    number[order] = np.cumsum(fresh) - 1
    first = order[fresh]
    return high[first], low[first], number


def _hit(sample: Sample, prefix: Prefix, spared: Sequence[Prefix]) -> NDArray[np.bool_]:
    hits = _within(sample.high, sample.low, prefix)
    for each in spared:
        hits &= ~_within(sample.high, sample.low, each)
    return hits


def _within(high: U64, low: U64, prefix: Prefix) -> NDArray[np.bool_]:
    mask = ((1 << prefix.length) - 1) << (128 - prefix.length)
    upper, lower = np.uint64(mask >> 64), np.uint64(mask & ((1 << 64) - 1))
    hits: NDArray[np.bool_] = ((high & upper) == np.uint64(prefix.high)) & (
        (low & lower) == np.uint64(prefix.low)
    )
    return hits


def _loud(samples: Sequence[Sample], limits: Limits) -> Sequence[NDArray[np.bool_]]:
    """Choose the sources that are over a limit in any sample: no other can be held back."""
    over = []
    for sample in samples:
        loud = np.zeros(len(sample.low), np.bool_)
        if limits.pps:
            loud |= sample.packets > limits.pps * sample.length_s
        if limits.bps:
            loud |= sample.bytes * 8 > limits.bps * sample.length_s
        over.append(loud)
    high, low = _joined([s.high for s in samples]), _joined([s.low for s in samples])
    names, _, number = _numbered(high, low)
    ever = np.zeros(len(names), np.bool_)
    ever[number[_joined(over).astype(np.bool_)]] = True
    ends = np.cumsum([len(sample.low) for sample in samples])
    return np.split(ever[number], ends[:-1]) if samples else []


def _limited(table: _Table, limits: Limits, lengths_s: Sequence[float]) -> F64:
    """Send each source through its buckets, and block it once it is over for too long."""
    stopped = np.zeros_like(table.packets)
    count = table.packets.shape[1]
    ahead = np.zeros((2, count))
    over_s, blocked_s = np.zeros(count), np.zeros(count)
    rates = (limits.pps, limits.bps / 8)
    for line, length_s in enumerate(lengths_s):
        came, lost = table.packets[line], np.zeros(count)
        for which, (amount, rate) in enumerate(zip((came, table.bytes[line]), rates, strict=True)):
            if not rate:
                continue
            level = ahead[which] + amount - rate * length_s
            excess = np.maximum(0.0, level - rate * limits.burst_s)
            part = np.divide(excess, amount, out=np.zeros(count), where=amount > 0)
            lost = np.maximum(lost, np.minimum(1.0, part) * came)
            ahead[which] = np.maximum(0.0, level - excess)
        held = blocked_s > 0
        stopped[line] = np.where(held, came, lost)
        over_s = np.where(lost > 0, over_s + length_s, 0.0)
        blocked_s = np.maximum(0.0, blocked_s - length_s)
        if limits.block_for_s:
            fresh = (over_s > limits.grace_s) & ~held
            blocked_s = np.where(fresh, limits.block_for_s, blocked_s)
    return stopped
