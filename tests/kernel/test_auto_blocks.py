# SPDX-License-Identifier: Apache-2.0
"""Automatic blocks: when they begin, whom they hold, how they grow and end."""

from __future__ import annotations

import pytest

from ebpftop.bpf.layout import REASONS, EventKind, Flag
from tests.kernel.observing import as_number
from tests.kernel.packets import SYN, frame, sources, tcp, udp
from tests.kernel.pipeline import CAPACITY, SECOND_NS, START_NS, Pipeline

pytestmark = pytest.mark.kernel

HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"
HOST6, SAME_NET, OTHER_NET = "2001:db8::1", "2001:db8::2:3:4", "2001:db8:0:1::1"
DAY_S = 24 * 3600
LONGEST_S = 30 * DAY_S


def flood(pipeline: Pipeline, packet: bytes, seconds: float, *, pps: int = 100) -> int:
    """Send a packet steadily; returns how many passed."""
    passed = 0
    for _ in range(round(seconds * pps)):
        passed += pipeline.passes(packet)
        pipeline.now_ns += SECOND_NS // pps
    return passed


def flood_until_blocked(pipeline: Pipeline, packet: bytes) -> None:
    """Send a packet steadily until its source is blocked."""
    for _ in range(1000):
        told = pipeline.shared()["event_seq"]
        pipeline.run(packet)
        newer = pipeline.shared()["event_seq"] > told
        if newer and pipeline.events()[-1][0] is EventKind.BLOCK_AUTO:
            return
        pipeline.now_ns += SECOND_NS // 100
    raise AssertionError("it was never blocked")


@pytest.mark.parametrize(
    ("limit", "packet", "reason"),
    [
        ({"pps": 10}, frame(HOST), "limit-pps"),
        ({"bps": 8 * 1500 * 10}, frame(HOST, udp(bytes(1458))), "limit-bps"),
        ({"syn_pps": 10}, frame(HOST, tcp(SYN)), "limit-syn"),
    ],
    ids=["pps", "bps", "syn"],
)
def test_a_source_that_stays_over_a_limit_is_blocked_after_the_grace(
    pipeline: Pipeline, limit: dict[str, int], packet: bytes, reason: str
) -> None:
    pipeline.limit(**limit, burst_s=0.5, grace_s=2, block_for_s=60)

    # It is over its limit 50 ms after its start, and the grace ends 2 s later.
    flood(pipeline, packet, 2.04)
    assert pipeline.auto_blocks() == {}
    flood(pipeline, packet, 0.06)

    block = pipeline.auto_blocks()[as_number(HOST)]
    assert START_NS + 2.04 * SECOND_NS <= block["set_ns"] <= START_NS + 2.07 * SECOND_NS
    assert block["until_ns"] == block["set_ns"] + 60 * SECOND_NS
    assert (block["reason"], block["strikes"], block["ended"]) == (reason, 1, 0)
    assert pipeline.events() == [
        (
            EventKind.BLOCK_AUTO, as_number(HOST), 128, block["set_ns"],
            (REASONS.index(reason), 60 * SECOND_NS),
        )
    ]  # fmt: skip


@pytest.mark.parametrize(("grace_s", "blocked_after_s"), [(1, 1 + 1e-9), (0, 0)])
def test_a_source_may_be_over_its_limit_for_the_grace_exactly(
    pipeline: Pipeline, grace_s: float, blocked_after_s: float
) -> None:
    pipeline.limit(pps=10, burst_s=0.1, grace_s=grace_s, block_for_s=60)
    assert pipeline.passed(frame(HOST), 2) == 1
    for elapsed_s in (1, 1 + 1e-9) if grace_s else (0,):
        pipeline.now_ns = START_NS + round(elapsed_s * SECOND_NS)
        # What it saved meanwhile is spent, so that the next packet is over the limit again.
        while pipeline.passes(frame(HOST)):
            pass
        assert bool(pipeline.auto_blocks()) == (elapsed_s >= blocked_after_s)


def test_a_block_stops_everything_and_counts_it(pipeline: Pipeline) -> None:
    pipeline.limit(pps=10, grace_s=1, block_for_s=60)
    flood_until_blocked(pipeline, frame(HOST))
    before = pipeline.row(HOST)
    large = frame(HOST, udp(bytes(1000)))
    pipeline.advance(30)

    assert pipeline.passed(large, 7) == 0

    assert pipeline.totals()["drops"]["blocked-auto"] == 7
    block = pipeline.auto_blocks()[as_number(HOST)]
    assert (block["packets"], block["bytes"]) == (7, 7 * len(large))
    row = pipeline.row(HOST)
    assert row["dropped_packets"] - before["dropped_packets"] == 7
    assert row["dropped_bytes"] - before["dropped_bytes"] == 7 * len(large)
    assert row["limited_ns"] == before["limited_ns"]
    assert pipeline.passes(frame(NEIGHBOUR))


