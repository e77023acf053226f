# SPDX-License-Identifier: Apache-2.0
"""The trace: what it shows of real packets, what it costs them, and how it always ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet as Layers
from scapy.packet import Raw

from ebpftop.control.trace_filter import TraceFilter
from ebpftop.control.tracing import Trace
from ebpftop.errors import EbpftopError
from ebpftop.kernel import libbpf, variants
from ebpftop.kernel.instance import PIPELINE, linked_interfaces
from ebpftop.kernel.netlink.links import netlink
from ebpftop.lab import joined
from ebpftop.model import Limits, Prefix, TracedPacket
from tests.kernel.stage import IFACE, Stage, child, ebpftop, staged, until

pytestmark = pytest.mark.kernel

EVERYBODY = "ff:ff:ff:ff:ff:ff"
SENDER = "10.77.0.1"
OURS = "source:10.77.0.0/16"


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=1) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Stage:
    attached.clear()
    return attached


@pytest.fixture
def wire(stage: Stage) -> Iterator[Callable[[Layers], None]]:
    """Sends frames from the client's end, to everybody."""
    host = stage.lab.clients[0]
    with joined(host), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        opened.bind((host.interface, 0))
        yield lambda layers: void(opened.send(bytes(Ether(dst=EVERYBODY) / layers)))


def void(_: object) -> None:
    """Swallow a value."""


@contextmanager
def tracing(stage: Stage, expression: str = OURS, rate: int = 10_000) -> Iterator[Trace]:
    trace = Trace(stage.instance, TraceFilter.parse(expression), rate=rate)
    try:
        yield trace
    finally:
        trace.stop()


def taken(trace: Trace, count: int) -> list[TracedPacket]:
    """Wait for so many packets, and end the trace; no more may have come."""
    found: list[TracedPacket] = []
    until(lambda: found.extend(trace.take(0.05)) or len(found) >= count)
    trace.stop()
    found += trace.take()
    assert len(found) == count
    return found


def program_on() -> str:
    with netlink() as opened:
        fd = libbpf.program_fd(opened.link(IFACE).xdp_program)
    try:
        return libbpf.program_info(fd).name
    finally:
        import os

        os.close(fd)


def test_the_trace_shows_the_packets_that_were_sent_as_they_came(
    stage: Stage, wire: Callable[[Layers], None]
) -> None:
    trace = Trace(stage.instance, TraceFilter.parse(OURS), rate=10_000)
    sent = [
        IP(src="10.77.0.1") / TCP(sport=1000, dport=80, flags="S"),
        IP(src="10.77.0.2") / UDP(sport=53, dport=54) / Raw(bytes(range(256))),
        IP(src="10.77.0.3") / ICMP(),
    ]
    for layers in sent:
        wire(layers)
    found = taken(trace, 3)
    print(found)
