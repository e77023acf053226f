# SPDX-License-Identifier: Apache-2.0
"""The dashboard as a whole: keys, badges, pause, loss, quitting."""

from __future__ import annotations

import threading

import pytest
from textual.widgets import Static

from ebpftop.actions import ACTIONS, PINNED
from ebpftop.app import DashboardApp
from ebpftop.errors import SourceLostError
from ebpftop.model import Interface, Limits
from ebpftop.screens import messages
from tests.tui.driving import dashboard, steers_terminal
from tests.tui.fakes import HOSTILE, FakeControls, FakeSource, attack, rates, snapshot


def sampler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ebpftop-sampler"]


async def test_quitting_stops_the_thread_and_closes_the_source() -> None:
    async with dashboard() as running:
        assert running.app.sampler.is_alive()
        await running.press("q")
        source = running.source
    assert not running.app.sampler.is_alive()
    assert sampler_threads() == []
    assert source.closed.is_set()
    assert running.app.lost_error is None


async def test_control_c_quits_from_inside_a_text_field(controls: FakeControls) -> None:
    async with dashboard(controls=controls) as running:
        await running.press("2", "b")
        assert running.app.is_running
        await running.press("ctrl+c")
        await running.until(lambda: not running.app.is_running)
    assert not running.app.sampler.is_alive()


async def test_every_action_has_a_handler_and_every_handler_an_action() -> None:
    async with dashboard(controls=FakeControls()) as running:
        app = running.app
        everywhere = {a.id for a in ACTIONS if not (a.panes or a.opens or a.replays)}
        assert everywhere == set(app.acts())
        assert {a.opens for a in ACTIONS if a.opens} == set(app.main.panes)
        for name, pane in app.main.panes.items():
            assert {a.id for a in ACTIONS if name in a.panes} == set(pane.acts())


async def test_keys_are_unique_within_a_pane() -> None:
    for pane in {name for action in ACTIONS for name in action.panes}:
        keys = [
            key
            for action in ACTIONS
            for key in action.keys
            # The key that takes a filter away takes what is above it away before.
            if action.works_in(pane) and action.id not in ("drop-staged", "look-away")
        ]
        assert len(keys) == len(set(keys))


async def test_read_only_offers_no_writing_anywhere() -> None:
    async with dashboard(read_only_reason="alice writes, process 4242") as running:
        assert "READ-ONLY" in running.lines[0]
        for pane in "123":
            await running.press(pane)
            offered = {action.id for action in ACTIONS if running.app.offering.has(action)}
            assert offered.isdisjoint(action.id for action in ACTIONS if action.writes)
            for label in ("block", "unblock", "allow", "limits"):
                assert f" {label}" not in running.lines[-1]
            await running.press("b", "u", "a", "d", "l", "n")
            assert len(running.app.screen_stack) == 1
        await running.press("?")
        assert "alice writes, process 4242" in running.text
        assert not [line for line in running.lines if "allow list" in line and "Take" in line]


async def test_writing_keys_are_in_footer_and_help_with_controls(controls: FakeControls) -> None:
    async with dashboard(controls=controls) as running:
        await running.press("2")
        assert "b block" in running.lines[-1]
        assert "READ-ONLY" not in running.lines[0]
        await running.press("?")
        assert "Block the selected source" in running.text


@pytest.mark.parametrize("width", [60, 70, 80, 120])
async def test_footer_never_drops_help_and_quit(width: int, controls: FakeControls) -> None:
    async with dashboard(controls=controls, size=(width, 24)) as running:
        await running.press("2")
        for action in ACTIONS:
            if action.id in PINNED:
                assert f"{action.key_label} {action.label}" in running.lines[-1]


async def test_pause_freezes_the_display_and_goes_on_collecting() -> None:
    async with dashboard(attack(0, rates=rates(1000.0, 0.0))) as running:
        await running.press("p")
        before = running.lines
        assert "PAUSED" in before[0]
        assert "PAUSED at 15:06:40" in before[1]
        # WHEN snapshots arrive
        for second in (1, 2):
            await running.tick(attack(second, rates=rates(77_000.0, 0.0)))
        # THEN nothing moves
        assert running.lines == before
        # AND WHEN it goes on, all that happened meanwhile is there
        await running.press("p")
        assert "PAUSED" not in running.text
        assert "77.0k pps" in running.text
        picture = running.app.shown
        assert picture is not None
        assert 77_000.0 in picture.history.pps["received"].tolist()
        assert picture.snapshot.sequence == 2


