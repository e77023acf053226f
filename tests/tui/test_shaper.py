# SPDX-License-Identifier: Apache-2.0
"""The shaper pane and its dialogs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from textual.widgets import Input

from ebpftop.errors import KernelRefusedError
from ebpftop.format import parse_size, size
from ebpftop.model import ClassKey, Prefix, Sent, Snapshot
from ebpftop.screens.class_dialog import size_text
from ebpftop.screens.class_history import ClassHistory, Samples
from ebpftop.screens.foresight import verdict, what_if
from ebpftop.screens.shaper import ShaperPane, empty_in
from tests.tui.driving import Dashboard, dashboard
from tests.tui.fakes import FakeControls, Shaped, Talker, classes, snapshot, sources

VIDEO = Shaped("video", members=("10.0.0.1", "10.1.0.0/16"))
BUSY = Shaped(
    "backup", 8_000_000, 40_000, -2_000, 16_000_000, 8_000_000, "police", dropped=321, members=()
)
TALKERS = [Talker("10.0.0.1", pps=5_000), Talker("10.0.0.2", pps=1)]


def shaped(sequence: int = 0, *entries: Shaped, **changes: Any) -> Snapshot:
    """Build a snapshot with these classes, or the two of every day."""
    held = classes(entries or (VIDEO, BUSY))
    return snapshot(sequence, classes=held, sources=sources(TALKERS), **changes)


def pane(running: Dashboard) -> ShaperPane:
    """Return the pane in sight, which is the shaper's."""
    found = running.app.main.pane
    assert isinstance(found, ShaperPane)
    return found


async def fill(running: Dashboard, field: str, text: str) -> None:
    """Write into a field of the dialog."""
    entry = running.app.screen.query_one(f"#{field}", Input)
    entry.value = text
    entry.focus()
    await running.pilot.pause()


async def minute(running: Dashboard, *entries: Shaped, tick_s: int = 20) -> None:
    """Let a minute go by in which the classes carry what they carry."""
    for second in range(1 + tick_s, 62, tick_s):
        await running.tick(shaped(second, *entries, interval_s=float(tick_s)))


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


async def test_the_dialog_shows_what_the_last_minute_would_have_met(
    controls: FakeControls,
) -> None:
    async with dashboard(shaped(), size=(120, 30), controls=controls) as running:
        await running.press("5")
        await minute(running)
        await running.press("down", "r")
        # 16 Mbit/s came to a class of 8, which drops what is over
        await running.until(lambda: "goes at once" in running.text)
        assert "brought 120 MB, of which" in running.text
        assert "50.0% dropped" in running.text
        await fill(running, "rate", "20mbit")
        await running.until(lambda: "100% goes at once, 0% dropped" in running.text)
        assert "an estimate: TCP would have slowed down" in running.text
        await fill(running, "rate", "4mbit")
        await running.until(lambda: "75.0% dropped" in running.text)
        # 120 MB in a minute at 8 Mbit/s: a burst of 60 MB is all that was missing
        await fill(running, "rate", "8mbit")
        await fill(running, "burst", "60mb")
        await running.until(lambda: "100% goes at once, 0% dropped" in running.text)


def talking(sequence: int, *, sent_bps: float | None = None, **changes: Any) -> Snapshot:
    """Build a snapshot in which 10.0.0.1 talks."""
    counts = np.array([1, 1], np.uint64)
    sent = None if sent_bps is None else Sent(counts, counts, np.array([sent_bps, 0.0]))
    return shaped(sequence, interval_s=20.0, sent=sent, **changes)


async def talk(running: Dashboard, sent_bps: float | None = None) -> None:
    """Let a minute go by in which an address talks."""
    for second in (21, 41, 61):
        await running.tick(talking(second, sent_bps=sent_bps))


async def test_a_new_class_shows_what_its_addresss_last_minute_would_have_met(
    controls: FakeControls,
) -> None:
    async with dashboard(shaped(), size=(120, 34), controls=controls) as running:
        await talk(running, sent_bps=8_000_000)
        await running.press("5", "n")
        assert "foresight" in running.text
        await fill(running, "class-name", "office")
        await fill(running, "class-rate", "4mbit")
        await running.until(lambda: "nobody is in it yet: say an address" in running.text)
        await fill(running, "class-address", "10.0.0.1")
        await fill(running, "class-action", "police")
        await running.until(lambda: "brought 60.0 MB, of which" in running.text)
        assert "49.8% dropped" in running.text  # 0.4 MB are the burst
        assert "TCP would have slowed down" in running.text
        await fill(running, "class-rate", "8mbit")
        await running.until(lambda: "100% goes at once, 0% dropped" in running.text)

        # What comes in is another thing than what goes out
        await fill(running, "class-way", "ingress")
        received = f"brought {size(sum_received())}"
        await running.until(lambda: received in running.text)
        await running.press("enter")
        await running.until(lambda: controls.calls)
        changes = {"rate_bps": 8_000_000, "burst_bytes": 0, "action": "police", "parent": ""}
        key = ClassKey("office", "ingress")
        assert controls.calls == [("set_class", key, changes, Prefix.parse("10.0.0.1"))]


