# SPDX-License-Identifier: Apache-2.0
"""Health checks of one instance: its maps say whom to check, and hear what was found.

One process at a time checks an instance; others wait for its seat. While it does, `checker`
holds a sign of life, and readers take health for unknown once that is old: the last one's
findings stay in force in the rings, since a backend that was bad is not good for the death
of who checked it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing

import numpy as np

from ebpftop.bpf import balancer_records, layout
from ebpftop.control.audit import Operator
from ebpftop.control.health import Target
from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import Instance
from ebpftop.kernel.maps import Map
from ebpftop.model import Service


class InstancePatients:
    """Every backend of every VIP that has a check.

    Args:
        instance: Whose; its folder is opened once more.
        set_health: What notes a change, `BalancingControl.set_health`.
    """

    def __init__(
        self, instance: Instance, set_health: Callable[[Service, Service, bool], None]
    ) -> None:
        self._folder = instance.folder
        self._set_health = set_health
        self._opened = ExitStack()
        self._maps: Mapping[str, Map] = {}
        self._seat: bpffs.Seat | None = None
        self._seated = False

    def begin_round(self) -> Mapping[Target, bool | None]:
        """Return whom to check, by what is known; nobody while another process checks."""
        if self._seat is None:
            self._seat = self._open()
        if not self._seated:
            self._seated = self._seat.take(Operator.here().user) is None
        if not self._seated:
            return {}
        self._sign(time.monotonic_ns())
        return self._targets()

    def _open(self) -> bpffs.Seat:
        # Buffers of a map's reads are one thread's: these maps are ours alone.
        instance = self._opened.enter_context(closing(Instance(self._folder, read_only=False)))
        self._maps = instance.maps
        return self._opened.enter_context(closing(bpffs.Seat(instance.name, "checks")))

    def set_health(self, vip: Service, backend: Service, healthy: bool) -> None:
        """Note a change; raises an `EbpftopError` where that cannot be."""
        self._set_health(vip, backend, healthy)

    def end(self) -> None:
        """Leave the seat; health is unknown to readers until somebody takes it."""
        if self._seated:
            self._sign(0)
        self._opened.close()

    def _sign(self, time_ns: int) -> None:
        self._maps["checker"].put(0, np.array([time_ns], layout.U64))

    def _targets(self) -> dict[Target, bool | None]:
        maps = self._maps
        slots, checks = maps["vip_slots"].read()[1], maps["checks"].read()[1]
        backends = maps["backends"].read()[1]
        found = {}
        for record in backends[backends["id"] != 0]:
            at = int(record["vip_slot"]) % layout.VIPS
            check = balancer_records.health_check(checks[at])
            if check is not None and slots[at]["id"] == record["vip_id"]:
                vip, backend = (
                    balancer_records.service(each["service"]) for each in (slots[at], record)
                )
                found[Target(vip, backend, check)] = balancer_records.healthy(record)
        return found
