# SPDX-License-Identifier: Apache-2.0
"""The acts of the traffic shaper: classes, who is in them, and what holds them to their rate.

Each takes the writer's lock, reads the maps, checks, writes, and then sees to it that the
programs and queues which the classes need are on the interfaces, and no others of ours. Where
any of that fails, what has been done of it is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import ShaperFlag
from ebpftop.control.class_actions import ClassActions
from ebpftop.control.class_queues import QUEUES, ClassQueues
from ebpftop.control.class_rules import check_class, check_family, check_together
from ebpftop.control.class_table import ClassTable
from ebpftop.control.class_undo import Standing
from ebpftop.control.writing import InstanceWriter
from ebpftop.errors import EbpftopError, NotFoundError, UsageError
from ebpftop.format import printable
from ebpftop.model import DIRECTIONS, ClassKey, Prefix, TrafficClass, default_burst

HORIZON_NS = 2_000_000_000
"""What would have to wait longer than this is dropped by `pace`."""
MARK_NS = 5_000_000
"""What waits longer than this is marked by `pace`, where it can be."""

COUNT_SENT = ("auto", "on", "off")
"""Whether to count what is sent to each address; `auto` does while something is shaped."""


@dataclass(frozen=True, slots=True)
class ClassRequest:
    """A class as a policy wants it."""

    wanted: TrafficClass
    """What it is."""
    members: Sequence[Prefix]
    """Who is in it."""


class ShapingControl(InstanceWriter):
    """The acts on one instance, as `control.ShapingControls` says."""

    @contextmanager
    def _writing(self) -> Iterator[tuple[ClassTable, ClassActions]]:
        """Hold the writer's lock over one act; where it fails, all is as it was before."""
        with self._locked():
            before = Standing(self._instance)
            table, queues = self._table(), ClassQueues(self._instance)
            try:
                yield table, ClassActions(table, queues)
                self._settle(table, queues)
            except BaseException:
                with suppress(EbpftopError, OSError):
                    before.put_back(table, queues)
                    self._settle(self._table(), ClassQueues(self._instance))
                raise

    # Classes

    def set_class(
        self, key: ClassKey, changes: Mapping[str, Any], members: Sequence[Prefix] = ()
    ) -> None:
        """Make a class, or change some of it by the names of `TrafficClass` and keep the rest.

        Args:
            key: Which one.
            changes: What of it.
            members: Who is put into it besides.

        Raises:
            UsageError: A value is out of range, or a new class has no rate.
            NotFoundError: There is no such parent.
            KernelRefusedError: The action that was asked for does not work here.
        """
        with self._writing() as (table, actions):
            slot = table.slot_of(key)
            if slot is None and "rate_bps" not in changes:
                raise UsageError(f"{printable(str(key))} is a new class", "say --rate, as 50mbit")
            base = TrafficClass(key, 0) if slot is None else table.wanted(slot)
            if slot is not None and base.burst_bytes == default_burst(
                base.rate_bps, table.action(slot).name.lower()
            ):
                base = replace(base, burst_bytes=0)  # nobody chose it
            wanted = replace(base, **changes)
            check_class(wanted)
            check_family(table, wanted)
            actions.put(wanted)
            for prefix in members:
                table.assign(prefix, table.require(key))
            if members:
                table.commit()

    def delete_class(self, key: ClassKey) -> None:
        """Take a class away; its addresses are in none then.

        Raises:
            NotFoundError: There is none.
            UsageError: It is a ceiling over others.
        """
        with self._writing() as (table, actions):
            slot = table.require(key)
            children = table.children(slot)
            if children:
                names = ", ".join(table.key(child).name for child in children)
                raise UsageError(f"{key} is a ceiling over {names}", "delete those first")
            actions.remove(slot)

    # Members

    def assign(self, prefix: Prefix, name: str, direction: str | None = None) -> None:
        """Put an address or prefix into the class called `name`, in each direction it has.

        Raises:
            NotFoundError: There is no such class.
            UsageError: It is a ceiling over others.
        """
        with self._writing() as (table, _):
            keys = [ClassKey(name, each) for each in DIRECTIONS if direction in (None, each)]
            slots = [slot for key in keys if (slot := table.slot_of(key)) is not None]
            if not slots:
                table.require(ClassKey(name, direction or "egress"))
            for slot in slots:
                table.assign(prefix, slot)
            table.commit()

    def unassign(self, prefix: Prefix) -> None:
        """Take exactly this address or prefix out of its classes.

        Raises:
            NotFoundError: It is in none.
        """
        with self._writing() as (table, _):
            if not [d for d in DIRECTIONS if table.unassign(prefix, d)]:
                raise NotFoundError(
                    f"{prefix} is in no class by itself", "`ebpftop classes` lists who is"
                )
            table.commit()

    # Everything

    def apply(self, requests: Sequence[ClassRequest], count_sent: str = "auto") -> None:
        """Have these classes and members and no others; what is so already is not touched.

        Raises:
            UsageError: They do not fit together; nothing has changed.
            KernelRefusedError: An action that was asked for does not work here.
        """
        _check_all(requests)
        with self._writing() as (table, actions):
            wanted = {request.wanted.key: request.wanted for request in requests}
            for held in map(table.wanted, table.slots()):
                # Nothing may be below a class that goes.
                if held.parent and held.key in wanted and wanted[held.key].parent != held.parent:
                    actions.put(replace(held, parent=""))
            for slot in sorted(table.slots(), key=lambda s: not table.wanted(s).parent):
                if table.key(slot) not in wanted:
                    actions.remove(slot)
            for request in sorted(requests, key=lambda r: bool(r.wanted.parent)):
                actions.put(request.wanted)
            self._apply_members(table, requests)
            table.config["count_sent"] = COUNT_SENT.index(count_sent)
            table.commit()

    def _apply_members(self, table: ClassTable, requests: Iterable[ClassRequest]) -> None:
        wanted = {
            (prefix, request.wanted.key.direction): table.require(request.wanted.key)
            for request in requests
            for prefix in request.members
        }
        held = {(prefix, direction): slot for prefix, direction, slot in table.members()}
        for prefix, direction in held.keys() - wanted.keys():
            table.unassign(prefix, direction)
        for (prefix, direction), slot in wanted.items():
            if held.get((prefix, direction)) != slot:
                table.assign(prefix, slot)

    def count_sent(self, word: str) -> None:
        """Count what is sent to each address: `auto`, `on` or `off`."""
        with self._writing() as (table, _):
            table.config["count_sent"] = COUNT_SENT.index(word)
            table.commit()

    # What the classes need

    def _table(self) -> ClassTable:
        return ClassTable(self._maps, self._instance.programs[layout.CONTROL])

    def _settle(self, table: ClassTable, queues: ClassQueues) -> None:
        """Have the flags, programs and queues that the classes need, and no others."""
        used = {table.key(slot).direction for slot in table.slots()}
        choice = COUNT_SENT[int(table.config["count_sent"][0])]
        counts = choice == "on" or (choice == "auto" and "egress" in used)
        flags = ShaperFlag.INGRESS if "ingress" in used else 0
        flags |= ShaperFlag.EGRESS if "egress" in used else 0
        flags |= ShaperFlag.COUNT_SENT if counts else 0
        if int(table.config["flags"][0]) != flags:
            table.config["flags"] = flags
            table.config["horizon"] = HORIZON_NS << layout.TIME_SHIFT
            table.config["mark"] = MARK_NS << layout.TIME_SHIFT
            table.commit()
        queued = any(table.action(slot) in QUEUES for slot in table.slots())
        queues.settle(used, counts=counts, queued=queued)


def _check_all(requests: Sequence[ClassRequest]) -> None:
    keys: set[ClassKey] = set()
    for request in requests:
        check_class(request.wanted)
        if request.wanted.key in keys:
            raise UsageError(f"there are two classes {request.wanted.key}", "name them apart")
        keys.add(request.wanted.key)
    check_together([request.wanted for request in requests])
    members: dict[tuple[Prefix, str], str] = {}
    for request in requests:
        key = request.wanted.key
        if request.members and any(r.wanted.parent == key.name for r in requests):
            raise UsageError(f"{key} is a ceiling over other classes", "assign to one of those")
        for prefix in request.members:
            other = members.setdefault((prefix, key.direction), key.name)
            if other != key.name:
                raise UsageError(f"{prefix} is in {other} and in {key.name}", "take one away")
