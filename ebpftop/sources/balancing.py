# SPDX-License-Identifier: Apache-2.0
"""What the load balancer does, as the model's tables: VIPs, their backends, their flows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import balancer_records, layout
from ebpftop.kernel import libbpf
from ebpftop.kernel.maps import Map
from ebpftop.model import F64, U64, Backends, Connections, Vips
from ebpftop.sources import roster as rosters
from ebpftop.sources.connections import ConnectionsReader, Known
from ebpftop.sources.decoding import native
from ebpftop.sources.invariants import TICKS_BEFORE_ALARM
from ebpftop.sources.roster import Roster

SUM = "backends = VIPs"
CONNECTIONS = "connections"
"""Word of `Source.wants` for the flows: they may be many."""
MEASURED_S = 10.0
"""Time over which shares of new flows are measured."""
SLOW_MAPS_EVERY = 10
"""Reads between counts of maps that are read for their fill alone."""
_SLOW = ("endpoints", "balanced", "ports", "connections")


@dataclass(frozen=True, slots=True, eq=False)
class Balanced:
    """What a snapshot has of the balancer."""

    vips: Vips
    """What is balanced."""
    backends: Backends
    """Where it goes."""
    connections: Connections | None
    """The flows; None where they were not asked for."""
    invariants: Mapping[str, bool]
    """Sums that must hold."""
    fills: Mapping[str, int]
    """Entries of the balancer's maps, as far as they were counted."""


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """Counters of every VIP and backend at one instant, each summed over CPUs."""

    vips: NDArray[Any]
    backends: NDArray[Any]
    vips_after: NDArray[Any]
    """The VIPs' once more, read after the backends'."""


