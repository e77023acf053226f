# SPDX-License-Identifier: Apache-2.0
"""The acts pane, undoing, and acts that must be confirmed."""

from __future__ import annotations

import pytest

from ebpftop.errors import ChangedSinceError, NotPermittedError
from ebpftop.screens.block_dialog import BlockDialog
from ebpftop.screens.undo_dialog import UndoDialog
from tests.tui.driving import dashboard, steers_terminal
from tests.tui.fakes import HOSTILE, START_S, FakeControls, act, attack, classes, snapshot
from tests.tui.fakes import Shaped as ShapedClass
from tests.tui.test_dialogs import fill

LIMITS = act(
    "limit", "", id="00000002", time_s=START_S - 5, facet="limits", user="bob",
    old={"pps": 0, "syn": 0}, new={"pps": 500, "syn": 0},
)  # fmt: skip
UNDONE = act("allow", "10.0.0.9", id="00000003", facet="allow", old=None, new=True, undone=True,
             time_s=START_S - 2)  # fmt: skip
REFUSED = act("unblock", "10.0.0.8", id="00000004", result="refused: it is not blocked", new=None,
              time_s=START_S - 1)  # fmt: skip
ALL = (act(), LIMITS, UNDONE, REFUSED)


async def test_acts_are_listed_latest_first_with_what_they_changed() -> None:
    async with dashboard(snapshot(acts=ALL), size=(160, 30)) as running:
        await running.press("7")
        rows = [line.split() for line in running.list_pane.table.lines[1:5]]
        assert [row[row.index("unblock")] for row in rows[:1]] == ["unblock"]
        assert "refused: it is not blocked" in running.list_pane.table.lines[1]
        assert "undone" in running.list_pane.table.lines[2]
        assert "pps off → 500" in running.list_pane.table.lines[3]
        assert "not blocked → blocked for 10m00s, syn flood" in running.list_pane.table.lines[4]
        assert "alice" in running.list_pane.table.lines[4]
        assert "/dev/pts/3" in running.list_pane.table.lines[4]
        assert "4 acts" in running.lines[1]


async def test_acts_can_be_filtered_and_are_read_only_without_controls() -> None:
    async with dashboard(snapshot(acts=ALL)) as running:
        await running.press("7", "/")
        await running.type("user:bob")
        await running.press("enter")
        assert [line for line in running.list_pane.table.lines if "limit" in line]
        assert not [line for line in running.list_pane.table.lines if "unblock" in line]
        await running.press("u", "z", "Y")
        assert len(running.app.screen_stack) == 1
        assert "undo" not in running.lines[-1]


@pytest.mark.parametrize(
    ("acts", "words"), [((), "Nobody has changed anything"), (None, "the audit log is closed")]
)
async def test_no_acts_say_why(acts: tuple[()] | None, words: str) -> None:
    async with dashboard(snapshot(acts=acts)) as running:
        await running.press("7")
        assert words.lower() in running.text.lower()


async def test_hostile_acts_are_text_and_nothing_else(controls: FakeControls) -> None:
    evil = act(HOSTILE, HOSTILE, user=HOSTILE, terminal=HOSTILE, result=HOSTILE,
               old={"until_s": None, "reason": HOSTILE}, new={HOSTILE: HOSTILE})  # fmt: skip
    odd = [act(facet=facet, id=str(n), new=new, old=7) for n, (facet, new) in enumerate(
        [("block", "x"), ("block", [1]), ("member", 5), ("class", [HOSTILE]), ("limits", "x"),
         ("classes", 3), ("nonsense", {})])]  # fmt: skip
    async with dashboard(snapshot(acts=(*odd, evil)), controls=controls, size=(200, 40)) as running:
        await running.press("7")
        assert "[/b][red]" in running.text
        assert not steers_terminal(running.text.replace("\n", ""))
        for _ in odd:
            await running.press("down", "u")
            assert not steers_terminal(running.text.replace("\n", ""))
            await running.press("escape")


