# SPDX-License-Identifier: Apache-2.0
"""The traffic classes and their members as the kernel's maps hold them."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.layout import U64
from ebpftop.bpf.shaper_layout import Shaping
from ebpftop.control.class_shapes import bucket_shape
from ebpftop.errors import KernelRefusedError, NotFoundError, UsageError
from ebpftop.format import printable
from ebpftop.kernel import libbpf
from ebpftop.kernel.maps import Map
from ebpftop.kernel.netlink.traffic_control import OUR_MAJOR, HtbCounters
from ebpftop.model import DIRECTIONS, SHAPINGS, ClassKey, Prefix, TrafficClass, default_burst

_LEAST_RESERVE = 8
"""Of the `RESERVE_SHARES` of its parent's burst a class leaves these, and one a priority."""


class ClassTable:
    """The classes as they are now; changed in place, each change in force at once.

    Use it under the writer's lock, and anew for each act.

    Args:
        maps: Of the instance, open for writing.
        control: File descriptor of its `shape_control`.
    """

    def __init__(self, maps: Mapping[str, Map], control: int) -> None:
        self._maps = maps
        self._control = control
        self.overwritten: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
        """Counters and bucket of each slot that a new class has been given."""
        self.records = maps["traffic_classes"].read()[1].copy()
        """All slots, used or not."""
        self.config = maps["shaper_config"].read()[1].copy()
        """The one `CONFIG` record; written by `commit`."""

    # Looking

    def slots(self) -> list[int]:
        """Return the used slots, the oldest class first."""
        used = np.flatnonzero(self.records["shaping"])
        ordered: list[int] = used[np.argsort(self.records["set_ns"][used], kind="stable")].tolist()
        return ordered

    def key(self, slot: int) -> ClassKey:
        """Return what the class in a slot is known by."""
        record = self.records[slot]
        name = bytes(record["name"]).decode(errors="replace")
        return ClassKey(printable(name), DIRECTIONS[int(record["direction"]) & 1])

    def slot_of(self, key: ClassKey) -> int | None:
        """Return the slot of a class, None where there is none."""
        return next((slot for slot in self.slots() if self.key(slot) == key), None)

    def require(self, key: ClassKey) -> int:
        """Return the slot of a class.

        Raises:
            NotFoundError: There is none; names those there are.
        """
        slot = self.slot_of(key)
        if slot is None:
            names = ", ".join(str(self.key(other)) for other in self.slots())
            raise NotFoundError(
                f"no class {printable(str(key))}", f"there is {names}" if names else "there is none"
            )
        return slot

    def action(self, slot: int) -> Shaping:
        """Return the action at work."""
        return Shaping(int(self.records["shaping"][slot]))

    def wanted(self, slot: int) -> TrafficClass:
        """Return how the operator wants the class in a slot."""
        record = self.records[slot]
        above = int(record["parent"])
        return TrafficClass(
            key=self.key(slot),
            rate_bps=int(record["rate_bps"]),
            burst_bytes=int(record["burst_bytes"]),
            action=SHAPINGS[int(record["wanted"])],
            priority=int(record["priority"]),
            parent=self.key(above - 1).name if above else "",
        )

    def children(self, slot: int) -> list[int]:
        """Return the slots of the classes under one."""
        return [s for s in self.slots() if int(self.records["parent"][s]) == slot + 1]

    def members(self) -> Iterator[tuple[Prefix, str, int]]:
        """Yield each assigned prefix, its direction and its class's slot."""
        keys, numbers = self._maps["ip_classification"].read()
        for key, number in zip(keys, numbers, strict=True):
            prefix = Prefix.from_bytes(bytes(key["word"]), int(key["length"]) - 32)
            yield prefix, DIRECTIONS[int(key["direction"]) & 1], int(number) - 1

    # Changing

    def write(self, wanted: TrafficClass, action: Shaping) -> int:
        """Make a class or change one; its bucket keeps its balance. Returns its slot.

        Raises:
            KernelRefusedError: There is no room for another.
        """
        slot = self.slot_of(wanted.key)
        if slot is None:
            slot = self._free_slot()
            self.records[slot] = self.record(wanted, action, slot)
            self._begin(slot)
            self._store(slot)
        else:
            self.reshape(slot, self.record(wanted, action, slot))
        return slot

    def _free_slot(self) -> int:
        free = np.flatnonzero(self.records["shaping"] == Shaping.NONE)
        if not len(free):
            raise KernelRefusedError(
                f"there are {layout.CLASSES} classes already", "delete one first"
            )
        return int(free[0])

    def _store(self, slot: int) -> None:
        self._maps["traffic_classes"].put(slot, self.records[slot : slot + 1])

    def _begin(self, slot: int) -> None:
        """Fill a slot's bucket and begin its counters anew; readers add up what they were."""
        counters, bucket = self._maps["class_stats"].get(slot), self._maps["buckets"].get(slot)
        assert counters is not None
        assert bucket is not None
        self.overwritten[slot] = counters.copy(), bucket
        self.config["retired_packets"] += counters["packets"].sum()
        self._maps["class_stats"].put(slot, np.zeros_like(counters))
        self.commit()
        full = np.zeros(1, layout.BUCKET)
        full["time"] = layout.bucket_at(time.monotonic_ns() << layout.TIME_SHIFT)
        self._maps["buckets"].put(slot, full)

    def put_back_account(self, slot: int, counters: NDArray[Any], bucket: NDArray[Any]) -> None:
        """Give a slot the counters and the bucket again that `overwritten` kept."""
        now = self._maps["class_stats"].get(slot)
        assert now is not None
        retired = int(self.config["retired_packets"][0]) - int(counters["packets"].sum())
        self.config["retired_packets"] = retired + int(now["packets"].sum())
        self._maps["class_stats"].put(slot, counters)
        self._maps["buckets"].put(slot, bucket)

    def put_record(self, slot: int, record: NDArray[Any]) -> None:
        """Put a record into a slot whose bucket is in the shape that it was in."""
        self.records[slot] = record
        self._store(slot)

    def shape_in_force(self, slot: int) -> int:
        """Return which of its class's shapes a bucket is kept in."""
        bucket = self._maps["buckets"].get(slot)
        assert bucket is not None
        return layout.shape_of(int(bucket["time"][0]))

    def reshape(self, slot: int, record: NDArray[Any], *, shape: int = 0) -> None:
        """Put another record in force in a used slot; the bucket owes as many bytes as before.

        Args:
            slot: Where.
            record: What the class is to be.
            shape: Which of its two shapes is to be in force; the other need not be there.
        """
        held = self.shape_in_force(slot)
        before, after = self.records["shapes"][slot][held].copy(), record["shapes"][shape].copy()
        self.records[slot] = record
        self.records["shapes"][slot][held], self.records["shapes"][slot][1 - held] = before, after
        self._store(slot)
        request = np.zeros(1, layout.REQUEST)
        request["slot"], request["shape"] = slot, 1 - held
        request["factor"], request["shift"] = layout.scale(
            int(after["byte_cost"]), int(before["byte_cost"])
        )
        # It gives up where packets win too often; they cannot win for ever.
        while not libbpf.run_program(self._control, request.tobytes())[0]:
            pass

    def record(self, wanted: TrafficClass, action: Shaping, slot: int) -> NDArray[Any]:
        """Return what a slot would hold for a class; both shapes are that of its rate."""
        before = self.records[slot]
        record = np.zeros((), layout.TRAFFIC_CLASS)
        burst_bytes = wanted.burst_bytes or default_burst(wanted.rate_bps, action.name.lower())
        record["shaping"], record["wanted"] = action, SHAPINGS.index(wanted.action)
        record["direction"] = DIRECTIONS.index(wanted.key.direction)
        record["shapes"] = bucket_shape(
            wanted.rate_bps,
            burst_bytes,
            may_be_coarse=action == Shaping.POLICE and not wanted.parent,
        )
        record["rate_bps"], record["burst_bytes"] = wanted.rate_bps, burst_bytes
        record["priority"] = wanted.priority
        record["htb"] = OUR_MAJOR | slot + 1
        record["set_ns"] = before["set_ns"] or time.monotonic_ns()
        for kept in ("queue_from", "lost_packets", "lost_bytes"):
            record[kept] = before[kept]
        record["name"] = wanted.key.name.encode()
        if wanted.parent:
            above = self.require(replace(wanted.key, name=wanted.parent))
            record["parent"] = above + 1
            record["reserve"] = _LEAST_RESERVE + wanted.priority
        return record

    def begin_queue(self, slot: int, lost: HtbCounters | None) -> None:
        """Note that a class's queue is a new one.

        Args:
            slot: Of the class.
            lost: What the kernel last said of the queue that it had before, if any.
        """
        counters = self._maps["class_stats"].get(slot)
        assert counters is not None
        queued = int(counters["queued_bytes"].sum())
        record = self.records[slot]
        if lost is not None:
            left = queued - int(record["queue_from"]) - lost.bytes
            record["lost_packets"] += lost.dropped + lost.backlog_packets
            record["lost_bytes"] += max(0, left)
        record["queue_from"] = queued
        self._store(slot)

    def remove(self, slot: int) -> None:
        """Take a class away, and its members out of the classification."""
        for prefix, direction, owner in list(self.members()):
            if owner == slot:
                self._maps["ip_classification"].delete(_member_key(prefix, direction))
        # Addresses may remember the slot: they look again before it is another's.
        self.commit()
        self.records[slot] = np.zeros((), layout.TRAFFIC_CLASS)
        self._store(slot)

    def assign(self, prefix: Prefix, slot: int) -> None:
        """Put a prefix into a class, out of any other of its direction.

        Raises:
            UsageError: The class is a ceiling over others.
            KernelRefusedError: There is no room.
        """
        if self.children(slot):
            raise UsageError(
                f"{self.key(slot)} is a ceiling over other classes", "assign it to one of those"
            )
        key = _member_key(prefix, self.key(slot).direction)
        try:
            self._maps["ip_classification"].put(key, np.array([slot + 1], U64))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.E2BIG, errno.ENOMEM):
                raise
            raise KernelRefusedError(
                "the table of classified prefixes is full",
                "unassign some, or attach with more [capacity] prefixes",
            ) from error

    def unassign(self, prefix: Prefix, direction: str) -> bool:
        """Take a prefix out of its class; False where it is in none."""
        return self._maps["ip_classification"].delete(_member_key(prefix, direction))

    def commit(self) -> None:
        """Let every address look its class up again, and put the configuration in force."""
        generation = int(self.config["generation"][0])
        self.config["generation"] = (generation + 1) & 0xFFFFFFFF
        self._maps["shaper_config"].put(0, self.config)


def _member_key(prefix: Prefix, direction: str) -> NDArray[Any]:
    key = np.zeros((), layout.CLASSIFIED)
    key["length"], key["direction"] = 32 + prefix.length, DIRECTIONS.index(direction)
    key["word"] = np.void(prefix.to_bytes())
    return key
