# SPDX-License-Identifier: Apache-2.0
"""Questions to rtnetlink and their answers, taken apart here.

The dashboard asks each second. pyroute2 takes milliseconds for one interface, and 12 MB to be
there at all. Layouts are those of linux/netlink.h and linux/rtnetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from itertools import count
from typing import NamedTuple

GETLINK, GETADDR, GETROUTE, GETQDISC = 18, 22, 26, 38
LINK, ROUTE = struct.Struct("=BxHiII"), struct.Struct("=8BI")
"""ifinfomsg: family, kind of hardware, interface, flags, changed ones. rtmsg: family, lengths of
the destination and the source, TOS, table, protocol, scope, type, flags."""
TCMSG = struct.Struct("=IiIII")
"""Family, interface, handle, parent, information of a qdisc, class or filter."""
TCA_KIND = 1
_REQUEST, _DUMP = 0x001, 0x300
_ERROR, _DONE = 2, 3
_MULTIPART = 2
"""NLM_F_MULTI: more of the same answer follows."""
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ATTRIBUTE_TYPE = 0x3FFF
"""Without the flags for nested and for network order."""
_ALIGNED = 4
_BUFFER_BYTES = 1 << 18


class Answer(NamedTuple):
    """One message of the kernel's."""

    head: bytes
    """Its structure: ifinfomsg, ifaddrmsg, rtmsg."""
    attributes: Mapping[int, bytes]
    """What follows it, by number; of several of one number, the last."""


class RouteSocket:
    """An open socket, in the network namespace it was opened in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._numbers = count(1)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def ask(self, question: int, head: bytes, attributes: bytes = b"") -> Answer:
        """Ask for one thing.

        Raises:
            OSError: There is no such thing, or the kernel refused.
        """
        (answer,) = self._exchange(question, _REQUEST, head, attributes)
        return answer

    def ask_all(self, question: int, head: bytes) -> list[Answer]:
        """Ask for everything of a kind.

        Raises:
            OSError: The kernel refused.
        """
        return list(self._exchange(question, _REQUEST | _DUMP, head, b""))

    def _exchange(
        self, question: int, flags: int, head: bytes, attributes: bytes
    ) -> Iterator[Answer]:
        number = next(self._numbers)
        body = head + attributes
        header = _HEADER.pack(_HEADER.size + len(body), question, flags, number, 0)
        self._socket.send(header + body)
        more = True
        while more:
            for kind, of, multipart, told in _messages(self._socket.recv(_BUFFER_BYTES)):
                if of != number:
                    continue  # the rest of an answer that nobody waited for
                more = multipart and kind != _DONE
                if kind == _ERROR:
                    code = -int.from_bytes(told[:4], sys.byteorder, signed=True)
                    raise OSError(code, os.strerror(code))
                if kind != _DONE:
                    yield Answer(told[: len(head)], dict(parts(told[len(head) :])))


def _messages(received: bytes) -> Iterator[tuple[int, int, bool, bytes]]:
    """Yield kind, number, whether more follow, and the rest of each message."""
    at = 0
    while at + _HEADER.size <= len(received):
        length, kind, flags, number, _ = _HEADER.unpack_from(received, at)
        told = received[at + _HEADER.size : at + length]
        yield kind, number, bool(flags & _MULTIPART), told
        at += _aligned(max(length, _HEADER.size))


def attribute(number: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    length = _ATTRIBUTE.size + len(value)
    return (_ATTRIBUTE.pack(length, number) + value).ljust(_aligned(length), b"\0")


def parts(packed: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and value of each attribute, of a message or of another attribute."""
    at = 0
    while at + _ATTRIBUTE.size <= len(packed):
        length, number = _ATTRIBUTE.unpack_from(packed, at)
        if length < _ATTRIBUTE.size:
            return
        yield number & _ATTRIBUTE_TYPE, packed[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _aligned(length: int) -> int:
    return -(-length // _ALIGNED) * _ALIGNED
