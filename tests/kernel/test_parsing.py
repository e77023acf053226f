# SPDX-License-Identifier: Apache-2.0
"""Every shape of packet: what it is counted as, whose it is, and why it cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, GRE, LLC, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw, raw

from ebpftop.bpf.layout import Flag
from tests.kernel import packets
from tests.kernel.observing import as_number
from tests.kernel.packets import Extension
from tests.kernel.parsing_model import read
from tests.kernel.pipeline import Pipeline

pytestmark = pytest.mark.kernel

V4, V6 = "192.0.2.1", "2001:db8::1"
MACS = {"src": "02:00:00:00:00:02", "dst": "02:00:00:00:00:01"}
SERVER4, SERVER6 = "198.51.100.1", "2001:db8:ffff::1"
ETH = Ether(**MACS)
SYN = TCP(flags="S")
HOP_BY_HOP, DESTINATION = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()


def ip4(**fields: Any) -> Any:
    return ETH / IP(src=V4, dst=SERVER4, **fields)


def ip6(**fields: Any) -> Any:
    return ETH / IPv6(src=V6, dst=SERVER6, **fields)


READABLE = {
    "TCP": (ip4() / SYN, "tcp", V4),
    "UDP": (ip4() / UDP(), "udp", V4),
    "ICMP": (ip4() / ICMP(), "icmp", V4),
    "GRE": (ip4() / GRE(), "other", V4),
    "ESP": (ip4(proto=50) / Raw(bytes(40)), "other", V4),
    "ICMPv6 in IPv4": (ip4(proto=58) / Raw(bytes(8)), "other", V4),
    "IPv4 options": (ip4(options=[IPOption_RR(routers=["0.0.0.0"] * 9)]) / SYN, "tcp", V4),
    "first fragment": (ip4(flags="MF") / SYN, "tcp", V4),
    "one VLAN tag": (ETH / Dot1Q(vlan=7) / ip4().payload / UDP(), "udp", V4),
    "two VLAN tags": (ETH / Dot1AD(vlan=7) / Dot1Q() / ip6().payload / SYN, "tcp", V6),
    "TCP over IPv6": (ip6() / SYN, "tcp", V6),
    "UDP over IPv6": (ip6() / UDP(), "udp", V6),
    "ICMPv6": (ip6() / ICMPv6EchoRequest(), "icmpv6", V6),
    "ICMP in IPv6": (ip6(nh=1) / Raw(bytes(8)), "other", V6),
    "no next header": (ip6(nh=59), "other", V6),
    "hop-by-hop": (ip6() / HOP_BY_HOP / SYN, "tcp", V6),
    "routing": (ip6() / IPv6ExtHdrRouting(addresses=["::1"] * 3) / SYN, "tcp", V6),
    "destination": (ip6() / DESTINATION / UDP(), "udp", V6),
    "AH": (ip6() / AH(nh=6, payloadlen=4, icv=bytes(12)) / SYN, "tcp", V6),
    "mobility": (ip6(nh=135) / Raw(b"\x11" + bytes(7)) / UDP(), "udp", V6),
    "first IPv6 fragment": (ip6() / IPv6ExtHdrFragment(m=1) / SYN, "tcp", V6),
    "ARP": (ETH / ARP(psrc=V4, pdst=SERVER4, hwsrc=MACS["src"]), "other", None),
    "LLC": (Dot3(**MACS) / LLC() / Raw(bytes(40)), "other", None),
}
"""Frame, protocol and source, by what it is."""


@pytest.mark.parametrize("shape", READABLE)
def test_a_packet_is_counted_once_and_on_its_source(pipeline: Pipeline, shape: str) -> None:
    packet, protocol, source = READABLE[shape]
    frame = raw(packet)

    assert pipeline.passes(frame)

    assert pipeline.totals() == {
        "received": (1, len(frame)),
        "passed": (1, len(frame)),
        "dropped": (0, 0),
        "others": 0,
        "protocols": {protocol: 1},
        "syn": int(TCP in packet),
        "untracked": 0,
        "drops": {},
        "would_drop": {},
        "unparsed": {},
    }
    assert set(pipeline.rows()) == ({as_number(source)} if source else set())
    if source:
        assert pipeline.row(source)["passed_bytes"] == len(frame)


UNREADABLE = {
    "three VLAN tags": (packets.frame(V4, vlans=[packets.VLAN] * 3), "vlan-depth", None),
    "cut in a VLAN tag": (packets.frame(V4, vlans=[packets.QINQ])[:17], "vlan-truncated", None),
    "cut in the IPv4 header": (packets.frame(V4)[:33], "ip-truncated", None),
    "cut in the IPv6 header": (packets.frame(V6)[:53], "ip-truncated", None),
    "cut behind the IPv4 header": (packets.frame(V4)[:-1], "ip-truncated", V4),
    "cut behind the IPv6 header": (packets.frame(V6)[:-1], "ip-truncated", V6),
    "version 5": (raw(ip4(version=5) / UDP()), "ip-header", None),
    "version 4 as IPv6": (raw(ip6(version=4) / UDP()), "ip-header", None),
    "header length 4": (raw(ip4(ihl=4) / UDP()), "ip-header", None),
    "total below the header": (raw(ip4(len=19) / UDP()), "ip-header", None),
    "seven extensions": (
        packets.frame(V6, extensions=[Extension(packets.DESTINATION)] * 7),
        "extension-depth",
        V6,
    ),
    "cut in an extension": (raw(ip6(nh=0) / Raw(bytes(7))), "ip-truncated", V6),
    "extension beyond the end": (raw(ip6(nh=0) / Raw(b"\x06\x01" + bytes(6))), "ip-truncated", V6),
    "TCP of 19 bytes": (raw(ip4(proto=6) / Raw(bytes(19))), "l4-truncated", V4),
    "UDP of 7 bytes": (raw(ip4(proto=17) / Raw(bytes(7))), "l4-truncated", V4),
    "ICMP of 7 bytes": (raw(ip4(proto=1) / Raw(bytes(7))), "l4-truncated", V4),
    "ICMPv6 of 3 bytes": (raw(ip6(nh=58) / Raw(bytes(3))), "l4-truncated", V6),
    "TCP header of 16 bytes": (packets.frame(V6, packets.tcp(data_offset=4)), "l4-header", V6),
    "TCP header beyond the end": (
        packets.frame(V4, packets.tcp(data_offset=6)),
        "l4-header",
        V4,
    ),
    "mapped IPv4 source in IPv6": (
        raw(ETH / IPv6(src="::ffff:192.0.2.1", dst=SERVER6) / UDP()),
        "ip-header",
        None,
    ),
    "UDP in the padding": (raw(ip4(len=27) / UDP() / Raw(bytes(9))), "l4-truncated", V4),
    "ICMP in the padding": (raw(ip4(len=27) / ICMP() / Raw(bytes(9))), "l4-truncated", V4),
    "ICMPv6 in the padding": (
        raw(ip6(plen=3) / ICMPv6EchoRequest() / Raw(bytes(9))),
        "l4-truncated",
        V6,
    ),
    "TCP in the padding": (raw(ip4(len=39) / TCP() / Raw(bytes(30))), "l4-truncated", V4),
    "IPv6 TCP in the padding": (raw(ip6(plen=19) / TCP() / Raw(bytes(30))), "l4-truncated", V6),
    "short jumbogram": (raw(ip6(plen=0) / HOP_BY_HOP / TCP())[:-1], "l4-truncated", V6),
}
"""Frame, reason, and source where its address can be read."""


@pytest.mark.parametrize("shape", UNREADABLE)
def test_what_cannot_be_read_is_counted_by_reason_and_passes(
    pipeline: Pipeline, shape: str
) -> None:
    frame, reason, source = UNREADABLE[shape]

    assert pipeline.passes(frame)

    assert pipeline.totals()["unparsed"] == {reason: 1}
    assert pipeline.totals()["passed"] == (1, len(frame))
    assert sum(pipeline.totals()["protocols"].values()) == 1
    assert pipeline.totals()["syn"] == 0
    assert set(pipeline.rows()) == ({as_number(source)} if source else set())


@pytest.mark.parametrize("shape", UNREADABLE)
def test_what_cannot_be_read_is_dropped_where_the_policy_says_so(
    pipeline: Pipeline, shape: str
) -> None:
    frame, _, source = UNREADABLE[shape]
    pipeline.configure([Flag.DROP_UNPARSED])

    assert not pipeline.passes(frame)

    assert pipeline.totals()["drops"] == {"unparsed": 1}
    if source:
        assert pipeline.row(source)["dropped_packets"] == 1
        # WHEN it is allowed, THEN it passes before everything else
        pipeline.allow(source)
        assert pipeline.passes(frame)


@pytest.mark.parametrize(
    ("frame", "source"),
    [pytest.param(f, source, id=shape) for shape, (f, _, source) in UNREADABLE.items() if source],
)
def test_address_rules_hold_for_what_can_be_read_of_a_packet(
    pipeline: Pipeline, frame: bytes, source: str
) -> None:
    slot = pipeline.block(source)

    assert not pipeline.passes(frame)
    assert pipeline.totals()["drops"] == {"blocked": 1}
    assert pipeline.hits() == {slot: (1, len(frame))}


def test_a_packet_cut_anywhere_is_read_as_far_as_it_goes(pipeline: Pipeline) -> None:
    extensions = [Extension(kind, 4) for kind in packets.EXTENSIONS]
    whole = packets.frame(
        V6, packets.tcp(packets.SYN), vlans=[packets.QINQ, packets.VLAN], extensions=extensions
    )
    assert len(whole) > 14 + 8 + 40 + 5 * 40
    for length in range(14, len(whole) + 1):
        pipeline.reset()
        pipeline.run(whole[:length])
        reading = read(whole[:length])
        totals = pipeline.totals()
        assert totals["unparsed"] == ({reading.unparsed: 1} if reading.unparsed else {}), length
        assert totals["protocols"] == {reading.protocol: 1}, length
        assert len(pipeline.rows()) == (reading.source is not None), length
    assert totals["syn"] == 1


@pytest.mark.parametrize("kind", packets.EXTENSIONS)
def test_six_extension_headers_of_each_kind_are_walked(pipeline: Pipeline, kind: int) -> None:
    pipeline.run(packets.frame(V6, packets.tcp(packets.SYN), extensions=[Extension(kind, 2)] * 6))

    assert pipeline.totals()["syn"] == 1
    assert pipeline.totals()["unparsed"] == {}


@pytest.mark.parametrize("vlan", [packets.VLAN, packets.QINQ, packets.QINQ_OLD])
def test_tags_of_each_type_are_walked(pipeline: Pipeline, vlan: int) -> None:
    pipeline.run(packets.frame(V4, vlans=[vlan, vlan]))

    assert pipeline.totals()["protocols"] == {"udp": 1}


@pytest.mark.parametrize(
    ("flags", "is_request"),
    [("S", True), ("SEC", True), ("SA", False), ("A", False), ("R", False), ("FA", False)],
)
def test_a_connection_request_is_a_syn_without_ack(
    pipeline: Pipeline, flags: str, is_request: bool
) -> None:
    pipeline.run(raw(ip4() / TCP(flags=flags)))

    assert pipeline.totals()["syn"] == is_request


@pytest.mark.parametrize(
    ("packet", "source"),
    [
        (ip4(frag=1) / SYN, V4),
        (ip4(frag=4096) / SYN, V4),
        (ip4(frag=1, proto=6) / Raw(bytes(8)), V4),
        (ip6() / IPv6ExtHdrFragment(offset=1) / SYN, V6),
        (ip6() / IPv6ExtHdrFragment(offset=4096) / SYN, V6),
        (ip6() / DESTINATION / IPv6ExtHdrFragment(offset=1, nh=6) / Raw(bytes(8)), V6),
    ],
    ids=["IPv4", "far IPv4", "short IPv4", "IPv6", "far IPv6", "short IPv6"],
)
def test_a_later_fragment_has_no_ports_and_obeys_address_rules(
    pipeline: Pipeline, packet: Any, source: str
) -> None:
    frame = raw(packet)
    assert pipeline.passes(frame)
    assert pipeline.totals()["protocols"] == {"tcp": 1}
    assert pipeline.totals()["syn"] == 0
    assert pipeline.totals()["unparsed"] == {}

    pipeline.block(source)
    assert not pipeline.passes(frame)


@pytest.mark.parametrize("source", [V4, V6])
def test_padding_behind_the_packet_counts_as_bytes_and_nothing_else(
    pipeline: Pipeline, source: str
) -> None:
    frame = packets.frame(source, packets.tcp(packets.SYN), padding=b"\xff" * 40)

    assert pipeline.passes(frame)

    assert pipeline.totals()["received"] == (1, len(frame))
    assert pipeline.row(source)["passed_bytes"] == len(frame)
    assert pipeline.totals()["unparsed"] == {}


@pytest.mark.parametrize("segment", [SYN, UDP() / Raw(b"x" * 8)], ids=["tcp", "udp"])
def test_without_a_jumbo_header_a_length_of_zero_is_zero(
    pipeline: Pipeline, segment: Packet
) -> None:
    pipeline.run(raw(ip6(plen=0) / segment))

    assert pipeline.totals()["unparsed"] == {"l4-truncated": 1}
    assert pipeline.totals()["syn"] == 0


def test_a_jumbograms_length_is_not_in_its_header(pipeline: Pipeline) -> None:
    pipeline.run(raw(ip6(plen=0) / HOP_BY_HOP / SYN))

    assert pipeline.totals()["syn"] == 1
