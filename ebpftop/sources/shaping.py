# SPDX-License-Identifier: Apache-2.0
"""What the traffic shaper does, as the model's tables: classes, their buckets, what was sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import ShaperFlag, Shaping
from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import Instance
from ebpftop.kernel.netlink.traffic_control import HtbCounters, traffic_control
from ebpftop.model import (
    DIRECTIONS,
    SHAPINGS,
    U64,
    Classes,
    ClassKey,
    Count,
    Prefix,
    Sent,
    Sources,
    TrafficClass,
)
from ebpftop.sources.decoding import native, text
from ebpftop.sources.sent import SentReader

TICKS_BEFORE_ALARM = 3
SUM = "classes = classified"


@dataclass(frozen=True, slots=True, eq=False)
class Shaped:
    """What a snapshot has of the shaper."""

    classes: Classes
    """Every class."""
    unclassified: Mapping[str, Count]
    """What matched no class, by direction; empty where nothing is shaped."""
    sent: Sent | None
    """What was sent to each source; None where it is not counted."""
    invariants: Mapping[str, bool]
    """Sums that must hold."""


@dataclass(frozen=True, slots=True)
class _ClassBefore:
    """Counters of a class at the snapshot before."""

    set_ns: int
    packets: int
    bytes: int
    dropped_packets: int
    dropped_bytes: int


@dataclass(frozen=True, slots=True)
class _Idle:
    """When HTB last told another number of tokens: it reckons only when it serves a class."""

    tokens_ns: int
    since_ns: int
    packets: int


class ShapingReader:
    """Reads the shaper's maps of an instance.

    Args:
        instance: Open for writing or read-only.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._maps = instance.maps
        self._generation = -1
        self._members: dict[int, list[Prefix]] = {}
        self._before: dict[ClassKey, _ClassBefore] = {}
        self._sent = SentReader(instance.maps["sent_to"])
        self._idle: dict[int, _Idle] = {}
        self._failures = 0

    def read(self, now_ns: int, interval_s: float | None, sources: Sources) -> Shaped:
        """Read everything.

        Args:
            now_ns: CLOCK_MONOTONIC.
            interval_s: Since the read before; None for the first.
            sources: Whose rows `sent` follows.
        """
        config = self._maps["shaper_config"].read()[1][0].copy()
        first = self._totals()
        records = self._maps["traffic_classes"].read()[1].copy()
        counters = self._counters()
        buckets = self._maps["buckets"].read()[1]["time"].copy()
        used = np.flatnonzero(records["shaping"])
        order = used[np.argsort(records["set_ns"][used], kind="stable")].tolist()
        self._read_members(int(config["generation"]), anything=bool(order))
        classes = self._classes(order, records, counters, buckets, now_ns, interval_s)
        shaped = bool(order)
        counted = int(config["flags"]) & ShaperFlag.COUNT_SENT
        return Shaped(
            classes,
            {
                word: Count(int(first["unclassified"][at]["packets"]),
                            int(first["unclassified"][at]["bytes"]))
                for at, word in enumerate(DIRECTIONS)
            } if shaped else {},
            self._sent.read(sources, interval_s) if counted else None,
            {SUM: self._sum_holds(config, first, counters)} if shaped else {},
        )  # fmt: skip

    def _totals(self) -> NDArray[Any]:
        """Return the `STATS` of all CPUs together."""
        per_cpu = self._maps["shaper_stats"].read()[1][0]
        total = np.zeros((), layout.STATS)
        for name in layout.STATS.names or ():
            for part in ("packets", "bytes"):
                total[name][part] = per_cpu[name][part].sum(axis=0)
        return total

    def _counters(self) -> NDArray[Any]:
        per_cpu = self._maps["class_stats"].read()[1]
        total = np.zeros(len(per_cpu), layout.CLASS_STATS)
        for name in layout.CLASS_STATS.names or ():
            total[name] = per_cpu[name].sum(axis=1)
        return total

    def _sum_holds(self, config: Any, first: Any, counters: NDArray[Any]) -> bool:
        slack = libbpf.possible_cpus()
        parts = int(counters["packets"].sum()) + int(config["retired_packets"])
        low = int(first["classified"]["packets"].sum()) - slack
        high = int(self._totals()["classified"]["packets"].sum()) + slack
        # A segmented packet counts as many at once.
        holds = low <= parts <= high or abs(parts - low) < 64 * slack
        self._failures = 0 if holds else self._failures + 1
        return self._failures < TICKS_BEFORE_ALARM

    def _read_members(self, generation: int, *, anything: bool) -> None:
        if generation == self._generation:
            return
        self._generation, self._members = generation, {}
        if not anything:
            return
        keys, numbers = self._maps["ip_classification"].read()
        for key, number in zip(keys, numbers, strict=True):
            prefix = Prefix.from_bytes(bytes(key["word"]), int(key["length"]) - 32)
            self._members.setdefault(int(number) - 1, []).append(prefix)
        for members in self._members.values():
            members.sort()

    def _classes(
        self,
        order: Sequence[int],
        records: NDArray[Any],
        counters: NDArray[Any],
        buckets: U64,
        now_ns: int,
        interval_s: float | None,
    ) -> Classes:
        if not order:
            self._before = {}
            return Classes.empty()
        htb = self._htb() if (records["shaping"] == Shaping.HTB).any() else {}
        wanted = [_wanted(records, slot) for slot in order]
        chosen, counted = records[order], counters[order].copy()
        tokens, backlog = [], []
        for row, slot in enumerate(order):
            backlog.append(_add_queue_drops(records[slot], counted[row], htb.get(slot + 1)))
            if records["shaping"][slot] == Shaping.HTB:
                tokens.append(self._htb_tokens(records[slot], slot, htb, now_ns))
            else:
                tokens.append(_tokens(records[slot], int(buckets[slot]), now_ns))
        rates = self._rates(wanted, chosen, counted, interval_s)
        return Classes(
            keys=[each.key for each in wanted],
            wanted=wanted,
            action=[SHAPINGS[int(code)] for code in chosen["shaping"]],
            rate_bps=native(chosen["rate_bps"]),
            burst_bytes=native(chosen["burst_bytes"]),
            tokens_bytes=np.array(tokens, np.float64),
            packets=native(counted["packets"]),
            bytes=native(counted["bytes"]),
            dropped_packets=native(counted["dropped_packets"]),
            dropped_bytes=native(counted["dropped_bytes"]),
            marked_packets=native(counted["marked_packets"]),
            backlog_bytes=np.array(backlog, np.uint64),
            bps=rates[0],
            offered_bps=rates[1],
            pps=rates[2],
            dropped_pps=rates[3],
            members=[self._members.get(slot, []) for slot in order],
        )

    def _htb(self) -> dict[int, HtbCounters]:
        """Return the counters of our HTB tree; empty where it is gone."""
        with suppress(OSError), traffic_control(self._instance.meta.attachments[0].index) as tc:
            return tc.htb_counters()
        return {}

    def _htb_tokens(
        self, record: Any, slot: int, htb: Mapping[int, HtbCounters], now_ns: int
    ) -> float:
        """Return the bytes in HTB's bucket, with what came in since HTB last looked."""
        held = htb.get(slot + 1)
        if held is None:
            return math.nan
        idle = self._idle.get(slot)
        if idle is None or (idle.tokens_ns, idle.packets) != (held.tokens_ns, held.packets):
            idle = self._idle[slot] = _Idle(held.tokens_ns, now_ns, held.packets)
        tokens_ns = idle.tokens_ns + (now_ns - idle.since_ns)
        tokens = tokens_ns * int(record["rate_bps"]) / 8e9
        return float(min(int(record["burst_bytes"]), tokens))

    def _rates(
        self,
        wanted: Sequence[TrafficClass],
        records: NDArray[Any],
        counted: NDArray[Any],
        interval_s: float | None,
    ) -> NDArray[np.float64]:
        """Return bits let through, bits that came, packets, and drops, all a second."""
        rates = np.full((4, len(wanted)), np.nan)
        now: dict[ClassKey, _ClassBefore] = {}
        for row, each in enumerate(wanted):
            count = counted[row]
            latest = now[each.key] = _ClassBefore(
                int(records["set_ns"][row]), int(count["packets"]), int(count["bytes"]),
                int(count["dropped_packets"]), int(count["dropped_bytes"]),
            )  # fmt: skip
            before = self._before.get(each.key)
            if before is None or before.set_ns != latest.set_ns or not interval_s:
                continue
            octets = latest.bytes - before.bytes
            lost = latest.dropped_bytes - before.dropped_bytes
            rates[:, row] = (
                max(0, octets - lost) * 8,
                octets * 8,
                latest.packets - before.packets,
                max(0, latest.dropped_packets - before.dropped_packets),
            )
            rates[:, row] /= interval_s
        self._before = now
        for row, above in enumerate(wanted):
            # What is under a ceiling is what goes through it.
            under = [at for at, each in enumerate(wanted) if _is_under(each, above)]
            if under:
                rates[:, row] = rates[:, under].sum(axis=1)
        return rates


