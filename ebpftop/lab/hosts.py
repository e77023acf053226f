# SPDX-License-Identifier: Apache-2.0
"""The hosts of a lab: who they are on its networks."""

from __future__ import annotations

from dataclasses import dataclass

from ebpftop.lab.namespace import Namespace

_EXTRA_ADDRESSES = 254


@dataclass(frozen=True, slots=True, kw_only=True)
class Host(Namespace):
    """A namespace with one interface on the lab's network.

    Each host has an IPv6 /64 of its own: limits count a /64 as one source.
    """

    number: int
    """Its place in every address: 198.18.0.N, fd00:198:18:N::1, and the MAC's last byte."""
    interface: str = "eth0"
    """Name of its interface."""

    @property
    def ipv4(self) -> str:
        """Its IPv4 address, of the range for benchmarks (RFC 2544)."""
        return f"198.18.0.{self.number}"

    @property
    def ipv6(self) -> str:
        """Its IPv6 address, of the unique local range (RFC 4193)."""
        return f"fd00:198:18:{self.number}::1"

    @property
    def networks(self) -> list[str]:
        """Its addresses with the lengths of their networks."""
        return [f"{self.ipv4}/15", f"{self.ipv6}/48"]

    @property
    def mac(self) -> str:
        """Its Ethernet address, locally administered."""
        return f"02:65:62:70:66:{self.number:02x}"

    def add_addresses(self, count: int) -> list[str]:
        """Add IPv4 addresses to its interface, to be several sources at once.

        Args:
            count: How many, up to 254; each call starts from the first again.

        Returns:
            The addresses.

        Raises:
            ValueError: `count` is more than there are.
            KernelRefusedError: They are there already.
        """
        if not 0 < count <= _EXTRA_ADDRESSES:
            raise ValueError(f"a host has 1 to {_EXTRA_ADDRESSES} further addresses, not {count}")
        added = [f"198.19.{self.number}.{last}" for last in range(1, count + 1)]
        self.ip(*(f"address add {address}/15 dev {self.interface}" for address in added))
        return added


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend(Host):
    """A server behind the balancer, on a network that clients are not on.

    What it answers goes through the director, the lab's server, but for what it answers in
    the name of a VIP of mode dsr: that goes to the clients without a detour.
    """

    @property
    def ipv4(self) -> str:
        """Its IPv4 address, of a range for documentation (RFC 5737)."""
        return f"192.0.2.{self.number}"

    @property
    def ipv6(self) -> str:
        """Its IPv6 address, of the unique local range (RFC 4193)."""
        return f"fd00:192:0:2::{self.number}"

    @property
    def networks(self) -> list[str]:
        """Its addresses with the lengths of their networks."""
        return [f"{self.ipv4}/24", f"{self.ipv6}/64"]
