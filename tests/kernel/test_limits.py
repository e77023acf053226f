# SPDX-License-Identifier: Apache-2.0
"""Rate limits: what they admit at once and over hours, and whom they charge."""

from __future__ import annotations

import pytest

from ebpftop.bpf.layout import Flag
from tests.kernel.packets import ACK, FRAGMENT, SYN, Extension, frame, tcp, udp
from tests.kernel.pipeline import SECOND_NS, START_NS, Pipeline

pytestmark = pytest.mark.kernel

HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"
HOST6, SAME_NET, OTHER_NET = "2001:db8::1", "2001:db8::2:3:4", "2001:db8:0:1::1"
SMALL, LARGE = frame(HOST), frame(HOST, udp(bytes(1458)))
REQUEST, REPLY = frame(HOST, tcp(SYN)), frame(HOST, tcp(ACK))
LIMITS = {
    "pps": {"pps": 1},
    "bps": {"bps": 8 * len(LARGE)},
    "syn": {"syn_pps": 1},
}
"""Each limit at one packet of `PACKETS` a second."""
PACKETS = {"pps": SMALL, "bps": LARGE, "syn": REQUEST}


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("burst", [1, 2, 10])
def test_a_burst_is_admitted_at_once_and_not_a_packet_more(
    pipeline: Pipeline, kind: str, burst: int
) -> None:
    pipeline.limit(**LIMITS[kind], burst_s=burst)

    assert pipeline.passed(PACKETS[kind], burst + 20) == burst

    assert pipeline.totals()["drops"] == {f"limit-{kind}": 20}
    row = pipeline.row(HOST)
    assert (row["passed_packets"], row["dropped_packets"]) == (burst, 20)
    assert row["limited_ns"] == START_NS
    # One second later there is room for one.
    pipeline.advance(1)
    assert pipeline.passed(PACKETS[kind], 5) == 1


@pytest.mark.parametrize("kind", LIMITS)
def test_a_burst_below_one_packet_admits_one(pipeline: Pipeline, kind: str) -> None:
    pipeline.limit(**LIMITS[kind], burst_s=0.01)

    assert pipeline.passed(PACKETS[kind], 5) == 1
    pipeline.advance(0.98)
    assert not pipeline.passes(PACKETS[kind])
    pipeline.advance(0.02)
    assert pipeline.passes(PACKETS[kind])


@pytest.mark.parametrize("kind", LIMITS)
def test_steady_traffic_below_the_limit_never_drops(pipeline: Pipeline, kind: str) -> None:
    pipeline.limit(**LIMITS[kind], burst_s=1)
    packet, hours = PACKETS[kind], 2

    for _ in range(hours * 3600):
        assert pipeline.passes(packet)
        pipeline.now_ns += SECOND_NS + 1


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("excess", [1.001, 1.5, 4])
def test_traffic_above_the_limit_passes_at_the_limit(
    pipeline: Pipeline, kind: str, excess: float
) -> None:
    burst, seconds = 5, 2 * 3600
    pipeline.limit(**LIMITS[kind], burst_s=burst)
    packet, gap_ns, passed = PACKETS[kind], int(SECOND_NS / excess), 0

    while pipeline.now_ns < START_NS + seconds * SECOND_NS:
        passed += pipeline.passes(packet)
        pipeline.now_ns += gap_ns

    assert abs(passed - min(seconds + burst, seconds * excess)) <= 1


def test_what_was_not_used_is_not_saved_beyond_the_burst(pipeline: Pipeline) -> None:
    pipeline.limit(pps=1, burst_s=3)
    pipeline.advance(1000)
    assert pipeline.passed(SMALL, 9) == 3
    pipeline.advance(1000)
    assert pipeline.passed(SMALL, 9) == 3


def test_limits_are_charged_by_bytes_of_the_whole_frame(pipeline: Pipeline) -> None:
    padded = frame(HOST, udp(bytes(100)), padding=bytes(100))
    pipeline.limit(bps=8 * len(padded) * 10, burst_s=1)

    assert pipeline.passed(padded, 30) == 10


def test_a_packet_that_one_limit_refuses_is_charged_to_none(pipeline: Pipeline) -> None:
    # GIVEN room for 10 packets, of them 2 connection requests, and for 4,000 bytes
    pipeline.limit(pps=10, syn_pps=2, bps=8 * 4000, burst_s=1)

    assert pipeline.passed(REQUEST, 20) == 2
    assert pipeline.passed(LARGE, 20) == 2
    assert pipeline.passed(REPLY, 20) == 6

    assert pipeline.totals()["drops"] == {"limit-syn": 18, "limit-bps": 18, "limit-pps": 14}


