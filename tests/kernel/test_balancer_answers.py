# SPDX-License-Identifier: Apache-2.0
"""Packets too large for their way, or on their last hop, are answered in the VIP's name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from ebpftop.bpf.layout import Flag
from tests.kernel.balancer import (
    DROP,
    ELSEWHERE,
    OWN_MAC,
    PASS,
    REDIRECT,
    TX,
    Balancer,
    End,
    Vip,
    backend_mac,
    l3_offset,
)
from tests.kernel.frames import CLIENT_MAC, PRIORITY, VIP_MAC, Shape
from tests.kernel.packets import TCP, UDP
from tests.kernel.pipeline import Pipeline

pytestmark = pytest.mark.kernel

MTU = 1400
HEADERS = {(4, TCP): 40, (4, UDP): 28, (6, TCP): 60, (6, UDP): 48}
QUOTES, SHORT_QUOTES = {4: 548, 6: 1232}, {4: 28, 6: 48}
DONT_FRAGMENT = 0x4000
ERRORS_A_WINDOW = 128


@pytest.fixture
def balancer(pipeline: Pipeline) -> Balancer:
    return Balancer(pipeline)


def ends(version: int, protocol: int = TCP) -> tuple[End, End, End]:
    """A client, a VIP and its backend."""
    if version == 4:
        return (
            End("192.0.2.1", 40000, protocol),
            End("198.51.100.10", 80, protocol),
            End("10.0.0.1", 8080, protocol),
        )
    return (
        End("2001:db8:c::1", 40000, protocol),
        End("2001:db8:f::10", 80, protocol),
        End("2001:db8:b::1", 8080, protocol),
    )


def narrowed(balancer: Balancer, version: int, protocol: int = TCP, *, vlan: int = 0) -> Vip:
    """A VIP whose one backend is behind a link of MTU bytes."""
    _, served, backend = ends(version, protocol)
    vip = balancer.vip(served, [backend])
    balancer.write_backend(vip, 1, mtu=MTU, vlan=vlan)
    return vip


def large(version: int, protocol: int = TCP, size: int = MTU + 1, **fields: Any) -> Shape:
    """A packet of a client's that may not be cut, of so many bytes from its IP header on."""
    client, served, _ = ends(version, protocol)
    payload = bytes(number % 251 for number in range(size - HEADERS[version, protocol]))
    fragment = DONT_FRAGMENT if version == 4 else 0
    return replace(Shape(client, served, "S", payload, fragment=fragment), **fields)


def answer(
    sent: Shape, error: Packet, source: str, *, macs: tuple[str, str] = (VIP_MAC, CLIENT_MAC)
) -> bytes:
    """The error that should come back, every checksum by scapy."""
    version, frame = sent.source.version, sent.to_bytes()
    whole = frame[l3_offset(frame) :]
    length = QUOTES[version] if len(whole) >= QUOTES[version] else SHORT_QUOTES[version]
    if version == 4:
        network = IP(src=source, dst=sent.source.address, tos=0xC0, id=0, flags="DF", ttl=64)
    else:
        network = IPv6(src=source, dst=sent.source.address, hlim=64)
    link = Ether(src=macs[0], dst=macs[1])
    for vlan in sent.vlans:
        link /= Dot1Q(vlan=vlan, prio=PRIORITY)
    return bytes(link / network / error / Raw(whole[:length]))


def too_big(version: int, mtu: int = MTU) -> Packet:
    return ICMP(type=3, code=4, nexthopmtu=mtu) if version == 4 else ICMPv6PacketTooBig(mtu=mtu)


def expired(version: int) -> Packet:
    return ICMP(type=11) if version == 4 else ICMPv6TimeExceeded()


