# SPDX-License-Identifier: Apache-2.0
"""The shaper pane and its dialogs."""

from __future__ import annotations

import numpy as np
import pytest

from ebpftop.errors import KernelRefusedError
from ebpftop.format import parse_size
from ebpftop.model import ClassKey, Prefix, Sent
from ebpftop.screens.class_dialog import size_text
from ebpftop.screens.class_history import ClassHistory
from ebpftop.screens.shaper import empty_in
from tests.tui.driving import dashboard
from tests.tui.fakes import FakeControls, Shaped, snapshot
from tests.tui.shaping import fill, minute, pane, shaped


async def test_each_class_stands_with_its_rate_its_bucket_and_its_drops() -> None:
    async with dashboard(shaped(), size=(160, 24)) as running:
        await running.press("5")
        video, backup = pane(running).table.lines[1:3]
        assert video.split()[:6] == ["▸", "video", "out", "htb", "20mbit", "10.0M"]
        assert "32.8 kB" in video
        assert "█" in video
        assert "never" in video
        assert backup.split()[:5] == ["backup", "out", "police", "8mbit", "8.00M"]
        assert "-2.00 kB" in backup
        assert "empty" in backup
        assert "321" in backup
        assert "10.0.0.1 10.1.0.0/16" in running.text
        assert "2 classes" in running.lines[1]


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (200, 50)])
async def test_what_matters_is_in_sight_at_every_size(size: tuple[int, int]) -> None:
    async with dashboard(shaped(), size=size) as running:
        await running.press("5")
        assert "video" in running.text
        assert "20mbit" in running.text
        assert "█" in running.text


async def test_the_last_minute_is_drawn_beside_each_class() -> None:
    async with dashboard(shaped(), size=(160, 24)) as running:
        await running.press("5")
        await minute(running, tick_s=2)
        spark = pane(running).table.lines[1].rstrip()[-15:]
        assert all(0x2800 < ord(character) <= 0x28FF for character in spark)


async def test_a_class_stands_below_its_ceiling_and_the_selection_stays_on_it() -> None:
    entries = (Shaped("one", parent="up"), Shaped("alone"), Shaped("up", members=()))
    async with dashboard(shaped(0, *entries), size=(120, 24)) as running:
        await running.press("5", "down")
        names = [line[2:].split()[:2] for line in pane(running).table.lines[1:4]]
        assert [words[-1] if words[0] == "└" else words[0] for words in names] == [
            "alone", "up", "one",
        ]  # fmt: skip
        assert pane(running).target == ClassKey("up")
        assert "a ceiling over one" in running.text
        await running.tick(shaped(1, Shaped("up", members=())))
        assert pane(running).target == ClassKey("up")
        await running.tick(shaped(2, Shaped("alone")))
        assert "up  is no more" in running.text


async def test_no_class_says_how_to_make_one(controls: FakeControls) -> None:
    async with dashboard(snapshot(), controls=controls) as running:
        await running.press("5")
        assert "No traffic class: n makes one" in running.text
        await running.press("r", "b", "x", "c")
        assert len(running.app.screen_stack) == 1
        await running.press("n")
        assert "New class" in running.text


async def test_read_only_shows_all_and_changes_nothing() -> None:
    async with dashboard(shaped(), size=(120, 24)) as running:
        await running.press("5")
        assert "video" in running.text
        for key in ("r rate", "b burst", "n new class", "x delete", "c class"):
            assert key not in running.lines[-1]
        await running.press("r", "b", "n", "x", "c")
        await running.press("2", "c")
        assert len(running.app.screen_stack) == 1


@pytest.mark.parametrize(("key", "field"), [("r", "rate"), ("b", "burst")])
async def test_r_and_b_edit_the_selected_class(
    controls: FakeControls, key: str, field: str
) -> None:
    async with dashboard(shaped(), controls=controls) as running:
        await running.press("5", key)
        assert "Class video" in running.text
        focused = running.app.screen.focused
        assert focused is not None
        assert focused.id == field
        await fill(running, "rate", "50mbit")
        await fill(running, "burst", "1mb")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        changes = {"rate_bps": 50_000_000, "burst_bytes": 1 << 20}
        assert controls.calls == [("set_class", ClassKey("video"), changes)]


async def test_only_what_was_changed_is_written(controls: FakeControls) -> None:
    async with dashboard(shaped(), controls=controls) as running:
        await running.press("5", "r", "enter")
        assert "neither is changed" in running.text
        await fill(running, "rate", "9mbit")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("set_class", ClassKey("video"), {"rate_bps": 9_000_000})]


async def test_a_value_that_cannot_be_read_is_named_and_nothing_is_written(
    controls: FakeControls,
) -> None:
    async with dashboard(shaped(), controls=controls) as running:
        await running.press("5", "r")
        await fill(running, "rate", "50")
        await running.press("enter")
        assert "'50' has no unit" in running.text
        assert controls.calls == []


