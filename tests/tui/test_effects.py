# SPDX-License-Identifier: Apache-2.0
"""What has changed since an act is on the row of its source, for a while."""

from __future__ import annotations

from typing import Any

import pytest

from ebpftop.model import Act, Snapshot, SourceState
from tests.tui.driving import Dashboard, dashboard
from tests.tui.fakes import START_S, Talker, act, snapshot, sources

LOUD, QUIET = "10.0.0.1", "10.0.0.2"
BLOCK = act(target=LOUD, time_s=START_S + 2.0)
ALLOW = act("allow", LOUD, facet="allow", old=None, new=True, time_s=START_S + 2.0)
LIMITS = act("limit", "", facet="limits", old={"pps": 0}, new={"pps": 5}, time_s=START_S + 2.0)
LIST = act("block", "2 addresses", time_s=START_S + 2.0,
           new=[{"state": {"until_s": None}, "targets": [LOUD, "10.9.0.0/16"]}])  # fmt: skip


def tick(second: int, dropped_pps: float, *acts: Act, **changes: Any) -> Snapshot:
    """Return a second in which so much of the loud source is dropped."""
    state = SourceState.BLOCKED if dropped_pps else SourceState.PASSED
    sent = [Talker(LOUD, 8_000, state, dropped_pps=dropped_pps), Talker(QUIET, 100)]
    return snapshot(second, sources=sources(sent), acts=acts, **changes)


def row(running: Dashboard, address: str) -> str:
    return next(line for line in running.list_pane.table.lines if address in line)


@pytest.mark.parametrize("done", [BLOCK, LIMITS, LIST], ids=["block", "limits", "list"])
@pytest.mark.parametrize("width", [80, 160])
async def test_the_row_shows_the_rate_before_and_after_and_the_drops_since(
    done: Act, width: int
) -> None:
    async with dashboard(tick(0, 0), size=(width, 24)) as running:
        await running.press("2")
        assert "since the act" not in running.text
        for second in (1, 2):
            await running.tick(tick(second, 0))
        # WHEN the act is in the log, and its effect in the counters
        for second in (3, 4):
            await running.tick(tick(second, 8_000, done))
        # THEN it is on the row of its source, and on no other
        assert "since the act" in running.text
        assert "8.00k→0 pass, 16.0k dropped" in row(running, LOUD)
        assert "pass," not in row(running, QUIET)
        # AND goes after a while
        await running.tick(tick(70, 8_000, done))
        assert "since the act" not in running.text


async def test_the_row_shows_what_passes_again() -> None:
    async with dashboard(tick(0, 8_000)) as running:
        await running.press("2")
        for second in (1, 2):
            await running.tick(tick(second, 8_000))
        for second in (3, 4):
            await running.tick(tick(second, 0, ALLOW))
        assert "0→8.00k pass" in row(running, LOUD)


async def test_what_was_refused_has_no_effect() -> None:
    refused = act(target=LOUD, time_s=START_S + 2.0, result="refused: full")
    hostile = act(target="nonsense", time_s=START_S + 2.0)
    async with dashboard(tick(0, 0)) as running:
        await running.press("2")
        await running.tick(tick(3, 0, refused, hostile))
        assert "since the act" not in running.text
