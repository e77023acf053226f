# SPDX-License-Identifier: Apache-2.0
"""What the traffic classes have on the interfaces: programs, root qdiscs, an HTB tree's classes.

HTB holds each interface to the rate by itself. An instance of several has one bucket for all
of them, which only the programs can keep: `htb` is refused there, and `auto` polices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import Shaping
from ebpftop.control.class_table import ClassTable
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel import tc_hooks, tc_queues
from ebpftop.kernel.hook_table import HookTable
from ebpftop.kernel.instance import Instance
from ebpftop.kernel.netlink.traffic_control import HtbClass, HtbCounters, traffic_control

QUEUE_S = 0.2
LEAST_QUEUE_BYTES, MOST_QUEUE_BYTES = 128 << 10, 64 << 20
"""What may wait in a class's queue: so many seconds of its rate, within these bounds."""
QUEUES = {Shaping.HTB: tc_queues.TREE, Shaping.PACE: tc_queues.PACED}
"""The root qdisc that an action needs."""


class ClassQueues:
    """The programs and queues of one instance's interfaces.

    Args:
        instance: Open for writing, its writer's lock held.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._hooks = HookTable(instance.maps["shaper_hooks"])
        self.deleted: dict[int, HtbCounters] = {}
        """What the kernel last said of each HTB class that was taken away, by its slot."""

    # Root qdiscs

    def give(self, action: Shaping, *, in_use: bool) -> None:
        """Give the interfaces the queue that an action needs.

        Args:
            action: What needs it.
            in_use: Other classes need the root qdisc of ours that is there.

        Raises:
            KernelRefusedError: One cannot have it; says what is missing.
        """
        if action not in QUEUES:
            return
        attachments = self._instance.meta.attachments
        if action == Shaping.HTB and len(attachments) > 1:
            raise KernelRefusedError(
                f"htb would hold each of {self._instance.describe()} to the rate by itself, "
                "and together they would send as many times that",
                "use --action police, or attach them apart",
            )
        for each in attachments:
            tc_queues.give_queue(self._hooks, QUEUES[action], each.index, each.name, in_use=in_use)

    def roots(self) -> Mapping[int, str]:
        """Return the kind of our root qdisc on each interface that has one."""
        found = {}
        for attachment in self._instance.meta.attachments:
            with traffic_control(attachment.index) as tc:
                root = tc_queues.root_of(tc.qdiscs())
            if root is not None and tc_queues.is_ours(root):
                found[attachment.index] = tc_queues.purpose_of(root)
        return found

    # The HTB tree

    def set_class(self, table: ClassTable, slot: int, record: Any, *, fresh: bool) -> None:
        """Make the HTB class of a slot as a record says, or change it."""
        above, rate_bps = int(record["parent"]), int(record["rate_bps"])
        queue_bytes = min(max(LEAST_QUEUE_BYTES, round(rate_bps / 8 * QUEUE_S)), MOST_QUEUE_BYTES)
        wanted = HtbClass(
            minor=slot + 1,
            parent=above,
            rate_bps=rate_bps,
            ceil_bps=int(table.records["rate_bps"][above - 1]) if above else rate_bps,
            burst_bytes=int(record["burst_bytes"]),
            priority=int(record["priority"]),
            queue_bytes=None if table.children(slot) else queue_bytes,
        )
        with traffic_control(self._instance.meta.attachments[0].index) as tc:
            tc.set_htb_class(wanted, fresh=fresh)

    def counters(self) -> Mapping[int, HtbCounters]:
        """Return what the kernel says of each HTB class, by its number."""
        with suppress(OSError), traffic_control(self._instance.meta.attachments[0].index) as tc:
            return tc.htb_counters()
        return {}

    def delete_class(self, slot: int) -> HtbCounters | None:
        """Take an HTB class away; returns what the kernel last said of it."""
        last = self.counters().get(slot + 1)
        with suppress(OSError), traffic_control(self._instance.meta.attachments[0].index) as tc:
            tc.delete_htb_class(slot + 1)
        if last is not None:
            self.deleted[slot] = last
        return last

    def put_back(self, roots: Mapping[int, str], table: ClassTable) -> list[int]:
        """Have the root qdiscs that there were, and the HTB classes that a table tells of.

        Returns:
            The slots whose HTB classes had to be made anew.
        """
        now = self.roots()
        for each in self._instance.meta.attachments:
            kind = roots.get(each.index)
            if kind is None:
                tc_queues.take_queue(self._hooks, each.index)
            elif now.get(each.index) != kind:
                tc_queues.give_queue(self._hooks, kind, each.index, each.name)
        return self._put_tree_back(table) if tc_queues.TREE in roots.values() else []

    def _put_tree_back(self, table: ClassTable) -> list[int]:
        parents = table.records["parent"]
        wanted = {s + 1: int(parents[s]) for s in table.slots() if table.action(s) == Shaping.HTB}
        with traffic_control(self._instance.meta.attachments[0].index) as tc:
            held = tc.htb_parents()
            # Those below go first, and come last.
            for minor in sorted(held, key=held.__getitem__, reverse=True):
                if wanted.get(minor) != held[minor]:
                    tc.delete_htb_class(minor)
                    del held[minor]
        for minor in sorted(wanted, key=wanted.__getitem__):
            slot = minor - 1
            self.set_class(table, slot, table.records[slot], fresh=minor not in held)
        return [minor - 1 for minor in wanted if minor not in held]

    # Programs

    def settle(self, used: Collection[str], *, counts: bool, queued: bool) -> None:
        """Put the programs that are needed on the interfaces, and take what is not away.

        Args:
            used: Directions that have classes.
            counts: What is sent is counted.
            queued: A class needs a root qdisc.
        """
        needed = ("ingress" in used, "egress" in used or counts)
        for attachment in self._instance.meta.attachments:
            for direction, is_needed in enumerate(needed):
                self._settle_program(direction, attachment.index, is_needed=is_needed)
            if not queued:
                tc_queues.take_queue(self._hooks, attachment.index)

    def _settle_program(self, direction: int, ifindex: int, *, is_needed: bool) -> None:
        instance, name = self._instance, layout.HOOKED[direction]
        pin = tc_hooks.link_pin(instance.folder, direction, ifindex)
        if is_needed:
            program = instance.programs[name]
            stays = pin if instance.outlives_us else None
            link = tc_hooks.put_program(self._hooks, program, direction, ifindex, stays)
            if link is not None:
                instance.tc_links[pin] = link
        else:
            number = next(p.id for p in instance.meta.programs if p.name == name)
            tc_hooks.take_program(self._hooks, number, direction, ifindex)
            pin.unlink(missing_ok=True)
            instance.close_tc_link(pin)
