# SPDX-License-Identifier: Apache-2.0
"""Addresses and prefixes as 128 bits, and services: an address, a port, a protocol."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

_MASK64 = (1 << 64) - 1

_V4_MAPPED = 0xFFFF << 32


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """An address or prefix as 128 bits; IPv4 is mapped into ::ffff:0:0/96 (RFC 4291, 2.5.5.2)."""

    high: int
    """The upper 64 bits, as a number."""
    low: int
    """The lower 64 bits, as a number."""
    length: int = 128
    """Prefix length over all 128 bits; 128 is a single address."""

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read `192.0.2.1`, `192.0.2.0/24`, `2001:db8::1` or `2001:db8::/32`.

        Raises:
            ValueError: It is no address or prefix, or host bits are set under the prefix.
        """
        try:
            # Long lists consist of these: ipaddress takes twenty times as long.
            packed = socket.inet_pton(socket.AF_INET, text)
            return cls(0, _V4_MAPPED | int.from_bytes(packed, "big"))
        except OSError:
            pass
        network = ipaddress.ip_network(text.strip(), strict=True)
        value = int(network.network_address)
        if network.version == 4:
            return cls(0, _V4_MAPPED | value, 96 + network.prefixlen)
        return cls(value >> 64, value & _MASK64, network.prefixlen)

    @classmethod
    def from_bytes(cls, packed: bytes, length: int = 128) -> Prefix:
        """Build one from 16 bytes in network order."""
        return cls(int.from_bytes(packed[:8], "big"), int.from_bytes(packed[8:16], "big"), length)

    def to_bytes(self) -> bytes:
        """Return the 16 bytes in network order, as the kernel's maps hold them."""
        return self.high.to_bytes(8, "big") + self.low.to_bytes(8, "big")

    @property
    def is_host(self) -> bool:
        """Whether this is a single address."""
        return self.length == 128

    @property
    def is_ipv4(self) -> bool:
        """Whether every address in it is a mapped IPv4 address."""
        return self.high == 0 and self.low >> 32 == 0xFFFF and self.length >= 96

    def contains(self, other: Prefix) -> bool:
        """Return whether all of `other` lies within this prefix."""
        return other.length >= self.length and other.truncated(self.length) == self

    def truncated(self, length: int) -> Prefix:
        """Return the prefix of `length` bits (of 128) that this one lies in."""
        value = (self.high << 64 | self.low) >> (128 - length) << (128 - length)
        return Prefix(value >> 64, value & _MASK64, length)

    def __str__(self) -> str:
        if self.is_ipv4:
            low = self.low
            text = f"{low >> 24 & 255}.{low >> 16 & 255}.{low >> 8 & 255}.{low & 255}"
            return text if self.is_host else f"{text}/{self.length - 96}"
        text = str(ipaddress.IPv6Address(self.high << 64 | self.low))
        return text if self.is_host else f"{text}/{self.length}"


SERVICE_PROTOCOLS = ("tcp", "udp")
"""Protocols that a service may have."""


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """An address, a port and a protocol: a VIP, or where a backend answers."""

    address: Prefix
    """A single address."""
    port: int
    """1 to 65535."""
    protocol: str = "tcp"
    """A word of `SERVICE_PROTOCOLS`."""

    @classmethod
    def parse(cls, text: str, protocol: str | None = None) -> Service:
        """Read `192.0.2.1:80/tcp` or `[2001:db8::1]:80/tcp`; without `/...` where it is given.

        Args:
            text: What was typed.
            protocol: The protocol; then `text` is an address and port alone.

        Raises:
            ValueError: It is no such thing.
        """
        rest = text.strip()
        if protocol is None:
            rest, slash, protocol = rest.partition("/")
            if not slash or protocol not in SERVICE_PROTOCOLS:
                raise ValueError(f"{text!r} does not end in /tcp or /udp")
        host, colon, number = rest.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            address = ipaddress.ip_address(host[1:-1])
            if address.version != 6:
                raise ValueError(f"{text!r} has brackets, which are for IPv6")
            if address.scope_id:
                raise ValueError(f"{text!r} names an interface, which holds on this machine alone")
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address wants brackets, as [2001:db8::1]:80")
        else:
            address = ipaddress.ip_address(host)
        if (
            not colon
            or not (number.isascii() and number.isdigit())
            or not 1 <= int(number) <= 65535
        ):
            raise ValueError(f"{text!r} has no port between 1 and 65535")
        return cls(Prefix.parse(str(address)), int(number), protocol)

    @property
    def endpoint(self) -> str:
        """Its address and port, without the protocol."""
        host = str(self.address)
        return f"{host}:{self.port}" if self.address.is_ipv4 else f"[{host}]:{self.port}"

    def __str__(self) -> str:
        return f"{self.endpoint}/{self.protocol}"
