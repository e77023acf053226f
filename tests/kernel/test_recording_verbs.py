# SPDX-License-Identifier: Apache-2.0
"""`record` and `replay` on a real instance, and the dashboard's key for it."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpftop.cli import recording
from ebpftop.format import size
from ebpftop.model import Prefix, Snapshot
from ebpftop.sources.live import LiveSource
from ebpftop.sources.recording import Tape
from tests.kernel.stage import IFACE, PROGRAM, Stage, child, ebpftop, staged, until
from tests.kernel.terminal import Terminal
from tests.unit.invented import differences

pytestmark = pytest.mark.kernel

LOUD, LATER = "10.1.0.2", "10.1.0.3"


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=0, quiet=True) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(recording, "INTERVAL_S", 0.1)
    attached.clear()
    return attached


def test_what_is_recorded_is_what_a_live_source_reads(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Snapshot] = []
    snapshot = LiveSource.snapshot

    def noted(source: LiveSource) -> Snapshot:
        seen.append(snapshot(source))
        return seen[-1]

    monkeypatch.setattr(LiveSource, "snapshot", noted)
    path = tmp_path / "r"
    acting = threading.Timer(0.3, lambda: ebpftop_in(stage))
    stage.control.block(Prefix.parse(LOUD), for_s=600, reason="ticket 4711")
    stage.send(LOUD, 5)
    acting.start()
    done = ebpftop("record", IFACE, str(path), "--for", "1")
    acting.join()

    assert (done.status, done.err) == (0, "")
    tape = Tape(path)
    assert done.out == f"{path}: {len(tape)} ticks, {size(path.stat().st_size)}\n"
    assert len(tape) == len(seen) > 4
    for number, wanted in enumerate(seen):
        assert differences(wanted, tape.tick(number)) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def ebpftop_in(stage: Stage) -> None:
    """Let something happen in the midst of a recording."""
    stage.control.block(Prefix.parse(LATER), for_s=None, reason="later")
    stage.send(LOUD, 3)


def test_the_report_of_a_recording_is_that_of_its_last_tick(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "r"
    stage.control.block(Prefix.parse(LOUD), for_s=600, reason="ticket 4711")
    stage.send(LOUD, 5)
    acting = threading.Timer(0.2, lambda: ebpftop_in(stage))
    acting.start()
    ebpftop("record", IFACE, str(path), "--for", "1")
    acting.join()
    live = {verb: ebpftop(verb, IFACE, "--json").json() for verb in ("blocks", "classes")}
    status = ebpftop("status", IFACE, "--json").json()

    report = ebpftop("replay", str(path), "--json").json()

    assert report.keys() >= {"status", "top", "blocks", "allowed", "events", "classes"}
    assert report["status"]["packets"] == status["packets"]
    assert report["status"]["iface"] == IFACE
    assert [(b["address"], b["reason"], b["packets"]) for b in report["blocks"]] == [
        (b["address"], b["reason"], b["packets"]) for b in live["blocks"]
    ]
    assert {LOUD, LATER} == {block["address"] for block in report["blocks"]}
    assert [event["detail"] for event in report["events"]][-1] == "for ever, later"
    assert (report["top"][0]["address"], report["top"][0]["packets"]) == (LOUD, 8)


def test_a_file_that_exists_is_refused_and_kept(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_text("precious")
    done = ebpftop("record", IFACE, str(path), "--for", "1")

    assert (done.status, done.out) == (1, "")
    assert done.err.endswith("exists already: choose another name or remove it\n")
    assert path.read_text() == "precious"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_recording_and_it_is_whole(
    stage: Stage, tmp_path: Path, number: int
) -> None:
    path = tmp_path / "r"
    sudo = {"SUDO_UID": "65534", "SUDO_GID": "65534"}
    process = child("record", IFACE, str(path), env={**os.environ, **sudo})
    until(lambda: path.exists() and path.stat().st_size > 500)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (0, "")
    # AND who recorded with sudo can replay without
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (65_534, 0o600)
    tape = Tape(path)
    assert tape.damage is None
    assert f"{len(tape)} ticks" in out


def test_a_recording_ends_with_an_error_where_the_instance_does(tmp_path: Path) -> None:
    with staged(clients=0, quiet=True) as stage:
        path = tmp_path / "r"
        process = child("record", IFACE, str(path))
        until(lambda: path.exists() and path.stat().st_size > 500)
        ebpftop("detach", IFACE)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "detached" in err
        assert "ticks" in out
        assert Tape(path).damage is None
        assert stage


def test_the_dashboard_records_by_its_key_and_replays_on_a_terminal(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage.send(LOUD, 5)
    live = Terminal([PROGRAM, IFACE])
    try:
        live.wait_for(LOUD)
        live.press("R")
        live.wait_for("● REC", "end recording")
        until(lambda: [path for path in tmp_path.iterdir() if path.stat().st_size > 500])
        live.press("q")
        assert live.wait() == 0
    finally:
        live.close()
    (path,) = tmp_path.iterdir()
    assert path.name.startswith(f"{IFACE}-")
    assert Tape(path).damage is None

    replayed = Terminal([PROGRAM, "replay", path.name])
    try:
        replayed.wait_for("REPLAY", LOUD)
        replayed.press("q")
        assert replayed.wait() == 0
    finally:
        replayed.close()
