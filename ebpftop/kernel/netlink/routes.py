# SPDX-License-Identifier: Apache-2.0
"""Ways out of this network namespace: which interface, over which neighbour, how wide."""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ebpftop.kernel.netlink.rtnetlink import (
    GETLINK,
    GETROUTE,
    LINK,
    ROUTE,
    Answer,
    RouteSocket,
    attribute,
    parts,
)
from ebpftop.model import Prefix

_UNICAST = 1
"""RTN_UNICAST of linux/rtnetlink.h: not local, not a black hole."""
_IFLA_ADDRESS, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 4, 5, 18
_INFO_KIND, _INFO_DATA, _VLAN_ID = 1, 2, 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA = 1, 4, 5, 8, 18
_RTAX_MTU = 2
_FAMILY = struct.Struct("=H")
_FAMILIES = {4: 2, 6: 10}
"""AF_INET and AF_INET6."""


@dataclass(frozen=True, slots=True)
class Exit:
    """An interface that packets may leave by, as routes name it."""

    ifindex: int
    """Number of the attached interface behind it."""
    vlan: int | None
    """The VLAN that it puts them on; None for none."""
    mac: bytes
    """Its Ethernet address."""
    mtu: int
    """Its largest packet."""


@dataclass(frozen=True, slots=True)
class NextHop:
    """The first step to an address."""

    ifindex: int
    """Number of the interface, as the route names it."""
    address: Prefix
    """The neighbour: a gateway, or the address itself."""
    mtu: int
    """Of the route; 0 where the interface's holds."""


class Routes:
    """Answers about routes, from an open socket."""

    def __init__(self) -> None:
        self._route = RouteSocket()

    def close(self) -> None:
        """Close the socket."""
        self._route.close()

    def exits(self, attached: Iterable[int]) -> dict[int, Exit]:
        """Return the ways out by these interfaces and by VLANs on them, by interface number.

        Raises:
            OSError: The kernel refused.
        """
        known = set(attached)
        found = {}
        for answer in self._route.ask_all(GETLINK, LINK.pack(*[0] * 5)):
            index, told = LINK.unpack(answer.head)[2], answer.attributes
            below, vlan = _number(told, _IFLA_LINK), _vlan(told)
            if index in known:
                found[index] = _exit(told, index, None)
            elif vlan is not None and below in known:
                found[index] = _exit(told, below, vlan)
        return found

    def next_hop(self, address: Prefix) -> NextHop | None:
        """Return the first step to an address, None where there is no way by another host."""
        target = ipaddress.ip_address(str(address))
        question = ROUTE.pack(_FAMILIES[target.version], target.max_prefixlen, *[0] * 7)
        try:
            answer = self._route.ask(GETROUTE, question, attribute(_RTA_DST, target.packed))
        except OSError:
            return None
        return _hop(answer, address)


def _hop(answer: Answer, address: Prefix) -> NextHop | None:
    kind, told = ROUTE.unpack(answer.head)[7], answer.attributes
    ifindex = _number(told, _RTA_OIF)
    if kind != _UNICAST or not ifindex:
        return None
    gateway = told.get(_RTA_GATEWAY) or told.get(_RTA_VIA, b"")[_FAMILY.size :]
    mtu = _number(dict(parts(told.get(_RTA_METRICS, b""))), _RTAX_MTU)
    first = Prefix.parse(str(ipaddress.ip_address(gateway))) if gateway else address
    return NextHop(ifindex, first, mtu)


def _vlan(told: Mapping[int, bytes]) -> int | None:
    info = dict(parts(told.get(_IFLA_LINKINFO, b"")))
    if info.get(_INFO_KIND, b"").rstrip(b"\0") != b"vlan":
        return None
    data = dict(parts(info.get(_INFO_DATA, b"")))
    return _number(data, _VLAN_ID) if _VLAN_ID in data else None


def _exit(told: Mapping[int, bytes], ifindex: int, vlan: int | None) -> Exit:
    return Exit(ifindex, vlan, told.get(_IFLA_ADDRESS, b""), _number(told, _IFLA_MTU))


def _number(told: Mapping[int, bytes], attribute_number: int) -> int:
    """Return a number of this machine's byte order; 0 where there is none."""
    return int.from_bytes(told.get(attribute_number, b""), sys.byteorder)
