# SPDX-License-Identifier: Apache-2.0
"""The headers of a packet in words and numbers: Ethernet, VLAN, ARP, IP, TCP, UDP, ICMP.

Packets are hostile. Nothing of one is ever text: what is said of it are numbers, addresses
and words of this page, and what its bytes do not reach is not known.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from ebpftop.format import UNKNOWN, printable
from ebpftop.model import Prefix, TracedPacket

TCP_FLAGS: Final = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
"""Words for the bits of TCP's flags, from the lowest on (RFC 9293, 3.1)."""

_VLAN: Final = frozenset({0x8100, 0x88A8, 0x9100})
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_MOST_TAGS, _MOST_EXTENSIONS = 4, 8
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS: Final = frozenset({0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135})
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_CARRIED: Final = {
    _ICMP: "icmp", 2: "igmp", 4: "ipip", _TCP: "tcp", _UDP: "udp", 41: "ipv6", 47: "gre",
    50: "esp", _AUTHENTICATION: "ah", _ICMPV6: "icmpv6", 59: "nothing", 89: "ospf",
    112: "vrrp", 132: "sctp",
}  # fmt: skip
_ICMP_TYPES: Final = {
    0: "echo reply", 3: "unreachable", 4: "source quench", 5: "redirect", 8: "echo request",
    11: "time exceeded", 12: "parameter problem",
}  # fmt: skip
_ICMPV6_TYPES: Final = {
    1: "unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem",
    128: "echo request", 129: "echo reply", 133: "router solicitation",
    134: "router advertisement", 135: "neighbour solicitation", 136: "neighbour advertisement",
    137: "redirect",
}  # fmt: skip
_ARP_WORDS: Final = {1: "asks for", 2: "tells of"}


@dataclass(frozen=True, slots=True)
class Packet:
    """What the headers of a packet say."""

    name: str
    """What it is: `tcp`, `arp`, `ip protocol 99`, `ethertype 0x88cc`."""
    source: Prefix | None = None
    """A single address; None where there is none, or it was cut off."""
    destination: Prefix | None = None
    """As `source`."""
    source_port: int | None = None
    """None where there are no ports, or they were cut off."""
    destination_port: int | None = None
    """As `source_port`."""
    flags: tuple[str, ...] = ()
    """Words of `TCP_FLAGS`."""
    detail: str = ""
    """What else there is to say: the kind of ICMP, a fragment, what is cut off."""
    tags: tuple[int, ...] = ()
    """VLAN numbers, the outermost first."""


def dissect(data: bytes) -> Packet:
    """Read the headers of a packet, or of as much of it as there is."""
    if len(data) < 14:
        return Packet("ethernet", detail="cut off")
    kind, at = int.from_bytes(data[12:14]), 14
    tags: list[int] = []
    while kind in _VLAN and len(tags) < _MOST_TAGS:
        if len(data) < at + 4:
            return Packet("vlan", detail="cut off", tags=tuple(tags))
        tags.append(int.from_bytes(data[at : at + 2]) & 0xFFF)
        kind, at = int.from_bytes(data[at + 2 : at + 4]), at + 4
    readers = {_IPV4: _ipv4, _IPV6: _ipv6, _ARP: _arp}
    inner = data[at:]
    packet = readers[kind](inner) if kind in readers else Packet(f"ethertype {kind:#06x}")
    return replace(packet, tags=tuple(tags))


def _address4(packed: bytes) -> Prefix:
    return Prefix.from_bytes(bytes(10) + b"\xff\xff" + packed)


def _arp(data: bytes) -> Packet:
    if len(data) < 28 or data[:6] != bytes.fromhex("000108000604"):
        return Packet("arp", detail="cut off" if len(data) < 28 else "not of IPv4")
    word = _ARP_WORDS.get(int.from_bytes(data[6:8]), "")
    return Packet("arp", _address4(data[14:18]), _address4(data[24:28]), detail=word)


def _ipv4(data: bytes) -> Packet:
    if len(data) < 20:
        return Packet("ipv4", detail="cut off")
    words, total, fragment = data[0] & 15, *struct.unpack("!H2xH", data[2:8])
    ends = _address4(data[12:16]), _address4(data[16:20])
    if data[0] >> 4 != 4 or words < 5 or total < words * 4:
        return Packet("ipv4", *ends, detail="malformed")
    offset = (fragment & 0x1FFF) * 8
    if offset:
        return Packet(_carried(data[9]), *ends, detail=f"fragment at {offset}")
    first = "first fragment" if fragment & 0x2000 else ""
    inner = data[words * 4 : total]  # short frames are padded
    return _carries(Packet(_carried(data[9]), *ends, detail=first), data[9], inner)


