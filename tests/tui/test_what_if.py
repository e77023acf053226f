# SPDX-License-Identifier: Apache-2.0
"""What a block or a limit would have stopped in the last minute, before it is written."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ebpftop.model import Limits, Prefix, Snapshot
from ebpftop.screens.source_history import SourceHistory
from ebpftop.screens.stopped import foresight_rows
from ebpftop.screens.what_if import if_blocked, if_limited
from tests.tui.driving import dashboard
from tests.tui.fakes import (
    FakeControls,
    Talker,
    allowed,
    attack,
    many_sources,
    rates,
    snapshot,
    sources,
)
from tests.tui.test_dialogs import fill

LOUD, QUIET, NEAR = "10.0.0.1", "10.0.0.2", "10.0.1.1"


def tick(second: int, loud_pps: float = 1000, **changes: object) -> Snapshot:
    """Return a second in which three sources send."""
    sent = [
        Talker(LOUD, loud_pps, dropped_pps=loud_pps / 4), Talker(QUIET, 100), Talker(NEAR, 50)
    ]  # fmt: skip
    received = rates(loud_pps + 150, loud_pps / 4)
    return snapshot(second, sources=sources(sent), rates=received, **changes)


def history(*loud_pps: float) -> SourceHistory:
    """Return seconds in which the loud source sent so much."""
    kept = SourceHistory()
    for second, pps in enumerate(loud_pps):
        kept = kept.extended(tick(second, pps))
    return kept


def test_a_block_would_have_stopped_what_its_prefix_sent() -> None:
    found = if_blocked(history(1000, 2000, 3000), Prefix.parse("10.0.0.0/24"))
    assert found.packets == 6300
    assert found.seconds == 3
    assert found.received == 6450
    assert found.share == pytest.approx(6300 / 6450)
    assert found.already == 1500
    assert [str(address) for address, _ in found.talkers] == [LOUD, QUIET]
    assert found.hit == 2


def test_who_is_allowed_would_have_passed() -> None:
    found = if_blocked(history(1000), Prefix.parse("10.0.0.0/8"), [Prefix.parse("10.0.0.0/30")])
    assert (found.packets, found.hit) == (50, 1)


def test_only_the_last_minute_counts() -> None:
    found = if_blocked(history(*([9000] * 60), *([10] * 60)), Prefix.parse(LOUD))
    assert found.packets == 600
    assert found.seconds == 60


def test_a_limit_would_have_stopped_what_is_over_it_once_its_burst_is_used_up() -> None:
    limits = Limits(pps=400, burst_s=2.0, block_for_s=0)
    found = if_limited(history(1000, 1000, 1000, 100), limits)
    # 600 too many a second, of which 800 may run ahead.
    assert found.packets == pytest.approx(3 * 600 - 800)
    assert [str(address) for address, _ in found.talkers] == [LOUD]
    assert found.talkers[0][1] == pytest.approx(1000 / 3100)


def test_bits_are_limited_as_packets_are() -> None:
    # Each packet of a fake source has 4000 bits.
    limits = Limits(bps=400 * 4000, burst_s=0.001, block_for_s=0)
    found = if_limited(history(1000, 1000), limits)
    assert found.packets == pytest.approx(1200, rel=0.01)


def test_who_stays_over_a_limit_would_have_been_blocked() -> None:
    limits = Limits(pps=500, burst_s=0.01, grace_s=1.5, block_for_s=3.0)
    found = if_limited(history(1000, 1000, 1000, 1000, 1000, 400), limits)
    # Over for two seconds, then blocked for three, and then under the limit again.
    assert found.packets == pytest.approx(2 * 500 + 3 * 1000, rel=0.01)


def test_limits_that_are_off_would_have_stopped_nothing() -> None:
    assert if_limited(history(1000), Limits()).packets == 0
    assert if_limited(SourceHistory(), Limits(pps=1)).seconds == 0
    assert if_blocked(SourceHistory(), Prefix.parse("0.0.0.0/0")).seconds == 0


def test_limits_spare_the_protected() -> None:
    found = if_limited(history(1000), Limits(pps=10, burst_s=0.01), [Prefix.parse(LOUD)])
    assert {str(address) for address, _ in found.talkers} == {QUIET, NEAR}


def test_what_came_from_sources_that_are_not_kept_is_said() -> None:
    many = many_sources(100_000)
    total = float(np.sum(many.pps))
    kept = SourceHistory().extended(snapshot(1, sources=many, rates=rates(total, 0.0)))
    found = if_blocked(kept, Prefix.parse("10.0.0.0/8"))
    assert found.packets + found.rest == pytest.approx(total, rel=1e-4)
    assert found.rest > 0
    assert "too small to be kept" in foresight_rows(found)[-1][1].text


def test_a_minute_of_many_sources_is_judged_while_one_types() -> None:
    kept = SourceHistory()
    for second in range(60):
        many = many_sources(20_000, seed=second)
        kept = kept.extended(snapshot(second, sources=many, rates=rates(1e6, 0.0)))
    began_s = time.process_time()
    if_limited(kept, Limits(pps=100))
    if_blocked(kept, Prefix.parse("10.0.0.0/8"))
    assert time.process_time() - began_s < 1.0


async def test_the_block_dialog_says_what_it_would_have_stopped(controls: FakeControls) -> None:
    async with dashboard(tick(0), controls=controls) as running:
        for second in range(1, 5):
            await running.tick(tick(second))
        await running.press("2", "b")
        assert "5.00k packets, 87.0% of the last 5 s; 25.0% dropped anyway" in running.text
        await fill(running, "length", "24")
        assert "5.50k packets, 95.7% of the last 5 s" in running.text
        assert f"{LOUD}, {QUIET}" in running.text
        # It goes on while the dialog is open.
        await running.tick(tick(5))
        assert "of the last 6 s" in running.text


async def test_the_block_dialog_leaves_out_whom_the_allow_list_lets_pass(
    controls: FakeControls,
) -> None:
    async with dashboard(tick(0, allowed=allowed([LOUD])), controls=controls) as running:
        await running.press("3", "n")
        await running.type("10.0.0.0/8")
        assert "150 packets, 13.0% of the last 1 s" in running.text


async def test_the_limits_dialog_says_what_they_would_have_stopped(controls: FakeControls) -> None:
    async with dashboard(tick(0), controls=controls) as running:
        for second in range(1, 4):
            await running.tick(tick(second))
        await running.press("l")
        assert "would have stopped nothing in the last 4 s" in running.text
        await fill(running, "limit-pps", "500")
        await fill(running, "limit-block_for_s", "0")
        assert "1.50k packets, 32.6% of the last 4 s" in running.text
        assert f"{LOUD} 37.5%" in running.text
        await fill(running, "limit-syn", "5")
        assert "connection requests are not known by source" in running.text
        await fill(running, "limit-pps", "5x")
        assert "foresight  –" in running.text


async def test_nothing_is_foretold_before_anything_is_known(controls: FakeControls) -> None:
    first = attack(interval_s=None)
    async with dashboard(first, controls=controls) as running:
        await running.press("2", "b")
        assert "nothing is known of the last minute yet" in running.text
