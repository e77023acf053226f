# SPDX-License-Identifier: Apache-2.0
"""The dashboard on a recording: what the live one showed, and moving about in it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebpftop.actions import ACTIONS
from ebpftop.app import DashboardApp
from ebpftop.errors import UsageError
from ebpftop.model import Clock, Snapshot
from ebpftop.screens.pane import Picture
from ebpftop.screens.replay import offset_of
from ebpftop.sources.recording import RecordingSource, Tape, TapeWriter, frames
from tests.tui.driving import Dashboard, steers_terminal
from tests.tui.fakes import HOSTILE, START_NS, START_S, FakeSource, attack, rates
from tests.unit.invented import WORDS, Inventor, differences

TICKS = 200


def tick(second: int) -> Snapshot:
    """Return a tick in which the rate says which one it is."""
    happened = attack().events[:1] if second % 50 == 0 else []
    happened = [replace(event, seq=second, detail=f"at {second}") for event in happened]
    return attack(second, rates=rates(1000.0 + second, 0.0), events=happened)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of `TICKS` seconds."""
    path = tmp_path_factory.mktemp("replay") / "attack"
    record(path, [tick(second) for second in range(TICKS)])
    return path


def record(path: Path, ticks: Sequence[Snapshot]) -> None:
    writer = TapeWriter(path, "eth0")
    for each in ticks:
        writer.write(each)
    writer.close()


@asynccontextmanager
async def replayed(path: Path, size: tuple[int, int] = (100, 30)) -> AsyncIterator[Dashboard]:
    """Run the dashboard on a recording, standing still at its first tick."""
    app = DashboardApp(RecordingSource(Tape(path)), title="eth0")
    async with app.run_test(size=size, notifications=True) as pilot:
        running = Dashboard(app, pilot, FakeSource())
        await running.press("space")
        await running.press("{")
        await running.until(lambda: at(running) == 0)
        yield running


def at(running: Dashboard) -> int | None:
    """Return the tick that is shown."""
    shown = running.app.shown
    return shown.snapshot.sequence if shown else None


def is_at(running: Dashboard, second: int) -> bool:
    return at(running) == second


def live(until: int) -> Picture:
    """Return what a live dashboard shows that was open from the first tick on."""
    picture = None
    for second in range(until + 1):
        now = tick(second)
        picture = Picture.after(picture, now, now.events, 0)
    assert picture is not None
    return picture


def assert_as_live(running: Dashboard, second: int) -> None:
    shown, wanted = running.app.shown, live(second)
    assert shown is not None
    assert shown.snapshot.sequence == second
    assert shown.history.times_s.tolist() == wanted.history.times_s.tolist()
    for name, pps in wanted.history.pps.items():
        assert np.array_equal(shown.history.pps[name], pps)
    assert shown.history.peak_pps == wanted.history.peak_pps
    assert list(shown.events) == list(wanted.events)
    assert differences(wanted.classes, shown.classes) == []
    assert differences(wanted.sources, shown.sources) == []


async def test_it_plays_by_itself_to_the_end_and_stands_there(tmp_path: Path) -> None:
    ticks = [
        replace(tick(n), clock=Clock(START_NS + n * 10**8, START_S + n / 10)) for n in range(9)
    ]
    record(tmp_path / "short", ticks)
    app = DashboardApp(RecordingSource(Tape(tmp_path / "short")), title="eth0")
    async with app.run_test(size=(100, 30)) as pilot:
        running = Dashboard(app, pilot, FakeSource())
        await running.until(lambda: at(running) == 8 and "stands" in running.lines[-2])
        assert app.lost_error is None
        # AND from there it starts again
        await running.press("space")
        await running.until(lambda: at(running) not in (8, None))


async def test_every_jump_shows_what_the_live_dashboard_showed(path: Path) -> None:
    async with replayed(path) as running:
        for key, second in (
            (".", 1), (".", 2), (",", 1), ("]", 11), ("}", 199), ("[", 189), (",", 188), ("{", 0),
            ("[", 0), (",", 0), ("]", 10),
        ):  # fmt: skip
            await running.press(key)
            await running.until(partial(is_at, running, second))
            assert_as_live(running, second)


async def test_speed_is_what_passes_in_a_second(path: Path) -> None:
    async with replayed(path) as running:
        await running.press(">", ">", ">", ">", ">")
        await running.until(lambda: "16x" in running.lines[-2])
        await running.press("space")
        await running.until(lambda: (at(running) or 0) > 30)
        await running.press("space")
        await running.until(lambda: "stands" in running.lines[-2])
        stopped = at(running)
        assert stopped is not None
        assert_as_live(running, stopped)
        await running.press(*["<"] * 9)
        await running.until(lambda: "0.25x" in running.lines[-2])
        assert at(running) == stopped


async def test_a_line_says_where_in_the_recording_we_are(path: Path) -> None:
    async with replayed(path, size=(120, 30)) as running:
        await running.press("}")
        await running.until(lambda: at(running) == 199)
        line = running.lines[-2]
        assert "REPLAY" in line
        assert "0:03:19 of 0:03:19" in line
        assert "tick 200 of 200" in line
        assert "recorded 2025-06-15 15:09:59" in line
        assert running.lines[0].endswith("15:09:59")


async def test_times_on_the_screen_are_those_of_the_recording(path: Path) -> None:
    async with replayed(path) as running:
        await running.press("3")
        await running.press("]", "]", "]")
        await running.until(lambda: at(running) == 30)
        row = next(line for line in running.lines if "192.0.2.200" in line)
        # The block that the recording holds for 42 s ends in as long as it did at that tick.
        assert "42s" in row
        assert "18s" in row