def _ipv6(data: bytes) -> Packet:
    if len(data) < 40:
        return Packet("ipv6", detail="cut off")
    ends = Prefix.from_bytes(data[8:24]), Prefix.from_bytes(data[24:40])
    if data[0] >> 4 != 6:
        return Packet("ipv6", *ends, detail="malformed")
    number, at, first = data[6], 40, ""
    if payload := int.from_bytes(data[4:6]):
        data = data[: 40 + payload]
    for _ in range(_MOST_EXTENSIONS):
        if number not in _EXTENSIONS:
            break
        if len(data) < at + 8:
            return Packet("ipv6", *ends, detail="cut off")
        length = data[at + 1]
        if number == _FRAGMENT:
            word = int.from_bytes(data[at + 2 : at + 4])
            if word & 0xFFF8:
                return Packet(_carried(data[at]), *ends, detail=f"fragment at {word & 0xFFF8}")
            first, step = "first fragment" if word & 1 else "", 8
        else:
            step = (length + 2) * 4 if number == _AUTHENTICATION else (length + 1) * 8
        number, at = data[at], at + step
    return _carries(Packet(_carried(number), *ends, detail=first), number, data[at:])


def _carried(number: int) -> str:
    return _CARRIED.get(number, f"ip protocol {number}")


def _carries(packet: Packet, number: int, data: bytes) -> Packet:
    """Add what the header inside the IP packet says."""
    needed = {_TCP: 14, _UDP: 4, _ICMP: 2, _ICMPV6: 2}.get(number, 0)
    if len(data) < needed:
        return _with_detail(packet, "cut off")
    if number in (_TCP, _UDP):
        source, destination = struct.unpack("!HH", data[:4])
        packet = replace(packet, source_port=source, destination_port=destination)
        if number == _TCP:
            words = (word for bit, word in enumerate(TCP_FLAGS) if data[13] >> bit & 1)
            packet = replace(packet, flags=tuple(words))
    elif number in (_ICMP, _ICMPV6):
        types = _ICMP_TYPES if number == _ICMP else _ICMPV6_TYPES
        packet = _with_detail(packet, types.get(data[0], f"type {data[0]}, code {data[1]}"))
    return packet


def _with_detail(packet: Packet, words: str) -> Packet:
    return replace(packet, detail=", ".join(filter(None, [packet.detail, words])))


def trace_row(traced: TracedPacket, interface: str) -> dict[str, Any]:
    """Return a traced packet as the fields of its JSON; what is not known is None."""
    packet = dissect(traced.data)
    return {
        "time": round(traced.time_s, 6),
        "interface": printable(interface),
        "source": str(packet.source) if packet.source else None,
        "destination": str(packet.destination) if packet.destination else None,
        "source_port": packet.source_port,
        "destination_port": packet.destination_port,
        "protocol": traced.protocol,
        "length": traced.length,
        "verdict": traced.verdict,
        "reason": traced.reason or None,
        "backend": traced.backend.endpoint if traced.backend else None,
        "flags": list(packet.flags),
        "detail": packet.detail or None,
        "left_out": traced.left_out,
    }


def trace_line(traced: TracedPacket) -> str:
    """Return a traced packet as one line."""
    packet = dissect(traced.data)
    clock = time.strftime("%H:%M:%S", time.localtime(traced.time_s))
    tags = "".join(f"vlan {tag} " for tag in packet.tags)
    words = [packet.name, ",".join(packet.flags), packet.detail]
    became = traced.verdict + (f" ({traced.reason})" if traced.reason else "")
    if traced.backend:
        became += f", backend {traced.backend.endpoint}"
    return (
        f"{clock}.{int(traced.time_s * 1e6) % 1_000_000:06} {tags}"
        f"{_end(packet.source, packet.source_port)} > "
        f"{_end(packet.destination, packet.destination_port)} "
        f"{' '.join(filter(None, words))}, {traced.length} bytes: {became}"
    )


def _end(address: Prefix | None, port: int | None) -> str:
    if address is None:
        return UNKNOWN
    if port is None:
        return str(address)
    return f"{address}:{port}" if address.is_ipv4 else f"[{address}]:{port}"
