# SPDX-License-Identifier: Apache-2.0
"""The dashboard on what the lab really did: a flood, clients, a download that is shaped."""

from __future__ import annotations

from ebpftop.app import DashboardApp
from ebpftop.format import bits_rate
from ebpftop.model import SourceState
from ebpftop.screens.figures import rate
from ebpftop.sources.recording import RecordingSource, Tape
from tests.tui.driving import Dashboard
from tests.tui.fakes import FakeControls, FakeSource
from tests.tui.recorded import RecordedLab


def line_of(running: Dashboard, word: str) -> str:
    return next(line for line in running.lines if word in line)


def test_the_recording_has_what_the_tests_are_about(recorded: RecordedLab) -> None:
    states = {recorded.state(n) for n in range(len(recorded.ticks))}
    assert {None, SourceState.LIMITED, SourceState.BLOCKED} <= states
    assert len(recorded.last.classes) == 1
    assert {"block", "auto-block", "flood"} <= {e.kind for t in recorded.ticks for e in t.events}
    assert all(all(tick.invariants.values()) for tick in recorded.ticks)


async def test_the_flood_is_the_first_row_and_its_block_is_seen(recorded: RecordedLab) -> None:
    async with recorded.dashboard(recorded.blocked_from) as running:
        row = line_of(running, str(recorded.attacker))
        assert "✖ blocked" in row
        tick = recorded.ticks[recorded.blocked_from]
        sent = tick.sources.row_of(recorded.attacker)
        assert sent is not None
        assert rate(float(tick.sources.pps[sent])) in row
        assert "✖ 1 blocked" in running.lines[1]


async def test_before_the_flood_nobody_is_held_back(recorded: RecordedLab) -> None:
    quiet = next(n for n in range(len(recorded.ticks)) if recorded.state(n + 1) is not None)
    async with recorded.dashboard(quiet) as running:
        assert "blocked" not in running.lines[1]
        assert str(recorded.attacker) not in running.text


async def test_blocks_of_operators_and_of_limits_stand_beside_each_other(
    recorded: RecordedLab,
) -> None:
    async with recorded.dashboard(recorded.blocked_from, size=(120, 30)) as running:
        await running.press("3")
        assert "manual" in line_of(running, "scans ports")
        assert "forever" in line_of(running, "botnet, ticket 4711")
        assert "auto" in line_of(running, str(recorded.attacker))
        assert "192.0.2.80" in running.text


async def test_the_download_is_near_its_rate(recorded: RecordedLab) -> None:
    async with recorded.dashboard(size=(120, 30)) as running:
        await running.press("5")
        row = line_of(running, "downloads")
        bps = float(recorded.last.classes.bps[0])
        assert "20mbit" in row
        assert bits_rate(bps) in row
        assert 16e6 < bps < 24e6


async def test_the_dialog_about_the_attacker_says_what_it_sends(
    recorded: RecordedLab, controls: FakeControls
) -> None:
    async with recorded.dashboard(controls=controls) as running:
        await running.press("2", "b")
        await running.until(lambda: "sends now" in running.text)
        assert running.selected == recorded.attacker
        assert f"Block {recorded.attacker}" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls[0][:2] == ("block", recorded.attacker)


async def test_a_replay_ends_with_the_screen_that_the_live_dashboard_had(
    recorded: RecordedLab,
) -> None:
    size = (120, 40)
    async with recorded.dashboard(size=(size[0], size[1] - 1)) as running:
        live = running.lines
    app = DashboardApp(RecordingSource(Tape(recorded.path)), title=recorded.title)
    async with app.run_test(size=size) as pilot:
        replayed = Dashboard(app, pilot, FakeSource())
        await replayed.press("}")
        await replayed.until(
            lambda: app.shown and app.shown.snapshot.sequence == recorded.last.sequence
        )
        # The header has a badge of its own, and the line that moves about is the last but one.
        assert replayed.lines[1:-2] == live[1:-1]
