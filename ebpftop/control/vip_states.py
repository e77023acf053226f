# SPDX-License-Identifier: Apache-2.0
"""VIPs and their backends, as the audit log has them: plain values that can be put back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ebpftop.control.audit import Intent
from ebpftop.control.vip_rules import check_backend, check_vip
from ebpftop.control.vip_table import VipTable
from ebpftop.model import Backend, HealthCheck, Service, Vip

BackendStates = Mapping[str, Mapping[str, Any] | None]
"""By endpoint: what holds for the backend there, None where there is none."""


def vip_state(table: VipTable, service: Service) -> dict[str, Any] | None:
    """Return a VIP by the names of `Vip`, and its backends; None where there is none."""
    slot = table.slot_of(service)
    if slot is None:
        return None
    state = asdict(table.vip(slot))
    del state["service"]
    endpoints = [table.backend(number).service.endpoint for number in table.backends_of(slot)]
    backends = backend_states(table, service, endpoints)
    return state | {"of_policy": table.is_of_policy(slot), "backends": backends}


def backend_states(
    table: VipTable, vip: Service, endpoints: Iterable[str]
) -> dict[str, dict[str, Any] | None]:
    """Return backends of a VIP by the names of `Backend`."""
    slot = table.slot_of(vip)
    return {endpoint: _backend_state(table, slot, vip, endpoint) for endpoint in endpoints}


def _backend_state(
    table: VipTable, slot: int | None, vip: Service, endpoint: str
) -> dict[str, Any] | None:
    service = Service.parse(endpoint, vip.protocol)
    number = None if slot is None else table.backend_slot_of(slot, service)
    if number is None:
        return None
    wanted = table.backend(number)
    return {
        "weight": wanted.weight,
        "state": wanted.state,
        "first_weight": int(table.backends["first_weight"][number]),
        "of_policy": table.is_backend_of_policy(number),
    }


def all_states(table: VipTable) -> dict[str, Any]:
    """Return every VIP, by its service as text."""
    services = [table.service(slot) for slot in table.used()]
    return {str(service): vip_state(table, service) for service in services}


def wanted_vip(service: Service, state: Mapping[str, Any]) -> Vip:
    """Return the VIP that `vip_state` told of."""
    check = state["check"]
    return Vip(
        service,
        algorithm=state["algorithm"],
        mode=state["mode"],
        no_backend=state["no_backend"],
        check=None if check is None else HealthCheck(**check),
    )


def put_back_vip(table: VipTable, service: Service, state: Mapping[str, Any]) -> None:
    """Make a VIP that is gone anew, with its backends.

    Raises:
        EbpftopError: It does not fit any more, or there is no room.
    """
    wanted = wanted_vip(service, state)
    check_vip(wanted)
    slot = table.add(wanted)
    put_back_backends(table, slot, state["backends"])
    if state["of_policy"]:
        table.mark_of_policy(slot)


def put_back_backends(table: VipTable, slot: int, states: BackendStates) -> None:
    """Have these backends as they were, and none where the state is None.

    Raises:
        NotFoundError: One that is to go is gone.
        UsageError: One does not fit the VIP.
        KernelRefusedError: There is no room.
    """
    for endpoint, state in states.items():
        service = Service.parse(endpoint, table.service(slot).protocol)
        if state is None:
            table.remove_backend(table.require_backend(slot, service))
            continue
        wanted = Backend(service, state["weight"], state["state"])
        check_backend(table.vip(slot), wanted)
        number = table.backend_slot_of(slot, service)
        if number is not None:
            table.change_backend(number, wanted)
            continue
        number = table.add_backend(slot, wanted)
        table.backends["first_weight"][number] = state["first_weight"]
        if state["of_policy"]:
            table.mark_backend_of_policy(number)


def values_of(wanted: Vip | Backend) -> dict[str, Any]:
    """Return what is wanted of a VIP or a backend, as JSON has it, without where it is."""
    return {name: value for name, value in asdict(wanted).items() if name != "service"}


def backend_intent(what: str, vip: Service, asked: Mapping[str, Any]) -> Intent:
    """Return an act on backends of one VIP, of which something is asked by endpoint."""
    named = ", ".join(asked) if len(asked) == 1 else f"{len(asked)} backends"
    return Intent(what, "backends", [f"{vip} {named}"], asked)