async def test_what_the_kernel_refuses_is_said_in_the_dialog(controls: FakeControls) -> None:
    controls.refusal = KernelRefusedError("eth0 has no fq", "modprobe sch_fq")
    async with dashboard(shaped(), controls=controls) as running:
        await running.press("5", "r")
        await fill(running, "rate", "9mbit")
        await running.press("enter")
        await running.until(lambda: "eth0 has no fq: modprobe sch_fq" in running.text)


@pytest.mark.parametrize("terminal", [(80, 24), (120, 30), (230, 40)])
async def test_all_of_a_class_is_in_sight_beside_it_or_below(terminal: tuple[int, int]) -> None:
    async with dashboard(shaped(), size=terminal) as running:
        await minute(running)
        await running.press("5", "down")
        lines = running.lines
        for word in ("20mbit", "tokens", "burst", "empties", "packets", "dropped", "marks"):
            assert any(word in line for line in lines), word
        below = "" if terminal[0] > 200 else "  ".join(lines[-4:])
        assert ("marks 12" in below) == (terminal[0] < 200)
        assert ("burst 40.0 kB" in below) == (terminal[0] < 100)
        assert "out by police" in "  ".join(lines[-4:])
        assert ("empties empty" in below) == (terminal[0] < 100)


async def test_n_makes_a_class(controls: FakeControls) -> None:
    async with dashboard(shaped(), controls=controls) as running:
        await running.press("5", "n")
        assert "video, backup" in running.text
        await running.type("office")
        await fill(running, "class-rate", "30mbit")
        await fill(running, "class-way", "sideways")
        await running.press("enter")
        assert "the way is egress or ingress" in running.text
        await fill(running, "class-way", "ingress")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        changes = {"rate_bps": 30_000_000, "burst_bytes": 0, "action": "auto", "parent": ""}
        assert controls.calls == [("set_class", ClassKey("office", "ingress"), changes)]


async def test_x_deletes_after_a_yes(controls: FakeControls) -> None:
    async with dashboard(shaped(), controls=controls) as running:
        await running.press("5", "x")
        assert "its 2 addresses are held to no rate" in running.text
        await running.press("escape")
        assert controls.calls == []
        await running.press("x", "enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("delete_class", ClassKey("video"))]


async def test_c_assigns_a_typed_address_to_the_selected_class(controls: FakeControls) -> None:
    async with dashboard(shaped(), controls=controls) as running:
        await running.press("5", "down", "c")
        await running.type("10.1.2.3")
        assert "video by 10.1.0.0/16" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("assign", Prefix.parse("10.1.2.3"), "backup")]


async def test_c_in_talkers_assigns_the_selected_source(controls: FakeControls) -> None:
    async with dashboard(shaped(), controls=controls) as running:
        await running.press("2", "down", "c")
        assert "Assign 10.0.0.2" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("assign", Prefix.parse("10.0.0.2"), "video")]


async def test_no_class_takes_an_address_out(controls: FakeControls) -> None:
    async with dashboard(shaped(), controls=controls) as running:
        await running.press("2", "c")
        assert "video by 10.0.0.1" in running.text
        await fill(running, "class-name", "")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("unassign", Prefix.parse("10.0.0.1"))]


async def test_keys_do_in_each_pane_what_they_say_there(controls: FakeControls) -> None:
    async with dashboard(shaped(), size=(160, 24), controls=controls) as running:
        await running.press("5")
        assert "b burst" in running.lines[-1]
        assert "b block" not in running.lines[-1]
        await running.press("b")
        assert "Class video" in running.text
        await running.press("escape", "2", "b")
        assert "Block 10.0.0.1" in running.text
        await running.press("escape", "3", "n")
        assert "New block" in running.text


def test_history_keeps_a_minute_and_forgets_classes_that_went() -> None:
    history = ClassHistory()
    for second in range(0, 300, 2):
        history = history.extended(shaped(second, interval_s=2.0))
    assert len(history.of(ClassKey("video")).times_s) <= 31
    history = history.extended(shaped(300, Shaped("new")))
    assert list(history.samples) == [ClassKey("new")]


@pytest.mark.parametrize("size", [0, 1, 1500, 1 << 10, 65_536, 3 << 20, 1 << 30, (1 << 20) + 1])
def test_a_size_is_read_back_as_it_was_written(size: int) -> None:
    assert parse_size(size_text(size)) == size


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "empty"), (float("inf"), "never"), (65.0, "1m05s")]
)
def test_time_to_empty_in_words(seconds: float, text: str) -> None:
    assert empty_in(seconds) == text


async def test_talkers_show_what_is_sent_to_each_source_where_it_is_counted() -> None:
    async with dashboard(shaped(), size=(120, 24)) as running:
        await running.press("2")
        assert "sent" not in running.list_pane.table.lines[0]
        counts = np.array([7, 9], np.uint64)
        sent = Sent(counts, counts, np.array([1_250_000.0, 0.0]))
        await running.tick(shaped(1, sent=sent))
        assert "sent" in running.list_pane.table.lines[0]
        assert "1.25M" in running.list_pane.table.lines[1]
