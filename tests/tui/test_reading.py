# SPDX-License-Identifier: Apache-2.0
"""How the dashboard reads: alerts in every pane, its own cost, themes, plain ASCII, keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual import events

from ebpftop import actions
from ebpftop.config.dashboard import DashboardSettings
from ebpftop.errors import UsageError
from ebpftop.model import Event, Inspection, MapInfo, Program, ProgramFacts, Snapshot
from tests.tui.driving import Dashboard, dashboard
from tests.tui.fakes import attack, rates, snapshot


@pytest.fixture(autouse=True)
def usual_keys() -> Iterator[None]:
    """Put the usual keys back: they hold for the whole process."""
    yield
    actions.use_keys({})


def happened(kind: str, seq: int, snapshot_: Snapshot, ago_s: float = 0.0) -> Event:
    return Event(seq, snapshot_.clock.wall_s - ago_s, kind, "", "")


def alarmed(sequence: int, **changes: Any) -> Snapshot:
    return snapshot(sequence, **changes)


async def lane(running: Dashboard) -> str:
    """Return the line below the tabs."""
    await running.pilot.pause()
    return running.lines[2]


async def test_an_alert_stands_in_every_pane_until_it_is_over() -> None:
    async with dashboard(snapshot()) as running:
        full = [MapInfo("ip_tracker", "lru_hash", 95, 100, 1)]
        await running.tick(alarmed(1, maps=full, invariants={"sum of verdicts": False}))
        for key in ("1", "2", "3", "5", "8"):
            await running.press(key)
            line = await lane(running)
            assert "✖ figures disagree: sum of verdicts" in line
            assert "▲ map ip_tracker 95.0% full" in line
        await running.tick(alarmed(2))
        assert "figures disagree" not in running.text


async def test_a_flood_is_an_alert_from_its_begin_to_its_end() -> None:
    first = snapshot()
    async with dashboard(first) as running:
        flood = happened("flood", 1, first, ago_s=70)
        await running.tick(alarmed(1, events=[flood]))
        await running.press("3")
        assert "✖ flood for 1m" in await lane(running)
        await running.tick(alarmed(2, events=[]))
        assert "✖ flood for 1m" in await lane(running)
        await running.tick(alarmed(3, events=[happened("flood-end", 2, first)]))
        assert "flood for" not in running.text


async def test_an_interface_that_was_taken_from_us_is_an_alert() -> None:
    async with dashboard(snapshot()) as running:
        fault = "ebpftop was detached from eth1; program 77 is there now"
        await running.tick(alarmed(1, faults=[fault]))
        assert fault in await lane(running)


@pytest.mark.parametrize(("bell", "rings"), [(True, 2), (False, 0)])
async def test_the_bell_rings_once_for_a_new_alert_and_only_where_it_is_wanted(
    bell: bool, rings: int
) -> None:
    rung: list[None] = []
    async with dashboard(snapshot(), settings=DashboardSettings(bell=bell)) as running:
        running.app.bell = lambda: rung.append(None)  # type: ignore[method-assign]
        full = [MapInfo("ip_tracker", "lru_hash", 95, 100, 1)]
        fuller = [MapInfo("ip_tracker", "lru_hash", 99, 100, 1)]
        await running.tick(alarmed(1, maps=full))
        await running.tick(alarmed(2, maps=fuller))
        await running.tick(alarmed(3, maps=fuller, invariants={"a sum": False}))
    assert len(rung) == rings


async def test_the_header_says_what_the_dashboard_itself_takes() -> None:
    programs = [Program("xdp_pipeline", 71, "xdp", "0" * 16)]
    found = Inspection(True, {71: ProgramFacts(ns_per_run=81.4)})
    async with dashboard(snapshot(), size=(140, 40)) as running:
        await running.tick(snapshot(1))
        assert " MB" in running.lines[0]
        assert "self " in running.lines[0]
        assert "ns/packet" not in running.lines[0]
        await running.tick(snapshot(2, programs=programs, inspection=found))
        assert "81 ns/packet" in running.lines[0]


async def test_in_plain_ascii_nothing_else_reaches_the_terminal() -> None:
    async with dashboard(attack(), settings=DashboardSettings(ascii=True)) as running:
        for key in ("1", "2", "3", "5", "8", "question_mark"):
            await running.press(key)
            drawn = "".join(
                segment.text
                for strip in running.app.screen._compositor.render_strips()
                for segment in running.app.get_line_filters()[-1].apply(
                    list(strip), running.app.screen.background_colors[1]
                )
            )
            assert drawn.isascii()


@pytest.mark.parametrize("theme", ["dark", "light", "terminal"])
async def test_each_theme_draws_and_tells_states_by_sign(theme: Any) -> None:
    async with dashboard(attack(), settings=DashboardSettings(theme=theme)) as running:
        await running.press("2")
        assert "✖ blocked" in running.text
        assert ("light" in running.app.theme) == (theme == "light")
        assert ("ansi" in running.app.theme) == (theme == "terminal")


async def test_no_color_takes_every_colour_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with dashboard(attack()) as running:
        await running.press("2")
        colours = {
            segment.style.color.get_truecolor()
            for strip in running.app.screen._compositor.render_strips()
            for segment in running.app.get_line_filters()[0].apply(
                list(strip), running.app.screen.background_colors[1]
            )
            if segment.style and segment.style.color
        }
        assert all(red == green == blue for red, green, blue in colours)
        assert "✖ blocked" in running.text


async def test_a_key_of_the_settings_does_what_the_usual_one_did() -> None:
    settings = DashboardSettings(keys={"pane-talkers": "f5", "pause": "P"})
    async with dashboard(attack(), settings=settings) as running:
        await running.press("2")
        assert running.app.main.pane.NAME == "overview"
        await running.press("f5", "P")
        assert running.app.main.pane.NAME == "talkers"
        assert running.app.paused
        assert "P resume" in running.text
        assert "f5 Talkers" in running.lines[1]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"blok": "B"}, "did you mean block"),
        ({"block": "u"}, "u would be both"),
        ({"pause": "q"}, "q would be both"),
        ({"pause": "a b"}, "is no key"),
        ({"pause": "\x1b"}, "is no key"),
        ({"\x1b[2J": "x"}, "there is no action"),
    ],
)
def test_keys_that_cannot_be_are_refused_and_nothing_changes(
    keys: dict[str, str], words: str
) -> None:
    before = actions.current()
    with pytest.raises(UsageError, match=words) as refused:
        actions.use_keys(keys)
    assert "\x1b" not in str(refused.value)
    assert actions.current() == before


async def test_the_interval_is_changed_live() -> None:
    async with dashboard(snapshot(), interval_s=1.0) as running:
        await running.press("i")
        await running.until(lambda: running.app.sampler.interval_s == 2.0)
        assert "every 2s" in running.lines[0]
        await running.press("I", "I")
        assert running.app.sampler.interval_s == 0.5
        await running.press("I")
        assert running.app.sampler.interval_s == 10.0


async def test_a_terminal_that_nobody_looks_at_is_drawn_seldom_and_misses_nothing() -> None:
    async with dashboard(snapshot()) as running:
        await running.tick(snapshot(1))
        running.app.post_message(events.AppBlur())
        await running.pilot.pause()
        shown = running.app.shown
        assert shown is not None
        for sequence in (2, 3):
            await running.tick(snapshot(sequence, events=[happened("block", sequence, snapshot())]))
        assert running.app.shown is shown
        running.app.post_message(events.AppFocus())
        await running.until(lambda: running.app.shown is not shown)
        assert running.app.shown is not None
        assert running.app.shown.snapshot.sequence == 3
        assert len(running.app.shown.events) == 2


async def test_names_are_off_until_they_are_wanted_and_asked_for_rows_in_sight_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    script = tmp_path / "getent"
    script.write_text(f'#!/bin/sh\necho "$2" >> {log}\necho "$2 host-$2"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with dashboard(attack(), size=(140, 24)) as running:
        await running.press("2")
        assert not log.exists()
        await running.press("N")
        first = running.addresses[0]
        await running.until(log.exists)
        await running.until(lambda: f"host-{first}" in _drawn_again(running))
        assert 0 < len(set(log.read_text().split())) <= 24
        await running.press("N")
        assert "host-" not in running.text


def _drawn_again(running: Dashboard) -> str:
    """Draw what is known by now, as the next snapshot would."""
    running.app.main.pane.show(running.app.shown)  # type: ignore[arg-type]
    return running.text


async def test_rates_are_shown_in_packets_bits_or_bytes() -> None:
    async with dashboard(snapshot(), size=(120, 40)) as running:
        for sequence in (1, 2):
            await running.tick(snapshot(sequence, rates=rates(1000.0, 0.0)))
        peaks = []
        for _ in range(4):
            peaks.append(next(line for line in running.lines if "RECEIVED" in line))
            await running.press("B")
        packets, bits, octets, again = peaks
        assert "1.00k pps" in packets
        assert "bit/s" in bits
        assert "B/s" in octets
        assert again == packets
        await running.press("2", "B")
        heading = next(line for line in running.lines if "address" in line)
        assert "B/s" in heading
        assert "bps" not in heading


async def test_the_selected_address_is_copied() -> None:
    async with dashboard(attack()) as running:
        await running.press("2", "y")
        assert running.app.clipboard == str(running.selected)
        assert f"copied {running.selected}" in running.text


async def test_what_is_drawn_at_200x60_uses_the_room() -> None:
    async with dashboard(replace(attack()), size=(200, 60)) as running:
        assert len(running.lines[0]) > 150
        await running.press("2")
        heading = next(line for line in running.lines if "address" in line)
        for title in ("packets", "bytes", "dropped", "drop/s", "seen", "share"):
            assert title in heading
