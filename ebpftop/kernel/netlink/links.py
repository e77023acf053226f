# SPDX-License-Identifier: Apache-2.0
"""Links, routes and addresses, as plain values."""

from __future__ import annotations

import difflib
import errno
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from ebpftop.errors import NotFoundError
from ebpftop.model import Prefix

IFF_UP = 1
XDP_IN_DRIVER = "xdp"
"""pyroute2's word for XDP_ATTACHED_DRV."""

NETDEV_CMD_DEV_GET = 1
NETDEV_XDP_ACT_BASIC = 1


class _DeviceMessage(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    """A device of the `netdev` family, as far as it is read here (linux/netdev.h)."""

    prefix = "NETDEV_A_DEV_"
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface."""

    name: str
    """Its name."""
    index: int
    """Its number."""
    up: bool
    """Whether it is administratively up."""
    mtu: int
    """Largest packet, without the Ethernet header."""
    xdp_program: int
    """Number of the XDP program on it; 0 where there is none."""
    xdp_native: bool
    """Whether that program runs in the driver."""


class Netlink:
    """A netlink socket in the network namespace it was opened in."""

    def __init__(self) -> None:
        self._route = IPRoute()

    def close(self) -> None:
        """Close the socket."""
        self._route.close()

    def links(self) -> list[Link]:
        """Return every interface."""
        return [_link(message) for message in self._route.get_links()]

    def link(self, name: str) -> Link:
        """Return the interface called `name`.

        Raises:
            NotFoundError: There is none; names those there are.
        """
        found = self._get(ifname=name)
        if found is None:
            names = [link.name for link in self.links()]
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else "there is " + ", ".join(names)
            raise NotFoundError(f"no interface {name}", hint)
        return found

    def link_at(self, index: int) -> Link | None:
        """Return the interface with that number, None where it is gone."""
        return self._get(index=index)

    def _get(self, **which: Any) -> Link | None:
        try:
            return _link(self._route.link("get", **which)[0])
        except NetlinkError as error:
            if error.code in (errno.ENODEV, errno.EINVAL, errno.ERANGE):
                return None
            raise

    def default_gateways(self) -> set[Prefix]:
        """Return the addresses of all default gateways, both families."""
        found = set()
        for family in (2, 10):
            for route in self._route.get_default_routes(family=family):
                gateways = [route.get_attr("RTA_GATEWAY")]
                for hop in route.get_attr("RTA_MULTIPATH") or ():
                    gateways.append(hop.get_attr("RTA_GATEWAY"))
                found |= {Prefix.parse(gateway) for gateway in gateways if gateway}
        return found

    def local_addresses(self) -> set[Prefix]:
        """Return every address of this machine in this namespace."""
        return {
            Prefix.parse(str(ipaddress.ip_address(message.get_attr("IFA_ADDRESS"))))
            for message in self._route.get_addr()
            if message.get_attr("IFA_ADDRESS")
        }


def driver_runs_xdp(index: int) -> bool | None:
    """Whether an interface's driver says it can run XDP; None where the kernel has no answer.

    Asking by attaching would make some drivers reset their queues. Linux 6.3 and later know.
    """
    socket = GenericNetlinkSocket()
    try:
        socket.bind("netdev", _DeviceMessage)
        question = _DeviceMessage()
        question["cmd"], question["version"] = NETDEV_CMD_DEV_GET, 1
        question["attrs"] = [("NETDEV_A_DEV_IFINDEX", index)]
        answers = socket.nlm_request(question, msg_type=socket.prid, msg_flags=NLM_F_REQUEST)
        features = next(iter(answers)).get_attr("NETDEV_A_DEV_XDP_FEATURES")
        return bool(features & NETDEV_XDP_ACT_BASIC)
    except NetlinkError:
        return None
    finally:
        socket.close()


@contextmanager
def netlink() -> Iterator[Netlink]:
    """Open a netlink socket for a few questions."""
    socket = Netlink()
    try:
        yield socket
    finally:
        socket.close()


def _link(message: Any) -> Link:
    xdp = message.get_attr("IFLA_XDP")
    attached = xdp.get_attr("IFLA_XDP_ATTACHED") if xdp else 0
    program = xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else 0
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        up=bool(message["flags"] & IFF_UP),
        mtu=message.get_attr("IFLA_MTU") or 0,
        xdp_program=program or 0,
        xdp_native=attached == XDP_IN_DRIVER,
    )