def _is_under(each: TrafficClass, above: TrafficClass) -> bool:
    return (each.parent, each.key.direction) == (above.key.name, above.key.direction)


def _wanted(records: NDArray[Any], slot: int) -> TrafficClass:
    record = records[slot]
    above = int(record["parent"])
    return TrafficClass(
        key=ClassKey(text(record["name"]), DIRECTIONS[int(record["direction"]) & 1]),
        rate_bps=int(record["rate_bps"]),
        burst_bytes=int(record["burst_bytes"]),
        action=SHAPINGS[min(int(record["wanted"]), len(SHAPINGS) - 1)],
        priority=int(record["priority"]),
        parent=text(records["name"][above - 1]) if above else "",
    )


def _tokens(record: Any, bucket: int, now_ns: int) -> float:
    """Return the bytes in a bucket; below 0 they are owed."""
    burst = int(record["shapes"][layout.shape_of(bucket)]["burst"])
    owed = layout.owed(bucket, now_ns)
    # Drops begin where what may be owed is owed: there the bucket is empty.
    return int(record["burst_bytes"]) * (1 - owed / max(1, burst))


def _add_queue_drops(record: Any, count: Any, htb: HtbCounters | None) -> int:
    """Add what its queues dropped to a class's counters; returns the bytes that wait in one."""
    count["dropped_packets"] += record["lost_packets"]
    count["dropped_bytes"] += record["lost_bytes"]
    if htb is None:
        return 0
    handed = int(count["queued_bytes"]) - int(record["queue_from"])
    count["dropped_packets"] += htb.dropped
    if htb.dropped:
        count["dropped_bytes"] += max(0, handed - htb.bytes - htb.backlog_bytes)
    return htb.backlog_bytes
