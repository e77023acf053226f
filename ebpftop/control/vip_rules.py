# SPDX-License-Identifier: Apache-2.0
"""What VIPs, their backends and their health checks may be."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ebpftop.bpf import layout
from ebpftop.bpf.balancer_records import CHECK_KINDS
from ebpftop.errors import UsageError
from ebpftop.format import printable
from ebpftop.model import (
    ALGORITHMS,
    BACKEND_STATES,
    BALANCING_MODES,
    NO_BACKEND_CHOICES,
    Backend,
    HealthCheck,
    Prefix,
    Service,
    Vip,
)

MOST_WEIGHT = 65_535
SHORTEST_CHECK_S, LONGEST_CHECK_S = 0.1, 3600.0
MOST_CHECKS_IN_A_ROW = 100


@dataclass(frozen=True, slots=True)
class VipRequest:
    """A VIP as a policy wants it."""

    wanted: Vip
    """What it is."""
    backends: Sequence[Backend]
    """Who is behind it."""


def check_requests(requests: Sequence[VipRequest]) -> None:
    """Refuse VIPs that make no sense by themselves or beside each other.

    Raises:
        UsageError: Names the first.
    """
    vips: set[Service] = set()
    for request in requests:
        vip = request.wanted
        check_vip(vip)
        if vip.service in vips:
            raise UsageError(f"there are two VIPs {vip.service}", "take one away")
        vips.add(vip.service)
        backends: set[Service] = set()
        for backend in request.backends:
            check_backend(vip, backend)
            if backend.service in backends:
                raise UsageError(
                    f"{vip.service} has two backends {backend.service.endpoint}", "take one away"
                )
            backends.add(backend.service)
    check_apart(vips, [b.service for request in requests for b in request.backends])


def check_vip(wanted: Vip) -> None:
    """Refuse a VIP that makes no sense by itself.

    Raises:
        UsageError: Names the value and what is right.
    """
    _check_address(wanted.service.address)
    for value, words, what in (
        (wanted.algorithm, ALGORITHMS, "algorithm"),
        (wanted.mode, BALANCING_MODES, "mode"),
        (wanted.no_backend, NO_BACKEND_CHOICES, "choice for no backend"),
    ):
        if value not in words:
            raise UsageError(
                f"'{printable(str(value), 40)}' is no {what}", "one of " + ", ".join(words)
            )
    if wanted.check is not None:
        _check_check(wanted.check)


def _check_address(address: Prefix) -> None:
    parsed = ipaddress.ip_address(str(address))
    if parsed.is_multicast or parsed.is_unspecified or parsed.is_loopback:
        raise UsageError(f"{address} is no address of one host", "use a unicast address")


def _check_check(check: HealthCheck) -> None:
    if check.kind not in CHECK_KINDS[1:]:
        raise UsageError(f"'{printable(check.kind, 40)}' is no kind of check", "tcp or http")
    for name, value_s in (("interval", check.interval_s), ("timeout", check.timeout_s)):
        if not SHORTEST_CHECK_S <= value_s <= LONGEST_CHECK_S:
            raise UsageError(f"a check's {name} is from 100ms to 1h", "say `2s`")
    if check.timeout_s > check.interval_s:
        raise UsageError(
            "a check's timeout is longer than its interval",
            "one check ends before the next begins: make the interval longer",
        )
    for name, value in (("rise", check.rise), ("fall", check.fall)):
        if not 1 <= value <= MOST_CHECKS_IN_A_ROW:
            raise UsageError(f"a check's {name} is from 1 to {MOST_CHECKS_IN_A_ROW}", "say 3")
    if not 0 <= check.port <= 65_535:
        raise UsageError("a check's port is from 1 to 65535", "0 asks the backend's own")
    if not 100 <= check.status <= 599:
        raise UsageError("an HTTP status is from 100 to 599", "say 200")
    for name, text, most in (
        ("path", check.path, layout.CHECK_PATH_BYTES), ("host", check.host, layout.CHECK_HOST_BYTES)
    ):  # fmt: skip
        if not text.isascii() or not text.isprintable() or " " in text or len(text) >= most:
            raise UsageError(
                f"a check's {name} is up to {most - 1} printable ASCII characters without spaces",
                "write others as %XX",
            )
    if not check.path.startswith("/"):
        raise UsageError("a check's path begins with /", "say `/health`")


def check_backend(vip: Vip, wanted: Backend) -> None:
    """Refuse a backend that makes no sense behind a VIP.

    Raises:
        UsageError: Names the value and what is right.
    """
    service = wanted.service
    _check_address(service.address)
    if service.protocol != vip.service.protocol:
        raise UsageError(f"{service} is not of the protocol of {vip.service}")
    if service.address.is_ipv4 != vip.service.address.is_ipv4:
        raise UsageError(
            f"{service.endpoint} is of the other IP version than {vip.service}",
            "packets are not translated between them",
        )
    if vip.mode == "dsr" and service.port != vip.service.port:
        raise UsageError(
            f"in mode dsr a backend has the VIP's port, {vip.service.port}",
            "ports are not rewritten; use --mode nat",
        )
    if not 0 <= wanted.weight <= MOST_WEIGHT:
        raise UsageError(f"a weight is from 0 to {MOST_WEIGHT}", "0 takes no new flows")
    if wanted.state not in BACKEND_STATES:
        raise UsageError(
            f"'{printable(wanted.state, 40)}' is no state", "one of " + ", ".join(BACKEND_STATES)
        )


def check_apart(vips: Iterable[Service], backends: Iterable[Service]) -> None:
    """Refuse a backend at the address of a VIP: what is sent there never comes back here.

    Raises:
        UsageError: Names it.
    """
    addresses = {vip.address: vip for vip in vips}
    for backend in backends:
        if backend.address in addresses:
            raise UsageError(
                f"the backend {backend.endpoint} is at the address of the VIP "
                f"{addresses[backend.address]}",
                "name the backend's own address",
            )
