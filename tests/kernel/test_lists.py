# SPDX-License-Identifier: Apache-2.0
"""The lists: which rule a source meets first, how long it holds, and what is counted on it."""

from __future__ import annotations

import pytest

from tests.kernel.packets import frame, udp
from tests.kernel.pipeline import SECOND_NS, START_NS, Pipeline

pytestmark = pytest.mark.kernel

HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"
HOST6 = "2001:db8::1"


@pytest.mark.parametrize(
    ("blocked", "source", "reason"),
    [
        (HOST, HOST, "blocked"),
        ("192.0.2.0/31", HOST, "blocked-prefix"),
        ("192.0.0.0/8", HOST, "blocked-prefix"),
        ("0.0.0.0/0", HOST, "blocked-prefix"),
        (HOST6, HOST6, "blocked"),
        ("2001:db8::/127", HOST6, "blocked-prefix"),
        ("2001:db8::/64", HOST6, "blocked-prefix"),
        ("::/0", HOST6, "blocked-prefix"),
    ],
)
def test_a_block_drops_its_addresses_and_no_other(
    pipeline: Pipeline, blocked: str, source: str, reason: str
) -> None:
    pipeline.block(blocked)

    assert not pipeline.passes(frame(source))
    assert pipeline.totals()["drops"] == {reason: 1}
    if blocked != "::/0":
        outside = "203.0.113.1" if blocked != "0.0.0.0/0" else "2001:db8:1::1"
        assert pipeline.passes(frame(outside))
    if reason == "blocked":
        assert pipeline.passes(frame(NEIGHBOUR))


def test_the_allow_list_comes_before_every_block_and_limit(pipeline: Pipeline) -> None:
    # GIVEN two allowed prefixes around a host that is blocked twice and over its limit
    wide, narrow = pipeline.allow("192.0.0.0/8"), pipeline.allow("192.0.2.0/24")
    pipeline.block(HOST)
    pipeline.block("192.0.2.0/25")
    pipeline.limit(pps=1)

    assert pipeline.passed(frame(HOST), 20) == 20

    # THEN the longest is hit
    assert pipeline.hits() == {narrow: (20, 20 * 60)}
    assert pipeline.passes(frame("192.1.1.1"))
    assert pipeline.hits()[wide] == (1, 60)


def test_an_exact_block_comes_before_a_prefix_and_longer_prefixes_first(
    pipeline: Pipeline,
) -> None:
    slots = [pipeline.block(text) for text in ("192.0.0.0/8", "192.0.2.0/24", HOST)]

    pipeline.run(frame(HOST))
    pipeline.run(frame(NEIGHBOUR))
    pipeline.run(frame("192.9.9.9"))

    assert pipeline.hits() == dict.fromkeys(slots, (1, 60))


def test_blocks_hold_for_protected_sources_too(pipeline: Pipeline) -> None:
    pipeline.protect(HOST)
    pipeline.block(HOST)

    assert not pipeline.passes(frame(HOST))


@pytest.mark.parametrize("text", [HOST, "192.0.2.0/24"])
def test_a_block_ends_by_the_clock_alone(pipeline: Pipeline, text: str) -> None:
    until_ns = START_NS + 60 * SECOND_NS
    slot = pipeline.block(text, until_ns)
    assert not pipeline.passes(frame(HOST))

    pipeline.now_ns = until_ns - 1
    assert not pipeline.passes(frame(HOST))
    pipeline.now_ns = until_ns
    assert pipeline.passed(frame(HOST), 3) == 3

    # What it counted stays.
    assert pipeline.hits() == {slot: (2, 120)}
    row = pipeline.row(HOST)
    assert (row["dropped_packets"], row["dropped_bytes"]) == (2, 120)
    assert (row["passed_packets"], row["passed_bytes"]) == (3, 180)


def test_a_block_without_end_holds_for_years(pipeline: Pipeline) -> None:
    pipeline.block(HOST)
    pipeline.advance(10 * 365 * 86400)

    assert not pipeline.passes(frame(HOST))


NESTED = ["192.0.2.0/31", "192.0.2.0/30", "192.0.2.0/29", "192.0.2.0/28", "192.0.2.0/24"]