async def test_z_shows_what_undoing_the_last_act_does_and_does_it(controls: FakeControls) -> None:
    async with dashboard(snapshot(acts=ALL), controls=controls) as running:
        await running.press("z")
        assert "Undo limit" in running.text
        assert "bob, 5s ago" in running.text
        assert "pps 500 → off" in running.text
        # The dialog stays on its act, whatever is done meanwhile.
        await running.tick(snapshot(1, acts=(*ALL, act("block", "10.0.0.7", id="00000005"))))
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("undo", "00000002", False)]
        await running.until(lambda: len(running.app.screen_stack) == 1)


async def test_z_is_not_offered_where_there_is_nothing_to_undo(controls: FakeControls) -> None:
    async with dashboard(snapshot(acts=(UNDONE, REFUSED)), controls=controls) as running:
        assert "undo last" not in running.text
        await running.press("z")
        assert len(running.app.screen_stack) == 1


async def test_acts_are_undone_one_by_one(controls: FakeControls) -> None:
    async with dashboard(snapshot(acts=ALL), controls=controls) as running:
        await running.press("7")
        assert "u undo " not in running.lines[-1]  # the refused one
        await running.press("G")
        assert "u undo" in running.lines[-1]
        await running.press("u")
        assert "Undo block 203.0.113.77" in running.text
        assert "not blocked" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("undo", "a1b2c3d4", False)]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ChangedSinceError("it has been changed since"), "force"),
        (NotPermittedError("refused: your own access needs it"), "override"),
    ],
)
async def test_what_stands_against_an_undo_is_passed_over_only_by_a_typed_word(
    controls: FakeControls, error: Exception, word: str
) -> None:
    controls.refusal = error
    async with dashboard(snapshot(acts=ALL), controls=controls) as running:
        await running.press("z", "enter")
        await running.until(lambda: f"type {word} to do it all the same" in running.text)
        controls.refusal = None
        await running.press("enter")
        assert controls.calls == []
        assert isinstance(running.app.screen, UndoDialog)
        await running.type(word)
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("undo", "00000002", True)]


async def test_an_act_that_waits_counts_down_and_a_key_confirms_it(controls: FakeControls) -> None:
    waits = act(reverts_at_s=START_S + 20)
    async with dashboard(snapshot(acts=(waits,)), controls=controls) as running:
        assert "REVERTS IN 20s: Y confirms" in running.lines[0]
        await running.tick(snapshot(7, acts=(waits,)))
        assert "REVERTS IN 13s" in running.lines[0]
        await running.press("Y")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("confirm",)]
        await running.tick(snapshot(8, acts=(act(),)))
        assert "REVERTS" not in running.lines[0]
        await running.press("Y")
        assert controls.calls == [("confirm",)]


async def test_the_header_keeps_the_countdown_on_a_narrow_terminal(controls: FakeControls) -> None:
    waits = act(reverts_at_s=START_S + 20)
    async with dashboard(attack(acts=(waits,)), controls=controls, size=(60, 15)) as running:
        assert "REVERTS IN 20s" in running.lines[0]


async def test_a_block_can_be_made_to_revert_by_itself(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("2", "b")
        await fill(running, "revert", "forever")
        await running.press("enter")
        assert "a time that ends" in running.text
        assert isinstance(running.app.screen, BlockDialog)
        await fill(running, "revert", "90s")
        await running.press("enter")
        await running.until(lambda: running.app._notifications)
        assert controls.reverts_after_s == 90.0
        said = [notice.message for notice in running.app._notifications]
        assert said == ["Block 203.0.113.77 for 10m, reverts in 90s: Y confirms: accepted"]


async def test_limits_and_classes_can_be_made_to_revert_by_themselves(
    controls: FakeControls,
) -> None:
    held = classes([ShapedClass("video")])
    async with dashboard(attack(classes=held), controls=controls) as running:
        await running.press("l")
        await fill(running, "revert", "45s")
        await running.press("enter")
        await running.until(lambda: len(controls.calls) == 1)
        assert controls.reverts_after_s == 45.0
        await running.until(lambda: len(running.app.screen_stack) == 1)
        await running.press("5", "r")
        await fill(running, "rate", "30mbit")
        await fill(running, "revert", "15s")
        await running.press("enter")
        await running.until(lambda: len(controls.calls) == 2)
        assert controls.reverts_after_s == 15.0
