# SPDX-License-Identifier: Apache-2.0
"""What the pipeline should read out of a frame, in plain Python: a model to compare it with."""

from __future__ import annotations

from dataclasses import dataclass

VLAN_TYPES = {0x8100, 0x88A8, 0x9100}
HOP_BY_HOP, FRAGMENT, AUTHENTICATION = 0, 44, 51
EXTENSION_TYPES = {HOP_BY_HOP, 43, FRAGMENT, AUTHENTICATION, 60, 135}
IPV4_PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp"}
IPV6_PROTOCOLS = {6: "tcp", 17: "udp", 58: "icmpv6"}
L4_BYTES = {"tcp": 20, "udp": 8, "icmp": 8, "icmpv6": 4}
NEIGHBOUR_DISCOVERY = range(133, 138)
IPV4_MAPPED = 0xFFFF << 32


class UnparsedError(Exception):
    """A packet that cannot be read to its end; the argument says why, as `layout.UNPARSED`."""


@dataclass(slots=True)
class Reading:
    """What could be read."""

    source: int | None = None
    """The source address, 128 bits; None where there is no IP header."""
    version: int = 0
    """Of IP; 0 where there is no IP header."""
    protocol: str = "other"
    """As in `layout.PROTOCOLS`."""
    syn: bool = False
    """Whether it asks for a TCP connection."""
    neighbour: bool = False
    """Whether it is ARP or neighbour discovery."""
    unparsed: str = ""
    """Why it could not be read to its end; empty where it could."""


def read(frame: bytes) -> Reading:
    """Read one Ethernet frame."""
    reading = Reading()
    try:
        _read_ethernet(reading, frame)
    except UnparsedError as error:
        reading.unparsed = str(error)
    return reading


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _read_ethernet(reading: Reading, frame: bytes) -> None:
    ethertype, rest, tags = _number(frame, 12), frame[14:], 0
    while ethertype in VLAN_TYPES:
        if tags == 2:
            raise UnparsedError("vlan-depth")
        if len(rest) < 4:
            raise UnparsedError("vlan-truncated")
        ethertype, rest, tags = _number(rest, 2), rest[4:], tags + 1
    if ethertype == 0x0806:
        reading.neighbour = True
    elif ethertype == 0x0800:
        _read_ipv4(reading, rest)
    elif ethertype == 0x86DD:
        _read_ipv6(reading, rest)


def _read_ipv4(reading: Reading, packet: bytes) -> None:
    if len(packet) < 20:
        raise UnparsedError("ip-truncated")
    header, total = (packet[0] & 15) * 4, _number(packet, 2)
    if packet[0] >> 4 != 4 or not 20 <= header <= total:
        raise UnparsedError("ip-header")
    reading.version = 4
    reading.source = IPV4_MAPPED | int.from_bytes(packet[12:16], "big")
    if len(packet) < total:
        raise UnparsedError("ip-truncated")
    protocol = IPV4_PROTOCOLS.get(packet[9], "other")
    is_later_fragment = _number(packet, 6) % 0x2000 > 0
    _read_l4(reading, protocol, None if is_later_fragment else packet[header:total])


def _read_ipv6(reading: Reading, packet: bytes) -> None:
    if len(packet) < 40:
        raise UnparsedError("ip-truncated")
    if packet[0] >> 4 != 6 or packet[8:20] == bytes(10) + b"\xff\xff":
        raise UnparsedError("ip-header")
    reading.version = 6
    reading.source = int.from_bytes(packet[8:24], "big")
    length, next_header, body = _number(packet, 4), packet[6], packet[40:]
    if length or next_header != HOP_BY_HOP:  # else a jumbogram, which fills the frame
        if len(body) < length:
            raise UnparsedError("ip-truncated")
        body = body[:length]
    extensions = 0
    while next_header in EXTENSION_TYPES:
        if extensions == 6:
            raise UnparsedError("extension-depth")
        if len(body) < 8:
            raise UnparsedError("ip-truncated")
        size = 8 + body[1] * 8
        if next_header == AUTHENTICATION:
            size = 8 + body[1] * 4
        elif next_header == FRAGMENT:
            size = 8
            if _number(body, 2) >> 3:
                _read_l4(reading, IPV6_PROTOCOLS.get(body[0], "other"), None)
                return
        if len(body) < size:
            raise UnparsedError("ip-truncated")
        next_header, body, extensions = body[0], body[size:], extensions + 1
    _read_l4(reading, IPV6_PROTOCOLS.get(next_header, "other"), body)
    is_discovery = reading.protocol == "icmpv6" and body[0] in NEIGHBOUR_DISCOVERY
    reading.neighbour = is_discovery and packet[7] == 255


def _read_l4(reading: Reading, protocol: str, segment: bytes | None) -> None:
    """Read a segment; None is that of a later fragment, which has no header."""
    reading.protocol = protocol
    if segment is None:
        return
    if len(segment) < L4_BYTES.get(protocol, 0):
        raise UnparsedError("l4-truncated")
    if protocol == "tcp":
        if not 20 <= (segment[12] >> 4) * 4 <= len(segment):
            raise UnparsedError("l4-header")
        reading.syn = segment[13] & 0x12 == 0x02
