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
from ebpftop.errors import KernelRefusedError, NotFoundError, UsageError
from ebpftop.format import printable
from ebpftop.kernel import clock
from ebpftop.kernel.maps import Map
from ebpftop.kernel.netlink.traffic_control import OUR_MAJOR
from ebpftop.model import DIRECTIONS, SHAPINGS, ClassKey, Prefix, TrafficClass

MARK_SHARE = 2
"""ECN-capable packets are marked once one part in so many of the burst is used up."""
RESERVE_SHARES = 16
"""Of these parts of its parent's burst a class leaves 8, and one more for each priority."""
_LEAST_RESERVE = 8
MOST_COARSE_TICKS = 2
"""What the coarse clock lags at the most, in its ticks."""
LEAST_BURST_LAGS = 4
"""A burst of fewer such lags is left to the exact clock."""
_BURSTS: Mapping[Shaping, tuple[int, float]] = {
    Shaping.POLICE: (128 << 10, 0.1),
    Shaping.HTB: (16 << 10, 0.001),
    Shaping.PACE: (16 << 10, 0.001),
}
"""The burst of a class that asks for none: at least so many bytes, or so many seconds of its
rate. A class without a queue has to let pass at once what TCP sends at once."""


def default_burst(rate_bps: int, action: Shaping) -> int:
    """Return the bytes that suit a rate."""
    least, seconds = _BURSTS[action]
    return max(least, round(rate_bps / 8 * seconds))


class ClassTable:
    """The classes as they are now; changed in place, each change in force at once.

    Use it under the writer's lock, and anew for each act.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
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
        fresh = slot is None
        if slot is None:
            free = np.flatnonzero(self.records["shaping"] == Shaping.NONE)
            if not len(free):
                raise KernelRefusedError(
                    f"there are {layout.CLASSES} classes already", "delete one first"
                )
            slot = int(free[0])
        before = self.records[slot].copy()
        self.records[slot] = self._record(wanted, action, slot, before)
        if fresh:
            self._retire_counters(slot)
            self._set_owed_bytes(slot, 0)
        self._maps["traffic_classes"].put(slot, self.records[slot : slot + 1])
        if not fresh and before["rate_bps"] != wanted.rate_bps:
            self._rescale(slot, int(before["rate_bps"]))
        for child in self.children(slot):
            self._set_reserve(child)
        return slot

    def _retire_counters(self, slot: int) -> None:
        """Begin a slot's counters anew; readers add up what they were."""
        counters = self._maps["class_stats"].get(slot)
        assert counters is not None
        self.config["retired_packets"] += counters["packets"].sum()
        self._maps["class_stats"].put(slot, np.zeros_like(counters))
        self.commit()

    def _record(
        self, wanted: TrafficClass, action: Shaping, slot: int, before: Any
    ) -> NDArray[Any]:
        record = np.zeros((), layout.TRAFFIC_CLASS)
        burst_bytes = wanted.burst_bytes or default_burst(wanted.rate_bps, action)
        record["shaping"], record["wanted"] = action, SHAPINGS.index(wanted.action)
        record["direction"] = DIRECTIONS.index(wanted.key.direction)
        record["byte_cost"] = layout.byte_cost(wanted.rate_bps)
        record["burst"] = layout.line_time(burst_bytes, wanted.rate_bps)
        if action == Shaping.POLICE and not wanted.parent:
            self._choose_clock(record)
        record["mark"] = record["burst"] // MARK_SHARE
        record["rate_bps"], record["burst_bytes"] = wanted.rate_bps, burst_bytes
        record["priority"] = wanted.priority
        record["htb"] = OUR_MAJOR | slot + 1
        record["set_ns"] = before["set_ns"] or time.monotonic_ns()
        record["name"] = wanted.key.name.encode()
        if wanted.parent:
            above = self.require(replace(wanted.key, name=wanted.parent))
            record["parent"] = above + 1
            record["reserve"] = self._reserve(above, wanted.priority)
        return record

    def _choose_clock(self, record: NDArray[Any]) -> None:
        """Let a class with a long burst use the coarse clock, and take its lag off the burst.

        With that, in no interval does more pass than the rate times its length and the burst. A
        parent's bucket is read with the clocks of all its classes, and so is left to the exact one.
        """
        lag = int(MOST_COARSE_TICKS * clock.tick_ns()) << layout.TIME_SHIFT
        if record["burst"] >= LEAST_BURST_LAGS * lag:
            record["coarse"] = 1
            record["burst"] -= lag

    def _reserve(self, above: int, priority: int) -> int:
        burst = int(self.records["burst"][above])
        return burst * (_LEAST_RESERVE + priority) // RESERVE_SHARES

    def _set_reserve(self, slot: int) -> None:
        above = int(self.records["parent"][slot]) - 1
        priority = int(self.records["priority"][slot])
        self.records["reserve"][slot] = self._reserve(above, priority)
        self._maps["traffic_classes"].put(slot, self.records[slot : slot + 1])

    def _rescale(self, slot: int, old_bps: int) -> None:
        """Owe as many bytes at the new rate as were owed at the old one."""
        bucket = self._maps["buckets"].get(slot)
        assert bucket is not None
        owed = layout.owed(int(bucket["time"][0]), time.monotonic_ns())
        self._set_owed_bytes(slot, owed * old_bps // (8 * 10**9 << layout.TIME_SHIFT))

    def _set_owed_bytes(self, slot: int, owed_bytes: int) -> None:
        owed = layout.line_time(owed_bytes, int(self.records["rate_bps"][slot]))
        bucket = np.zeros(1, layout.BUCKET)
        now = time.monotonic_ns() << layout.TIME_SHIFT
        bucket["time"] = (now + owed) & layout.WORD
        self._maps["buckets"].put(slot, bucket)

    def forget_queue(self, slot: int) -> None:
        """Count anew what was handed to the class's queue: the queue is new."""
        counters = self._maps["class_stats"].get(slot)
        assert counters is not None
        counters["queued_packets"] = counters["queued_bytes"] = 0
        self._maps["class_stats"].put(slot, counters)

    def remove(self, slot: int) -> None:
        """Take a class away, and its members out of the classification."""
        for prefix, direction, owner in list(self.members()):
            if owner == slot:
                self._maps["ip_classification"].delete(_member_key(prefix, direction))
        # Addresses may remember the slot: they look again before it is another's.
        self.commit()
        self.records[slot] = np.zeros((), layout.TRAFFIC_CLASS)
        self._maps["traffic_classes"].put(slot, self.records[slot : slot + 1])

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
