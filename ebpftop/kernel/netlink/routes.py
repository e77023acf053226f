# SPDX-License-Identifier: Apache-2.0
"""Ways out of this network namespace: which interface, over which neighbour, how wide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ebpftop.model import Prefix

_UNICAST = 1
"""RTN_UNICAST of linux/rtnetlink.h: not local, not a black hole."""


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
        self._route = IPRoute()

    def close(self) -> None:
        """Close the socket."""
        self._route.close()

    def exits(self, attached: Iterable[int]) -> dict[int, Exit]:
        """Return the ways out by these interfaces and by VLANs on them, by interface number."""
        known = set(attached)
        found = {}
        for message in self._route.get_links():
            index, below = message["index"], message.get_attr("IFLA_LINK")
            vlan = _vlan(message)
            if index in known:
                found[index] = _exit(message, index, None)
            elif vlan is not None and below in known:
                found[index] = _exit(message, below, vlan)
        return found

    def next_hop(self, address: Prefix) -> NextHop | None:
        """Return the first step to an address, None where there is no way by another host."""
        try:
            (message,) = self._route.route("get", dst=str(address))
        except (NetlinkError, ValueError):
            return None
        ifindex = message.get_attr("RTA_OIF")
        if message["type"] != _UNICAST or not ifindex:
            return None
        via = message.get_attr("RTA_VIA")
        gateway = message.get_attr("RTA_GATEWAY") or (via["addr"] if via else None)
        metrics = message.get_attr("RTA_METRICS")
        mtu = (metrics.get_attr("RTAX_MTU") if metrics else 0) or 0
        return NextHop(ifindex, Prefix.parse(gateway) if gateway else address, mtu)


def _vlan(message: Any) -> int | None:
    info = message.get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != "vlan":
        return None
    data = info.get_attr("IFLA_INFO_DATA")
    number: int | None = data.get_attr("IFLA_VLAN_ID") if data else None
    return number


def _exit(message: Any, ifindex: int, vlan: int | None) -> Exit:
    mac = bytes.fromhex((message.get_attr("IFLA_ADDRESS") or "").replace(":", ""))
    return Exit(ifindex, vlan, mac, message.get_attr("IFLA_MTU") or 0)
