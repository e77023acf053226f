# SPDX-License-Identifier: Apache-2.0
"""Recording from within the dashboard."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from ebpftop.config import RecordingPolicy, SizeBytes
from ebpftop.model import Event
from ebpftop.sources import Sampler
from ebpftop.sources.recording import Recorder, Tape, TapeWriter, recorder
from tests.tui.driving import Dashboard, dashboard, steers_terminal
from tests.tui.fakes import HOSTILE, attack, many_sources, snapshot
from tests.unit.invented import differences


@pytest.fixture(autouse=True)
def _no_tick_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let snapshots come only when a test asks for one, the second one too."""
    monkeypatch.setattr(Sampler, "FIRST_INTERVAL_S", 3600.0)


def policy(folder: Path, max_bytes: int = 10 << 20) -> RecordingPolicy:
    return RecordingPolicy(folder=str(folder), max_bytes=SizeBytes(max_bytes))


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


async def recorded(running: Dashboard, first: int, last: int) -> None:
    """Let some ticks pass while a recording is under way."""
    for second in range(first, last + 1):
        await running.tick(attack(second))


async def test_one_key_records_what_is_shown_and_the_same_key_ends_it(tmp_path: Path) -> None:
    async with dashboard(recording=policy(tmp_path), size=(100, 30)) as running:
        await running.press("R")
        await running.until(lambda: "● REC" in running.lines[0])
        await recorded(running, 1, 5)
        assert "R end recording" in running.lines[-1]
        await running.press("R")
        await running.until(lambda: "REC" not in running.lines[0])
        await running.until(lambda: "recorded 5 ticks" in " ".join(running.text.split()))
        await recorded(running, 6, 7)
    path = only_file(tmp_path)
    assert path.name.startswith("eth0-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tape = Tape(path)
    assert tape.damage is None
    assert [differences(attack(n), tape.tick(n - 1)) for n in range(1, 6)] == [[]] * 5
    assert len(tape) == 5


async def test_leaving_the_dashboard_ends_the_recording_and_keeps_it(tmp_path: Path) -> None:
    async with dashboard(recording=policy(tmp_path)) as running:
        await running.press("R")
        await recorded(running, 1, 3)
        await running.press("q")
    assert not [t for t in threading.enumerate() if t.name == "ebpftop-recorder"]
    tape = Tape(only_file(tmp_path))
    assert (len(tape), tape.damage) == (3, None)


async def test_a_full_recording_ends_with_a_notice_and_can_be_replayed(tmp_path: Path) -> None:
    async with dashboard(recording=policy(tmp_path, 20_000), size=(100, 30)) as running:
        await running.press("R")
        second = 0
        while running.app.recording.under_way:
            second += 1
            await running.tick(attack(second, sources=many_sources(100 * second)))
        await running.until(lambda: "has its full size" in " ".join(running.text.split()))
        assert "REC" not in running.lines[0]
    path = only_file(tmp_path)
    assert 5000 < path.stat().st_size <= 20_000
    assert len(Tape(path)) > 1


async def test_a_folder_that_is_not_there_is_said_and_nothing_records(tmp_path: Path) -> None:
    async with dashboard(recording=policy(tmp_path / HOSTILE[:4] / "none")) as running:
        await running.press("R")
        await running.until(lambda: "not recording" in " ".join(running.text.split()))
        assert "REC" not in running.lines[0]
        assert not steers_terminal(running.text.replace("\n", ""))


async def test_hostile_names_of_interfaces_make_a_harmless_name_of_a_file(tmp_path: Path) -> None:
    async with dashboard(title=f"../{HOSTILE}/x", recording=policy(tmp_path)) as running:
        await running.press("R")
        await recorded(running, 1, 1)
        await running.press("q")
    path = only_file(tmp_path)
    assert not steers_terminal(path.name)
    assert set(path.name) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
    )


def test_a_slow_disk_holds_nobody_up_and_loses_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, going_on = threading.Event(), threading.Event()

    class SlowWriter(TapeWriter):
        def write(self, tick: object) -> None:
            slow.set()
            assert going_on.wait(10)
            super().write(tick)  # type: ignore[arg-type]

    monkeypatch.setattr(recorder, "TapeWriter", SlowWriter)
    ends: list[object] = []
    recording = Recorder(tmp_path / "r", "eth0", 10 << 20, ends.append)
    recording.start()
    for second in range(50):
        # WHEN more ticks come than the disk takes
        happened = [Event(second, 1.7e9, "block", "10.0.0.1", f"at {second}")]
        recording.put(snapshot(second, events=happened, missed_events=1))
    assert slow.wait(10)
    going_on.set()
    # AND the disk is back
    while recording.ticks < recorder._MOST_WAITING:
        assert recording.is_alive()
    recording.put(snapshot(50))
    recording.stop()
    # THEN fewer ticks are there, and every event and every loss
    tape = Tape(tmp_path / "r")
    ticks = [tape.tick(n) for n in range(len(tape))]
    assert len(ticks) < 50
    assert [event.seq for each in ticks for event in each.events] == list(range(50))
    assert sum(each.missed_events for each in ticks) == 50
    assert ends == [None]
