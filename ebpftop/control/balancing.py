# SPDX-License-Identifier: Apache-2.0
"""The acts of the load balancer: VIPs, their backends, and what the checks say of those.

Each takes the writer's lock, reads the maps, checks, and puts all of it in force or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ebpftop.bpf import balancer_records
from ebpftop.control.vip_rules import (
    VipRequest,
    check_apart,
    check_backend,
    check_requests,
    check_vip,
)
from ebpftop.control.vip_table import VipTable
from ebpftop.control.vip_writing import VipWriter
from ebpftop.control.writing import InstanceWriter
from ebpftop.model import Backend, Service, Vip


class BalancingControl(InstanceWriter):
    """The acts on one instance, as `control.BalancingControls` says."""

    @contextmanager
    def _writing(self) -> Iterator[VipTable]:
        """Hold the writer's lock over one act, which is put in force where nothing fails."""
        with self._locked():
            table = VipTable(self._maps)
            yield table
            check_apart(
                [table.service(slot) for slot in table.used()],
                [
                    table.backend(n).service
                    for slot in table.used()
                    for n in table.backends_of(slot)
                ],
            )
            VipWriter(self._maps).commit(table)

    # VIPs

    def vip(self, service: Service) -> Vip:
        """Return what a VIP is now.

        Raises:
            NotFoundError: There is none.
        """
        table = VipTable(self._maps)
        return table.vip(table.require(service))

    def add_vip(self, wanted: Vip) -> None:
        """Make a VIP; until it has backends, what comes to it is dropped.

        Raises:
            UsageError: It is there already, or a value is out of range.
            KernelRefusedError: There is no room.
        """
        check_vip(wanted)
        with self._writing() as table:
            table.add(wanted)

    def set_vip(self, service: Service, changes: Mapping[str, Any]) -> None:
        """Change some of a VIP by the names of `Vip`, and keep the rest and its flows.

        Raises:
            NotFoundError: There is none.
            UsageError: A value is out of range, or flows stand against another mode.
        """
        with self._writing() as table:
            slot = table.require(service)
            self._change_vip(table, slot, replace(table.vip(slot), **changes))

    def _change_vip(self, table: VipTable, slot: int, wanted: Vip) -> None:
        check_vip(wanted)
        for number in table.backends_of(slot):
            check_backend(wanted, table.backend(number))
        table.change(slot, wanted)

    def delete_vip(self, service: Service) -> None:
        """Take a VIP away, with its backends and their flows.

        Raises:
            NotFoundError: There is none.
        """
        with self._writing() as table:
            table.remove(table.require(service))

    def apply(self, requests: Sequence[VipRequest]) -> None:
        """Have these VIPs and backends, and no longer those that an earlier list had.

        What was made by hand stays, and what is so already is not touched.

        Raises:
            UsageError: They do not fit together; nothing has changed.
            KernelRefusedError: There is no room; nothing has changed.
        """
        check_requests(requests)
        with self._writing() as table:
            wanted = {request.wanted.service: request for request in requests}
            for slot in table.used():
                if table.is_of_policy(slot) and table.service(slot) not in wanted:
                    table.remove(slot)
            for request in requests:
                self._apply_one(table, request)

    def _apply_one(self, table: VipTable, request: VipRequest) -> None:
        slot = table.slot_of(request.wanted.service)
        if slot is None:
            slot = table.add(request.wanted)
        wanted = {backend.service: backend for backend in request.backends}
        for number in table.backends_of(slot):
            if table.is_backend_of_policy(number) and table.backend(number).service not in wanted:
                table.remove_backend(number)
        self._change_vip(table, slot, request.wanted)
        for backend in request.backends:
            held = table.backend_slot_of(slot, backend.service)
            number = table.add_backend(slot, backend) if held is None else held
            table.change_backend(number, backend)
            table.mark_backend_of_policy(number)
        table.mark_of_policy(slot)

    # Backends

    def add_backend(self, vip: Service, wanted: Backend) -> None:
        """Put a backend behind a VIP.

        Raises:
            NotFoundError: There is no such VIP.
            UsageError: It is there already, or does not fit the VIP.
            KernelRefusedError: There is no room.
        """
        with self._writing() as table:
            slot = table.require(vip)
            check_backend(table.vip(slot), wanted)
            table.add_backend(slot, wanted)

    def set_backends(self, vip: Service, changes: Mapping[Service, Mapping[str, Any]]) -> None:
        """Change backends of one VIP in one act, by the names of `Backend`.

        Raises:
            NotFoundError: There is no such VIP, or no such backend.
            UsageError: A value is out of range.
        """
        with self._writing() as table:
            slot = table.require(vip)
            for service, change in changes.items():
                number = table.require_backend(slot, service)
                wanted = replace(table.backend(number), **change)
                check_backend(table.vip(slot), wanted)
                table.change_backend(number, wanted)

    def delete_backend(self, vip: Service, backend: Service) -> None:
        """Take a backend away; its flows are moved at their next packet.

        Raises:
            NotFoundError: There is no such VIP, or no such backend.
        """
        with self._writing() as table:
            slot = table.require(vip)
            table.remove_backend(table.require_backend(slot, backend))

    # Health

    def set_health(self, vip: Service, backend: Service, healthy: bool | None) -> None:
        """Note what the checks say of a backend; None where nothing checks it any more.

        Raises:
            NotFoundError: There is no such VIP, or no such backend.
        """
        with self._writing() as table:
            slot = table.require(vip)
            number = table.require_backend(slot, backend)
            if balancer_records.healthy(table.backends[number]) == healthy:
                return
            table.set_health(number, healthy)
