# SPDX-License-Identifier: Apache-2.0
"""The acts of the traffic shaper: classes, who is in them, and what holds them to their rate.

Each takes the writer's lock, reads the maps, checks, writes, and then sees to it that the
programs and queues which the classes need are on the interfaces, and no others of ours. Where
any of that fails, what has been done of it is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import ShaperFlag
from ebpftop.control.audit import Intent
from ebpftop.control.class_actions import ClassActions
from ebpftop.control.class_queues import QUEUES, ClassQueues
from ebpftop.control.class_rules import check_class, check_family
from ebpftop.control.class_states import (
    ClassRequest,
    check_requests,
    class_state,
    key_of,
    member_state,
    whole_state,
)
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


class ShapingControl(InstanceWriter):
    """The acts on one instance, as `control.ShapingControls` says."""

    @contextmanager
    def _writing(self, intent: Intent) -> Iterator[tuple[ClassTable, ClassActions]]:
        """Hold the writer's lock over one act, and record it; what fails leaves all as it was."""
        with self._locked(), self._recording(intent, partial(self._state, intent)):
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

    def _state(self, intent: Intent) -> Any:
        """Return the state of an act's target, as JSON has it."""
        table = self._table()
        match intent.facet:
            case "class":
                return class_state(table, key_of(intent.target))
            case "member":
                return member_state(table, Prefix.parse(intent.target))
            case "count-sent":
                return self.counting_sent()
        return whole_state(table)

    def state(self) -> Any:
        """Return all classes with their members, as JSON has it."""
        return whole_state(self._table())

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
        wanted = {**changes, **({"members": list(map(str, members))} if members else {})}
        with self._writing(Intent("class set", "class", [str(key)], wanted)) as (table, actions):
            self._set(table, actions, key, changes)
            self._put_into(table, key, members)

    def _set(
        self, table: ClassTable, actions: ClassActions, key: ClassKey, changes: Mapping[str, Any]
    ) -> None:
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

    def _put_into(self, table: ClassTable, key: ClassKey, members: Sequence[Prefix]) -> None:
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
        with self._writing(Intent("class del", "class", [str(key)])) as (table, actions):
            self._delete(table, actions, key)

    def _delete(self, table: ClassTable, actions: ClassActions, key: ClassKey) -> None:
        slot = table.require(key)
        children = table.children(slot)
        if children:
            names = ", ".join(table.key(child).name for child in children)
            raise UsageError(f"{key} is a ceiling over {names}", "delete those first")
        actions.remove(slot)

    def restore_class(self, key: ClassKey, state: Mapping[str, Any] | None, intent: Intent) -> None:
        """Have a class as an earlier state says, or none; errors as of the acts.

        One that is made anew gets its members back; one that is there keeps those it has.
        """
        with self._writing(intent) as (table, actions):
            if state is None:
                self._delete(table, actions, key)
                return
            fresh = table.slot_of(key) is None
            values = {name: value for name, value in state.items() if name != "members"}
            self._set(table, actions, key, values)
            if fresh:
                self._put_into(table, key, list(map(Prefix.parse, state["members"])))

    # Members

    def assign(self, prefix: Prefix, name: str, direction: str | None = None) -> None:
        """Put an address or prefix into the class called `name`, in each direction it has.

        Raises:
            NotFoundError: There is no such class.
            UsageError: It is a ceiling over others.
        """
        with self._writing(Intent("assign", "member", [str(prefix)], name)) as (table, _):
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
        with self._writing(Intent("unassign", "member", [str(prefix)])) as (table, _):
            if not [d for d in DIRECTIONS if table.unassign(prefix, d)]:
                raise NotFoundError(
                    f"{prefix} is in no class by itself", "`ebpftop classes` lists who is"
                )
            table.commit()

    def restore_member(
        self, prefix: Prefix, state: Mapping[str, str | None], intent: Intent
    ) -> None:
        """Have a prefix in the classes of an earlier state; errors as of `assign`."""
        with self._writing(intent) as (table, _):
            for direction, name in state.items():
                if name is None:
                    table.unassign(prefix, direction)
                else:
                    table.assign(prefix, table.require(ClassKey(name, direction)))
            table.commit()

    # Everything

    def apply(
        self,
        requests: Sequence[ClassRequest],
        count_sent: str = "auto",
        intent: Intent | None = None,
    ) -> None:
        """Have these classes and members and no others; what is so already is not touched.

        Args:
            requests: The classes.
            count_sent: A word of `COUNT_SENT`.
            intent: For the audit log; without it, `reload`.

        Raises:
            UsageError: They do not fit together; nothing has changed.
            KernelRefusedError: An action that was asked for does not work here.
        """
        check_requests(requests)
        with self._writing(intent or Intent("reload", "classes")) as (table, actions):
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

    def count_sent(self, word: str, intent: Intent | None = None) -> None:
        """Count what is sent to each address: `auto`, `on` or `off`."""
        intent = intent or Intent("count-sent", "count-sent", wanted=word)
        with self._writing(intent) as (table, _):
            table.config["count_sent"] = COUNT_SENT.index(word)
            table.commit()

    def counting_sent(self) -> str:
        """Return the word of `COUNT_SENT` in force."""
        return COUNT_SENT[int(self._table().config["count_sent"][0])]

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
