# SPDX-License-Identifier: Apache-2.0
"""Snapshots of an attached instance: each map read in one batched call a tick."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import layout
from ebpftop.errors import SourceLostError
from ebpftop.format import printable
from ebpftop.journal import Reader, default_path
from ebpftop.kernel import libbpf
from ebpftop.kernel.clock import coarse_ns
from ebpftop.kernel.instance import PIPELINE, Instance, describe_failure
from ebpftop.kernel.netlink.links import Netlink
from ebpftop.model import (
    Act,
    Clock,
    Event,
    Interface,
    MapInfo,
    Prefix,
    Program,
    Snapshot,
    Sources,
    Totals,
)
from ebpftop.ranking import match_rows, rates
from ebpftop.sources import decoding
from ebpftop.sources.balancing import CONNECTIONS, BalancingReader
from ebpftop.sources.inspection import Inspector
from ebpftop.sources.invariants import Invariants
from ebpftop.sources.shaping import ShapingReader
from ebpftop.sources.states import States

SLOW_MAPS_EVERY = 10
"""Snapshots between counts of maps that are read for their fill alone."""
RUN_BY_HAND = "none, run by ebpftop"
HOOKS = {
    PIPELINE: "xdp",
    "control": RUN_BY_HAND,
    "explain": RUN_BY_HAND,
    "shape_ingress": "tc ingress",
    "shape_egress": "tc egress",
    "shape_control": RUN_BY_HAND,
}


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the next snapshot compares itself with."""

    taken_ns: int
    kernel_ns: int
    """The same instant by the clock of the kernel's programs, up to a tick behind."""
    totals: Totals
    sources: Sources


