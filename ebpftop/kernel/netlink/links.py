# SPDX-License-Identifier: Apache-2.0
"""Links, routes and addresses, as plain values."""

from __future__ import annotations

import difflib
import errno
import ipaddress
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ebpftop.errors import NotFoundError
from ebpftop.kernel.netlink.rtnetlink import (
    GETADDR,
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

IFF_UP = 1

_ADDRESS = struct.Struct("=BBBBI")
_IFLA_IFNAME, _IFLA_MTU, _IFLA_XDP = 3, 4, 43
_XDP_ATTACHED, _XDP_PROGRAM = 2, 4
_XDP_IN_DRIVER = 1
_IFA_ADDRESS = 1
_RTA_GATEWAY, _RTA_MULTIPATH, _RTA_TABLE = 5, 9, 15
_NEXT_HOP = struct.Struct("=HBBi")
_MAIN_TABLE = 254
_FAMILIES = (2, 10)
_NETDEV_DEV_GET = 1
_NETDEV_XDP_ACT_BASIC = 1


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
        self._route = RouteSocket()

    def close(self) -> None:
        """Close the socket."""
        self._route.close()

    def links(self) -> list[Link]:
        """Return every interface."""
        return [_link(answer) for answer in self._route.ask_all(GETLINK, LINK.pack(*[0] * 5))]

    def link(self, name: str) -> Link:
        """Return the interface called `name`.

        Raises:
            NotFoundError: There is none; names those there are.
        """
        found = self._get(0, attribute(_IFLA_IFNAME, name.encode() + b"\0"))
        if found is None:
            names = [link.name for link in self.links()]
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else "there is " + ", ".join(names)
            raise NotFoundError(f"no interface {name}", hint)
        return found

    def link_at(self, index: int) -> Link | None:
        """Return the interface with that number, None where it is gone."""
        return self._get(index)

    def _get(self, index: int, which: bytes = b"") -> Link | None:
        try:
            return _link(self._route.ask(GETLINK, LINK.pack(0, 0, index, 0, 0), which))
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ERANGE):
                return None
            raise

    def default_gateways(self) -> set[Prefix]:
        """Return the addresses of all default gateways, both families."""
        found = set()
        for family in _FAMILIES:
            for answer in self._route.ask_all(GETROUTE, ROUTE.pack(family, *[0] * 8)):
                found |= {_prefix(gateway) for gateway in _default_gateways(answer)}
        return found

    def local_addresses(self) -> set[Prefix]:
        """Return every address of this machine in this namespace."""
        answers = self._route.ask_all(GETADDR, _ADDRESS.pack(*[0] * 5))
        return {
            _prefix(answer.attributes[_IFA_ADDRESS])
            for answer in answers
            if _IFA_ADDRESS in answer.attributes
        }


def driver_runs_xdp(index: int) -> bool | None:
    """Whether an interface's driver says it can run XDP; None where the kernel has no answer.

    Asking by attaching would make some drivers reset their queues. Linux 6.3 and later know.
    """
    from pyroute2.netlink import NLM_F_REQUEST, genlmsg
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic import GenericNetlinkSocket

    class Message(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
        """A device of the `netdev` family, as far as it is read here (linux/netdev.h)."""

        prefix = "NETDEV_A_DEV_"
        nla_map = (
            ("NETDEV_A_DEV_UNSPEC", "none"),
            ("NETDEV_A_DEV_IFINDEX", "uint32"),
            ("NETDEV_A_DEV_PAD", "none"),
            ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
        )

    socket = GenericNetlinkSocket()
    try:
        socket.bind("netdev", Message)
        question = Message()
        question["cmd"], question["version"] = _NETDEV_DEV_GET, 1
        question["attrs"] = [("NETDEV_A_DEV_IFINDEX", index)]
        answers = socket.nlm_request(question, msg_type=socket.prid, msg_flags=NLM_F_REQUEST)
        features = next(iter(answers)).get_attr("NETDEV_A_DEV_XDP_FEATURES")
        return bool(features & _NETDEV_XDP_ACT_BASIC)
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


def _link(answer: Answer) -> Link:
    _, _, index, flags, _ = LINK.unpack(answer.head)
    told = answer.attributes
    xdp = dict(parts(told.get(_IFLA_XDP, b"")))
    return Link(
        name=told[_IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        index=index,
        up=bool(flags & IFF_UP),
        mtu=_number(told.get(_IFLA_MTU, b"")),
        xdp_program=_number(xdp.get(_XDP_PROGRAM, b"")),
        xdp_native=_number(xdp.get(_XDP_ATTACHED, b"")) == _XDP_IN_DRIVER,
    )


def _default_gateways(answer: Answer) -> Iterator[bytes]:
    """Yield the gateways of a route, if it is a default one of the main table."""
    _, prefix_length, _, _, table, *_ = ROUTE.unpack(answer.head)
    told = answer.attributes
    if prefix_length or _number(told.get(_RTA_TABLE, bytes([table]))) != _MAIN_TABLE:
        return
    if _RTA_GATEWAY in told:
        yield told[_RTA_GATEWAY]
    hops = told.get(_RTA_MULTIPATH, b"")
    while len(hops) >= _NEXT_HOP.size:
        length = max(_NEXT_HOP.unpack_from(hops)[0], _NEXT_HOP.size)
        yield from (
            value
            for number, value in parts(hops[_NEXT_HOP.size : length])
            if number == _RTA_GATEWAY
        )
        hops = hops[-(-length // 4) * 4 :]


def _prefix(packed: bytes) -> Prefix:
    return Prefix.parse(str(ipaddress.ip_address(packed)))


def _number(value: bytes) -> int:
    """Return a number of this machine's byte order; 0 where there is none."""
    return int.from_bytes(value, sys.byteorder)