async def test_a_recording_can_be_watched_and_nothing_else(path: Path) -> None:
    async with replayed(path) as running:
        for pane in "1235":
            await running.press(pane)
            offered = {action.id for action in ACTIONS if running.app.offering.has(action)}
            assert offered.isdisjoint(action.id for action in ACTIONS if action.writes)
            assert "record" not in offered
            assert {a.id for a in ACTIONS if a.replays} <= offered
        await running.press("b", "u", "a", "d", "l", "n", "R")
        assert len(running.app.screen_stack) == 1
        await running.press("?")
        assert "Stand still, one tick back" in running.text
        assert "Record what is shown" not in running.text


async def test_a_time_is_typed(path: Path) -> None:
    async with replayed(path) as running:
        await running.press("@")
        assert "2025-06-15 15:06:40" in running.text
        await running.type("15:08:00")
        await running.press("enter")
        await running.until(lambda: at(running) == 80)
        await running.press("@")
        await running.type("90s")
        await running.press("enter")
        await running.until(lambda: at(running) == 90)


REFUSED = {
    "25:00": "is no time of day",
    "soon": "'soon' is no time",
    "1h": "ends before that",
    "": "'' is no time",
    "forever": "'forever' is no time",
    "15:06:39": "ends before that",
}


async def test_a_time_that_is_none_of_the_recording_is_refused(path: Path) -> None:
    async with replayed(path) as running:
        for typed, words in REFUSED.items():
            await running.press("@")
            await running.type(typed)
            await running.press("enter")
            await running.until(partial(lambda words: words in running.text, words))
            await running.press("escape")
        assert at(running) == 0


def test_a_time_of_day_is_the_first_one_after_the_start() -> None:
    began = Clock(0, START_S)
    assert offset_of("15:06:40", began) == 0
    assert offset_of("15:07", began) == 20
    assert offset_of("15:06", began) == 86_400 - 40
    assert offset_of(" 2m ", began) == 120
    with pytest.raises(UsageError):
        offset_of("15:60", began)


@pytest.fixture
def damaged(path: Path, tmp_path: Path) -> Path:
    """The same recording, cut within its tick 150."""
    tape = Tape(path)
    place = tape._frames[150].at
    tape.close()
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[: place + 3])
    return cut


async def test_a_damaged_recording_plays_up_to_its_damage_and_says_so(damaged: Path) -> None:
    async with replayed(damaged, size=(160, 30)) as running:
        await running.press("}")
        await running.until(lambda: at(running) == 149)
        assert_as_live(running, 149)
        assert "DAMAGED" in running.lines[-2]
        assert "it ends within" in running.lines[-2]


async def test_a_damage_that_is_found_while_playing_ends_it_there(
    path: Path, tmp_path: Path
) -> None:
    # A tick that is not what its kind says, with a right checksum.
    tape = Tape(path)
    frame, whole = tape._frames[150], path.read_bytes()
    tape.close()
    wrong = frames.framed(frames.DELTA, b"\x92\x80\x80", frame.clock)
    false = tmp_path / "false"
    false.write_bytes(whole[: frame.at - frames.HEADER.size] + wrong + whole[frame.end :])
    async with replayed(false, size=(160, 30)) as running:
        await running.press("}")
        await running.until(lambda: at(running) == 149)
        await running.until(lambda: "DAMAGED" in running.lines[-2])
        assert running.app.lost_error is None
        await running.press("[")
        await running.until(lambda: at(running) == 139)
        assert_as_live(running, 139)


async def test_leaving_ends_the_thread_and_closes_the_file(path: Path) -> None:
    async with replayed(path) as running:
        assert [t for t in threading.enumerate() if t.name == "ebpftop-player"]
        await running.press("q")
    assert not [t for t in threading.enumerate() if t.name == "ebpftop-player"]


class HostileInventor(Inventor):
    """Makes up snapshots whose every text steers a terminal, if it can."""

    def _plain(self, hint: type, name: str) -> Any:
        made = super()._plain(hint, name)
        return HOSTILE if hint is str and name not in WORDS else made


@pytest.mark.parametrize("seed", range(3))
async def test_hostile_recordings_are_drawn_and_never_obeyed(tmp_path: Path, seed: int) -> None:
    writer = TapeWriter(tmp_path / "hostile", HOSTILE)
    for number in range(3):
        made = HostileInventor(seed + number).snapshot(number)
        made.blocks.reason[:] = HOSTILE
        writer.write(made)
    writer.close()
    tape = Tape(tmp_path / "hostile")
    app = DashboardApp(RecordingSource(tape), title=tape.title)
    async with app.run_test(size=(160, 50), notifications=True) as pilot:
        running = Dashboard(app, pilot, FakeSource())
        await running.until(lambda: app.shown is not None)
        drawn = ""
        for action in ACTIONS:
            if action.opens:
                await running.press(action.keys[0], "down")
                drawn += running.text
                assert not steers_terminal(running.text.replace("\n", ""))
        assert app.lost_error is None
        assert "[/b][red]" in drawn


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (250, 70)])
async def test_every_size_has_the_line_and_the_footer(path: Path, size: tuple[int, int]) -> None:
    async with replayed(path, size=size) as running:
        assert len(running.lines) == size[1]
        assert "REPLAY" in running.lines[-2]
        assert "q quit" in running.lines[-1]
