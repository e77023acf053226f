# SPDX-License-Identifier: Apache-2.0
"""Rows that are marked, and acts on all of them."""

from __future__ import annotations

from ebpftop.errors import KernelRefusedError, NotFoundError
from ebpftop.model import BlockRequest, Prefix
from tests.tui.driving import Dashboard, dashboard
from tests.tui.fakes import (
    FakeControls,
    Shaped,
    Talker,
    allowed,
    attack,
    classes,
    snapshot,
    sources,
)

LOUD, SECOND = Prefix.parse("203.0.113.77"), Prefix.parse("198.51.100.23")


async def mark_two(running: Dashboard) -> None:
    await running.press("2", "v", "down", "v")


async def test_marks_are_seen_in_their_rows_and_counted(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await mark_two(running)
        lines = running.list_pane.table.lines
        assert lines[1].startswith(" *203.0.113.77")
        assert lines[2].startswith("▸*198.51.100.23")
        assert "* 2 marked" in running.lines[1]
        await running.press("v")
        assert running.list_pane.table.lines[2].startswith("▸ 198.51.100.23")
        assert "* 1 marked" in running.lines[1]
        await running.press("V")
        assert "marked" not in running.text
        assert not any("*" in line[:2] for line in running.list_pane.table.lines)


async def test_marks_stay_on_their_addresses_when_rows_move_or_go(controls: FakeControls) -> None:
    def now(sequence: int, *talkers: Talker) -> object:
        return snapshot(sequence, sources=sources(talkers))

    a, b = Talker("10.0.0.1", 300), Talker("10.0.0.2", 200)
    async with dashboard(now(0, a, b), controls=controls) as running:  # type: ignore[arg-type]
        await running.press("2", "v")
        await running.tick(now(1, Talker("10.0.0.1", 1), Talker("10.0.0.2", 900)))  # type: ignore[arg-type]
        assert running.list_pane.table.lines[1].startswith("  10.0.0.2")
        assert running.list_pane.table.lines[2].startswith("▸*10.0.0.1")
        await running.tick(now(2, b))  # type: ignore[arg-type]
        assert "* 1 marked" in running.lines[1]
        await running.press("b")
        assert "10.0.0.1" in running.text
        assert "Block 10.0.0.1" in running.text


async def test_all_that_is_marked_is_blocked_in_one_act_that_names_them(
    controls: FakeControls,
) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await mark_two(running)
        await running.press("b")
        for words in (
            "Block 2 addresses",
            "203.0.113.77",
            "198.51.100.23",
            "908k pps",
            "2 tracked",
        ):
            assert words in running.text, words
        # 908,400 of the 961,000 packets received.
        assert "94.5%" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        wanted = [BlockRequest(LOUD, 600.0), BlockRequest(SECOND, 600.0)]
        assert controls.calls == [("block_all", wanted, False)]
        assert "marked" not in running.lines[1]


async def test_a_dialog_on_many_names_the_first_few_and_stays_locked_to_all(
    controls: FakeControls,
) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", *(["v", "down"] * 8), "b")
        assert "and 3 more" in running.text
        await running.tick(attack(1, sources=sources([Talker("10.9.9.9", 1e6)])))
        assert "Block 8 addresses" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert len(controls.calls[0][1]) == 8
        assert Prefix.parse("10.9.9.9") not in [request.prefix for request in controls.calls[0][1]]


async def test_ones_own_access_among_the_marked_takes_the_typed_word(
    controls: FakeControls,
) -> None:
    controls.guards[SECOND] = "your own ssh session comes from it"
    async with dashboard(attack(), controls=controls) as running:
        await mark_two(running)
        await running.press("b")
        await running.until(lambda: "198.51.100.23: your own ssh" in running.text)
        await running.press("enter")
        assert "type override to block" in running.text
        assert controls.calls == []
        await running.type("override")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls[0][2] is True


async def test_what_is_refused_changes_nothing_and_keeps_the_marks(controls: FakeControls) -> None:
    controls.refusal = KernelRefusedError("the table is full", "attach with more capacity")
    async with dashboard(attack(), controls=controls) as running:
        await mark_two(running)
        await running.press("b", "enter")
        await running.until(lambda: "the table is full" in running.text)
        await running.press("escape")
        assert "* 2 marked" in running.lines[1]


async def test_marked_blocks_are_ended_and_marked_allowances_too(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3", "v", "down", "v", "u")
        assert "Unblock 2 addresses" in running.text
        await running.press("enter")
        await running.until(lambda: len(controls.calls) == 2)
        ended = [("unblock", Prefix.parse("192.0.2.200")), ("unblock", LOUD)]
        assert controls.calls == ended
        await running.press("tab", "v", "down", "v", "d", "enter")
        await running.until(lambda: len(controls.calls) == 4)
        assert [call[0] for call in controls.calls[2:]] == ["disallow", "disallow"]


async def test_in_talkers_the_blocks_that_hold_the_marked_are_ended(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "v", "down", "down", "v", "u")
        assert "Unblock 203.0.113.77" in running.text
        assert "of those marked, 1 not blocked" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("unblock", LOUD)]
        await running.press("down", "down", "v", "d")
        await running.until(lambda: "none of those marked is allowed" in running.text)
        assert len(running.app.screen_stack) == 1


async def test_all_that_is_marked_is_allowed_or_put_into_a_class(controls: FakeControls) -> None:
    held = attack(classes=classes([Shaped("video")]), allowed=allowed([]))
    async with dashboard(held, controls=controls) as running:
        await mark_two(running)
        await running.press("a", "enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("allow_all", [LOUD, SECOND])]
        await mark_two(running)
        await running.press("c")
        assert "Assign" in running.text
        await running.press("enter")
        await running.until(lambda: len(controls.calls) >= 2)
        assert {call[0] for call in controls.calls[1:]} == {"assign"}
        assert {call[2] for call in controls.calls[1:]} == {"video"}


async def test_what_ended_by_itself_does_not_stop_the_others(controls: FakeControls) -> None:
    ended: list[Prefix] = []

    def unblock(prefix: Prefix) -> None:
        if prefix == Prefix.parse("192.0.2.200"):
            raise NotFoundError("it is not blocked", "`ebpftop blocks` lists them")
        if ended:
            raise KernelRefusedError("the kernel refused", "try again")
        ended.append(prefix)

    controls.unblock = unblock  # type: ignore[method-assign]
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3", "v", "down", "v", "down", "v", "u", "enter")
        await running.until(lambda: "2 of 3 done, then" in running.text)
        assert ended == [LOUD]


async def test_watching_only_there_is_nothing_to_mark() -> None:
    async with dashboard(attack()) as running:
        await mark_two(running)
        assert "marked" not in running.text
        assert running.list_pane.table.marked == ()
        assert "v mark" not in running.text
