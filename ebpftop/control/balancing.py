# SPDX-License-Identifier: Apache-2.0
"""The acts of the load balancer: VIPs, their backends, and what the checks say of those.

Each takes the writer's lock, reads the maps, checks, and puts all of it in force or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from ebpftop.bpf import balancer_records
from ebpftop.control.audit import Intent
from ebpftop.control.flows import ESTABLISHED, UDP, FlowTable
from ebpftop.control.vip_events import changes as changes_of
from ebpftop.control.vip_rules import (
    VipRequest,
    check_apart,
    check_backend,
    check_requests,
    check_vip,
)
from ebpftop.control.vip_states import (
    BackendStates,
    all_states,
    backend_intent,
    backend_states,
    put_back_backends,
    put_back_vip,
    values_of,
    vip_state,
    wanted_vip,
)
from ebpftop.control.vip_table import VipTable
from ebpftop.control.vip_writing import VipWriter
from ebpftop.control.writing import InstanceWriter
from ebpftop.errors import ChangedSinceError, UsageError
from ebpftop.kernel.clock import coarse_ns
from ebpftop.model import CONNECTION_STATES, Backend, Service, Vip


class BalancingControl(InstanceWriter):
    """The acts on one instance, as `control.BalancingControls` says."""

    @cached_property
    def _flows(self) -> FlowTable:
        return FlowTable(self._maps, self._instance.programs["control"])

    @contextmanager
    def _writing(self, intent: Intent, state: Callable[[VipTable], Any]) -> Iterator[VipTable]:
        """Hold the writer's lock over one act, and record it; see `_committed`.

        Args:
            intent: The act.
            state: Returns the state of its target, as JSON has it.
        """
        with (
            self._locked(),
            self._recording(intent, lambda: state(VipTable(self._maps))),
            self._committed() as table,
        ):
            yield table

    @contextmanager
    def _committed(self) -> Iterator[VipTable]:
        """Have what is changed put in force where nothing fails."""
        table = VipTable(self._maps)
        yield table
        used = table.used()
        numbers = [number for slot in used for number in table.backends_of(slot)]
        check_apart(map(table.service, used), [table.backend(n).service for n in numbers])
        if table.reused:
            self._flows.end_of_backends(table.reused)
        VipWriter(self._maps).commit(table)
        gone = set(table.before[0]["id"].tolist()) - set(table.slots["id"].tolist())
        if gone:
            self._flows.end_of_vips(gone)
        for kind, backend, vip, *values in changes_of(table):
            self._tell(kind, backend.address, str(vip), backend.port, *values)

    def _writing_vip(self, intent: Intent, service: Service) -> AbstractContextManager[VipTable]:
        return self._writing(intent, lambda table: vip_state(table, service))

    def _writing_backends(
        self, intent: Intent, vip: Service, endpoints: Iterable[str]
    ) -> AbstractContextManager[VipTable]:
        return self._writing(intent, lambda table: backend_states(table, vip, endpoints))

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
        intent = Intent("vip add", "vip", [str(wanted.service)], values_of(wanted))
        with self._writing_vip(intent, wanted.service) as table:
            check_vip(wanted)
            table.add(wanted)

    def set_vip(self, service: Service, changes: Mapping[str, Any]) -> None:
        """Change some of a VIP by the names of `Vip`, and keep the rest and its flows.

        Raises:
            NotFoundError: There is none.
            UsageError: A value is out of range, or flows stand against another mode.
        """
        values = msgspec.to_builtins(dict(changes))
        intent = Intent("vip set", "vip", [str(service)], values)
        with self._writing_vip(intent, service) as table:
            slot = table.require(service)
            self._change_vip(table, slot, replace(table.vip(slot), **changes))

    def _change_vip(self, table: VipTable, slot: int, wanted: Vip) -> None:
        check_vip(wanted)
        if table.vip(slot).mode != wanted.mode:
            self._refuse_flows(table, slot)
        for number in table.backends_of(slot):
            check_backend(wanted, table.backend(number))
        table.change(slot, wanted)

    def _refuse_flows(self, table: VipTable, slot: int) -> None:
        """Refuse another mode while there are flows: their servers would not know them."""
        counts = self._maps["backend_flows"].read()[1].astype(np.int64)
        flows = sum(int(counts[number]) for number in table.backends_of(slot))
        if flows > 0:
            raise UsageError(
                f"{table.service(slot)} has {flows} flows, which another mode would cut",
                "drain its backends first, or delete the VIP and add it again",
            )

    def delete_vip(self, service: Service) -> None:
        """Take a VIP away, with its backends and their flows.

        Raises:
            NotFoundError: There is none.
        """
        with self._writing_vip(Intent("vip del", "vip", [str(service)]), service) as table:
            table.remove(table.require(service))

    def restore_vip(
        self, service: Service, state: Mapping[str, Any] | None, intent: Intent
    ) -> None:
        """Have a VIP as an earlier state says, or none; errors as of the acts.

        One that is made anew gets its backends back; one that is there keeps those it has.

        Raises:
            ChangedSinceError: It is to go, and has got backends since.
        """
        with self._writing_vip(intent, service) as table:
            if state is None:
                slot = table.require(service)
                known = (intent.expected or {}).get("backends", {})
                held = [table.backend(number).service for number in table.backends_of(slot)]
                if not intent.forced and any(each.endpoint not in known for each in held):
                    raise ChangedSinceError(
                        f"{service} has got backends since", "--force takes them away with it"
                    )
                table.remove(slot)
            elif (there := table.slot_of(service)) is not None:
                self._change_vip(table, there, wanted_vip(service, state))
            else:
                put_back_vip(table, service, state)

    def state(self) -> Any:
        """Return every VIP with its backends, as JSON has it."""
        return all_states(VipTable(self._maps))

    def apply(self, requests: Sequence[VipRequest]) -> None:
        """Have these VIPs and backends, and no longer those that an earlier list had.

        What was made by hand stays, and what is so already is not touched.

        Raises:
            UsageError: They do not fit together; nothing has changed.
            KernelRefusedError: There is no room; nothing has changed.
        """
        check_requests(requests)
        with self._writing(Intent("vips"), all_states) as table:
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
        endpoint = wanted.service.endpoint
        intent = backend_intent("backend add", vip, {endpoint: values_of(wanted)})
        with self._writing_backends(intent, vip, [endpoint]) as table:
            slot = table.require(vip)
            check_backend(table.vip(slot), wanted)
            table.add_backend(slot, wanted)

    def set_backends(self, vip: Service, changes: Mapping[Service, Mapping[str, Any]]) -> None:
        """Change backends of one VIP in one act, by the names of `Backend`.

        Raises:
            NotFoundError: There is no such VIP, or no such backend.
            UsageError: A value is out of range.
        """
        asked = {service.endpoint: dict(change) for service, change in changes.items()}
        intent = backend_intent("backend set", vip, asked)
        with self._writing_backends(intent, vip, asked) as table:
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
        intent = backend_intent("backend del", vip, {backend.endpoint: None})
        with self._writing_backends(intent, vip, [backend.endpoint]) as table:
            slot = table.require(vip)
            table.remove_backend(table.require_backend(slot, backend))

    def restore_backends(self, vip: Service, states: BackendStates, intent: Intent) -> None:
        """Have backends of a VIP as an earlier state says; errors as of the acts."""
        with self._writing_backends(intent, vip, states) as table:
            put_back_backends(table, table.require(vip), states)

    # Health

    def set_health(self, vip: Service, backend: Service, healthy: bool | None) -> None:
        """Note what the checks say of a backend; None where nothing checks it any more.

        Raises:
            NotFoundError: There is no such VIP, or no such backend.
        """
        with self._locked(), self._committed() as table:
            slot = table.require(vip)
            number = table.require_backend(slot, backend)
            if balancer_records.healthy(table.backends[number]) == healthy:
                return
            table.set_health(number, healthy)

    # What the process that holds the instance does from time to time

    def sweep(self) -> None:
        """End flows that are over, put their counts right, and mend what a killed writer left."""
        with self._locked():
            table = VipTable(self._maps)
            VipWriter(self._maps).commit(table)
            config = table.config[0]
            idle_ns = dict.fromkeys(range(len(CONNECTION_STATES)), int(config["tcp_opening_ns"]))
            idle_ns[ESTABLISHED] = int(config["tcp_idle_ns"])
            idle_ns[UDP] = int(config["udp_idle_ns"])
            known = table.slots["id"][table.used()].tolist()
            self._flows.sweep(known, idle_ns, coarse_ns())
