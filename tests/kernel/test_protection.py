# SPDX-License-Identifier: Apache-2.0
"""What holds besides the lists and limits: the dry run, the budget for new sources, the sums."""

from __future__ import annotations

import pytest

from ebpftop.bpf.layout import Flag
from tests.kernel.packets import frame, sources, tcp
from tests.kernel.pipeline import SECOND_NS, START_NS, Pipeline

pytestmark = pytest.mark.kernel

HOST, NEIGHBOUR, HOST6 = "192.0.2.1", "192.0.2.2", "2001:db8::1"


def test_a_dry_run_counts_what_it_would_drop_and_drops_nothing(pipeline: Pipeline) -> None:
    # GIVEN a cause for every reason there is
    pipeline.block(HOST)
    pipeline.block("203.0.113.0/24")
    pipeline.limit(
        Flag.DRY_RUN, Flag.DROP_UNPARSED, Flag.DROP_NEW,
        pps=10, burst_s=0.5, grace_s=0, block_for_s=60,
    )  # fmt: skip
    traffic = [frame(HOST), frame("203.0.113.1"), frame(HOST6)[:-1]] + 20 * [frame(NEIGHBOUR)]

    assert all(pipeline.passes(each) for each in traffic)
    pipeline.configure(new_sources=0)
    assert pipeline.passes(frame("10.0.0.1"))

    totals = pipeline.totals()
    assert totals["dropped"] == (0, 0)
    assert totals["drops"] == {}
    assert totals["would_drop"] == {
        "blocked": 1, "blocked-prefix": 1, "unparsed": 1, "limit-pps": 15, "new-source": 1,
    }  # fmt: skip
    row = pipeline.row(NEIGHBOUR)
    assert (row["passed_packets"], row["would_drop_packets"]) == (20, 15)
    assert row["dropped_packets"] == 0
    assert pipeline.auto_blocks() == {}
    assert pipeline.hits() == {}


@pytest.mark.parametrize("drop_new", [False, True])
def test_new_sources_have_a_budget_in_each_window(pipeline: Pipeline, drop_new: bool) -> None:
    pipeline.configure([Flag.DROP_NEW] if drop_new else [], new_sources=4)
    crowd = [frame(source) for source in sources(10)]

    passed = [pipeline.passes(each) for each in crowd]
    again = [pipeline.passes(each) for each in crowd]

    expected = [True] * 4 + [not drop_new] * 6
    assert passed == again == expected
    assert len(pipeline.rows()) == 4
    assert pipeline.totals()["drops"] == ({"new-source": 12} if drop_new else {})
    assert pipeline.totals()["untracked"] == 12
    # WHEN the next window begins
    pipeline.now_ns += SECOND_NS // 8 - 1
    assert pipeline.passes(crowd[9]) is not drop_new
    pipeline.now_ns += 1
    assert all(pipeline.passes(each) for each in crowd[6:])
    assert len(pipeline.rows()) == 8


def test_each_processor_has_its_own_budget(pipeline: Pipeline) -> None:
    pipeline.configure([Flag.DROP_NEW], new_sources=2)
    crowd = [frame(source) for source in sources(6)]

    assert sum(pipeline.passes(each) for each in crowd[:3]) == 2
    pipeline.pin_to(1)
    assert sum(pipeline.passes(each) for each in crowd[3:]) == 2


def test_rules_hold_for_sources_over_the_budget(pipeline: Pipeline) -> None:
    pipeline.configure([Flag.DROP_NEW], new_sources=0)
    allowed = pipeline.allow("10.0.0.1")
    pipeline.protect("10.0.0.2")
    exact, prefix = pipeline.block("10.0.0.3"), pipeline.block("10.1.0.0/16")
    over = pipeline.block("10.0.0.4", START_NS)

    verdicts = [pipeline.passes(frame(f"10.0.0.{number}")) for number in range(1, 6)]

    assert verdicts == [True, True, False, False, False]
    assert not pipeline.passes(frame("10.1.0.1"))
    assert pipeline.hits() == {allowed: (1, 60), exact: (1, 60), prefix: (1, 60)}
    assert over not in pipeline.hits()
    assert pipeline.totals()["drops"] == {"blocked": 1, "blocked-prefix": 1, "new-source": 2}
    assert pipeline.rows() == {}


def test_the_sums_agree(pipeline: Pipeline) -> None:
    pipeline.block("10.0.0.0/30")
    pipeline.limit(Flag.DROP_UNPARSED, pps=10, syn_pps=5, grace_s=0, block_for_s=1)
    for number, source in enumerate(sources(40) * 5):
        pipeline.advance(0.001)
        pipeline.run(frame(source, tcp(number % 256))[: 40 if number % 7 == 0 else None])

    totals = pipeline.totals()
    packets = zip(totals["passed"], totals["dropped"], strict=True)
    assert tuple(map(sum, packets)) == totals["received"]
    assert totals["received"][0] == 200
    assert sum(totals["drops"].values()) == totals["dropped"][0] > 0
    assert sum(totals["protocols"].values()) == 200
    rows = pipeline.rows().values()
    assert sum(row["passed_packets"] for row in rows) == totals["passed"][0]
    assert sum(row["dropped_bytes"] for row in rows) == totals["dropped"][1]
