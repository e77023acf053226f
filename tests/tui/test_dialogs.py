# SPDX-License-Identifier: Apache-2.0
"""Dialogs: locked to their target, off the event loop, and honest about errors."""

from __future__ import annotations

import threading

import pytest
from textual.widgets import Input

from ebpftop.errors import KernelRefusedError, NotPermittedError
from ebpftop.model import Limits, Prefix, SourceState
from ebpftop.screens.block_dialog import BlockDialog
from tests.tui.driving import Dashboard, dashboard, steers_terminal
from tests.tui.fakes import HOSTILE, Block, FakeControls, Talker, attack, blocks, snapshot, sources

TWO = [Talker("10.0.0.1", pps=5_000), Talker("10.0.0.2", pps=4_000)]


async def fill(running: Dashboard, field: str, text: str) -> None:
    """Put `text` into a field of the open dialog by typing it."""
    entry = running.app.screen.query_one(f"#{field}", Input)
    entry.focus()
    entry.clear()
    await running.pilot.pause()
    await running.type(text)


async def test_block_dialog_stays_on_its_target_while_rows_move(controls: FakeControls) -> None:
    async with dashboard(snapshot(sources=sources(TWO)), controls=controls) as running:
        await running.press("2", "b")
        assert "Block 10.0.0.1" in running.text
        assert "5.00k pps" in running.text
        # WHEN the other source takes the first row while the dialog is open
        moved = sources([Talker("10.0.0.2", pps=90_000), Talker("10.0.0.1", pps=70)])
        await running.tick(snapshot(1, sources=moved))
        # THEN the dialog shows what its target sends now, and blocks it and no other
        assert "70 pps" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("block", Prefix.parse("10.0.0.1"), 600.0, "", False)]


async def test_block_dialog_stays_on_a_target_that_goes(controls: FakeControls) -> None:
    async with dashboard(snapshot(sources=sources(TWO)), controls=controls) as running:
        await running.press("2", "b")
        await running.tick(snapshot(1, sources=sources(TWO[1:])))
        assert "not tracked" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls[0][1] == Prefix.parse("10.0.0.1")


async def test_duration_reason_and_prefix_are_what_was_typed(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "b")
        await fill(running, "length", "24")
        assert "203.0.113.0/24" in running.text
        assert "1 tracked source" in running.text
        await fill(running, "duration", "forever")
        await fill(running, "reason", "syn flood")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        expected = ("block", Prefix.parse("203.0.113.0/24"), None, "syn flood", False)
        assert controls.calls == [expected]


@pytest.mark.parametrize(
    ("field", "typed", "problem"),
    [
        ("duration", "soon", "'soon' is no DURATION"),
        ("duration", "0", "a block of no time"),
        ("length", "33", "a number from 0 to 32"),
        ("length", "", "a number from 0 to 32"),
    ],
)
async def test_invalid_field_is_named_and_nothing_is_done(
    field: str, typed: str, problem: str, controls: FakeControls
) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "b")
        await fill(running, field, typed)
        await running.press("enter")
        assert problem in running.text
        assert running.app.focused is not None
        assert running.app.focused.id == field
        assert controls.calls == []
        await running.press("escape")
        assert len(running.app.screen_stack) == 1


async def test_own_access_needs_the_word_override(controls: FakeControls) -> None:
    target = Prefix.parse("203.0.113.77")
    controls.guards[target] = "your ssh session comes from it"
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "b")
        await running.until(lambda: "your ssh session comes from it" in running.text)
        # WHEN it is confirmed without the word
        await running.press("enter")
        assert "type override to block" in running.text
        assert controls.calls == []
        assert running.app.focused is not None
        assert running.app.focused.id == "override"
        # WHEN another word is typed
        await running.type("yes")
        await running.press("enter")
        assert controls.calls == []
        # WHEN the word itself is typed
        await fill(running, "override", "override")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("block", target, 600.0, "", True)]


async def test_wider_prefix_is_guarded_anew(controls: FakeControls) -> None:
    controls.guards[Prefix.parse("203.0.113.0/24")] = "the gateway is in it"
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "b")
        assert "the gateway" not in running.text
        await fill(running, "length", "24")
        await running.until(lambda: "the gateway is in it" in running.text)
        await fill(running, "length", "25")
        assert "the gateway" not in running.text


async def test_refusal_keeps_the_dialog_and_what_was_typed(controls: FakeControls) -> None:
    controls.refusal = NotPermittedError("it holds your own access", HOSTILE)
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "b")
        await fill(running, "duration", "7m")
        await running.press("enter")
        await running.until(lambda: "it holds your own access" in running.text)
        assert isinstance(running.app.screen, BlockDialog)
        assert running.app.screen.query_one("#duration", Input).value == "7m"
        assert not steers_terminal(running.text.replace("\n", ""))
        # WHEN the reason is gone it can be tried again
        controls.refusal = None
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls[0][2] == 420.0


async def test_unexpected_failure_is_a_message_and_not_a_crash(controls: FakeControls) -> None:
    controls.refusal = RuntimeError("boom [/b]")
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "b", "enter")
        await running.until(lambda: "a fault of ebpftop" in running.text)
        assert isinstance(running.app.screen, BlockDialog)


