# SPDX-License-Identifier: Apache-2.0
"""The acts of the traffic shaper: classes, who is in them, and what holds them to their rate.

Each takes the writer's lock, reads the maps, checks, writes, and then sees to it that the
programs and queues which the classes need are on the interfaces, and no others of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import ShaperFlag, Shaping
from ebpftop.control.audit import Intent
from ebpftop.control.class_rules import check_class, check_family
from ebpftop.control.class_states import (
    ClassRequest,
    check_requests,
    class_state,
    key_of,
    member_state,
    whole_state,
)
from ebpftop.control.class_table import ClassTable, default_burst
from ebpftop.control.writing import InstanceWriter
from ebpftop.errors import EbpftopError, KernelRefusedError, NotFoundError, UsageError
from ebpftop.format import printable
from ebpftop.kernel import tc_hooks
from ebpftop.kernel.netlink.traffic_control import HtbClass, traffic_control
from ebpftop.kernel.tc_hooks import HookTable
from ebpftop.model import DIRECTIONS, SHAPINGS, ClassKey, Prefix, TrafficClass

HORIZON_NS = 2_000_000_000
"""What would have to wait longer than this is dropped by `pace`."""
MARK_NS = 5_000_000
"""What waits longer than this is marked by `pace`, where it can be."""
QUEUE_S = 0.2
LEAST_QUEUE_BYTES, MOST_QUEUE_BYTES = 128 << 10, 64 << 20
"""What may wait in a class's queue: so many seconds of its rate, within these bounds."""

COUNT_SENT = ("auto", "on", "off")
"""Whether to count what is sent to each address; `auto` does while something is shaped."""
_QUEUES = {Shaping.HTB: "htb", Shaping.PACE: "fq"}


