# SPDX-License-Identifier: Apache-2.0
"""Headers in words: as scapy sees them, and whatever a hostile packet holds."""

from __future__ import annotations

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet as Layers
from scapy.packet import Raw

from ebpftop.dissection import TCP_FLAGS, dissect, trace_line, trace_row
from ebpftop.model import Service, TracedPacket

ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
SCAPYS_FLAGS = "FSRPAUEC"


def traced(data: bytes, **changes: object) -> TracedPacket:
    fields = {
        "time_s": 1.75e9, "interface": 2, "length": len(data), "data": data, "protocol": "other",
        "verdict": "passed", "reason": "", "backend": None, "left_out": 0,
    }  # fmt: skip
    return TracedPacket(**(fields | changes))  # type: ignore[arg-type]


def random_layers(dice: random.Random) -> Layers:
    """Return a packet of scapy's with any addresses, ports, flags, tags and extensions."""
    ports = {"sport": dice.randrange(65536), "dport": dice.randrange(65536)}
    carried = dice.choice([TCP(**ports, flags=dice.randrange(256)), UDP(**ports), ICMP()])
    layers = ETHERNET
    for _ in range(dice.randrange(3)):
        layers /= Dot1Q(vlan=dice.randrange(4096))
    if dice.random() < 0.5:
        ends = [".".join(str(dice.randrange(256)) for _ in range(4)) for _ in range(2)]
        options = [b"\x01" * 4 * dice.randrange(3)] if dice.random() < 0.5 else []
        layers /= IP(src=ends[0], dst=ends[1], options=b"".join(options))
    else:
        ends = [":".join(f"{dice.randrange(1, 65536):x}" for _ in range(8)) for _ in range(2)]
        layers /= IPv6(src=ends[0], dst=ends[1])
        for extension in dice.sample(
            [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()], dice.randrange(3)
        ):
            layers /= extension
        if isinstance(carried, ICMP):
            carried = ICMPv6EchoRequest()
    return layers / carried / Raw(dice.randbytes(dice.randrange(20)))


@pytest.mark.parametrize("seed", range(200))
def test_a_packet_reads_as_scapy_reads_it(seed: int) -> None:
    data = bytes(random_layers(random.Random(seed)))
    theirs = Ether(data)
    ours = dissect(data)
    ends = theirs.getlayer(IP) or theirs.getlayer(IPv6)
    assert (str(ours.source), str(ours.destination)) == (ends.src, ends.dst)
    assert ours.tags == tuple(tag.vlan for tag in theirs.iterpayloads() if isinstance(tag, Dot1Q))
    carried = theirs.getlayer(TCP) or theirs.getlayer(UDP)
    if carried is None:
        assert (ours.source_port, ours.destination_port) == (None, None)
        assert ours.detail == "echo request"
    else:
        assert (ours.source_port, ours.destination_port) == (carried.sport, carried.dport)
        assert ours.name == carried.name.lower()
    flags = theirs[TCP].flags if TCP in theirs else ""
    assert ours.flags == tuple(
        word for word, sign in zip(TCP_FLAGS, SCAPYS_FLAGS, strict=True) if sign in str(flags)
    )


@given(
    start=st.sampled_from([b"", *map(bytes, (
        ETHERNET / IP(), ETHERNET / IPv6(), ETHERNET / ARP(), ETHERNET / Dot1Q(type=0x0800),
        ETHERNET / IP() / TCP(), ETHERNET / IPv6() / IPv6ExtHdrHopByHop(), ETHERNET / IP() / ICMP(),
    ))]),
    cut=st.integers(0, 60),
    rest=st.binary(max_size=128),
)  # fmt: skip
def test_no_bytes_of_a_packet_reach_the_terminal_and_none_are_too_strange(
    start: bytes, cut: int, rest: bytes
) -> None:
    packet = traced(start[: len(start) - cut if cut < len(start) else 0] + rest)
    line = trace_line(packet)
    assert line.isascii() or "–" in line
    assert not any(unicodedata.category(character)[0] == "C" for character in line)
    assert len(line) < 300
    trace_row(packet, "eth0")


@given(st.integers(0, 200), st.binary(min_size=20, max_size=40))
def test_a_packet_that_was_cut_off_says_no_more_than_the_whole_one(seed: int, salt: bytes) -> None:
    data = bytes(random_layers(random.Random(seed)))
    whole, cut = dissect(data), dissect(data[: len(salt) * 2])
    for name in ("source", "destination", "source_port", "destination_port"):
        assert getattr(cut, name) in (None, getattr(whole, name))


def test_fragments_have_an_offset_and_no_ports() -> None:
    later = dissect(bytes(ETHERNET / IP(frag=100, proto=17) / Raw(bytes(20))))
    assert (later.name, later.source_port, later.detail) == ("udp", None, "fragment at 800")
    first = dissect(bytes(ETHERNET / IP(flags="MF") / UDP(sport=5, dport=6)))
    assert (first.source_port, first.detail) == (5, "first fragment")
    six = ETHERNET / IPv6(nh=44) / IPv6ExtHdrFragment(nh=6, offset=10) / Raw(bytes(20))
    later = dissect(bytes(six))
    assert (later.name, later.source_port, later.detail) == ("tcp", None, "fragment at 80")


def test_arp_says_who_asks_for_whom() -> None:
    asked = dissect(bytes(ETHERNET / ARP(op=1, psrc="192.0.2.1", pdst="192.0.2.2")))
    assert (asked.name, str(asked.source), asked.detail) == ("arp", "192.0.2.1", "asks for")
    assert str(asked.destination) == "192.0.2.2"


def test_padding_is_not_taken_for_headers() -> None:
    short = bytes(ETHERNET / IP(len=20, proto=6)) + b"\xff" * 26
    assert dissect(short).source_port is None


def test_a_line_has_all_that_matters() -> None:
    data = bytes(ETHERNET / Dot1Q(vlan=7) / IP(src="192.0.2.1", dst="192.0.2.2")
                 / TCP(sport=1234, dport=80, flags="SA"))  # fmt: skip
    line = trace_line(
        traced(data, verdict="dropped", reason="blocked",
               backend=Service.parse("10.0.0.1:8080/tcp"), time_s=1.75e9 + 0.25)
    )  # fmt: skip
    assert line.endswith(
        ".250000 vlan 7 192.0.2.1:1234 > 192.0.2.2:80 tcp syn,ack, 58 bytes: "
        "dropped (blocked), backend 10.0.0.1:8080"
    )


def test_a_row_has_the_fields_of_the_contract_and_what_is_not_known_is_null() -> None:
    row = trace_row(traced(b"\x00" * 12 + b"\x88\xcc"), "eth0")
    assert set(row) >= {
        "time", "source", "destination", "source_port", "destination_port", "protocol", "length",
        "verdict", "reason", "backend", "flags", "left_out",
    }  # fmt: skip
    assert (row["source"], row["reason"], row["backend"], row["flags"]) == (None, None, None, [])
