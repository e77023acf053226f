# SPDX-License-Identifier: Apache-2.0
"""ARP and neighbour discovery: without them there is no link, so nothing stops them."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6Unknown,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import raw

from ebpftop.bpf.layout import Flag
from tests.kernel.pipeline import Pipeline

pytestmark = pytest.mark.kernel

V4, V6, SERVER4, SERVER6 = "192.0.2.1", "2001:db8::1", "198.51.100.1", "2001:db8:ffff::1"
MACS = {"src": "02:00:00:00:00:02", "dst": "02:00:00:00:00:01"}
ETH = Ether(**MACS)


def ip6(**fields: Any) -> Any:
    return ETH / IPv6(src=V6, dst=SERVER6, **fields)


DISCOVERY = [
    ICMPv6ND_RS(), ICMPv6ND_RA(), ICMPv6ND_NS(), ICMPv6ND_NA(), ICMPv6ND_Redirect(),
]  # fmt: skip


@pytest.mark.parametrize("message", DISCOVERY, ids=lambda message: type(message).__name__)
def test_neighbour_discovery_passes_even_from_a_blocked_source(
    pipeline: Pipeline, message: Any
) -> None:
    pipeline.configure([Flag.DROP_UNPARSED])
    pipeline.block(V6)
    pipeline.block("::/0")

    assert pipeline.passes(raw(ip6(hlim=255) / message))
    assert pipeline.totals()["protocols"] == {"icmpv6": 1}
    # RFC 4861: with another hop limit it was forwarded, and is forged.
    assert not pipeline.passes(raw(ip6(hlim=254) / message))


@pytest.mark.parametrize(
    "message", [ICMPv6EchoRequest(), ICMPv6MLReport(), ICMPv6Unknown(type=138)],
    ids=["echo", "132", "138"],
)  # fmt: skip
def test_other_icmpv6_is_ordinary_at_any_hop_limit(pipeline: Pipeline, message: Any) -> None:
    pipeline.block(V6)

    assert not pipeline.passes(raw(ip6(hlim=255) / message))


def test_arp_passes_even_from_a_blocked_source(pipeline: Pipeline) -> None:
    pipeline.configure([Flag.DROP_UNPARSED])
    pipeline.block("0.0.0.0/0")
    pipeline.block("::/0")

    arp = ARP(psrc=V4, pdst=SERVER4, hwsrc=MACS["src"])

    assert pipeline.passes(raw(ETH / arp))
    assert pipeline.passes(raw(ETH / Dot1Q() / arp))