def test_a_block_ends_by_the_clock_alone(pipeline: Pipeline) -> None:
    pipeline.limit(pps=10, grace_s=1, block_for_s=60)
    flood_until_blocked(pipeline, frame(HOST))
    until_ns = pipeline.auto_blocks()[as_number(HOST)]["until_ns"]
    assert until_ns == pipeline.now_ns + 60 * SECOND_NS

    pipeline.now_ns = until_ns - 1
    assert not pipeline.passes(frame(HOST))
    pipeline.now_ns = until_ns
    assert pipeline.passes(frame(HOST))

    # It stays, with what it counted, until it is needed no longer.
    block = pipeline.auto_blocks()[as_number(HOST)]
    assert (block["packets"], block["ended"]) == (1, 1)


def test_a_source_that_backs_off_in_time_begins_a_new_grace(pipeline: Pipeline) -> None:
    # GIVEN a source that bursts for a while, then keeps to a low rate, again and again
    pipeline.limit(pps=10, burst_s=0.5, grace_s=2, block_for_s=60)
    for _ in range(5):
        flood(pipeline, frame(HOST), 1.9)
        assert flood(pipeline, frame(HOST), 3, pps=5) >= 10

    assert pipeline.totals()["drops"]["limit-pps"] > 500
    assert pipeline.auto_blocks() == {}
    # WHEN it does not back off
    flood(pipeline, frame(HOST), 2.2)
    assert len(pipeline.auto_blocks()) == 1


def test_a_source_at_its_limit_has_not_backed_off(pipeline: Pipeline) -> None:
    pipeline.limit(pps=10, burst_s=0.5, grace_s=2, block_for_s=60)
    flood(pipeline, frame(HOST), 1)

    # Just above its limit, its backlog stays.
    flood(pipeline, frame(HOST), 2, pps=12)

    assert len(pipeline.auto_blocks()) == 1


def test_backing_off_on_one_limit_is_not_enough(pipeline: Pipeline) -> None:
    pipeline.limit(pps=1000, syn_pps=10, burst_s=0.5, grace_s=1, block_for_s=60)
    for _ in range(13):
        flood(pipeline, frame(HOST, tcp(SYN)), 0.1)
        pipeline.passed(frame(HOST), 5)

    assert len(pipeline.auto_blocks()) == 1


def test_without_a_duration_nobody_is_blocked(pipeline: Pipeline) -> None:
    pipeline.limit(pps=10, grace_s=0, block_for_s=0)
    flood(pipeline, frame(HOST), 5)

    assert pipeline.auto_blocks() == {}


def test_a_dry_run_blocks_nobody(pipeline: Pipeline) -> None:
    pipeline.limit(Flag.DRY_RUN, pps=10, grace_s=0, block_for_s=60)

    assert flood(pipeline, frame(HOST), 5) == 500
    assert pipeline.auto_blocks() == {}
    assert pipeline.events() == []


def test_a_dry_run_says_whom_a_block_from_before_would_stop(pipeline: Pipeline) -> None:
    pipeline.limit(pps=10, grace_s=0, block_for_s=60)
    flood_until_blocked(pipeline, frame(HOST))
    stopped = pipeline.auto_blocks()[as_number(HOST)]["packets"]
    pipeline.limit(Flag.DRY_RUN, pps=10, grace_s=0, block_for_s=60)

    assert pipeline.passed(frame(HOST), 5) == 5

    assert pipeline.totals()["would_drop"] == {"blocked-auto": 5}
    assert pipeline.auto_blocks()[as_number(HOST)]["packets"] == stopped


@pytest.mark.parametrize("block_for_s", [1, 600, 20 * DAY_S, 40 * DAY_S])
@pytest.mark.parametrize("source", [HOST, HOST6])
def test_each_repeat_doubles_the_block_up_to_30_days(
    pipeline: Pipeline, block_for_s: int, source: str
) -> None:
    pipeline.limit(pps=10, burst_s=0.1, grace_s=0, block_for_s=block_for_s)

    for strike in range(24):
        flood_until_blocked(pipeline, frame(source))
        (block,) = pipeline.auto_blocks().values()
        assert block["strikes"] == strike + 1
        duration_s = min(block_for_s << strike, LONGEST_S)
        assert block["until_ns"] - block["set_ns"] == duration_s * SECOND_NS
        assert (block["packets"], block["bytes"], block["ended"]) == (0, 0, 0)
        pipeline.run(frame(source))
        pipeline.now_ns = block["until_ns"]


