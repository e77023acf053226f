# SPDX-License-Identifier: Apache-2.0
"""Frames with right checksums, and what a balancer should make of them, by scapy alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from tests.kernel import packets
from tests.kernel.balancer import End

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
        if self.source.protocol == packets.TCP:
            segment = TCP(sport=self.source.port, dport=self.destination.port, flags=self.flags,
                          seq=77, ack=78)  # fmt: skip
        else:
            segment = UDP(sport=self.source.port, dport=self.destination.port)
            if self.no_checksum:
                segment.chksum = 0
        if self.source.version == 4:
            network = IP(src=self.source.address, dst=self.destination.address,
                         ttl=self.hop_limit, id=4321, flags=self.fragment >> 13,
                         frag=self.fragment & 0x1FFF,
                         options=[b"\x01\x01\x01\x01"] if self.options else [])  # fmt: skip
        else:
            network = IPv6(src=self.source.address, dst=self.destination.address,
                           hlim=self.hop_limit)  # fmt: skip
        frame = Ether(src=self.macs[0], dst=self.macs[1])
        for vlan in self.vlans:
            frame /= Dot1Q(vlan=vlan, prio=5)
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


def _text(macs: tuple[bytes, bytes]) -> tuple[str, str]:
    return macs[0].hex(":"), macs[1].hex(":")
