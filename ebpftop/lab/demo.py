# SPDX-License-Identifier: Apache-2.0
"""The demo's traffic: a web server, steady clients, and soon after them a flood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from ebpftop.lab.network import Lab
from ebpftop.lab.traffic import Job, flood, request_http, serve_http

_REQUEST_RATES = (20.0, 35.0, 50.0)
_FLOOD_DELAY_S = 1.5
_FLOOD_PPS = 50_000


@dataclass(frozen=True, slots=True)
class ClientReport:
    """How one innocent client fared."""

    address: str
    """Its address."""
    requests: int
    """Requests that were answered or failed."""
    failed: int
    """Those of them without a whole answer in time."""
    p50_ms: float | None
    """Half of the answers took no longer; None without an answer."""
    p99_ms: float | None
    """99 of 100 answers took no longer; None without an answer."""


@dataclass(frozen=True, slots=True)
class FloodReport:
    """What the attacker did."""

    address: str
    """Its address."""
    sent_packets: int
    """Packets it sent."""


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """What became of a demo's traffic."""

    clients: list[ClientReport]
    """The innocent."""
    flood: FloodReport
    """The attack."""


class Traffic:
    """The demo's traffic while it runs."""

    def __init__(self, server: Job, clients: Sequence[tuple[str, Job]], flood: tuple[str, Job]):
        self._server = server
        self._clients = clients
        self._flood = flood

    def stop(self) -> TrafficReport:
        """End all traffic and say what became of it; more calls return the same.

        Raises:
            EbpftopError: A process of it had failed.
        """
        address, flood = self._flood
        for job in [*(job for _, job in self._clients), flood]:
            job.tell_to_stop()
        clients = [ClientReport(address=name, **job.stop()) for name, job in self._clients]
        sent_packets = flood.stop()["sent_packets"]
        self._server.stop()
        return TrafficReport(clients, FloodReport(address, sent_packets))


def start_demo_traffic(lab: Lab, *, flood_seconds: float = 3600.0) -> Traffic:
    """Start a web server, a client on each client host, and soon after a flood of UDP.

    The last client uses IPv6. All of it ends with `Traffic.stop` or with the lab.

    Args:
        lab: Where.
        flood_seconds: When the flood ends by itself.

    Raises:
        EbpftopError: A process of it failed.
    """
    server = serve_http(lab.server)
    server.wait_ready()
    clients = []
    for host, rate in zip(lab.clients, cycle(_REQUEST_RATES), strict=False):
        v6 = host is lab.clients[-1]
        target, address = (lab.server.ipv6, host.ipv6) if v6 else (lab.server.ipv4, host.ipv4)
        clients.append((address, request_http(host, target, rate)))
    attack = flood(
        lab.attacker,
        lab.server,
        "udp",
        pps=_FLOOD_PPS,
        seconds=flood_seconds,
        delay_s=_FLOOD_DELAY_S,
    )
    for _, job in clients:
        job.wait_ready()
    attack.wait_ready()
    return Traffic(server, clients, (lab.attacker.ipv4, attack))