async def test_acts_run_off_the_event_loop_and_once(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        controls.may_act.clear()
        await running.press("2", "b", "enter", "enter", "enter")
        await running.until(lambda: len(controls.threads) >= 1)
        # The screen lives while the act waits.
        await running.tick(attack(1))
        assert controls.calls == []
        controls.may_act.set()
        await running.until(lambda: len(running.app.screen_stack) == 1)
        assert len(controls.calls) == 1
        assert threading.get_ident() not in controls.threads


async def test_act_is_reported_when_its_dialog_was_closed_meanwhile(
    controls: FakeControls,
) -> None:
    controls.refusal = KernelRefusedError("full")
    async with dashboard(attack(), controls=controls) as running:
        controls.may_act.clear()
        await running.press("2", "b", "enter", "escape")
        controls.may_act.set()
        await running.until(lambda: "Block 203.0.113.77 for 10m: full" in running.text)


async def test_nothing_is_drawn_as_done_before_a_snapshot_says_so(controls: FakeControls) -> None:
    async with dashboard(snapshot(sources=sources(TWO)), controls=controls) as running:
        await running.press("2", "b", "enter")
        await running.until(lambda: controls.calls)
        await running.until(lambda: len(running.app.screen_stack) == 1)
        assert "● passed" in running.list_pane.table.lines[1]
        blocked = [Talker("10.0.0.1", pps=5_000, state=SourceState.BLOCKED), TWO[1]]
        held = blocks([Block("10.0.0.1")])
        await running.tick(snapshot(1, sources=sources(blocked), blocks=held))
        assert "✖ blocked" in running.list_pane.table.lines[1]


async def test_act_asks_for_a_snapshot_at_once(controls: FakeControls) -> None:
    async with dashboard(snapshot(sources=sources(TWO)), controls=controls) as running:
        await running.tick(snapshot(1, sources=sources(TWO)))
        running.source.current = snapshot(2, sources=sources(TWO))
        await running.press("2", "b", "enter")
        await running.until(
            lambda: running.app.picture and running.app.picture.snapshot.sequence == 2
        )


async def test_unblocking_a_source_names_the_prefix_that_blocks_it(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "down")
        assert "by 198.51.100.0/24" in running.text
        await running.press("u")
        assert "Unblock 198.51.100.0/24" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("unblock", Prefix.parse("198.51.100.0/24"))]


async def test_unblocking_says_when_a_wider_block_still_holds(controls: FakeControls) -> None:
    held = blocks([Block("10.0.0.1"), Block("10.0.0.0/8", None)])
    async with dashboard(snapshot(sources=sources(TWO), blocks=held), controls=controls) as running:
        await running.press("2", "u")
        assert "Unblock 10.0.0.1" in running.text
        assert "stays blocked by 10.0.0.0/8" in running.text


async def test_allow_and_disallow(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "a", "enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("allow", Prefix.parse("203.0.113.77"))]
        await running.until(lambda: len(running.app.screen_stack) == 1)
        await running.press("down", "down", "down")
        assert running.selected == Prefix.parse("192.0.2.10")
        assert "a allow" not in running.lines[-1]
        await running.press("d", "enter")
        await running.until(lambda: len(controls.calls) == 2)
        assert controls.calls[1] == ("disallow", Prefix.parse("192.0.2.10"))


async def test_limits_dialog_shows_and_sets_all_of_them(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("l")
        values = {entry.id: entry.value for entry in running.app.screen.query(Input)}
        assert values["limit-pps"] == "10000"
        assert values["limit-bps"] == "50mbit"
        await fill(running, "limit-pps", "2k")
        await fill(running, "limit-bps", "1.5gbit")
        await fill(running, "limit-grace_s", "500ms")
        await fill(running, "limit-block_for_s", "0")
        await fill(running, "limit-dry_run", "on")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        expected = Limits(2_000, 1_500_000_000, 500, 1.0, 0.5, 0.0, dry_run=True)
        assert controls.calls == [("set_limits", expected)]


async def test_limits_left_alone_stay_exactly_as_they_are(controls: FakeControls) -> None:
    limits = Limits(12_345, 1_234_567, 7, 0.25, 2.5, 90.0)
    async with dashboard(attack(limits=limits), controls=controls) as running:
        await running.press("l", "enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("set_limits", limits)]


@pytest.mark.parametrize(
    ("field", "typed", "problem"),
    [
        ("limit-pps", "many", "pps: 'many' is no number"),
        ("limit-bps", "50", "bps: '50' has no unit"),
        ("limit-burst_s", "forever", "burst: forever has no place here"),
        ("limit-dry_run", "maybe", "dry run: 'maybe' is neither on nor off"),
    ],
)
async def test_limit_that_cannot_be_read_is_named(
    field: str, typed: str, problem: str, controls: FakeControls
) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("l")
        await fill(running, field, typed)
        await running.press("enter")
        assert problem in running.text
        assert controls.calls == []
