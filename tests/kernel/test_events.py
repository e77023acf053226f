# SPDX-License-Identifier: Apache-2.0
"""Events: told once each, numbered without gaps, and never one for each packet."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from ebpftop.bpf import layout
from ebpftop.bpf.layout import ControlOp, EventKind, Flag
from tests.kernel.observing import as_number
from tests.kernel.packets import frame, sources
from tests.kernel.pipeline import CAPACITY, SECOND_NS, START_NS, Pipeline

pytestmark = pytest.mark.kernel

HOST, NEIGHBOUR, HOST6 = "192.0.2.1", "192.0.2.2", "2001:db8::1"
ADDRESS, NET6 = as_number(HOST), as_number("2001:db8::/64")
UNTIL_NS = START_NS + SECOND_NS


def kinds(pipeline: Pipeline) -> list[EventKind]:
    return [event[0] for event in pipeline.events()]


@pytest.mark.parametrize("text", [HOST, "192.0.2.0/24", "192.0.0.0/8"])
def test_the_first_packet_after_a_blocks_end_tells_it_once(pipeline: Pipeline, text: str) -> None:
    pipeline.block(text, UNTIL_NS)
    pipeline.passed(frame(HOST), 5)
    pipeline.passed(frame(NEIGHBOUR), 5)
    assert pipeline.events() == []

    pipeline.advance(2)
    pipeline.passed(frame(HOST), 5)
    pipeline.passed(frame(NEIGHBOUR), 5)
    pipeline.configure()
    pipeline.passed(frame(HOST), 5)

    length = layout.ADDRESS.itemsize * 8 if text == HOST else 96 + int(text.split("/")[1])
    assert pipeline.events() == [
        (EventKind.BLOCK_END, as_number(text), length, START_NS + 2 * SECOND_NS, (UNTIL_NS, 0))
    ]


def test_each_of_several_blocks_that_a_packet_finds_ended_is_told(pipeline: Pipeline) -> None:
    texts = [HOST, "192.0.2.0/30", "192.0.2.0/24", "192.0.0.0/8"]
    for text in texts:
        pipeline.block(text, UNTIL_NS)
    pipeline.advance(2)

    pipeline.passed(frame(HOST), 3)

    assert kinds(pipeline) == [EventKind.BLOCK_END] * 4
    assert [event[1] for event in pipeline.events()] == [as_number(text) for text in texts]


@pytest.mark.parametrize(
    ("source", "first", "length"),
    [(HOST, ADDRESS, 128), (HOST6, NET6, 64)],
    ids=["IPv4", "IPv6"],
)
def test_an_automatic_block_tells_its_beginning_and_its_end(
    pipeline: Pipeline, source: str, first: int, length: int
) -> None:
    pipeline.limit(pps=10, burst_s=0.1, grace_s=0, block_for_s=60)
    pipeline.passed(frame(source), 10)
    until_ns = START_NS + 60 * SECOND_NS
    pipeline.advance(90)
    pipeline.passed(frame(source), 1)
    pipeline.advance(1)
    pipeline.passed(frame(source), 1)

    reason = layout.REASONS.index("limit-pps")
    assert pipeline.events() == [
        (EventKind.BLOCK_AUTO, first, length, START_NS, (reason, 60 * SECOND_NS)),
        (EventKind.BLOCK_END, first, length, START_NS + 90 * SECOND_NS, (until_ns, 1)),
    ]


def limited_drops(pipeline: Pipeline, count: int) -> None:
    """Have that many packets dropped for a limit."""
    dropped = pipeline.totals()["dropped"][0]
    while pipeline.totals()["dropped"][0] < dropped + count:
        pipeline.run(frame(HOST))


def test_a_flood_begins_and_ends_once(pipeline: Pipeline) -> None:
    # GIVEN a limit that all but one packet a second exceed
    pipeline.limit(pps=1, burst_s=0.1)
    pipeline.configure(flood_pps=100)
    pipeline.run(frame(HOST))

    # WHEN there are 20 automatic drops each 100 ms
    for _ in range(50):
        limited_drops(pipeline, 20)
        pipeline.advance(0.1)
    pipeline.run(frame(HOST))

    # THEN it began when the first hundred was full
    began_ns = START_NS + SECOND_NS // 2
    assert pipeline.events() == [(EventKind.FLOOD, 0, 0, began_ns, (100, 0))]
    assert pipeline.shared()["flood_since_ns"] == began_ns

    # WHEN it is quiet, THEN the first packet after three seconds tells the end
    pipeline.advance(2.5)
    pipeline.run(frame(HOST))
    assert len(pipeline.events()) == 1
    pipeline.advance(1)
    pipeline.run(frame(NEIGHBOUR))
    assert kinds(pipeline) == [EventKind.FLOOD, EventKind.FLOOD_END]
    pipeline.advance(5)
    pipeline.run(frame(NEIGHBOUR))
    assert len(pipeline.events()) == 2
    ended = pipeline.events()[1]
    assert ended[4] == (ended[3] - began_ns, 0)
    assert pipeline.shared()["flood_since_ns"] == 0


def test_drops_spread_over_more_than_a_second_are_no_flood(pipeline: Pipeline) -> None:
    pipeline.limit(pps=1, burst_s=0.1)
    pipeline.configure(flood_pps=100)

    for _ in range(100):
        limited_drops(pipeline, 9)
        pipeline.advance(0.1)

    assert pipeline.events() == []


def test_an_operators_blocks_make_no_flood(pipeline: Pipeline) -> None:
    pipeline.block(HOST)
    pipeline.configure([Flag.DROP_UNPARSED], flood_pps=10)

    for _ in range(30):
        pipeline.passed(frame(HOST), 10)
        pipeline.passed(frame(NEIGHBOUR)[:33], 10)
        pipeline.advance(0.05)

    assert pipeline.totals()["dropped"][0] == 600
    assert pipeline.events() == []


def test_drops_on_all_processors_make_one_flood(pipeline: Pipeline) -> None:
    pipeline.configure([Flag.DROP_NEW], new_sources=0, flood_pps=100)
    for cpu in (0, 1):
        pipeline.pin_to(cpu)
        pipeline.advance(0.01)
        pipeline.passed(frame(HOST), 60)

    for cpu in (0, 1):
        pipeline.pin_to(cpu)
        pipeline.advance(0.01)
        pipeline.run(frame(HOST))

    assert [event[0::4] for event in pipeline.events()] == [(EventKind.FLOOD, (120, 120))]


def test_packets_of_ever_new_sources_are_a_flood_though_nothing_is_limited(
    pipeline: Pipeline,
) -> None:
    pipeline.configure(new_sources=0, flood_pps=100)

    assert pipeline.passed(frame(HOST), 130) == 130
    pipeline.advance(0.01)
    pipeline.run(frame(NEIGHBOUR))

    assert [event[0::4] for event in pipeline.events()] == [(EventKind.FLOOD, (130, 130))]


def test_a_flood_is_told_with_the_untracked_of_its_own_second(pipeline: Pipeline) -> None:
    # GIVEN a flood of new sources, told, and long over
    pipeline.configure(new_sources=0, flood_pps=100)
    for _ in range(2):
        pipeline.passed(frame(HOST), 130)
        pipeline.advance(0.01)
    for _ in range(3):
        pipeline.run(frame(NEIGHBOUR))
        pipeline.advance(10)

    # WHEN a known source floods
    pipeline.limit(pps=1, burst_s=0.1)
    pipeline.configure(new_sources=1)
    pipeline.passed(frame(HOST), 131)
    pipeline.advance(0.01)
    pipeline.run(frame(HOST))

    told = [event[0::4] for event in pipeline.events() if event[0] is EventKind.FLOOD]
    assert told == [(EventKind.FLOOD, (130, 130)), (EventKind.FLOOD, (130, 0))]


def test_a_full_table_is_told_once(pipeline: Pipeline) -> None:
    crowd = sources(CAPACITY["SOURCES"] + 100)
    for source in crowd[: CAPACITY["SOURCES"] - 1]:
        pipeline.run(frame(source))
    assert pipeline.events() == []
    assert pipeline.shared()["table_full_ns"] == 0

    for source in crowd[CAPACITY["SOURCES"] - 1 :]:
        pipeline.run(frame(source))

    last = as_number(crowd[CAPACITY["SOURCES"] - 1])
    assert pipeline.events() == [
        (EventKind.TABLE_FULL, last, 128, START_NS, (CAPACITY["SOURCES"], 0))
    ]
    assert pipeline.shared()["table_full_ns"] == START_NS
    assert pipeline.shared()["sources_added"] == len(crowd)


def test_the_array_keeps_the_newest_events(pipeline: Pipeline) -> None:
    for number in range(layout.EVENTS + 10):
        pipeline.control(ControlOp.EVENT, kind=EventKind.UNBLOCK, value=[number, 0])

    values = [event[4][0] for event in pipeline.events()]
    assert values == list(range(10, layout.EVENTS + 10))


def test_control_writes_an_event_in_the_operators_words(pipeline: Pipeline) -> None:
    told = pipeline.control(
        ControlOp.EVENT, kind=EventKind.BLOCK, address=(1, 2), length=64, value=[5, 6],
        text="a scanner",
    )  # fmt: skip

    assert told == 1
    assert pipeline.events() == [(EventKind.BLOCK, 1 << 64 | 2, 64, START_NS, (5, 6))]
    stored = pipeline.maps["events"].get(1)
    assert stored is not None
    assert stored["text"][0] == b"a scanner"
    # The pipeline's own events have no text, whatever was in their place.
    records = np.zeros(layout.EVENTS, layout.EVENT)
    records["text"] = b"old"
    pipeline.maps["events"].put_all(np.arange(layout.EVENTS, dtype=layout.U32), records)
    pipeline.block(HOST, START_NS)
    pipeline.run(frame(HOST))
    stored = pipeline.maps["events"].get(2)
    assert stored is not None
    assert (stored["seq"][0], stored["text"][0]) == (2, b"")


def test_control_tells_the_end_of_a_rule_that_no_packet_found(pipeline: Pipeline) -> None:
    slot, lasting = pipeline.block(HOST, UNTIL_NS), pipeline.block(NEIGHBOUR)
    assert pipeline.control(ControlOp.END_RULE, slot) == 0
    pipeline.advance(2)

    assert pipeline.control(ControlOp.END_RULE, slot) == 1
    assert pipeline.control(ControlOp.END_RULE, slot) == 0
    assert pipeline.control(ControlOp.END_RULE, lasting) == 0
    assert pipeline.control(ControlOp.END_RULE, CAPACITY["RULES"]) == 0

    pipeline.passed(frame(HOST), 2)
    assert not pipeline.passes(frame(NEIGHBOUR))
    assert pipeline.events() == [
        (EventKind.BLOCK_END, ADDRESS, 128, START_NS + 2 * SECOND_NS, (UNTIL_NS, 0))
    ]


def test_control_tells_the_end_of_an_automatic_block(pipeline: Pipeline) -> None:
    pipeline.limit(pps=10, burst_s=0.1, grace_s=0, block_for_s=60)
    pipeline.passed(frame(HOST6), 5)
    net: dict[str, Any] = {"address": (NET6 >> 64, 0), "length": 64}
    assert pipeline.control(ControlOp.END_AUTO, **net) == 0
    assert pipeline.control(ControlOp.END_AUTO, address=(5, 5), length=128) == 0
    pipeline.advance(60)

    assert pipeline.control(ControlOp.END_AUTO, **net) == 1
    assert pipeline.control(ControlOp.END_AUTO, **net) == 0

    assert pipeline.passes(frame(HOST6))
    assert kinds(pipeline) == [EventKind.BLOCK_AUTO, EventKind.BLOCK_END]
    assert pipeline.events()[1][1:3] == (NET6, 64)


def test_control_refuses_what_it_does_not_know(pipeline: Pipeline) -> None:
    assert pipeline.control(99) == 0
    assert pipeline.events() == []


def test_a_flood_of_every_kind_writes_a_handful_of_events(pipeline: Pipeline) -> None:
    pipeline.block("10.0.0.0/30", START_NS + 5 * SECOND_NS)
    pipeline.limit(pps=10, burst_s=0.1, grace_s=0.5, block_for_s=600)
    pipeline.configure(flood_pps=50)
    crowd = [frame(source) for source in sources(8)]

    for _ in range(1000):
        for each in crowd:
            pipeline.run(each)
        pipeline.advance(0.01)

    # Four sources of eight are under the manual block for half of the time.
    assert Counter(kinds(pipeline)) == {
        EventKind.BLOCK_AUTO: 8, EventKind.BLOCK_END: 1, EventKind.FLOOD: 1,
    }  # fmt: skip
