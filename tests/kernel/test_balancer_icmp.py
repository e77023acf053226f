# SPDX-License-Identifier: Apache-2.0
"""ICMP errors about balanced flows reach who they are for, in the addresses that one knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from tests.kernel.balancer import OWN_MAC, PASS, TX, Balancer, End, Vip, backend_mac, l3_offset
from tests.kernel.frames import CLIENT_MAC, VIP_MAC, Shape
from tests.kernel.packets import TCP, UDP
from tests.kernel.pipeline import Pipeline

pytestmark = pytest.mark.kernel

VIPS = {
    (4, TCP): End("198.51.100.10", 80), (4, UDP): End("198.51.100.10", 53, UDP),
    (6, TCP): End("2001:db8:f::10", 80), (6, UDP): End("2001:db8:f::10", 53, UDP),
}  # fmt: skip
BACKENDS = {4: "10.0.0.1", 6: "2001:db8:b::1"}
CLIENTS = {4: "192.0.2.1", 6: "2001:db8:c::1"}
ROUTERS = {4: "203.0.113.1", 6: "2001:db8:e::1"}
KINDS: dict[int, dict[str, Any]] = {
    4: {
        "too-big": ICMP(type=3, code=4, nexthopmtu=1400), "unreachable": ICMP(type=3, code=3),
        "expired": ICMP(type=11),
    },
    6: {
        "too-big": ICMPv6PacketTooBig(mtu=1400), "unreachable": ICMPv6DestUnreach(code=4),
        "expired": ICMPv6TimeExceeded(),
    },
}  # fmt: skip


class Flow:
    """One open flow, and errors about it."""

    def __init__(self, balancer: Balancer, version: int, protocol: int, *, dsr: bool = False):
        self.balancer, self.version = balancer, version
        self.end = VIPS[version, protocol]
        self.backend = End(BACKENDS[version], 8080, protocol)
        if dsr:
            self.backend = replace(self.end, address=BACKENDS[version])
        self.client = End(CLIENTS[version], 40000, protocol)
        self.vip: Vip = balancer.vip(self.end, [self.backend], dsr=dsr)
        assert balancer.run(Shape(self.client, self.end, "S").to_bytes())[0] == TX
        if not dsr:
            assert balancer.run(Shape(self.backend, self.client, "SA").to_bytes())[0] == TX

    def error(
        self, kind: str, quoted: bytes, source: str, target: str, *, hop_limit: int = 64,
        macs: tuple[str, str] = (CLIENT_MAC, VIP_MAC), vlan: int = 0,
    ) -> bytes:  # fmt: skip
        """An error in its frame, every checksum by scapy."""
        network = (
            IP(src=source, dst=target, ttl=hop_limit, id=99)
            if self.version == 4
            else IPv6(src=source, dst=target, hlim=hop_limit)
        )
        frame = Ether(src=macs[0], dst=macs[1])
        if vlan:
            frame /= Dot1Q(vlan=vlan)
        return bytes(frame / network / KINDS[self.version][kind] / Raw(quoted))


def quoted(shape: Shape, length: int | None = None) -> bytes:
    frame = shape.to_bytes()
    return frame[l3_offset(frame) :][:length]


@pytest.fixture
def balancer(pipeline: Pipeline) -> Balancer:
    return Balancer(pipeline)


SHORTEST = {4: 28, 6: 48}


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", ["too-big", "unreachable", "expired"])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_an_error_about_a_reply_reaches_the_backend(
    balancer: Balancer, version: int, protocol: int, kind: str, cut: bool
) -> None:
    flow = Flow(balancer, version, protocol)
    length = SHORTEST[version] if cut else None
    seen = Shape(flow.end, flow.client, "PA", b"data!")
    meant = replace(seen, source=flow.backend)
    if cut and protocol == TCP:
        length = SHORTEST[version]
    told = flow.error(kind, quoted(seen, length), ROUTERS[version], flow.end.address)
    there = flow.error(
        kind, quoted(meant, length), ROUTERS[version], flow.backend.address, hop_limit=63,
        macs=(OWN_MAC.hex(":"), backend_mac(1).hex(":")),
    )  # fmt: skip
    assert balancer.run(told) == (TX, there)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", ["too-big", "unreachable", "expired"])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("from_backend", [True, False])
def test_an_error_about_a_request_reaches_the_client(
    balancer: Balancer, version: int, protocol: int, kind: str, cut: bool, from_backend: bool
) -> None:
    flow = Flow(balancer, version, protocol)
    length = SHORTEST[version] if cut else None
    seen = Shape(flow.client, flow.backend, "PA", b"data!")
    meant = replace(seen, destination=flow.end)
    source = flow.backend.address if from_backend else ROUTERS[version]
    told = flow.error(kind, quoted(seen, length), source, flow.client.address)
    there = flow.error(
        kind, quoted(meant, length), flow.end.address if from_backend else source,
        flow.client.address, hop_limit=63, macs=(VIP_MAC, CLIENT_MAC),
    )  # fmt: skip
    assert balancer.run(told) == (TX, there)


def test_an_unused_udp_checksum_stays_unused_in_a_quotation(balancer: Balancer) -> None:
    flow = Flow(balancer, 4, UDP)
    seen = Shape(flow.client, flow.backend, payload=b"x", no_checksum=True)
    told = flow.error("unreachable", quoted(seen), flow.backend.address, flow.client.address)
    there = flow.error(
        "unreachable", quoted(replace(seen, destination=flow.end)), flow.end.address,
        flow.client.address, hop_limit=63, macs=(VIP_MAC, CLIENT_MAC),
    )  # fmt: skip
    assert balancer.run(told) == (TX, there)


def test_with_dsr_an_error_reaches_the_backend_as_it_is(balancer: Balancer) -> None:
    flow = Flow(balancer, 4, TCP, dsr=True)
    seen = quoted(Shape(flow.end, flow.client, "PA", b"data!"))
    told = flow.error("too-big", seen, ROUTERS[4], flow.end.address)
    there = flow.error("too-big", seen, ROUTERS[4], flow.end.address,
                       macs=(OWN_MAC.hex(":"), backend_mac(1).hex(":")))  # fmt: skip
    assert balancer.run(told) == (TX, there)


def test_errors_about_nothing_balanced_are_untouched(balancer: Balancer) -> None:
    flow = Flow(balancer, 4, TCP)
    reply = Shape(flow.end, flow.client, "PA")
    others = [
        (replace(reply, destination=replace(flow.client, port=1)), flow.end.address),
        (replace(reply, source=replace(flow.end, port=81)), flow.end.address),
        (Shape(flow.client, replace(flow.backend, port=81)), flow.client.address),
        (replace(reply, options=True), flow.end.address),
        (replace(reply, fragment=7), flow.end.address),
        # The outer destination is not the quoted source: nobody's packet.
        (reply, "198.51.100.77"),
    ]
    for shape, target in others:
        frame = flow.error("unreachable", quoted(shape), ROUTERS[4], target)
        assert balancer.run(frame) == (PASS, frame)


def test_truncated_quotations_and_echoes_pass(balancer: Balancer) -> None:
    flow = Flow(balancer, 4, TCP)
    reply = quoted(Shape(flow.end, flow.client, "PA"))
    for length in range(28):
        frame = flow.error("unreachable", reply[:length], ROUTERS[4], flow.end.address)
        assert balancer.run(frame) == (PASS, frame)
    for frame in (
        bytes(Ether() / IP(src=ROUTERS[4], dst=flow.end.address) / ICMP() / Raw(reply)),
        bytes(Ether() / IPv6(src=ROUTERS[6], dst=BACKENDS[6]) / ICMPv6EchoRequest()),
    ):
        assert balancer.run(frame) == (PASS, frame)


def test_errors_are_counted_by_verdict_and_not_as_the_vips_packets(balancer: Balancer) -> None:
    flow = Flow(balancer, 4, TCP)
    seen = quoted(Shape(flow.end, flow.client, "PA", b"data!"))
    before = balancer.counts("vip_stats", 0)
    balancer.run(flow.error("too-big", seen, ROUTERS[4], flow.end.address))
    assert balancer.counts("vip_stats", 0) == before
    assert balancer.pipeline.totals()["others"] == 3