class ShapingControl(InstanceWriter):
    """The acts on one instance, as `control.ShapingControls` says."""

    @contextmanager
    def _writing(self, intent: Intent) -> Iterator[ClassTable]:
        """Hold the writer's lock over one act, and record it; what it leaves unused goes."""
        with self._locked(), self._recording(intent, partial(self._state, intent)):
            try:
                yield ClassTable(self._maps)
            except BaseException:
                with suppress(EbpftopError, OSError):
                    self._settle(ClassTable(self._maps))
                raise
            self._settle(ClassTable(self._maps))

    def _state(self, intent: Intent) -> Any:
        """Return the state of an act's target, as JSON has it."""
        table = ClassTable(self._maps)
        match intent.facet:
            case "class":
                return class_state(table, key_of(intent.target))
            case "member":
                return member_state(table, Prefix.parse(intent.target))
            case "count-sent":
                return self.counting_sent()
        return whole_state(table)

    # Classes

    def set_class(self, key: ClassKey, changes: Mapping[str, Any]) -> None:
        """Make a class, or change some of it by the names of `TrafficClass` and keep the rest.

        Raises:
            UsageError: A value is out of range, or a new class has no rate.
            NotFoundError: There is no such parent.
            KernelRefusedError: The action that was asked for does not work here.
        """
        with self._writing(Intent("class set", "class", [str(key)], dict(changes))) as table:
            self._set(table, key, changes)

    def _set(self, table: ClassTable, key: ClassKey, changes: Mapping[str, Any]) -> None:
        slot = table.slot_of(key)
        if slot is None and "rate_bps" not in changes:
            raise UsageError(f"{printable(str(key))} is a new class", "say --rate, as 50mbit")
        base = TrafficClass(key, 0) if slot is None else table.wanted(slot)
        if slot is not None and base.burst_bytes == default_burst(
            base.rate_bps, table.action(slot)
        ):
            base = replace(base, burst_bytes=0)  # nobody chose it
        wanted = replace(base, **changes)
        check_class(wanted)
        check_family(table, wanted)
        self._put(table, wanted)

    def delete_class(self, key: ClassKey) -> None:
        """Take a class away; its addresses are in none then.

        Raises:
            NotFoundError: There is none.
            UsageError: It is a ceiling over others.
        """
        with self._writing(Intent("class del", "class", [str(key)])) as table:
            self._delete(table, key)

    def _delete(self, table: ClassTable, key: ClassKey) -> None:
        slot = table.require(key)
        children = table.children(slot)
        if children:
            names = ", ".join(table.key(child).name for child in children)
            raise UsageError(f"{key} is a ceiling over {names}", "delete those first")
        self._remove(table, slot)

    def restore_class(self, key: ClassKey, state: Mapping[str, Any] | None, intent: Intent) -> None:
        """Have a class as an earlier state says, or none; errors as of the acts.

        One that is made anew gets its members back; one that is there keeps those it has.
        """
        with self._writing(intent) as table:
            if state is None:
                self._delete(table, key)
                return
            fresh = table.slot_of(key) is None
            values = {name: value for name, value in state.items() if name != "members"}
            self._set(table, key, values)
            if fresh and state["members"]:
                slot = table.require(key)
                for member in state["members"]:
                    table.assign(Prefix.parse(member), slot)
                table.commit()

    def _remove(self, table: ClassTable, slot: int) -> None:
        if table.action(slot) == Shaping.HTB:
            self._delete_htb_class(slot)
        table.remove(slot)

    # Members

    def assign(self, prefix: Prefix, name: str, direction: str | None = None) -> None:
        """Put an address or prefix into the class called `name`, in each direction it has.

        Raises:
            NotFoundError: There is no such class.
            UsageError: It is a ceiling over others.
        """
        with self._writing(Intent("assign", "member", [str(prefix)], name)) as table:
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
        with self._writing(Intent("unassign", "member", [str(prefix)])) as table:
            if not [d for d in DIRECTIONS if table.unassign(prefix, d)]:
                raise NotFoundError(
                    f"{prefix} is in no class by itself", "`ebpftop classes` lists who is"
                )
            table.commit()

    def restore_member(
        self, prefix: Prefix, state: Mapping[str, str | None], intent: Intent
    ) -> None:
        """Have a prefix in the classes of an earlier state; errors as of `assign`."""
        with self._writing(intent) as table:
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
        with self._writing(intent or Intent("reload", "classes")) as table:
            wanted = {request.wanted.key: request for request in requests}
            for slot in sorted(table.slots(), key=lambda s: not table.wanted(s).parent):
                if table.key(slot) not in wanted:
                    self._remove(table, slot)
            for request in sorted(requests, key=lambda r: bool(r.wanted.parent)):
                self._put(table, request.wanted)
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
        with self._writing(intent or Intent("count-sent", "count-sent", wanted=word)) as table:
            table.config["count_sent"] = COUNT_SENT.index(word)
            table.commit()

    def counting_sent(self) -> str:
        """Return the word of `COUNT_SENT` in force."""
        return COUNT_SENT[int(ClassTable(self._maps).config["count_sent"][0])]

    # How a class is held to its rate

    def _put(self, table: ClassTable, wanted: TrafficClass) -> None:
        """Choose a class's action, and put it in force, unless it is so already."""
        slot = table.slot_of(wanted.key)
        for action in self._candidates(table, wanted):
            try:
                self._prepare(table, wanted, action)
                break
            except KernelRefusedError:
                if wanted.action != "auto":
                    raise
        if slot is not None and self._is_so(table, slot, wanted, action):
            return
        family = [slot, *table.children(slot)] if slot is not None else []
        for member in family:
            if table.action(member) == Shaping.HTB != action:
                self._delete_htb_class(member)
        written = self._write(table, wanted, action)
        for child in table.children(written):
            self._write(table, table.wanted(child), action)

    def _is_so(self, table: ClassTable, slot: int, wanted: TrafficClass, action: Shaping) -> bool:
        held = table.wanted(slot)
        burst_bytes = wanted.burst_bytes or held.burst_bytes
        return replace(wanted, burst_bytes=burst_bytes) == held and table.action(slot) == action

    def _candidates(self, table: ClassTable, wanted: TrafficClass) -> Sequence[Shaping]:
        """Return the actions that may do, the best first."""
        if wanted.parent:
            above = table.require(replace(wanted.key, name=wanted.parent))
            return [table.action(above)]
        if wanted.action != "auto":
            return [Shaping(SHAPINGS.index(wanted.action))]
        slot = table.slot_of(wanted.key)
        if slot is not None and table.wanted(slot).action == "auto":
            return [table.action(slot), Shaping.POLICE]
        if wanted.key.direction == "ingress":
            return [Shaping.POLICE]
        return [Shaping.PACE, Shaping.HTB, Shaping.POLICE]

    def _prepare(self, table: ClassTable, wanted: TrafficClass, action: Shaping) -> None:
        """Give the interfaces the queue that an action needs."""
        if action not in _QUEUES:
            return
        slot = table.slot_of(wanted.key)
        family = [slot, *table.children(slot)] if slot is not None else []
        in_use = any(table.action(s) in _QUEUES for s in table.slots() if s not in family)
        attachments = self._instance.meta.attachments
        if action == Shaping.HTB and len(attachments) > 1:
            raise KernelRefusedError(
                f"htb holds each of {self._instance.describe()} to the rate by itself",
                "use --action police, or attach them apart",
            )
        hooks = self._hooks()
        for attachment in attachments:
            tc_hooks.give_queue(
                hooks, _QUEUES[action], attachment.index, attachment.name, in_use=in_use
            )

    def _write(self, table: ClassTable, wanted: TrafficClass, action: Shaping) -> int:
        held = table.slot_of(wanted.key)
        moved = held is not None and table.wanted(held).parent != wanted.parent
        was_htb = held is not None and table.action(held) == Shaping.HTB
        if was_htb and moved and held is not None:
            self._delete_htb_class(held)
            was_htb = False
        if action != Shaping.HTB:
            return table.write(wanted, action)
        # The class is there before a packet is sent to it.
        slot = held
        if slot is None:
            slot = table.write(wanted, action)
            self._set_htb_class(table, wanted, slot, fresh=True)
            return slot
        written = table.write(wanted, action)
        if not was_htb:
            table.forget_queue(written)
        self._set_htb_class(table, wanted, written, fresh=not was_htb)
        return written

    def _set_htb_class(
        self, table: ClassTable, wanted: TrafficClass, slot: int, *, fresh: bool
    ) -> None:
        above = int(table.records["parent"][slot])
        ceil_bps = int(table.records["rate_bps"][above - 1]) if above else wanted.rate_bps
        queue_bytes = round(wanted.rate_bps / 8 * QUEUE_S)
        queue_bytes = min(max(LEAST_QUEUE_BYTES, queue_bytes), MOST_QUEUE_BYTES)
        (attachment,) = self._instance.meta.attachments
        with traffic_control(attachment.index) as tc:
            tc.set_htb_class(
                HtbClass(
                    minor=slot + 1,
                    parent=above,
                    rate_bps=wanted.rate_bps,
                    ceil_bps=ceil_bps,
                    burst_bytes=int(table.records["burst_bytes"][slot]),
                    priority=wanted.priority,
                    queue_bytes=None if table.children(slot) else queue_bytes,
                ),
                fresh=fresh,
            )

    def _delete_htb_class(self, slot: int) -> None:
        for attachment in self._instance.meta.attachments:
            with suppress(OSError), traffic_control(attachment.index) as tc:
                tc.delete_htb_class(slot + 1)

    # What is on the interfaces

    def _hooks(self) -> HookTable:
        return HookTable(self._maps["shaper_hooks"])

    def _settle(self, table: ClassTable) -> None:
        """Put the programs that the classes need on the interfaces, and take the others away."""
        slots = table.slots()
        used = [table.key(slot).direction for slot in slots]
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
        hooks = self._hooks()
        needed = ("ingress" in used, "egress" in used or counts)
        for attachment in self._instance.meta.attachments:
            for direction, is_needed in enumerate(needed):
                self._settle_program(hooks, direction, attachment.index, is_needed=is_needed)
            queues = {_QUEUES[a] for a in map(table.action, slots) if a in _QUEUES}
            if not queues:
                tc_hooks.take_queue(hooks, attachment.index)

    def _settle_program(
        self, hooks: HookTable, direction: int, ifindex: int, *, is_needed: bool
    ) -> None:
        instance, name = self._instance, layout.PROGRAMS[direction]
        pin = tc_hooks.link_pin(instance.folder, direction, ifindex)
        if is_needed:
            program = instance.programs[name]
            stays = pin if instance.outlives_us else None
            link = tc_hooks.put_program(hooks, program, direction, ifindex, stays)
            if link is not None:
                instance.tc_links[pin] = link
        else:
            number = next(p.id for p in instance.meta.programs if p.name == name)
            tc_hooks.take_program(hooks, number, direction, ifindex)
            pin.unlink(missing_ok=True)
            instance.close_tc_link(pin)