async def test_pause_holds_across_panes() -> None:
    async with dashboard(attack(0)) as running:
        await running.press("p")
        await running.tick(attack(1, sources=snapshot().sources))
        await running.press("2")
        assert "203.0.113.77" in running.text


async def test_lost_source_is_said_across_the_screen_and_the_figures_stay() -> None:
    async with dashboard(controls=FakeControls()) as running:
        running.source.error = SourceLostError("eth0 was detached", "run ebpftop eth0 again")
        running.app.sampler.sample_now()
        await running.until(lambda: running.app.lost_error is not None)
        assert "eth0 was detached: run ebpftop eth0 again" in " ".join(running.text.split())
        assert "203.0.113.77" in running.text
        assert "l limits" not in running.lines[-1]
        assert "q quit" in running.lines[-1]
        await running.press("q")
    assert isinstance(running.app.lost_error, SourceLostError)


async def test_source_that_fails_at_once_is_lost_without_figures() -> None:
    source = FakeSource()
    source.error = SourceLostError("nothing is attached to eth0")
    app = DashboardApp(source, title="eth0")
    async with app.run_test() as pilot:
        while app.lost_error is None:
            await pilot.pause(0.01)
        await pilot.press("1", "2", "3", "down", "p", "s", "q")
    assert source.closed.is_set()


async def test_interface_that_is_down_and_dry_run_are_badges() -> None:
    interfaces = [Interface("eth0", "native"), Interface("eth1", "generic", up=False)]
    async with dashboard(
        snapshot(interfaces=interfaces, limits=Limits(pps=100, dry_run=True))
    ) as running:
        assert "DOWN eth1" in running.lines[0]
        assert "native/generic" in running.lines[0]
        assert "DRY RUN" in running.lines[0]


@pytest.mark.parametrize("size", [(50, 24), (80, 12)])
async def test_small_terminal_gets_a_message_and_a_larger_one_the_dashboard(
    size: tuple[int, int],
) -> None:
    async with dashboard(size=size) as running:
        assert "needs a terminal of 60x15" in running.text
        assert "RECEIVED" not in running.text
        await running.pilot.resize_terminal(80, 24)
        await running.until(lambda: "RECEIVED" in running.text)
        assert "needs a terminal" not in running.text


async def test_events_of_skipped_snapshots_are_kept() -> None:
    async with dashboard(snapshot(0)) as running:
        happened = attack(0).events
        # WHEN several snapshots wait behind a slow event loop
        for sequence, event in enumerate(happened, 1):
            running.app._deliver(snapshot(sequence, events=[event], missed_events=2))
        await running.until(lambda: running.app.picture and running.app.picture.events)
        picture = running.app.picture
        assert picture is not None
        # THEN every event is there, latest first, and every loss is counted
        assert [event.seq for event in picture.events] == [3, 2, 1]
        assert picture.missed_events == 6


def test_later_snapshot_replaces_one_that_waits_and_nothing_else_does() -> None:
    waiting = messages.SnapshotReady(snapshot(1))
    assert waiting.can_replace(messages.SnapshotReady(snapshot(2)))
    assert not waiting.can_replace(messages.SourceLost(SourceLostError("gone")))


async def test_titles_notices_and_reasons_cannot_steer_the_terminal() -> None:
    interfaces = [Interface(HOSTILE, "native", up=False)]
    async with dashboard(
        snapshot(interfaces=interfaces), title=HOSTILE, read_only_reason=HOSTILE, notices=[HOSTILE]
    ) as running:
        assert not steers_terminal(running.text.replace("\n", ""))
        assert "[/b][red]" in running.text
        await running.press("?")
        assert not steers_terminal(running.text.replace("\n", ""))
        running.source.error = SourceLostError(HOSTILE, HOSTILE)
        running.app.sampler.sample_now()
        await running.until(lambda: running.app.lost_error is not None)
        await running.press("escape")
        assert running.app.main.query_one("#lost", Static).display
        assert not steers_terminal(running.text.replace("\n", ""))


async def test_palette_offers_what_the_footer_offers() -> None:
    async with dashboard() as running:
        names = {command.title for command in running.app.get_system_commands(running.app.screen)}
        assert {"Pause", "Help", "Quit", "Talkers"} <= names
        assert "Limits" not in names
        assert "Block" not in names


async def test_clicking_a_tab_opens_its_pane() -> None:
    async with dashboard() as running:
        column = running.lines[1].index("2 Ta")
        await running.pilot.click("#tabs", offset=(column, 0))
        assert running.app.main.pane.NAME == "talkers"