@pytest.mark.parametrize(("pause_s", "strikes"), [(DAY_S - 1, 2), (DAY_S, 1)])
def test_strikes_are_forgotten_a_day_after_the_block(
    pipeline: Pipeline, pause_s: int, strikes: int
) -> None:
    pipeline.limit(pps=10, burst_s=0.1, grace_s=0, block_for_s=60)
    flood_until_blocked(pipeline, frame(HOST))
    pipeline.advance(60 + pause_s)

    pipeline.passed(frame(HOST), 3)

    assert pipeline.auto_blocks()[as_number(HOST)]["strikes"] == strikes


def test_an_ipv6_source_is_blocked_with_its_64(pipeline: Pipeline) -> None:
    pipeline.limit(pps=10, grace_s=0, block_for_s=60)
    flood_until_blocked(pipeline, frame(HOST6))

    assert list(pipeline.auto_blocks()) == [as_number("2001:db8::/64")]
    assert pipeline.events()[0][:3] == (EventKind.BLOCK_AUTO, as_number("2001:db8::/64"), 64)
    assert not pipeline.passes(frame(SAME_NET))
    assert pipeline.passes(frame(OTHER_NET))
    # Addresses for which there is no row are held as well.
    pipeline.configure(new_sources=0)
    assert not pipeline.passes(frame("2001:db8::9:9"))
    assert pipeline.auto_blocks()[as_number("2001:db8::/64")]["packets"] == 2


@pytest.mark.parametrize("source", [HOST, HOST6])
def test_an_unblocked_source_is_free_at_its_next_packet(pipeline: Pipeline, source: str) -> None:
    pipeline.limit(pps=10, burst_s=0.1, grace_s=1, block_for_s=60)
    flood_until_blocked(pipeline, frame(source))
    pipeline.advance(1)
    assert not pipeline.passes(frame(source))

    pipeline.unblock_auto(HOST if source == HOST else "2001:db8::")

    assert pipeline.passes(frame(source))
    # If it goes on it is blocked again, as for the first time.
    flood_until_blocked(pipeline, frame(source))
    (block,) = pipeline.auto_blocks().values()
    assert block["strikes"] == 1


@pytest.mark.parametrize("source", [HOST, HOST6])
def test_a_block_outlives_the_row_and_the_limits(pipeline: Pipeline, source: str) -> None:
    pipeline.limit(pps=10, grace_s=0, block_for_s=60)
    flood_until_blocked(pipeline, frame(source))
    for name in ("ip_tracker", "net_limiters"):
        pipeline.maps[name].delete_all(pipeline.maps[name].read()[0].copy())
    assert not pipeline.passes(frame(source))

    pipeline.configure([Flag.AUTO])

    assert not pipeline.passes(frame(source))
    pipeline.advance(60)
    assert pipeline.passes(frame(source))


def test_automatic_blocks_that_overflow_leave_manual_ones_alone(pipeline: Pipeline) -> None:
    # GIVEN manual blocks up to the table's size
    manual = [f"172.16.{number >> 8}.{number & 255}" for number in range(CAPACITY["BLOCKS"])]
    for text in manual:
        pipeline.block(text)
    pipeline.limit(pps=1, burst_s=1, grace_s=0, block_for_s=60)
    crowd = sources(CAPACITY["BLOCKS"] * 3)

    for source in crowd:
        pipeline.passed(frame(source), 3)

    # THEN the newest automatic blocks hold, the oldest made room
    assert len(pipeline.auto_blocks()) <= CAPACITY["BLOCKS"]
    assert not any(pipeline.passes(frame(source)) for source in crowd[-50:])
    assert as_number(crowd[0]) not in pipeline.auto_blocks()
    assert not any(pipeline.passes(frame(text)) for text in manual)
    assert pipeline.totals()["drops"]["blocked"] == len(manual)


def test_a_source_that_lost_sight_of_its_block_finds_it_again(pipeline: Pipeline) -> None:
    # GIVEN a row as left by two processors that saw no block and set one at the same time
    pipeline.limit(pps=10, burst_s=0.1, grace_s=0, block_for_s=60)
    flood_until_blocked(pipeline, frame(HOST))
    keys, rows = (records.copy() for records in pipeline.maps["ip_tracker"].read())
    rows["limiter"]["blocked"] = 0
    pipeline.maps["ip_tracker"].put(keys[0], rows)

    pipeline.passed(frame(HOST), 9)

    assert pipeline.totals()["drops"]["blocked-auto"] > 0
    assert len(pipeline.events()) == 1
