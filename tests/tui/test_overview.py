# SPDX-License-Identifier: Apache-2.0
"""The overview pane."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ebpftop.model import Event, MapInfo
from tests.tui.driving import dashboard, steers_terminal
from tests.tui.fakes import HOSTILE, attack, many_sources, rates, snapshot


async def test_attack_is_seen_at_a_glance_at_80x24() -> None:
    async with dashboard(attack()) as running:
        text = running.text
        first = next(line for line in running.lines if "203.0.113.77" in line)
        assert "✖ blocked" in first
        assert "812k" in first
        assert "84.5%" in first
        assert "961k pps" in text
        assert "930k pps" in text
        assert "2001:db8:5:17::bad:1" in text
        assert "1 blocked" in running.lines[1]
        for word in ("VERDICTS", "PROTOCOLS", "DROPS", "EVENTS", "pps limit", "syn"):
            assert word in text


async def test_unknown_rates_are_not_zero() -> None:
    async with dashboard(attack(rates=None)) as running:
        assert "– pps" in running.text
        assert "peak –" in running.text


async def test_nothing_seen_yet_is_drawn() -> None:
    async with dashboard(snapshot()) as running:
        assert "0 sources" in running.lines[1]
        assert "none" in running.text


async def test_events_are_latest_first_with_their_wall_time() -> None:
    async with dashboard(attack(), size=(80, 40)) as running:
        lines = running.lines
        order = [i for i, line in enumerate(lines) if line.startswith((" 15:06:22", " 15:04:40"))]
        assert order == sorted(order)
        assert "automatic for 1m" in lines[order[0]]
        assert "by alice" in lines[order[1]]


async def test_hostile_event_is_text_and_nothing_else() -> None:
    event = Event(1, 1_750_000_000.0, HOSTILE, HOSTILE, HOSTILE)
    async with dashboard(snapshot(events=[event]), size=(160, 40)) as running:
        assert "[/b][red]" in running.text
        assert not steers_terminal(running.text.replace("\n", ""))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"invariants": {"verdicts add up": False}}, "figures disagree: verdicts add up"),
        ({"rates": replace(rates(1e5, 0), untracked=98_000.0)}, "98.0k pps from more new sources"),
        ({"maps": [MapInfo("ip_tracker", "lru_hash", 90, 100, None)]}, "ip_tracker 90.0% full"),
        ({"missed_events": 7}, "7 events missed"),
    ],
)
async def test_what_must_not_be_overlooked_has_a_line(
    changes: dict[str, object], words: str
) -> None:
    async with dashboard(attack()) as running:
        assert words not in running.text
        await running.tick(attack(1, **changes))
        assert words in running.text


async def test_map_that_is_not_nearly_full_is_no_warning() -> None:
    maps = [MapInfo("ip_tracker", "lru_hash", 79, 100, None), MapInfo("stats", "array", None, 5, 1)]
    async with dashboard(attack(maps=maps)) as running:
        assert "full" not in running.text


async def test_dry_run_shows_what_would_be_dropped() -> None:
    base = attack()
    totals = replace(base.totals, drops={}, would_drop={"pps": 1234})
    async with dashboard(replace(base, totals=totals)) as running:
        row = next(line for line in running.lines if "would: pps" in line)
        assert "1.23k" in row


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 40), (160, 50), (250, 70)])
async def test_every_size_draws_to_the_last_column_and_line(size: tuple[int, int]) -> None:
    async with dashboard(attack(sources=many_sources(2000)), size=size) as running:
        assert len(running.lines) == size[1]
        assert max(map(len, running.lines)) <= size[0]
        assert "q quit" in running.lines[-1]
        assert "VERDICTS" in running.text or size[1] < 20