@pytest.mark.parametrize("tags", [(), (42,), (42, 7)])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_larger_than_the_backends_link_is_answered_from_the_vip(
    balancer: Balancer, version: int, protocol: int, tags: tuple[int, ...]
) -> None:
    vlan = len(tags) << 12 | (tags[0] if tags else 0)
    narrowed(balancer, version, protocol, vlan=vlan)
    _, served, backend = ends(version, protocol)
    for size in (MTU + 1, MTU + 99, 1500, 3000):
        sent = large(version, protocol, size, vlans=tags)
        wanted = answer(sent, too_big(version), served.address)
        assert balancer.run(sent.to_bytes()) == (TX, wanted)
        assert balancer.run(sent.to_bytes() + b"padding") == (TX, wanted)
    fitting = large(version, protocol, MTU, vlans=tags)
    there = fitting.to(backend, macs=(OWN_MAC, backend_mac(1)))
    assert balancer.run(fitting.to_bytes()) == (TX, there.to_bytes())
    assert balancer.answered() == {"too-big": 8}
    counted = balancer.counts("vip_stats", 0)
    assert (counted["packets"], counted["dropped"]) == (9, 8)
    assert balancer.counts("backend_stats", 1)["packets"] == 1


@pytest.mark.parametrize("size", [0, 100, 500, 600, 1300])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_the_last_hop_is_answered_with_the_clients_own_packet(
    balancer: Balancer, version: int, protocol: int, size: int
) -> None:
    narrowed(balancer, version, protocol)
    client, served, backend = ends(version, protocol)
    for hop_limit in (0, 1):
        sent = Shape(client, served, "S", bytes(size), hop_limit=hop_limit)
        wanted = answer(sent, expired(version), served.address)
        assert balancer.run(sent.to_bytes()) == (TX, wanted)
    reply = Shape(backend, client, "A", bytes(size), hop_limit=1)
    wanted = answer(reply, expired(version), served.address)
    assert balancer.run(reply.to_bytes()) == (TX, wanted)
    assert balancer.answered() == {"hop-limit": 3}
    totals = balancer.pipeline.totals()
    assert (totals["others"], totals["dropped"]) == (3, (0, 0))


@pytest.mark.parametrize("version", [4, 6])
def test_a_reply_too_large_for_the_clients_way_is_answered_to_the_backend(
    balancer: Balancer, version: int
) -> None:
    client, served, backend = ends(version)
    narrow_replies(balancer, version)
    sent = replace(large(version), source=backend, destination=client, flags="A")
    wanted = answer(sent, too_big(version), served.address)
    assert balancer.run(sent.to_bytes()) == (TX, wanted)
    fitting = replace(sent, payload=sent.payload[1:])
    there = fitting.coming(served, macs=_bytes(VIP_MAC, CLIENT_MAC))
    assert balancer.run(fitting.to_bytes()) == (TX, there.to_bytes())


def narrow_replies(balancer: Balancer, version: int, *, ifindex: int = 0) -> None:
    """Open a flow, and let the way of its replies be MTU wide."""
    client, served, backend = ends(version)
    balancer.vip(served, [backend])
    balancer.run(Shape(client, served, "S").to_bytes())
    balancer.run(Shape(backend, client, "SA").to_bytes())
    keys, values = balancer.maps["connections"].read()
    at = int((values["word"] & 255 == 8).argmax())
    changed = values[at : at + 1].copy()
    changed["mtu"] = MTU
    if ifindex:
        changed["hop"]["ifindex"] = ifindex
    balancer.maps["connections"].put(keys[at], changed)


def _bytes(*macs: str) -> tuple[bytes, bytes]:
    first, second = (bytes.fromhex(mac.replace(":", "")) for mac in macs)
    return first, second


def test_a_reply_that_may_be_cut_leaves_by_our_link_in_the_vips_name(balancer: Balancer) -> None:
    client, served, backend = ends(4)
    narrow_replies(balancer, 4)
    sent = Shape(backend, client, "A", bytes(MTU))
    there = sent.coming(served, macs=_bytes(VIP_MAC, CLIENT_MAC))
    assert balancer.run(sent.to_bytes()) == (TX, there.to_bytes())


def test_a_reply_that_another_link_must_cut_is_for_the_stack_in_the_vips_name(
    balancer: Balancer,
) -> None:
    client, served, backend = ends(4)
    narrow_replies(balancer, 4, ifindex=ELSEWHERE)
    sent = Shape(backend, client, "A", bytes(MTU))
    assert balancer.run(sent.to_bytes()) == (PASS, replace(sent, source=served).to_bytes())
    assert balancer.handed() == {"too-big": 1}


