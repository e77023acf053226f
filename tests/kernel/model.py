# SPDX-License-Identifier: Apache-2.0
"""What the pipeline should decide and count, in plain Python: a model to compare it with.

It keeps no caches, searches every list for every packet, and knows no capacities.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Any

from ebpftop.bpf.layout import REASONS, EventKind, Flag
from tests.kernel.model_parts import LIMITS, AutoBlock, Limiter, Net, Processor, Row, Rule
from tests.kernel.parsing_model import Reading, read

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
NEW_SOURCES_WINDOW_NS = SECOND_NS // 8
NESTED_ENDED_BLOCKS = 4


class Model:
    """The pipeline, one packet at a time."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.cpu = 0
        self.flags: set[Flag] = set()
        self.config = {"new_sources": 1 << 20, "flood_pps": 1 << 40}
        self.allowed: dict[Net, int] = {}
        self.blocks: dict[Net, Rule] = {}
        self.protected: set[Net] = set()
        self.rows: dict[int, Row] = {}
        self.limiters: dict[int, Limiter] = {}
        self.auto_blocks: dict[int, AutoBlock] = {}
        self.hits: dict[int, tuple[int, int]] = {}
        self.events: list[tuple[EventKind, int, int, int, tuple[int, int]]] = []
        self.counters: dict[str, Counter[str]] = defaultdict(Counter)
        self.sources_added = 0
        self.flood_since_ns = self.flood_last_ns = self.flood_window_ns = 0
        self.flood_packets = self.flood_untracked = 0
        self._processors: dict[int, Processor] = defaultdict(Processor)

    def passes(self, frame: bytes) -> bool:
        """Give it one packet; returns whether it passed."""
        reading, size = read(frame), len(frame)
        self._count("received", size)
        self.counters["protocols"][reading.protocol] += 1
        if reading.syn:
            self.counters["syn"]["packets"] += 1
        if reading.unparsed:
            self.counters["unparsed"][reading.unparsed] += 1
        self._watch_flood()
        reason, row = self._judge(reading, size)
        drops = reason and Flag.DRY_RUN not in self.flags
        if reason:
            self.counters["drops" if drops else "would_drop"][reason] += 1
        if row:
            row.passed_packets += not drops
            row.passed_bytes += 0 if drops else size
            row.dropped_packets += bool(drops)
            row.dropped_bytes += size if drops else 0
            row.would_drop_packets += bool(reason and not drops)
        self._count("dropped" if drops else "passed", size)
        return not drops

    def end_rule(self, rule: Rule) -> int:
        """Tell the end of a block, once and not before its time."""
        if rule.told or rule.until_ns == 0 or rule.until_ns > self.now_ns:
            return 0
        rule.told = True
        self._tell(EventKind.BLOCK_END, rule.net, rule.until_ns, 0)
        return 1

    def end_auto_block(self, net: Net) -> int:
        """Tell the end of an automatic block, once and not before its time."""
        block = self.auto_blocks.get(net.first)
        if block is None or block.ended or block.until_ns > self.now_ns:
            return 0
        block.ended = 1
        self._tell(EventKind.BLOCK_END, net, block.until_ns, 1)
        return 1

    def observed_totals(self) -> dict[str, Any]:
        """The counters, as the pipeline's `totals`."""
        pairs = {
            name: (self.counters[name]["packets"], self.counters[name]["bytes"])
            for name in ("received", "passed", "dropped")
        }
        named = {
            name: dict(self.counters[name])
            for name in ("protocols", "drops", "would_drop", "unparsed")
        }
        alone = {name: self.counters[name]["packets"] for name in ("syn", "untracked")}
        return {**pairs, **named, "others": 0, **alone}

    def observed_rows(self) -> dict[int, dict[str, Any]]:
        """The rows, as the pipeline's."""
        return {address: asdict(row) for address, row in self.rows.items()}

    def observed_auto_blocks(self) -> dict[int, dict[str, Any]]:
        """The automatic blocks, as the pipeline's."""
        return {address: asdict(block) for address, block in self.auto_blocks.items()}

    def _count(self, name: str, size: int) -> None:
        self.counters[name]["packets"] += 1
        self.counters[name]["bytes"] += size

    def _hit(self, slot: int, size: int) -> None:
        packets, octets = self.hits.get(slot, (0, 0))
        self.hits[slot] = packets + 1, octets + size

    def _tell(self, kind: EventKind, net: Net, *values: int) -> None:
        self.events.append((kind, *net, self.now_ns, (values[0], values[1])))

    def _judge(self, reading: Reading, size: int) -> tuple[str, Row | None]:
        """Why a packet is to be dropped, or an empty string; and the row it counts on."""
        unparsed = reading.unparsed and Flag.DROP_UNPARSED in self.flags
        otherwise = "unparsed" if unparsed else ""
        if reading.neighbour or reading.source is None:
            return otherwise, None
        row = self.rows.get(reading.source) or self._add_row(reading.source)
        if row:
            row.last_ns = self.now_ns
        else:
            self.counters["untracked"]["packets"] += 1
        allowed = [net for net in self.allowed if net.holds(reading.source)]
        if allowed:
            self._hit(self.allowed[max(allowed, key=lambda net: net.length)], size)
            return "", row
        rule = self._block_of(reading.source)
        if rule:
            if Flag.DRY_RUN not in self.flags:
                self._hit(rule.slot, size)
            return ("blocked" if rule.net.length == 128 else "blocked-prefix"), row
        if any(net.holds(reading.source) for net in self.protected):
            return otherwise, row
        reason = self._limit(reading, size, row)
        if not reason and row is None and Flag.DROP_NEW in self.flags:
            reason = "new-source"
        self._processors[self.cpu].flood_packets += bool(reason) or row is None
        self._processors[self.cpu].flood_untracked += row is None
        return reason or otherwise, row

    def _add_row(self, source: int) -> Row | None:
        processor = self._processors[self.cpu]
        if self.now_ns - processor.window_ns >= NEW_SOURCES_WINDOW_NS:
            processor.window_ns, processor.window_sources = self.now_ns, 0
        if processor.window_sources >= self.config["new_sources"]:
            return None
        processor.window_sources += 1
        self.sources_added += 1
        return self.rows.setdefault(source, Row(self.now_ns, self.now_ns))

    def _block_of(self, source: int) -> Rule | None:
        """The longest block that holds; those it meets that are over are told."""
        rules = [rule for net, rule in self.blocks.items() if net.holds(source)]
        rules.sort(key=lambda rule: -rule.net.length)
        exact = [rule for rule in rules if rule.net.length == 128]
        prefixes = [rule for rule in rules if rule.net.length < 128]
        for rule in exact + prefixes[: NESTED_ENDED_BLOCKS + 1]:
            if rule.until_ns == 0 or rule.until_ns > self.now_ns:
                return rule
            self.end_rule(rule)
        return None

    def _limit(self, reading: Reading, size: int, row: Row | None) -> str:
        """Which limit or automatic block a packet meets."""
        assert reading.source is not None
        net = Net(reading.source, 128)
        if reading.version == 6:
            net = Net(reading.source >> 64 << 64, 64)
        block = self.auto_blocks.get(net.first)
        if Flag.AUTO in self.flags and block and block.until_ns > self.now_ns:
            if Flag.DRY_RUN not in self.flags:
                block.packets += 1
                block.bytes += size
            return "blocked-auto"
        if Flag.AUTO in self.flags:
            self.end_auto_block(net)
        if Flag.LIMITS not in self.flags:
            return ""
        limiter = self.limiters.get(net.first)
        if limiter is None or (reading.version == 4 and row is None):
            if row is None:
                return ""
            limiter = self.limiters.setdefault(net.first, Limiter())
        reason = self._charge(limiter, reading.syn, size)
        if reason:
            self._punish(limiter, net, reason)
            if row:
                row.limited_ns = self.now_ns
        return reason

    def _charge(self, limiter: Limiter, syn: bool, size: int) -> str:
        now, burst = self.now_ns << 4, self.config.get("burst", 0)
        costs = {
            "pps": self.config.get("pps_cost", 0),
            "bps": self.config.get("byte_cost", 0) * size >> 20,
            "syn": self.config.get("syn_cost", 0) if syn else 0,
        }
        ahead = {name: max(0, limiter.times[name] - now) for name in LIMITS}
        for name, cost in costs.items():
            if cost and ahead[name] and ahead[name] + cost > burst:
                return f"limit-{name}"
        for name, cost in costs.items():
            if cost:
                limiter.times[name] = now + ahead[name] + cost
        if all(time - now < burst // 2 for time in limiter.times.values()):
            limiter.over_since_ns = None
        return ""

    def _punish(self, limiter: Limiter, net: Net, reason: str) -> None:
        """Block a source once its grace is over."""
        duration = self.config.get("block_for_ns", 0)
        if limiter.over_since_ns is None:
            limiter.over_since_ns = self.now_ns
            return
        grace_ns = self.config.get("grace_ns", 0)
        is_grace = grace_ns and self.now_ns - limiter.over_since_ns <= grace_ns
        if is_grace or not duration or Flag.DRY_RUN in self.flags:
            return
        limiter.over_since_ns = None
        before, strikes = self.auto_blocks.get(net.first), 1
        if before and before.until_ns > self.now_ns:
            return
        if before and self.now_ns - before.until_ns < 24 * HOUR_NS:
            strikes = before.strikes + 1
        duration = min(duration << (strikes - 1), 30 * 24 * HOUR_NS)
        until_ns = self.now_ns + duration
        self.auto_blocks[net.first] = AutoBlock(until_ns, self.now_ns, strikes, reason)
        self._tell(EventKind.BLOCK_AUTO, net, REASONS.index(reason), duration)

    def _watch_flood(self) -> None:
        """At the first packet of each instant: does a flood begin, go on or end?"""
        processor = self._processors[self.cpu]
        if processor.tick_ns == self.now_ns:
            return
        processor.tick_ns = self.now_ns
        self.flood_packets += processor.flood_packets
        self.flood_untracked += processor.flood_untracked
        processor.flood_packets = processor.flood_untracked = 0
        packets, untracked = self.flood_packets, self.flood_untracked
        if self.now_ns - self.flood_window_ns >= SECOND_NS:
            self.flood_window_ns, self.flood_packets, self.flood_untracked = self.now_ns, 0, 0
        if packets >= self.config["flood_pps"]:
            self.flood_last_ns = self.now_ns
            if not self.flood_since_ns:
                self.flood_since_ns = self.now_ns
                self._tell(EventKind.FLOOD, Net(0, 0), packets, untracked)
        elif self.flood_since_ns and self.now_ns - self.flood_last_ns > 3 * SECOND_NS:
            self._tell(EventKind.FLOOD_END, Net(0, 0), self.now_ns - self.flood_since_ns, 0)
            self.flood_since_ns = 0
