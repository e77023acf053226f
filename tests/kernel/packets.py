# SPDX-License-Identifier: Apache-2.0
"""Frames built with struct, for tests that need many; checksums are left zero.

Scapy writes shapes more readably and a hundred times slower.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP = 0x0800, 0x86DD, 0x0806
VLAN, QINQ, QINQ_OLD = 0x8100, 0x88A8, 0x9100
TCP, UDP, ICMP, ICMPV6, NONE, GRE = 6, 17, 1, 58, 59, 47
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, MOBILITY = 0, 43, 44, 51, 60, 135
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, MOBILITY)
SYN, ACK, RST = 0x02, 0x10, 0x04

_MACS = bytes.fromhex("020000000001 020000000002")
_SERVER = {4: ipaddress.ip_address("198.51.100.1"), 6: ipaddress.ip_address("2001:db8:ffff::1")}


class Segment(NamedTuple):
    """What an IP packet carries."""

    protocol: int
    """Its number in the header before it."""
    data: bytes
    """Its bytes."""


class Extension(NamedTuple):
    """An IPv6 extension header."""

    kind: int
    """Its number in the header before it."""
    length: int = 0
    """Its length field; a fragment header has none."""
    offset: int = 0
    """Of a fragment header, the offset in 8 bytes."""

    def to_bytes(self, next_header: int) -> bytes:
        """Return the header, zero but for what says where it ends and what follows."""
        if self.kind == FRAGMENT:
            return struct.pack("!BxHI", next_header, self.offset << 3 | 1, 7)
        unit, before = (4, 2) if self.kind == AUTHENTICATION else (8, 1)
        return bytes((next_header, self.length)).ljust((self.length + before) * unit, b"\0")


@cache
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


def tcp(flags: int = ACK, *, data_offset: int = 5, payload: bytes = b"") -> Segment:
    """Return a TCP segment."""
    header = struct.pack("!HHIIBBHHH", 1234, 80, 1, 0, data_offset << 4, flags, 8192, 0, 0)
    return Segment(TCP, header + payload)


def udp(payload: bytes = b"x" * 18) -> Segment:
    """Return a UDP datagram; over IPv4, the shortest frame by default."""
    return Segment(UDP, struct.pack("!HHHH", 1234, 53, 8 + len(payload), 0) + payload)


def icmp(kind: int = 8) -> Segment:
    """Return an ICMP message."""
    return Segment(ICMP, struct.pack("!BxHI", kind, 0, 1))


def icmpv6(kind: int = 128) -> Segment:
    """Return an ICMPv6 message."""
    return Segment(ICMPV6, struct.pack("!BxHI16x", kind, 0, 0))


def ethernet(payload: bytes, ethertype: int, vlans: Sequence[int] = ()) -> bytes:
    """Return a frame, behind VLAN tags of the given types."""
    types = struct.pack("!H", ethertype)
    for vlan in reversed(vlans):
        types = struct.pack("!HH", vlan, 42) + types
    return _MACS + types + payload


def frame(
    source: str,
    segment: Segment | None = None,
    *,
    vlans: Sequence[int] = (),
    options: bytes = b"",
    extensions: Sequence[Extension] = (),
    offset: int = 0,
    hop_limit: int = 64,
    padding: bytes = b"",
) -> bytes:
    """Return an IP packet from `source` in an Ethernet frame.

    Args:
        source: An address of either version.
        segment: What it carries; a UDP datagram by default.
        vlans: Types of the VLAN tags before it.
        options: Of IPv4, in multiples of 4 bytes.
        extensions: Of IPv6.
        offset: The fragment's, in 8 bytes; of IPv6, put a fragment header in `extensions`.
        hop_limit: Or the time to live.
        padding: Bytes after the IP packet's end.
    """
    segment = segment or udp()
    address = _address(source)
    target = _SERVER[address.version].packed
    if address.version == 4:
        total = 20 + len(options) + len(segment.data)
        header = struct.pack(
            "!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, total, 1, offset, hop_limit,
            segment.protocol, 0, address.packed, target,
        )  # fmt: skip
        return ethernet(header + options + segment.data + padding, ETHERTYPE_IPV4, vlans)
    body, protocol = segment.data, segment.protocol
    for extension in reversed(extensions):
        body, protocol = extension.to_bytes(protocol) + body, extension.kind
    header = struct.pack(
        "!IHBB16s16s", 6 << 28, len(body), protocol, hop_limit, address.packed, target
    )
    return ethernet(header + body + padding, ETHERTYPE_IPV6, vlans)


def sources(count: int) -> list[str]:
    """Return that many IPv4 addresses."""
    return [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(count)]