def test_packets_refused_for_their_rate_are_not_charged_as_requests(pipeline: Pipeline) -> None:
    # GIVEN a packet a second, and ten requests in ten seconds
    pipeline.limit(pps=1, syn_pps=0.1, burst_s=30)
    assert pipeline.passed(REPLY, 40) == 30
    assert pipeline.passed(REQUEST, 10) == 0

    pipeline.advance(5)

    assert pipeline.passed(REQUEST, 10) == 3


def test_only_connection_requests_are_charged_as_such(pipeline: Pipeline) -> None:
    pipeline.limit(syn_pps=1, burst_s=1)

    assert pipeline.passed(frame(HOST, tcp(SYN | ACK)), 20) == 20
    assert pipeline.passed(SMALL, 20) == 20
    assert pipeline.passed(REQUEST, 20) == 1


def test_each_ipv4_source_is_limited_by_itself(pipeline: Pipeline) -> None:
    pipeline.limit(pps=1, burst_s=4)

    assert pipeline.passed(SMALL, 9) == 4
    assert pipeline.passed(frame(NEIGHBOUR), 9) == 4


def test_ipv6_sources_of_one_64_share_a_limit(pipeline: Pipeline) -> None:
    pipeline.limit(pps=1, burst_s=4)

    assert pipeline.passed(frame(HOST6), 3) == 3
    assert pipeline.passed(frame(SAME_NET), 9) == 1
    assert pipeline.passed(frame(OTHER_NET), 9) == 4
    # Each has a row of its own.
    assert pipeline.row(SAME_NET)["dropped_packets"] == 8
    assert pipeline.row(HOST6)["dropped_packets"] == 0


def test_an_ipv6_net_over_its_limit_gets_no_further_by_new_addresses(pipeline: Pipeline) -> None:
    # GIVEN no budget for more rows
    pipeline.limit(pps=1, burst_s=4)
    assert pipeline.passes(frame(HOST6))
    pipeline.configure(new_sources=0)

    passed = [pipeline.passes(frame(f"2001:db8::{number:x}")) for number in range(16, 32)]

    assert sum(passed) == 3
    assert pipeline.totals()["drops"] == {"limit-pps": 13}


@pytest.mark.parametrize(("protected", "source"), [(HOST, HOST), ("2001:db8::/64", HOST6)])
def test_protected_sources_are_neither_limited_nor_blocked(
    pipeline: Pipeline, protected: str, source: str
) -> None:
    pipeline.protect(protected)
    pipeline.limit(pps=1, grace_s=0, block_for_s=60)

    for _ in range(20):
        assert pipeline.passed(frame(source), 20) == 20
        pipeline.advance(0.1)
    assert pipeline.auto_blocks() == {}


def test_a_source_stays_protected_when_a_block_of_its_prefix_ends(pipeline: Pipeline) -> None:
    pipeline.protect(HOST)
    pipeline.block("192.0.2.0/24", START_NS + 1)
    pipeline.limit(pps=1)
    pipeline.advance(1)

    assert pipeline.passed(SMALL, 20) == 20


def test_a_protected_address_passes_while_its_64_is_blocked(pipeline: Pipeline) -> None:
    pipeline.protect(HOST6)
    pipeline.limit(pps=1, grace_s=0, block_for_s=60)
    pipeline.passed(frame(SAME_NET), 20)
    assert len(pipeline.auto_blocks()) == 1

    assert pipeline.passed(frame(HOST6), 20) == 20
    assert not pipeline.passes(frame("2001:db8::77"))


def test_no_limit_means_none(pipeline: Pipeline) -> None:
    pipeline.limit()
    assert pipeline.passed(LARGE, 100) == 100
    pipeline.limit(pps=1, burst_s=1)
    assert pipeline.passed(SMALL, 10) == 1
    pipeline.configure([Flag.AUTO])
    assert pipeline.passed(SMALL, 10) == 10


@pytest.mark.parametrize("source", [HOST, HOST6])
def test_later_fragments_are_limited_by_packets_and_bytes(pipeline: Pipeline, source: str) -> None:
    fragment = frame(source, offset=1, extensions=[Extension(FRAGMENT, offset=1)])
    pipeline.limit(pps=1, burst_s=4)

    assert pipeline.passed(fragment, 9) == 4