class BalancingReader:
    """Reads the balancer's maps of an instance.

    Args:
        maps: Open for writing or read-only.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
        self._roster = Roster.empty()
        self._before: tuple[Roster, _Counts] | None = None
        self._base: _Counts | None = None
        self._opened: deque[tuple[int, Mapping[tuple[int, int], int]]] = deque()
        self._flows = ConnectionsReader()
        self._fills: dict[str, int] = {}
        self._failures = 0
        self._reads = 0

    def read(
        self, now_ns: int, interval_s: float | None, *, want_connections: bool = False
    ) -> Balanced:
        """Read everything.

        Args:
            now_ns: CLOCK_MONOTONIC.
            interval_s: Since the read before; None for the first.
            want_connections: Read the flows too.
        """
        roster = self._roster = rosters.read(self._maps, self._roster)
        counts = _Counts(
            self._counters("vip_stats", roster.vip_slots),
            self._counters("backend_stats", roster.backend_slots),
            self._counters("vip_stats", roster.vip_slots),
        )
        holds = self._sum_holds(roster, counts)
        vips = self._vips(roster, counts, interval_s)
        backends = self._backends(roster, counts, interval_s, now_ns)
        self._before = roster, counts
        connections = self._connections(roster) if want_connections else None
        self._count_fills(roster)
        return Balanced(
            vips, backends, connections, {SUM: holds} if len(vips) else {}, dict(self._fills)
        )

    def _counters(self, name: str, slots: Sequence[int]) -> NDArray[Any]:
        """Return the counters of these slots, each summed over all CPUs."""
        total = np.zeros(len(slots), layout.BALANCE_COUNT)
        if slots:
            per_cpu = self._maps[name].read(max(slots) + 1)[1][list(slots)]
            for field_name in layout.BALANCE_COUNT.names or ():
                total[field_name] = per_cpu[field_name].sum(axis=1)
        return total

    def _sum_holds(self, roster: Roster, now: _Counts) -> bool:
        """Whether what came to the VIPs since the roster last changed went to their backends.

        What was dropped or left to the stack on the way to a VIP never got to a backend.
        """
        base = self._base
        before = self._before[0] if self._before else None
        if base is None or before is None or _members(before) != _members(roster):
            base = self._base = now
            self._failures = 0
        slack = libbpf.possible_cpus()
        lost = "dropped", "handed"
        low = _grown(base.vips_after, now.vips) - slack
        low -= sum(_grown(base.vips, now.vips_after, name) for name in lost)
        high = _grown(base.vips, now.vips_after) + slack
        high -= sum(_grown(base.vips_after, now.vips, name) for name in lost)
        holds = low <= _grown(base.backends, now.backends) <= high
        self._failures = 0 if holds else self._failures + 1
        return self._failures < TICKS_BEFORE_ALARM

    def _vips(self, roster: Roster, now: _Counts, interval_s: float | None) -> Vips:
        before = self._before
        then = (before[0].vip_ids, before[1].vips) if before else None
        rates = _rates(roster.vip_ids, now.vips, then, interval_s)
        counted = {
            name: native(now.vips[name])
            for name in ("packets", "bytes", "reply_packets", "reply_bytes", "opened", "stranded")
        }
        for name in ("dropped", "handed"):
            counted[name] = native(now.vips[name] + now.vips[f"reply_{name}"])
        return Vips(wanted=roster.vips, **counted, pps=rates[0], bps=rates[1], new_per_s=rates[2])

    def _backends(
        self, roster: Roster, now: _Counts, interval_s: float | None, now_ns: int
    ) -> Backends:
        before = self._before
        then = (before[0].backend_ids, before[1].backends) if before else None
        rates = _rates(roster.backend_ids, now.backends, then, interval_s)
        return Backends(
            vip=roster.backend_vips,
            wanted=roster.backends,
            first_weight=roster.first_weight,
            healthy=self._health(roster, now_ns),
            reachable=self._reachable(roster, now_ns),
            share=roster.share,
            measured_share=self._measured(roster, now.backends["opened"], now_ns),
            connections=self._flow_counts(roster.backend_slots),
            opened=native(now.backends["opened"]),
            packets=native(now.backends["packets"] + now.backends["reply_packets"]),
            bytes=native(now.backends["bytes"] + now.backends["reply_bytes"]),
            pps=rates[0],
            bps=rates[1],
            new_per_s=rates[2],
        )

    def _health(self, roster: Roster, now_ns: int) -> Sequence[bool | None]:
        """Return what the checks say: nothing, where the process that made them is gone."""
        beat = self._maps["checker"].get(0)
        if beat is not None and balancer_records.somebody_checks(beat, now_ns):
            return roster.healthy
        return [None] * len(roster.healthy)

    def _reachable(self, roster: Roster, now_ns: int) -> Sequence[bool]:
        """Return whose way is known: nobody's, where the process that kept the ways is gone."""
        config = self._maps["config"].get(0)
        if config is not None and now_ns < int(config["hops_until_ns"][0]):
            return roster.reachable
        return [False] * len(roster.reachable)

    def _flow_counts(self, slots: Sequence[int]) -> U64:
        if not slots:
            return np.zeros(0, np.uint64)
        counts = self._maps["backend_flows"].read(max(slots) + 1)[1][list(slots)]
        # Below 0 for a moment, where an end was counted before its beginning.
        return np.maximum(counts.astype(np.int64), 0).astype(np.uint64)

    def _measured(self, roster: Roster, opened: NDArray[Any], now_ns: int) -> F64:
        """Return each backend's part of the flows that its VIP got in the last `MEASURED_S`."""
        keys = roster.backend_ids
        now = dict(zip(keys, opened.tolist(), strict=True))
        self._opened.append((now_ns, now))
        # The oldest is as old as the time asks for, or all there is.
        while len(self._opened) > 2 and now_ns - self._opened[1][0] >= MEASURED_S * 1e9:
            self._opened.popleft()
        oldest = self._opened[0][1]
        grown = np.array([now[key] - oldest.get(key, now[key]) for key in keys], np.float64)
        grown = np.maximum(grown, 0.0)
        rows = np.array(roster.rows, np.intp)
        whole = np.bincount(rows, grown, len(roster.vips))[rows]
        share: F64 = np.divide(grown, whole, out=np.full(len(keys), np.nan), where=whole > 0)
        return share

    def _connections(self, roster: Roster) -> Connections:
        keys, values = self._maps["connections"].read()
        self._fills["connections"] = len(keys)
        known = Known(
            vips={number: row for row, number in enumerate(roster.vip_ids)},
            backends={
                slot: (vip_id, row)
                for row, (slot, (vip_id, _)) in enumerate(
                    zip(roster.backend_slots, roster.backend_ids, strict=True)
                )
            },
            vip_services=[vip.service for vip in roster.vips],
            backend_services=[backend.service for backend in roster.backends],
        )
        return self._flows.read(keys, values, known)

    def _count_fills(self, roster: Roster) -> None:
        if self._reads % SLOW_MAPS_EVERY == 0:
            self._fills |= {name: len(self._maps[name].read()[0]) for name in _SLOW}
        self._reads += 1
        self._fills |= {
            "vips": len(roster.vips),
            "vip_slots": len(roster.vips),
            "backends": len(roster.backends),
        }


def _members(roster: Roster) -> tuple[Sequence[int], Sequence[tuple[int, int]], Sequence[int]]:
    return roster.vip_ids, roster.backend_ids, roster.backend_slots


def _grown(before: NDArray[Any], now: NDArray[Any], name: str = "packets") -> int:
    return int(now[name].sum()) - int(before[name].sum())


def _rates(
    keys: Sequence[Any],
    now: NDArray[Any],
    before: tuple[Sequence[Any], NDArray[Any]] | None,
    interval_s: float | None,
) -> NDArray[np.float64]:
    """Return packets, bits and new flows a second; NaN for a row that is new."""
    rates = np.full((3, len(keys)), np.nan)
    if before is None or not interval_s:
        return rates
    at = {key: row for row, key in enumerate(before[0])}
    known = [row for row, key in enumerate(keys) if key in at]
    then = before[1][[at[keys[row]] for row in known]]
    for number, (names, scale) in enumerate(
        [(("packets", "reply_packets"), 1), (("bytes", "reply_bytes"), 8), (("opened",), 1)]
    ):
        for name in names:
            grown = now[name][known].astype(np.float64) - then[name]
            part = np.maximum(grown, 0.0) * scale / interval_s
            rates[number, known] = np.nan_to_num(rates[number, known]) + part
    return rates
