# SPDX-License-Identifier: Apache-2.0
"""Verbs of the load balancer that change it: vip, backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from ebpftop.cli.parameters import (
    COUNT,
    DURATION,
    INTERFACE,
    REVERT_AFTER,
    SERVICE,
    Duration,
    controlled,
)
from ebpftop.errors import UsageError
from ebpftop.format import parse_service
from ebpftop.model import (
    ALGORITHMS,
    BACKEND_STATES,
    BALANCING_MODES,
    NO_BACKEND_CHOICES,
    Backend,
    HealthCheck,
    Service,
    Vip,
)

VIP = click.argument("vip", metavar="VIP", type=SERVICE)
BACKEND = click.argument("backend", metavar="BACKEND")
_CHECK = "check_"


def _vip_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--algorithm", type=click.Choice(ALGORITHMS),
                     help="How new flows are placed; wrr where nothing is said."),
        click.option("--mode", type=click.Choice(BALANCING_MODES),
                     help="nat rewrites addresses; dsr leaves them, and backends own the VIP."),
        click.option("--no-backend", type=click.Choice(NO_BACKEND_CHOICES),
                     help="Where no backend lives: drop, or use all as if all lived."),
        click.option("--check", "check_kind", type=click.Choice(["tcp", "http", "off"]),
                     help="How backends are asked whether they live."),
        click.option("--check-interval", "check_interval_s", type=DURATION, help="As in 2s."),
        click.option("--check-timeout", "check_timeout_s", type=DURATION, help="As in 500ms."),
        click.option("--check-rise", type=COUNT, help="So many right answers: it lives."),
        click.option("--check-fall", type=COUNT, help="So many failures: it does not."),
        click.option("--check-port", type=COUNT, help="0 asks the backend's own."),
        click.option("--check-path", metavar="PATH", help="What an HTTP request asks for."),
        click.option("--check-host", metavar="NAME", help="What it names as its host."),
        click.option("--check-status", type=COUNT, help="The right answer, as 200."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _changes(given: dict[str, Any], held: HealthCheck | None) -> dict[str, Any]:
    """Return what was given by the names of `Vip`, its check made of the one that is held."""
    told = {
        name: value.seconds if isinstance(value, Duration) else value
        for name, value in given.items()
        if value is not None
    }
    check: dict[str, Any] = {
        name.removeprefix(_CHECK): told.pop(name) for name in list(told) if name.startswith(_CHECK)
    }
    if any(value is None for value in check.values()):
        raise UsageError("a check cannot take for ever", "say a time, as in 2s")
    if check.get("kind") == "off":
        if len(check) > 1:
            raise UsageError("--check off has nothing to set", "leave the other --check options")
        return told | {"check": None}
    if check and held is None and "kind" not in check:
        raise UsageError("its backends are not checked", "say --check tcp or --check http too")
    return told | ({"check": replace(held or HealthCheck(), **check)} if check else {})


@click.group()
def vip() -> None:
    """Make, change and delete VIPs: addresses that a load balancer stands behind."""


@vip.command(name="add")
@INTERFACE
@VIP
@_vip_options
def add_vip(iface: str, vip: Service, **given: Any) -> None:
    """Make a VIP; `backend add` puts servers behind it."""
    wanted = replace(Vip(vip), **_changes(given, None))
    with controlled(iface) as control:
        control.balancing.add_vip(wanted)


@vip.command(name="set")
@INTERFACE
@VIP
@_vip_options
@REVERT_AFTER
def set_vip(iface: str, vip: Service, revert_after: Duration | None, **given: Any) -> None:
    """Change what is given of a VIP; its flows stay."""
    if all(value is None for value in given.values()):
        raise UsageError("vip set changes nothing", "say --algorithm, --mode, --check, ...")
    with controlled(iface, revert_after) as control:
        control.balancing.set_vip(vip, _changes(given, control.balancing.vip(vip).check))


@vip.command(name="del")
@INTERFACE
@VIP
def delete_vip(iface: str, vip: Service) -> None:
    """Delete a VIP, with its backends and their flows."""
    with controlled(iface) as control:
        control.balancing.delete_vip(vip)


@click.group()
def backend() -> None:
    """Put backends behind a VIP, change them and take them away."""


WEIGHT = click.option("--weight", type=COUNT, help="Its share of new flows; 0 takes none.")
STATE = click.option(
    "--state", type=click.Choice(BACKEND_STATES),
    help="drain keeps flows and takes no new ones; down moves them.",
)  # fmt: skip


def _given(weight: int | None, state: str | None) -> dict[str, Any]:
    given = {"weight": weight, "state": state}
    return {name: value for name, value in given.items() if value is not None}


@backend.command(name="add")
@INTERFACE
@VIP
@BACKEND
@WEIGHT
@STATE
def add_backend(
    iface: str, vip: Service, backend: str, weight: int | None, state: str | None
) -> None:
    """Put a backend behind a VIP."""
    service = parse_service(backend, vip.protocol)
    with controlled(iface) as control:
        control.balancing.add_backend(vip, replace(Backend(service), **_given(weight, state)))


@backend.command(name="set")
@INTERFACE
@VIP
@BACKEND
@WEIGHT
@STATE
@REVERT_AFTER
def set_backend(
    iface: str,
    vip: Service,
    backend: str,
    weight: int | None,
    state: str | None,
    revert_after: Duration | None,
) -> None:
    """Change what is given of a backend."""
    service, changes = parse_service(backend, vip.protocol), _given(weight, state)
    if not changes:
        raise UsageError("backend set changes nothing", "say --weight or --state")
    with controlled(iface, revert_after) as control:
        control.balancing.set_backends(vip, {service: changes})


@backend.command(name="del")
@INTERFACE
@VIP
@BACKEND
def delete_backend(iface: str, vip: Service, backend: str) -> None:
    """Take a backend away; its flows are moved at their next packet."""
    service = parse_service(backend, vip.protocol)
    with controlled(iface) as control:
        control.balancing.delete_backend(vip, service)
