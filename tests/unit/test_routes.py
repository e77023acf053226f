# SPDX-License-Identifier: Apache-2.0
"""Ways out, of messages as the kernel sends them."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from ebpftop.kernel.netlink import routes
from ebpftop.kernel.netlink.routes import Exit, NextHop, Routes
from ebpftop.kernel.netlink.rtnetlink import LINK, ROUTE, Answer, attribute
from ebpftop.model import Prefix

UNICAST, BLACKHOLE = 1, 6


def link(index: int, *, below: int | None = None, vlan: int | None = None) -> Answer:
    told = {1: bytes.fromhex(f"0200000000{index:02x}"), 4: struct.pack("=I", 1500 - index)}
    if below is not None:
        told[5] = struct.pack("=I", below)
    if vlan is not None:
        data = attribute(1, struct.pack("=H", vlan)) + attribute(2, bytes(8))
        told[18] = attribute(1, b"vlan\0") + attribute(2, data)
    return Answer(LINK.pack(0, 1, index, 0, 0), told)


def route(kind: int = UNICAST, *, mtu: int = 0, **hop: bytes) -> Answer:
    numbers = {"out": 4, "gateway": 5, "via": 18}
    told = {numbers[name]: value for name, value in hop.items()}
    if mtu:
        told[8] = attribute(5, bytes(4)) + attribute(2, struct.pack("=I", mtu))
    return Answer(ROUTE.pack(2, 32, 0, 0, 254, 0, 0, kind, 0), told)


class Answers:
    """A socket that has these answers."""

    def __init__(self, *answers: Answer | OSError) -> None:
        self.answers = list(answers)
        self.asked = b""

    def ask_all(self, question: int, head: bytes) -> list[Answer]:
        return [answer for answer in self.answers if isinstance(answer, Answer)]

    def ask(self, question: int, head: bytes, attributes: bytes = b"") -> Answer:
        self.asked = head[:2] + attributes
        (answer,) = self.answers
        if isinstance(answer, OSError):
            raise answer
        return answer


def test_attached_interfaces_and_vlans_on_them_are_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    links = [
        link(1), link(2), link(3), link(4, below=2, vlan=42), link(5, below=3, vlan=43),
        link(6, below=2), link(7, below=4, vlan=44),
    ]  # fmt: skip
    monkeypatch.setattr(routes, "RouteSocket", lambda: Answers(*links))
    assert Routes().exits([1, 2]) == {
        1: Exit(1, None, bytes.fromhex("020000000001"), 1499),
        2: Exit(2, None, bytes.fromhex("020000000002"), 1498),
        4: Exit(2, 42, bytes.fromhex("020000000004"), 1496),
    }


OUT = struct.pack("=I", 7)
ROUTER, ROUTER6 = (ipaddress.ip_address(text).packed for text in ("192.0.2.1", "2001:db8::1"))
NEXT_HOPS = {
    "on the link": (route(out=OUT), NextHop(7, Prefix.parse("198.51.100.9"), 0)),
    "by a gateway": (
        route(out=OUT, gateway=ROUTER, mtu=1400), NextHop(7, Prefix.parse("192.0.2.1"), 1400),
    ),
    "by a gateway of IPv6": (
        route(out=OUT, via=struct.pack("=H", 10) + ROUTER6),
        NextHop(7, Prefix.parse("2001:db8::1"), 0),
    ),
    "a black hole": (route(BLACKHOLE, out=OUT), None),
    "no interface": (route(), None),
    "unreachable": (OSError(101, "Network is unreachable"), None),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "expected"), NEXT_HOPS.values(), ids=NEXT_HOPS)
def test_the_next_hop_is_the_gateway_or_the_address_itself(
    monkeypatch: pytest.MonkeyPatch, answer: Answer | OSError, expected: NextHop | None
) -> None:
    socket = Answers(answer)
    monkeypatch.setattr(routes, "RouteSocket", lambda: socket)
    assert Routes().next_hop(Prefix.parse("198.51.100.9")) == expected
    assert socket.asked == bytes([2, 32]) + attribute(1, bytes([198, 51, 100, 9]))