@pytest.mark.parametrize("ended", [1, 2, 3, 4])
@pytest.mark.parametrize("exact", [False, True])
def test_blocks_that_ended_uncover_a_shorter_one(
    pipeline: Pipeline, ended: int, exact: bool
) -> None:
    # GIVEN nested blocks, of which the longest end first
    if exact:
        pipeline.block(HOST, START_NS + 1)
    for text in NESTED[:ended]:
        pipeline.block(text, START_NS + 1)
    lasting = pipeline.block(NESTED[ended])
    pipeline.run(frame(HOST))

    pipeline.advance(1)

    # THEN the one that is left holds, for a source seen before and for another
    assert not pipeline.passes(frame(HOST))
    assert not pipeline.passes(frame("192.0.2.0"))
    assert pipeline.hits()[lasting] == (2, 120)


def test_all_nested_blocks_may_end(pipeline: Pipeline) -> None:
    for text in [*NESTED, "0.0.0.0/0", "::/0"]:
        pipeline.block(text, START_NS + 1)
    pipeline.advance(1)

    assert pipeline.passes(frame(HOST))


def test_a_change_is_obeyed_at_the_next_packet(pipeline: Pipeline) -> None:
    assert pipeline.passes(frame(HOST))
    pipeline.block("192.0.2.0/24")
    assert not pipeline.passes(frame(HOST))
    pipeline.allow(HOST)
    assert pipeline.passes(frame(HOST))
    pipeline.remove("allowed", HOST)
    assert not pipeline.passes(frame(HOST))
    pipeline.remove("blocked_nets", "192.0.2.0/24")
    assert pipeline.passes(frame(HOST))
    pipeline.limit(pps=1, burst_s=1)
    assert pipeline.passed(frame(HOST), 5) == 1
    pipeline.protect(HOST)
    assert pipeline.passed(frame(HOST), 5) == 5
    pipeline.remove("protected", HOST)
    assert pipeline.passed(frame(HOST), 5) == 0


def test_lists_are_searched_when_they_changed_and_not_each_packet(pipeline: Pipeline) -> None:
    # GIVEN a known source, and an entry that was written without raising the generation
    pipeline.allow("203.0.113.1")
    pipeline.run(frame(HOST))
    generation = pipeline.maps["config"].get(0)
    assert generation is not None
    pipeline.block(HOST)
    after = pipeline.maps["config"].get(0)
    assert after is not None
    after["generation"] = generation["generation"]
    pipeline.maps["config"].put(0, after)

    # THEN the known source keeps what it knows, and a new one looks
    assert pipeline.passes(frame(HOST))
    pipeline.block(NEIGHBOUR)
    assert not pipeline.passes(frame(NEIGHBOUR))
    assert not pipeline.passes(frame(HOST))


def test_a_slot_serves_another_block_after_the_first(pipeline: Pipeline) -> None:
    slot = pipeline.block(HOST)
    assert not pipeline.passes(frame(HOST))
    pipeline.remove("blocked_ips", HOST)

    assert pipeline.block("203.0.113.0/24") == slot

    assert pipeline.passes(frame(HOST))
    assert not pipeline.passes(frame("203.0.113.9"))
    assert pipeline.hits()[slot] == (2, 120)


def test_an_end_that_moved_is_obeyed(pipeline: Pipeline) -> None:
    # GIVEN a block that is over, and whose end the source has met
    slot = pipeline.block(HOST, START_NS + 1)
    pipeline.advance(1)
    assert pipeline.passes(frame(HOST))
    pipeline.remove("blocked_ips", HOST)

    assert pipeline.block(HOST, pipeline.now_ns + SECOND_NS) == slot

    assert not pipeline.passes(frame(HOST))


def test_drops_are_counted_on_the_rule_and_on_each_source(pipeline: Pipeline) -> None:
    slot = pipeline.block("192.0.2.0/24")
    small, large = frame(HOST), frame(NEIGHBOUR, udp(bytes(1000)))

    assert pipeline.passed(small, 3) == 0
    assert pipeline.passed(large, 2) == 0

    octets = 3 * len(small) + 2 * len(large)
    assert pipeline.hits() == {slot: (5, octets)}
    assert pipeline.totals()["dropped"] == (5, octets)
    assert pipeline.row(HOST)["dropped_bytes"] == 3 * len(small)
    assert pipeline.row(NEIGHBOUR)["dropped_packets"] == 2
    assert pipeline.row(HOST)["passed_packets"] == 0


def test_a_row_knows_when_its_source_was_seen(pipeline: Pipeline) -> None:
    pipeline.run(frame(HOST))
    pipeline.advance(5)
    pipeline.block(HOST)
    pipeline.run(frame(HOST))

    row = pipeline.row(HOST)
    assert (row["first_ns"], row["last_ns"]) == (START_NS, START_NS + 5 * SECOND_NS)
    assert row["limited_ns"] == 0