class LiveSource:
    """Reads an instance; it closes the instance when it is closed.

    Args:
        instance: Open for writing or read-only; only reading is done here.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._maps = instance.maps
        self._netlink = Netlink()
        self._before: _Reading | None = None
        self._states = States()
        self._shaping = ShapingReader(instance)
        self._balancing = BalancingReader(instance.maps)
        self._inspector = Inspector(instance)
        self.wants: frozenset[str] = frozenset()
        """What to read besides, as `Source.wants` says."""
        self._sequence = 0
        self._event_cursor: int | None = None
        self._rules = np.zeros(0, layout.RULE)
        self._reasons = decoding.reasons(self._rules)
        self._rules_generation = -1
        self._fills: dict[str, int | None] = {}
        self._invariants = Invariants()
        audit = instance.meta.audit
        self._journal = Reader(Path(audit) if audit else default_path(), instance.key)
        self._memory = {name: opened.memory_bytes for name, opened in self._maps.items()}

    def close(self) -> None:
        """Close the instance."""
        self._inspector.close()
        self._netlink.close()
        self._instance.close()

    def snapshot(self) -> Snapshot:
        """Read everything.

        Raises:
            SourceLostError: The interface is gone, or the program was detached from it.
        """
        try:
            return self._read(*self._interfaces())
        except OSError as error:
            raise describe_failure(error) from error

    def _interfaces(self) -> tuple[list[Interface], list[str]]:
        found, reasons = [], []
        for attachment in self._instance.meta.attachments:
            link = self._netlink.link_at(attachment.index)
            if link is None:
                reasons.append(f"{attachment.name} was deleted")
            elif not self._is_ours(link.xdp_program):
                other = f"; program {link.xdp_program} is there now" if link.xdp_program else ""
                reasons.append(f"ebpftop was detached from {printable(link.name)}{other}")
            else:
                native = link.xdp_native
                found.append(Interface(link.name, "native" if native else "generic", link.up))
        if not found:
            raise SourceLostError("; ".join(reasons), "nothing of it is left attached")
        return found, reasons

    def _is_ours(self, program: int) -> bool:
        """Whether a program is one of the instance's; a trace may have begun since we looked."""
        if program and program not in self._instance.meta.hooked:
            self._instance.read_meta_again()
        return program in self._instance.meta.hooked

    def _read(self, interfaces: list[Interface], faults: list[str]) -> Snapshot:
        config = self._maps["config"].read()[1].copy()
        totals = self._read_totals()
        clock = Clock(time.monotonic_ns(), time.time())
        kernel_ns = coarse_ns()
        rules, hits = self._read_rules(config)
        automatic = self._maps["auto_blocks"].read()
        before = self._before
        interval_s = (clock.monotonic_ns - before.taken_ns) / 1e9 if before else None
        sources = self._sources(rules, automatic, config, clock, kernel_ns)
        self._before = _Reading(clock.monotonic_ns, kernel_ns, totals, sources)
        invariants = self._invariants.check(totals, self._read_totals)
        blocks = decoding.blocks(rules, self._reasons, hits, automatic, kernel_ns)
        allowed = decoding.allowed(rules, hits)
        self._count_fills(len(sources), len(automatic[0]), blocks, allowed)
        shaped = self._shaping.read(clock.monotonic_ns, interval_s, sources)
        balanced = self._balancing.read(
            clock.monotonic_ns, interval_s, want_connections=CONNECTIONS in self.wants
        )
        self._fills |= balanced.fills
        events, missed = self._new_events(clock)
        sequence, self._sequence = self._sequence, self._sequence + 1
        return Snapshot(
            sequence=sequence,
            clock=clock,
            interval_s=interval_s,
            interfaces=interfaces,
            uptime_s=max(0.0, clock.wall_s - self._instance.meta.attached_s),
            limits=layout.limits(config),
            totals=totals,
            rates=(
                decoding.total_rates(totals, before.totals, interval_s)
                if before and interval_s
                else None
            ),
            sources=sources,
            blocks=blocks,
            allowed=allowed,
            protected=self._protected(),
            events=events,
            missed_events=missed,
            programs=self._programs(),
            maps=self._map_infos(),
            invariants={**invariants, **shaped.invariants, **balanced.invariants},
            classes=shaped.classes,
            unclassified=shaped.unclassified,
            sent=shaped.sent,
            faults=faults,
            vips=balanced.vips,
            backends=balanced.backends,
            connections=balanced.connections,
            acts=self._acts(),
            inspection=self._inspector.look(self.wants, interval_s, self._netlink.link_at),
        )

    def _acts(self) -> Sequence[Act] | None:
        try:
            return self._journal.read().acts
        except OSError:
            return None  # closed to this user

    def _read_totals(self) -> Totals:
        return decoding.totals(self._maps["stats"].read()[1][0])

    def _read_rules(self, config: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the used slots and their hits; the slots are read again when they changed."""
        used = int(config["rules_used"][0])
        generation = int(config["generation"][0])
        if generation != self._rules_generation or used != len(self._rules):
            self._rules = self._maps["rules"].read(used)[1].copy()
            self._reasons = decoding.reasons(self._rules)
            self._rules_generation = generation
        per_cpu = self._maps["rule_hits"].read(used)[1]
        hits = np.zeros(used, layout.COUNT)
        for name in ("packets", "bytes"):
            hits[name] = per_cpu[name].sum(axis=1)
        return self._rules, hits

    def _sources(
        self,
        rules: NDArray[Any],
        automatic: tuple[NDArray[Any], NDArray[Any]],
        config: NDArray[Any],
        clock: Clock,
        kernel_ns: int,
    ) -> Sources:
        before = self._before
        tracker = self._maps["ip_tracker"]
        # Room of its own for each reading, given back after it, takes less memory in the end.
        room = decoding.source_room(tracker.max_entries)
        fields = decoding.source_columns(tracker.batches(decoding.ROWS_AT_ONCE), room)
        del room
        decoding.keep(fields, before.sources if before else Sources.empty())
        high, low, first_ns = fields["high"], fields["low"], fields["first_ns"]
        dropped, dropped_bytes = fields["dropped_packets"], fields["dropped_bytes"]
        packets = fields["passed_packets"] + dropped
        octets = fields["passed_bytes"] + dropped_bytes
        matched = np.full(len(high), -1, np.intp)
        pps = bps = dropped_pps = np.full(len(high), np.nan)
        if before is not None:
            old = before.sources
            matched = match_rows((old.high, old.low, old.first_ns), (high, low, first_ns))
            span = first_ns, before.kernel_ns - 1, (clock.monotonic_ns - before.taken_ns) / 1e9
            pps = rates(packets, old.packets, matched, *span)
            bps = rates(octets, old.bytes, matched, *span)
            bps *= 8
            dropped_pps = rates(dropped, old.dropped, matched, *span)
        state = self._states.of(
            high, low, fields, matched, rules, automatic,
            int(config["generation"][0]), kernel_ns,
        )  # fmt: skip
        return Sources(
            high, low, packets, octets, dropped, dropped_bytes,
            fields["would_drop_packets"], pps, bps, dropped_pps, state,
            first_ns, fields["last_ns"],
        )  # fmt: skip

    def _protected(self) -> list[tuple[Prefix, str]]:
        keys, values = self._maps["protected"].read()
        found = []
        for key, code in zip(keys, values, strict=True):
            prefix = Prefix.from_bytes(bytes(key["word"]), int(key["length"]))
            found.append((prefix, layout.PROTECTED_WHY[int(code)]))
        return found

    def _new_events(self, clock: Clock) -> tuple[list[Event], int]:
        """Return what was told since the last snapshot; the first one shows all that is kept."""
        newest = int(self._maps["state"].read()[1]["event_seq"][0])
        if self._event_cursor is None:
            self._event_cursor = max(0, newest - layout.EVENTS)
        if newest <= self._event_cursor:
            return [], 0
        records = self._maps["events"].read()[1]
        fresh = np.sort(records[records["seq"] > self._event_cursor], order="seq")
        complete, missed, cursor = [], 0, self._event_cursor
        for record in fresh:
            seq = int(record["seq"])
            gap = seq - cursor - 1
            if gap and newest - seq + gap < layout.EVENTS:
                break  # the one before it is still being written
            missed += gap
            cursor = seq
            complete.append(decoding.event(record, clock))
        self._event_cursor = cursor
        return complete, missed

    def _programs(self) -> list[Program]:
        found = []
        for loaded in self._instance.meta.programs:
            fd = self._instance.programs.get(loaded.name)
            info = libbpf.program_info(fd) if fd is not None else None
            found.append(
                Program(
                    name=loaded.name,
                    id=loaded.id,
                    hook=HOOKS.get(loaded.name, ""),
                    tag=loaded.tag,
                    run_count=info.run_count if info else None,
                    run_ns=info.run_ns if info else None,
                    verified_insns=loaded.verified_insns,
                )
            )
        return found

    def _count_fills(self, sources: int, automatic: int, blocks: Any, allowed: Any) -> None:
        manual = int((blocks.automatic == 0).sum())
        hosts = int(((blocks.automatic == 0) & (blocks.length == 128)).sum())
        if self._sequence % SLOW_MAPS_EVERY == 0:
            self._fills["net_limiters"] = len(self._maps["net_limiters"].read()[0])
        self._fills |= {
            "ip_tracker": sources,
            "auto_blocks": automatic,
            "blocked_ips": hosts,
            "blocked_nets": manual - hosts,
            "allowed": len(allowed),
            "rules": int((self._rules["kind"] != 0).sum()),
        }

    def _map_infos(self) -> list[MapInfo]:
        return [
            MapInfo(
                name, opened.type, self._fills.get(name), opened.max_entries, self._memory[name]
            )
            for name, opened in self._maps.items()
        ]
