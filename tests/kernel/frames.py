# SPDX-License-Identifier: Apache-2.0
"""Frames with right checksums, and what a balancer should make of them.

Scapy computes every checksum. Its layers take fifty times longer than its sum: what is
around that is laid out with struct, and a test compares it with what scapy's layers build.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, replace
from functools import cache

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import checksum

from tests.kernel import packets
from tests.kernel.balancer import End

IDENTIFIER, PRIORITY = 4321, 5
"""Of each IPv4 header, and of each VLAN tag."""
CLIENT_MAC, VIP_MAC = "02:00:00:00:c1:00", "02:00:00:00:d0:00"


@dataclass(frozen=True)
class Shape:
    """One TCP or UDP packet, in words."""

    source: End
    destination: End
    flags: str = "A"
    payload: bytes = b""
    vlans: tuple[int, ...] = ()
    hop_limit: int = 64
    no_checksum: bool = False
    """Of UDP over IPv4."""
    macs: tuple[str, str] = (CLIENT_MAC, VIP_MAC)
    """Source and destination."""
    fragment: int = 0
    """IPv4 flags and offset, as 16 bits."""
    options: bool = False
    """A no-operation in the IPv4 header."""

    def to_bytes(self) -> bytes:
        """Return the frame, every checksum computed by scapy."""
        source, target = _packed(self.source.address), _packed(self.destination.address)
        segment = self._segment(source, target)
        if self.source.version == 4:
            options = b"\x01" * 4 if self.options else b""
            header = struct.pack(
                "!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(segment),
                IDENTIFIER, self.fragment, self.hop_limit, self.source.protocol, 0, source, target,
            ) + options  # fmt: skip
            header = _with_sum(header, 10, checksum(header))
            ethertype = packets.ETHERTYPE_IPV4
        else:
            header = struct.pack(
                "!IHBB16s16s", 6 << 28, len(segment), self.source.protocol, self.hop_limit,
                source, target,
            )  # fmt: skip
            ethertype = packets.ETHERTYPE_IPV6
        types = b"".join(
            struct.pack("!HH", packets.VLAN, PRIORITY << 13 | vlan) for vlan in self.vlans
        )
        macs = bytes.fromhex((self.macs[1] + self.macs[0]).replace(":", ""))
        return macs + types + struct.pack("!H", ethertype) + header + segment

    def _segment(self, source: bytes, target: bytes) -> bytes:
        ports = struct.pack("!HH", self.source.port, self.destination.port)
        if self.source.protocol == packets.TCP:
            bits = sum(1 << "FSRPA".index(flag) for flag in self.flags)
            segment = ports + struct.pack("!IIBBHHH", 77, 78, 5 << 4, bits, 8192, 0, 0)
            at = 16
        else:
            segment = ports + struct.pack("!HH", 8 + len(self.payload), 0)
            at = 6
        segment += self.payload
        if self.source.protocol == packets.UDP and self.no_checksum:
            return segment
        pseudo = source + target + struct.pack("!II", len(segment), self.source.protocol)
        found = checksum(pseudo + segment)
        return _with_sum(segment, at, found or (0xFFFF if at == 6 else 0))

    def by_layers(self) -> bytes:
        """Return the same frame, built by scapy's layers."""
        if self.source.protocol == packets.TCP:
            segment = TCP(sport=self.source.port, dport=self.destination.port, flags=self.flags,
                          seq=77, ack=78)  # fmt: skip
        else:
            segment = UDP(sport=self.source.port, dport=self.destination.port)
            if self.no_checksum:
                segment.chksum = 0
        if self.source.version == 4:
            network = IP(src=self.source.address, dst=self.destination.address,
                         ttl=self.hop_limit, id=IDENTIFIER, flags=self.fragment >> 13,
                         frag=self.fragment & 0x1FFF,
                         options=[b"\x01\x01\x01\x01"] if self.options else [])  # fmt: skip
        else:
            network = IPv6(src=self.source.address, dst=self.destination.address,
                           hlim=self.hop_limit)  # fmt: skip
        frame = Ether(src=self.macs[0], dst=self.macs[1])
        for vlan in self.vlans:
            frame /= Dot1Q(vlan=vlan, prio=PRIORITY)
        return bytes(frame / network / segment / Raw(self.payload))

    def to(self, end: End, *, macs: tuple[bytes, bytes]) -> Shape:
        """Return it as it should be after the balancer sent it to a backend."""
        return replace(self, destination=end, hop_limit=self.hop_limit - 1, macs=_text(macs))

    def coming(self, end: End, *, macs: tuple[bytes, bytes]) -> Shape:
        """Return it as it should be after the balancer sent it on in a VIP's name."""
        return replace(self, source=end, hop_limit=self.hop_limit - 1, macs=_text(macs))

    def answer(self, source: End, flags: str = "A", payload: bytes = b"") -> Shape:
        """Return a packet back from `source`."""
        return replace(self, source=source, destination=self.source, flags=flags, payload=payload)


@cache
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _with_sum(data: bytes, at: int, found: int) -> bytes:
    return data[:at] + found.to_bytes(2, "big") + data[at + 2 :]


def _text(macs: tuple[bytes, bytes]) -> tuple[str, str]:
    return macs[0].hex(":"), macs[1].hex(":")