def test_a_packet_that_may_be_cut_is_for_the_stack_on_its_way_to_the_backend(
    balancer: Balancer,
) -> None:
    vip = narrowed(balancer, 4)
    sent = large(4, fragment=0)
    there = replace(sent, destination=vip.backends[1])
    assert balancer.run(sent.to_bytes()) == (PASS, there.to_bytes())
    assert balancer.handed() == {"too-big": 1}
    assert balancer.counts("backend_stats", 1)["packets"] == 1


def test_with_dsr_what_may_be_cut_is_dropped_and_the_rest_answered(balancer: Balancer) -> None:
    _, served, backend = ends(4)
    vip = balancer.vip(served, [replace(served, address=backend.address)], dsr=True)
    balancer.write_backend(vip, 1, mtu=MTU)
    whole, cut = large(4), large(4, fragment=0)
    assert balancer.run(whole.to_bytes()) == (TX, answer(whole, too_big(4), served.address))
    assert balancer.run(cut.to_bytes()) == (DROP, cut.to_bytes())
    assert balancer.pipeline.totals()["drops"] == {"too-big": 1}


def test_errors_have_a_budget_and_what_is_beyond_is_dropped_by_reason(
    balancer: Balancer,
) -> None:
    narrowed(balancer, 4)
    big, last = large(4).to_bytes(), large(4, size=100, hop_limit=1).to_bytes()
    actions = [balancer.run(frame)[0] for _ in range(70) for frame in (big, last)]
    assert actions == [TX] * ERRORS_A_WINDOW + [DROP] * (140 - ERRORS_A_WINDOW)
    assert balancer.pipeline.totals()["drops"] == {"too-big": 6, "hop-limit": 6}
    balancer.pipeline.advance(0.125)
    assert balancer.run(big)[0] == TX


@pytest.mark.parametrize(
    ("source", "macs"),
    [
        ("224.0.0.1", (CLIENT_MAC, VIP_MAC)), ("255.255.255.255", (CLIENT_MAC, VIP_MAC)),
        ("0.0.0.0", (CLIENT_MAC, VIP_MAC)), ("ff02::1", (CLIENT_MAC, VIP_MAC)),
        ("::", (CLIENT_MAC, VIP_MAC)), ("192.0.2.1", (CLIENT_MAC, "ff:ff:ff:ff:ff:ff")),
        ("192.0.2.1", (CLIENT_MAC, "01:00:5e:00:00:01")),
    ],
)  # fmt: skip
def test_no_error_is_sent_to_many_or_about_what_was_sent_to_many(
    balancer: Balancer, source: str, macs: tuple[str, str]
) -> None:
    version = End(source, 1).version
    narrowed(balancer, version)
    sent = large(version, source=End(source, 40000), macs=macs).to_bytes()
    assert balancer.run(sent) == (DROP, sent)
    assert balancer.answered() == {}


def test_merged_packets_have_no_size_to_judge_them_by(balancer: Balancer) -> None:
    vip = narrowed(balancer, 4)
    balancer.pipeline.configure([Flag.VIPS, Flag.MERGED])
    sent = large(4, size=3000)
    there = sent.to(vip.backends[1], macs=(OWN_MAC, backend_mac(1)))
    assert balancer.run(sent.to_bytes()) == (TX, there.to_bytes())


def test_explain_says_that_it_is_answered_and_spends_nothing(balancer: Balancer) -> None:
    narrowed(balancer, 4)
    for _ in range(2 * ERRORS_A_WINDOW):
        assert balancer.explain(large(4).to_bytes())[0] == TX
    assert balancer.answered() == {}
    assert balancer.run(large(4).to_bytes())[0] == TX


def test_an_answer_to_a_packet_that_leaves_elsewhere_returns_where_it_came_from(
    balancer: Balancer,
) -> None:
    vip = narrowed(balancer, 4)
    balancer.write_backend(vip, 1, mtu=MTU, ifindex=ELSEWHERE)
    sent = large(4)
    assert balancer.run(sent.to_bytes()) == (TX, answer(sent, too_big(4), vip.end.address))
    assert balancer.run(large(4, size=MTU).to_bytes())[0] == REDIRECT
