# SPDX-License-Identifier: Apache-2.0
"""The demo's traffic: servers, steady clients, a download, a flood, and what is balanced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from ebpftop.lab import farm
from ebpftop.lab.network import Lab
from ebpftop.lab.traffic import (
    Job,
    Outages,
    flood,
    load_http,
    request_http,
    serve_bulk,
    serve_http,
    transfer_bulk,
)

_REQUEST_RATES = (20.0, 35.0, 50.0)
_FLOOD_DELAY_S = 1.5
DOWNLOADER = "198.19.11.1"
"""Address of the first client host from which a download runs all the time."""
DEMO_BACKENDS = ("192.0.2.71", "192.0.2.72", "192.0.2.73")
"""Addresses of the servers behind the VIP."""
_FLOOD_PPS = 50_000
_OUTAGES = Outages(after_s=2.5, for_s=2.0, every_s=20.0)
"""Of the second server behind the VIP."""
_VIP_CONNECTIONS = 8
_VIP_REQUESTS = 4
_VIP_PAUSE_S = 0.1


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
class DownloadReport:
    """What the download brought."""

    address: str
    """Its address."""
    bytes: int
    """Bytes that arrived, headers left out."""


@dataclass(frozen=True, slots=True)
class BalancedReport:
    """How the clients of the VIP fared."""

    vip: str
    """Its address."""
    requests: int
    """Requests that were answered or failed."""
    failed: int
    """Those that failed: what was sent to a server before it was known to have failed."""
    servers: dict[str, int]
    """Connections by the server that answered."""


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """What became of a demo's traffic."""

    clients: list[ClientReport]
    """The innocent."""
    flood: FloodReport
    """The attack."""
    download: DownloadReport
    """The long transfer."""
    balanced: BalancedReport | None
    """What went through the VIP; None in a lab without backends."""


class Traffic:
    """The demo's traffic while it runs."""

    def __init__(
        self,
        servers: Sequence[Job],
        clients: Sequence[tuple[str, Job]],
        flood: tuple[str, Job],
        download: Job,
        balanced: Job | None,
    ) -> None:
        self._servers = servers
        self._clients = clients
        self._flood = flood
        self._download = download
        self._balanced = balanced

    def stop(self) -> TrafficReport:
        """End all traffic and say what became of it; more calls return the same.

        Raises:
            EbpftopError: A process of it had failed.
        """
        address, flood = self._flood
        for job in [*(job for _, job in self._clients), flood, self._download, self._balanced]:
            if job:
                job.tell_to_stop()
        clients = [ClientReport(address=name, **job.stop()) for name, job in self._clients]
        sent_packets = flood.stop()["sent_packets"]
        brought = self._download.stop()["bytes"]
        balanced = _balanced_report(self._balanced.stop()) if self._balanced else None
        for server in self._servers:
            server.stop()
        return TrafficReport(
            clients,
            FloodReport(address, sent_packets),
            DownloadReport(DOWNLOADER, brought),
            balanced,
        )


def demo_lab() -> Lab:
    """Build the lab that the demo runs on."""
    return Lab(backends=len(DEMO_BACKENDS))


def _balanced_report(answers: Mapping[str, Any]) -> BalancedReport:
    servers = dict(sorted(answers["servers"].items()))
    return BalancedReport(farm.VIP4, answers["requests"], answers["failed"], servers)


def _load_vip(lab: Lab) -> Job:
    return load_http(
        lab.clients[0],
        farm.VIP4,
        parallel=_VIP_CONNECTIONS,
        requests=_VIP_REQUESTS,
        pause_s=_VIP_PAUSE_S,
        timeout_s=2.0,
    )


def start_demo_traffic(lab: Lab, *, flood_seconds: float = 3600.0) -> Traffic:
    """Start servers, a client on each client host, a download, and soon after a flood of UDP.

    The last client uses IPv6. The first loads the VIP too; of the servers behind that, the
    second fails and returns. All of it ends with `Traffic.stop` or with the lab.

    Args:
        lab: Where.
        flood_seconds: When the flood ends by itself.

    Raises:
        EbpftopError: A process of it failed.
    """
    servers = [serve_http(lab.server), serve_bulk(lab.server)]
    servers += [
        serve_http(host, _OUTAGES if number == 1 else None)
        for number, host in enumerate(lab.backends)
    ]
    for server in servers:
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
    first = lab.clients[0]
    first.add_addresses(1)
    download = transfer_bulk(first, lab.server.ipv4, source=DOWNLOADER)
    balanced = _load_vip(lab) if lab.backends else None
    for job in [*(job for _, job in clients), attack, download, balanced]:
        if job:
            job.wait_ready()
    return Traffic(servers, clients, (lab.attacker.ipv4, attack), download, balanced)