def sum_received() -> float:
    """Return the bytes that 10.0.0.1 sends in the minute of `talk`."""
    return float(talking(0).sources.bps[0]) / 8 * 60


async def test_what_is_not_counted_is_not_foreseen(controls: FakeControls) -> None:
    async with dashboard(shaped(), size=(120, 34), controls=controls) as running:
        await talk(running, sent_bps=None)
        await running.press("2", "c")
        await running.until(lambda: "unknown: what is sent is not counted" in running.text)


async def test_assigning_shows_what_the_address_would_have_met_beside_the_others(
    controls: FakeControls,
) -> None:
    async with dashboard(shaped(), size=(120, 34), controls=controls) as running:
        await talk(running, sent_bps=8_000_000)
        await running.press("2")
        # GIVEN 10.0.0.1, which is in `video` already: 60 MB fit into its 20 Mbit/s
        await running.press("c")
        await running.until(lambda: "brought 60.0 MB, of which" in running.text)
        assert "100% goes at once, 0% dropped" in running.text
        # WHEN it is to go to `backup`, which has 120 MB of its own and passes 60 MB
        await fill(running, "class-name", "backup")
        await running.until(lambda: "brought 180 MB with what backup has" in running.text)
        assert "66.6% dropped" in running.text
        assert "TCP would have slowed down" in running.text
        await fill(running, "class-name", "")
        await running.until(lambda: "nothing holds it then" in running.text)


async def test_foresight_goes_on_while_the_dialog_is_open(controls: FakeControls) -> None:
    async with dashboard(shaped(), size=(120, 34), controls=controls) as running:
        await running.press("2", "c")
        await running.until(lambda: "what is sent is not counted" in running.text)
        await talk(running, sent_bps=8_000_000)
        await running.until(lambda: "brought 60.0 MB" in running.text)


@pytest.mark.parametrize("key", ["n", "c", "r"])
async def test_a_dialog_with_foresight_fits_into_a_small_terminal(
    controls: FakeControls, key: str
) -> None:
    async with dashboard(shaped(), size=(80, 24), controls=controls) as running:
        await talk(running, sent_bps=8_000_000)
        await running.press("5", key)
        if key == "n":
            await fill(running, "class-name", "office")
            await fill(running, "class-rate", "4mbit")
            await fill(running, "class-address", "10.0.0.1")
        elif key == "c":
            await fill(running, "address", "10.0.0.1")
        await running.until(lambda: "dropped" in running.text)
        assert "goes at once" in running.text
        assert "an estimate" in running.text
        assert "Esc" in running.text


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


# Foresight


def steady(bps: float, seconds: int = 60) -> Samples:
    """Return a minute of an even rate."""
    ones = np.ones(seconds)
    return Samples(np.arange(seconds, dtype=float), ones, ones * bps / 8, ones * bps)


def test_what_fits_passes_at_once() -> None:
    found = what_if(steady(10_000_000), 10_000_000, 10_000, queued=False)

    assert found.seconds == 60
    assert (found.at_once, found.dropped) == (1.0, 0.0)


def test_a_bucket_without_a_queue_drops_what_is_over_rate_and_burst() -> None:
    found = what_if(steady(10_000_000), 5_000_000, 1_000_000, queued=False)

    # 75 MB came; 37.5 MB pass by the rate and 1 MB by the burst
    assert found.at_once == pytest.approx(38.5 / 75)
    assert found.dropped == pytest.approx(36.5 / 75)
    assert found.longest_wait_s == 0


def test_a_queue_holds_back_a_peak_and_drops_what_it_cannot_hold() -> None:
    seconds = np.ones(3)
    peak = Samples(np.arange(3.0), seconds, np.array([1_000_000, 1_150_000, 500_000.0]), seconds)

    found = what_if(peak, 8_000_000, 0, queued=True)

    assert found.dropped == 0
    assert found.longest_wait_s == pytest.approx(0.15)
    assert what_if(steady(16_000_000), 8_000_000, 0, queued=True).dropped == pytest.approx(
        0.5, abs=0.01
    )


def test_foresight_without_traffic_says_so() -> None:
    nothing = what_if(Samples.none(), 1000, 1000, queued=True)
    silence = what_if(steady(0), 1000, 1000, queued=True)

    assert verdict(nothing, queued=True)[0] == "nothing has been seen of it yet"
    assert verdict(silence, queued=True)[0] == "nothing came in its last 60 s"


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
