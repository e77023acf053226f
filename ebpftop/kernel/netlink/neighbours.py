# SPDX-License-Identifier: Apache-2.0
"""The kernel's neighbour table: read, asked to look again, and listened to.

A table of many thousands is read each few seconds, so messages are taken apart here and not
by pyroute2. Layouts are those of linux/netlink.h, linux/rtnetlink.h and linux/neighbour.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from ebpftop.model import Prefix

NUD_STALE, NUD_PERMANENT, NUD_NOARP = 0x04, 0x80, 0x40
NUD_VALID = 0xDE
"""Permanent, noarp, reachable, probe, stale, delay: there is an address to send to."""
_NUD_NONE, _NUD_PROBE = 0x00, 0x10
_NTF_USE = 0x01
_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _DUMP, _CREATE = 0x001, 0x300, 0x400
_NDA_DST, _NDA_LLADDR = 1, 2
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
"""Links, neighbours, and addresses, routes and rules of both families (RTMGRP_*)."""
_HEADER, _NDMSG, _ATTRIBUTE = (
    struct.Struct("=IHHII"),
    struct.Struct("=BxxxiHBB"),
    struct.Struct("=HH"),
)
_MAC_BYTES = 6
_BUFFER_BYTES = 1 << 18
_FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry of the table."""

    ifindex: int
    """Number of the interface it is behind."""
    address: Prefix
    """Its IP address."""
    state: int
    """Bits of NUD_*."""
    mac: bytes
    """Its Ethernet address; empty where it is not known."""

    @property
    def is_valid(self) -> bool:
        """Whether packets may be sent to `mac`."""
        return bool(self.state & NUD_VALID) and len(self.mac) == _MAC_BYTES

    @property
    def may_change(self) -> bool:
        """Whether the kernel finds it out by asking, and not from an operator."""
        return not self.state & (NUD_PERMANENT | NUD_NOARP)


def neighbours() -> dict[tuple[int, Prefix], Neighbour]:
    """Return every entry of this network namespace, by interface and address.

    Raises:
        OSError: The kernel refused.
    """
    found = {}
    with closing(_socket()) as handle:
        handle.send(_message(_RTM_GETNEIGH, _REQUEST | _DUMP, _NDMSG.pack(0, 0, 0, 0, 0)))
        done = False
        while not done:
            for kind, body in _messages(handle.recv(_BUFFER_BYTES)):
                done |= kind == _NLMSG_DONE
                _raise_error(kind, body)
                neighbour = _neighbour(kind, body)
                if neighbour:
                    found[neighbour.ifindex, neighbour.address] = neighbour
    return found


def probe(ifindex: int, address: Prefix, known: Neighbour | None) -> None:
    """Have the kernel ask a neighbour for its address now, whatever it believes to know."""
    packed = address.to_bytes()[12:] if address.is_ipv4 else address.to_bytes()
    valid = known is not None and known.is_valid
    state, flags = (_NUD_PROBE, 0) if valid else (_NUD_NONE, _NTF_USE)
    body = _NDMSG.pack(_FAMILIES[len(packed)], ifindex, state, flags, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _NDA_DST) + packed
    with closing(_socket()) as handle:
        # What comes of it is told as a change; an interface may be gone or down by now.
        handle.send(_message(_RTM_NEWNEIGH, _REQUEST | _CREATE, body))


class Changes:
    """What changes in this network namespace, from now on, as far as ways depend on it."""

    def __init__(self) -> None:
        self._handle = _socket()
        self._handle.setblocking(False)
        # Many neighbours at once are no reason to lose one.
        with suppress(OSError):
            self._handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _BUFFER_BYTES)
        self._handle.bind((0, _GROUPS))

    def fileno(self) -> int:
        """Return the descriptor that can be read once something changed."""
        return self._handle.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._handle.close()

    def read(self) -> tuple[bool, set[Prefix]]:
        """Return whether routes or links changed, and which neighbours did; never waits.

        Where changes were lost, everything may have changed.
        """
        ways = False
        changed: set[Prefix] = set()
        while True:
            try:
                data = self._handle.recv(_BUFFER_BYTES)
            except BlockingIOError:
                return ways, changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                ways = True
                continue
            for kind, body in _messages(data):
                if kind in (_RTM_NEWNEIGH, _RTM_DELNEIGH):
                    neighbour = _neighbour(kind, body)
                    changed |= {neighbour.address} if neighbour else set()
                else:
                    ways = True


def _socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the body of each message in a datagram."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[max(_HEADER.size, length + 3 & ~3) :]


def _raise_error(kind: int, body: bytes) -> None:
    number = -int(struct.unpack_from("=i", body)[0]) if kind == _NLMSG_ERROR else 0
    if number:
        raise OSError(number, f"reading neighbours: {os.strerror(number)}")


def _neighbour(kind: int, body: bytes) -> Neighbour | None:
    if kind not in (_RTM_NEWNEIGH, _RTM_DELNEIGH) or len(body) < _NDMSG.size:
        return None
    _, ifindex, state, _, _ = _NDMSG.unpack_from(body)
    told, rest = {}, body[_NDMSG.size :]
    while len(rest) >= _ATTRIBUTE.size:
        length, name = _ATTRIBUTE.unpack_from(rest)
        told[name] = rest[_ATTRIBUTE.size : length]
        rest = rest[max(_ATTRIBUTE.size, length + 3 & ~3) :]
    packed = told.get(_NDA_DST, b"")
    if len(packed) not in _FAMILIES:
        return None  # of another family, as bridges have them
    mapped = packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed
    return Neighbour(ifindex, Prefix.from_bytes(mapped), state, told.get(_NDA_LLADDR, b""))
