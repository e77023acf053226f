# SPDX-License-Identifier: Apache-2.0
"""The VIPs and their backends as the kernel's maps hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ebpftop.bpf import balancer_records, layout
from ebpftop.control import rings
from ebpftop.errors import KernelRefusedError, NotFoundError, UsageError
from ebpftop.kernel.maps import Map
from ebpftop.model import ALGORITHMS, BACKEND_STATES, Backend, Prefix, Service, Vip

UP, DRAIN, DOWN = range(3)
HEALTH_BAD = balancer_records.HEALTHS.index(False)


class VipTable:
    """The VIPs as they are now; changed here, and put in force by a `VipWriter`.

    A VIP is there once `vips` has it, and a backend while its VIP is: whatever else a writer
    that was killed left behind is not, and goes at the next commit. Use it under the writer's
    lock, and anew for each act.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self.maps = maps
        self.config = maps["config"].read()[1].copy()
        """The one `CONFIG` record."""
        self.slots = maps["vip_slots"].read()[1].copy()
        """`VIP_SLOT` records; a free one has no id."""
        self.checks = maps["checks"].read()[1].copy()
        """`CHECK` records, by the VIP's slot."""
        self.backends = maps["backends"].read()[1].copy()
        """`BACKEND` records; a free one has no id. The first is none."""
        self.in_force = np.zeros(layout.VIPS, layout.VIP)
        """`VIP` records, by slot."""
        for value in maps["vips"].read()[1]:
            self.in_force[int(value["slot"]) % layout.VIPS] = value
        self.touched: set[int] = set()
        """Slots of VIPs that may need another ring."""
        self.reused: set[int] = set()
        """Slots of new backends that others had before: flows may still name them."""
        self._taken = self.slots["id"] != 0, self.backends["id"] != 0
        self._forget_leftovers()
        self.before = self.slots.copy(), self.backends.copy()
        """Both tables as they were found."""

    def _forget_leftovers(self) -> None:
        gone = (self.slots["id"] == 0) | (self.slots["id"] != self.in_force["id"])
        self.slots[gone] = np.zeros((), layout.VIP_SLOT)
        self.checks[gone] = np.zeros((), layout.CHECK)
        owners = self.slots["id"][self.backends["vip_slot"] % layout.VIPS]
        lost = (owners == 0) | (owners != self.backends["vip_id"])
        self.backends[lost] = np.zeros((), layout.BACKEND)

    # Looking

    def used(self) -> list[int]:
        """Return the slots of VIPs."""
        found: list[int] = np.flatnonzero(self.slots["id"]).tolist()
        return found

    def service(self, slot: int) -> Service:
        """Return where the VIP in a slot is."""
        return balancer_records.service(self.slots["service"][slot])

    def vip(self, slot: int) -> Vip:
        """Return how the operator wants the VIP in a slot."""
        return balancer_records.vip(self.slots[slot], self.in_force[slot], self.checks[slot])

    def slot_of(self, service: Service) -> int | None:
        """Return the slot of a VIP, None where there is none."""
        return next((slot for slot in self.used() if self.service(slot) == service), None)

    def require(self, service: Service) -> int:
        """Return the slot of a VIP.

        Raises:
            NotFoundError: There is none; names those there are.
        """
        slot = self.slot_of(service)
        if slot is None:
            raise NotFoundError(f"no VIP {service}", _those(map(self.service, self.used())))
        return slot

    def backends_of(self, slot: int) -> list[int]:
        """Return the slots of the backends of a VIP, the first added first."""
        of_it = (self.backends["id"] != 0) & (self.backends["vip_slot"] == slot)
        found: list[int] = np.flatnonzero(of_it).tolist()
        return found

    def backend(self, number: int) -> Backend:
        """Return how the operator wants the backend in a slot."""
        return balancer_records.backend(self.backends[number])

    def backend_slot_of(self, slot: int, service: Service) -> int | None:
        """Return the slot of a backend of a VIP, None where there is none."""
        numbers = self.backends_of(slot)
        return next((n for n in numbers if self.backend(n).service == service), None)

    def require_backend(self, slot: int, service: Service) -> int:
        """Return the slot of a backend of a VIP.

        Raises:
            NotFoundError: There is none; names those there are.
        """
        number = self.backend_slot_of(slot, service)
        if number is None:
            there = [self.backend(n).service for n in self.backends_of(slot)]
            raise NotFoundError(
                f"{self.service(slot)} has no backend {service.endpoint}",
                _those(backend.endpoint for backend in there),
            )
        return number

    def is_of_policy(self, slot: int) -> bool:
        """Whether the policy file has the VIP."""
        return bool(self.slots["flags"][slot] & layout.VIP_POLICY)

    def is_backend_of_policy(self, number: int) -> bool:
        """Whether the policy file has the backend."""
        return bool(self.backends["flags"][number] & layout.BACKEND_POLICY)

    # Changing

    def _next_id(self) -> int:
        self.config["ids_used"] += 1
        return int(self.config["ids_used"][0])

    def add(self, wanted: Vip) -> int:
        """Make a VIP; returns its slot.

        Raises:
            UsageError: It is there already.
            KernelRefusedError: There is no room.
        """
        if self.slot_of(wanted.service) is not None:
            raise UsageError(f"there is a VIP {wanted.service} already", "`vip set` changes it")
        # What an act frees is in force until its end.
        free = np.flatnonzero((self.slots["id"] == 0) & ~self._taken[0])
        if not len(free):
            raise KernelRefusedError(f"there are {layout.VIPS} VIPs already", "delete one first")
        slot = int(free[0])
        self.slots["service"][slot] = balancer_records.service_record(wanted.service)
        self.slots["id"][slot] = self._next_id()
        self.in_force[slot] = np.zeros((), layout.VIP)
        self.in_force["id"][slot], self.in_force["slot"][slot] = self.slots["id"][slot], slot
        self.in_force["ring_start"][slot] = 2 * slot * layout.RING_SLOTS
        self.change(slot, wanted)
        return slot

    def change(self, slot: int, wanted: Vip) -> None:
        """Change what is wanted of a VIP; its service stays."""
        kept = int(self.slots["flags"][slot]) & layout.VIP_POLICY
        self.slots["flags"][slot] = balancer_records.slot_flags(wanted) | kept
        self.in_force["algorithm"][slot] = ALGORITHMS.index(wanted.algorithm)
        self.checks[slot] = balancer_records.check_record(wanted.check)
        if wanted.check is None:
            for number in self.backends_of(slot):
                self.backends["health"][number] = 0
        self.touched.add(slot)

    def mark_of_policy(self, slot: int) -> None:
        """Note that the policy file has the VIP."""
        self.slots["flags"][slot] |= layout.VIP_POLICY

    def mark_backend_of_policy(self, number: int) -> None:
        """Note that the policy file has the backend."""
        self.backends["flags"][number] |= layout.BACKEND_POLICY

    def remove(self, slot: int) -> None:
        """Take a VIP and its backends away."""
        for number in self.backends_of(slot):
            self.backends[number] = np.zeros((), layout.BACKEND)
        self.slots[slot] = np.zeros((), layout.VIP_SLOT)
        self.checks[slot] = np.zeros((), layout.CHECK)
        self.touched.discard(slot)

    def add_backend(self, slot: int, wanted: Backend) -> int:
        """Put a backend behind a VIP; returns its slot.

        Raises:
            UsageError: It is there already.
            KernelRefusedError: There is no room.
        """
        if self.backend_slot_of(slot, wanted.service) is not None:
            raise UsageError(
                f"{self.service(slot)} has a backend {wanted.service.endpoint} already",
                "`backend set` changes it",
            )
        number = self._free_backend_slot()
        record = self.backends[number : number + 1]
        service = balancer_records.service_record(wanted.service)
        same = np.flatnonzero((self.backends["service"] == service) & (self.backends["id"] != 0))
        record["service"] = service
        record["id"] = self.backends["id"][same[0]] if len(same) else self._next_id()
        record["vip_slot"], record["vip_id"] = slot, self.slots["id"][slot]
        record["first_weight"] = wanted.weight
        self.change_backend(number, wanted)
        return number

    def _free_backend_slot(self) -> int:
        free = np.flatnonzero((self.backends["id"] == 0) & ~self._taken[1])[1:]
        if not len(free):
            raise KernelRefusedError(
                f"there are {layout.BACKENDS - 1:,} backends already", "delete one first"
            )
        opened = self.maps["backend_stats"].read()[1]["opened"].sum(axis=1)
        # Flows keep their backend's slot: one that no flow ever had cannot be mistaken.
        fresh = free[opened[free] == 0]
        if len(fresh):
            return int(fresh[0])
        self.reused.add(int(free[0]))
        return int(free[0])

    def change_backend(self, number: int, wanted: Backend) -> None:
        """Change what is wanted of a backend; its service stays."""
        self.backends["weight"][number] = wanted.weight
        self.backends["state"][number] = BACKEND_STATES.index(wanted.state)
        self.touched.add(int(self.backends["vip_slot"][number]))

    def set_health(self, number: int, healthy: bool | None) -> None:
        """Note what the checks say of a backend."""
        self.backends["health"][number] = balancer_records.HEALTHS.index(healthy)
        self.touched.add(int(self.backends["vip_slot"][number]))

    def remove_backend(self, number: int) -> None:
        """Take a backend away."""
        self.touched.add(int(self.backends["vip_slot"][number]))
        self.backends[number] = np.zeros((), layout.BACKEND)

    # What follows from that

    def members(self, slot: int) -> tuple[list[rings.Member], bool]:
        """Return who takes new flows of a VIP, and whether that is all for want of a living one."""
        wanting = [n for n in self.backends_of(slot) if self._is_wanted(n)]
        alive = [n for n in wanting if self.backends["health"][n] != HEALTH_BAD]
        reset = bool(wanting and not alive and self.slots["flags"][slot] & layout.VIP_ALL)
        return [self._member(n) for n in (wanting if reset else alive)], reset

    def _is_wanted(self, number: int) -> bool:
        record = self.backends[number]
        return bool(record["state"] == UP and record["weight"] > 0)

    def _member(self, number: int) -> rings.Member:
        record = self.backends[number]
        return rings.Member(number, int(record["weight"]), record["service"].tobytes())

    def serves(self, number: int, *, reset: bool) -> bool:
        """Whether the flows of a backend may stay with it.

        Args:
            number: Its slot.
            reset: None of its VIP's lives, and so all are used.
        """
        record = self.backends[number]
        return bool(record["state"] != DOWN and (reset or record["health"] != HEALTH_BAD))


def backend_addresses(backends: Any) -> set[Prefix]:
    """Return the addresses of `BACKEND` records."""
    addresses = backends["service"]["address"][backends["id"] != 0]
    return {Prefix(int(address["high"]), int(address["low"])) for address in addresses}


def _those(names: Any) -> str:
    listed = ", ".join(map(str, names))
    return f"there is {listed}" if listed else "there is none"
