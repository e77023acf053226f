# SPDX-License-Identifier: Apache-2.0
"""What a block or limits would have stopped of the last minute, computed from what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.model import F64, U64, Limits, Prefix
from ebpftop.screens.source_history import SourceHistory, Tick, in_prefix

_NAMED = 3
"""Sources that are named; more are counted."""


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


def if_blocked(history: SourceHistory, prefix: Prefix, allowed: Sequence[Prefix] = ()) -> Foresight:
    """Say what a block would have stopped.

    Args:
        history: The last minute.
        prefix: Whom it blocks.
        allowed: Who would have passed all the same.
    """
    spared = [each for each in allowed if prefix.contains(each)]
    table = _Table.of(history.ticks, [_hit(tick, prefix, spared) for tick in history.ticks])
    return _foresight(history, table, table.packets)


def if_limited(history: SourceHistory, limits: Limits, spared: Sequence[Prefix] = ()) -> Foresight:
    """Say what limits would have stopped; connection requests are not kept by source.

    Within a tick what came is taken as evenly spread, and each source by itself: an automatic
    block holds an address here, and an IPv6 /64 in the kernel.

    Args:
        history: The last minute.
        limits: What each source may send.
        spared: For whom they do not hold.
    """
    table = _Table.of(history.ticks, _loud(history.ticks, limits))
    stopped = _limited(table, limits, [tick.length_s for tick in history.ticks])
    for each in spared:
        stopped[:, in_prefix(table.high, table.low, each)] = 0.0
    return _foresight(history, table, stopped)


def _foresight(history: SourceHistory, table: _Table, stopped: F64) -> Foresight:
    by_source, whole = stopped.sum(axis=0), table.packets.sum(axis=0)
    most = np.argsort(-by_source, kind="stable")[:_NAMED]
    return Foresight(
        seconds=sum(tick.length_s for tick in history.ticks),
        received=sum(tick.received_pps * tick.length_s for tick in history.ticks),
        packets=float(by_source.sum()),
        already=float(np.minimum(stopped, table.dropped).sum()),
        rest=sum(tick.rest[0] * tick.length_s for tick in history.ticks),
        talkers=[
            (Prefix(int(table.high[i]), int(table.low[i])), float(by_source[i] / whole[i]))
            for i in most.tolist()
            if by_source[i] > 0
        ],
        hit=int(np.count_nonzero(by_source > 0)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Ticks against sources: a line a tick, a column a source."""

    high: U64
    low: U64
    packets: F64
    bits: F64
    dropped: F64

    @classmethod
    def of(cls, ticks: Sequence[Tick], chosen: Sequence[NDArray[np.bool_]]) -> _Table:
        """Return a table of the chosen sources of each tick."""
        pairs = list(zip(ticks, chosen, strict=True))
        high, low, column = _numbered(
            _joined([tick.high[rows] for tick, rows in pairs]),
            _joined([tick.low[rows] for tick, rows in pairs]),
        )
        line = np.repeat(np.arange(len(ticks)), [int(rows.sum()) for rows in chosen])

        def spread(name: str) -> F64:
            filled = np.zeros((len(ticks), len(low)))
            parts = [getattr(tick, name)[rows] * tick.length_s for tick, rows in pairs]
            filled[line, column] = _joined(parts)
            return filled

        return cls(high, low, spread("pps"), spread("bps"), spread("dropped_pps"))


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


def _hit(tick: Tick, prefix: Prefix, spared: Sequence[Prefix]) -> NDArray[np.bool_]:
    hits = tick.within(prefix)
    for each in spared:
        hits &= ~tick.within(each)
    return hits


def _loud(ticks: Sequence[Tick], limits: Limits) -> Sequence[NDArray[np.bool_]]:
    """Choose the sources that are over a limit in any tick: no other can be held back."""
    over = []
    for tick in ticks:
        loud = np.zeros(len(tick.low), np.bool_)
        if limits.pps:
            loud |= tick.pps > limits.pps
        if limits.bps:
            loud |= tick.bps > limits.bps
        over.append(loud)
    high, low = _joined([tick.high for tick in ticks]), _joined([tick.low for tick in ticks])
    names, _, number = _numbered(high, low)
    ever = np.zeros(len(names), np.bool_)
    ever[number[_joined(over).astype(np.bool_)]] = True
    ends = np.cumsum([len(tick.low) for tick in ticks])
    return np.split(ever[number], ends[:-1]) if ticks else []


def _limited(table: _Table, limits: Limits, lengths_s: Sequence[float]) -> F64:
    """Send each source through its buckets, and block it once it is over for too long."""
    stopped = np.zeros_like(table.packets)
    count = table.packets.shape[1]
    ahead = np.zeros((2, count))
    over_s, blocked_s = np.zeros(count), np.zeros(count)
    rates = (limits.pps, limits.bps)
    for line, length_s in enumerate(lengths_s):
        came, lost = table.packets[line], np.zeros(count)
        for which, (amount, rate) in enumerate(zip((came, table.bits[line]), rates, strict=True)):
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
