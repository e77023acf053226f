# SPDX-License-Identifier: Apache-2.0
"""How a traffic class is held to its rate: which action is chosen, and how it is put in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ebpftop.bpf.shaper_layout import Shaping
from ebpftop.control.class_queues import QUEUES, ClassQueues
from ebpftop.control.class_table import ClassTable
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel.netlink.traffic_control import HtbCounters
from ebpftop.model import SHAPINGS, TrafficClass


class ClassActions:
    """Puts classes in force, and takes them away, during one act.

    Args:
        table: The classes.
        queues: Of their interfaces.
    """

    def __init__(self, table: ClassTable, queues: ClassQueues) -> None:
        self._table = table
        self._queues = queues
        self._last: Mapping[int, HtbCounters] = {}

    def put(self, wanted: TrafficClass) -> None:
        """Choose a class's action, and put it in force, unless it is so already.

        Raises:
            KernelRefusedError: The action that was asked for does not work here.
        """
        table, slot = self._table, self._table.slot_of(wanted.key)
        family = [slot, *table.children(slot)] if slot is not None else []
        if any(table.action(member) == Shaping.HTB for member in family):
            self._last = self._queues.counters()
        for action in self._candidates(wanted):
            try:
                self._queues.give(action, in_use=self._is_queued_beside(family))
                break
            except KernelRefusedError:
                if wanted.action != "auto":
                    raise
        if slot is not None and self._is_so(slot, wanted, action):
            return
        written = self._write(wanted, action)
        for child in table.children(written):
            self._write(table.wanted(child), action)

    def remove(self, slot: int) -> None:
        """Take a class away, its members and its queue."""
        had_queue = self._table.action(slot) == Shaping.HTB
        above = int(self._table.records["parent"][slot])
        self._table.remove(slot)
        if had_queue:
            self._queues.delete_class(slot)
        self._mend(above)

    def _is_queued_beside(self, family: Sequence[int]) -> bool:
        others = [slot for slot in self._table.slots() if slot not in family]
        return any(self._table.action(slot) in QUEUES for slot in others)

    def _is_so(self, slot: int, wanted: TrafficClass, action: Shaping) -> bool:
        held = self._table.wanted(slot)
        burst_bytes = wanted.burst_bytes or held.burst_bytes
        same = replace(wanted, burst_bytes=burst_bytes) == held
        return same and self._table.action(slot) == action

    def _candidates(self, wanted: TrafficClass) -> Sequence[Shaping]:
        """Return the actions that may do, the best first."""
        table = self._table
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

    def _write(self, wanted: TrafficClass, action: Shaping) -> int:
        """Put a class in force; its HTB class is there before a packet is sent to it."""
        table = self._table
        slot = table.slot_of(wanted.key)
        if slot is None:
            slot = table.write(wanted, action)
            if action == Shaping.HTB:
                self._queues.set_class(table, slot, table.records[slot], fresh=True)
            return slot
        had_queue = table.action(slot) == Shaping.HTB
        above = int(table.records["parent"][slot])
        if action == Shaping.HTB:
            moves = table.wanted(slot).parent != wanted.parent
            if moves or not had_queue:
                table.begin_queue(slot, self._queues.delete_class(slot) if had_queue else None)
            record = table.record(wanted, action, slot)
            self._queues.set_class(table, slot, record, fresh=moves or not had_queue)
        table.write(wanted, action)
        if had_queue and action != Shaping.HTB:
            last = self._queues.delete_class(slot) or self._last.get(slot + 1)
            table.begin_queue(slot, last)
        self._mend(above)
        return slot

    def _mend(self, above: int) -> None:
        """Give an HTB class that may have lost the last one under it the queue of a leaf.

        Args:
            above: Its number; 0 for none.
        """
        slot, table = above - 1, self._table
        if above and table.action(slot) == Shaping.HTB and not table.children(slot):
            self._queues.set_class(table, slot, table.records[slot], fresh=False)
