# SPDX-License-Identifier: Apache-2.0
"""What the traffic classes were before an act, put back where the kernel refuses half-way."""

from __future__ import annotations

from ebpftop.bpf.shaper_layout import CONTROL
from ebpftop.control.class_queues import ClassQueues
from ebpftop.control.class_table import ClassTable
from ebpftop.kernel.instance import Instance

_OF_QUEUES = ("queue_from", "lost_packets", "lost_bytes")


class Standing:
    """All that an act may change, as it was.

    A bucket's balance is not put back but kept: what has passed meanwhile was charged to it.

    Args:
        instance: Open for writing, its writer's lock held.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        table = self._table()
        self._records = table.records.copy()
        self._shapes = {slot: table.shape_in_force(slot) for slot in table.slots()}
        self._members = {(prefix, way): slot for prefix, way, slot in table.members()}
        self._config = table.config.copy()
        self._roots = ClassQueues(instance).roots()

    def _table(self) -> ClassTable:
        return ClassTable(self._instance.maps, self._instance.programs[CONTROL])

    def put_back(self, changed: ClassTable, queues: ClassQueues) -> None:
        """Have everything as it was.

        Args:
            changed: What the act changed the classes with.
            queues: What it changed their queues with.
        """
        table = self._table()
        table.config["count_sent"] = self._config["count_sent"]
        for slot, (counters, bucket) in changed.overwritten.items():
            table.put_back_account(slot, counters, bucket)
        for slot, record in enumerate(self._records):
            if record.tobytes() != table.records[slot].tobytes():
                self._put_back_class(table, slot, is_other=slot in changed.overwritten)
        for slot in queues.put_back(self._roots, table):
            table.begin_queue(slot, queues.deleted.get(slot))
        held = {(prefix, way): slot for prefix, way, slot in table.members()}
        for prefix, way in held.keys() - self._members.keys():
            table.unassign(prefix, way)
        for member in self._members.items() - held.items():
            table.assign(member[0][0], member[1])
        table.commit()

    def _put_back_class(self, table: ClassTable, slot: int, *, is_other: bool) -> None:
        record, now = self._records[slot].copy(), table.records[slot]
        if now["shaping"] and not is_other:
            for name in _OF_QUEUES:
                record[name] = now[name]
            table.reshape(slot, record, shape=self._shapes[slot])
        else:
            table.put_record(slot, record)
