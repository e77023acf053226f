# SPDX-License-Identifier: Apache-2.0
"""`replay --json` on the recording of the lab: whole, damaged, and none at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ebpftop import cli, report
from ebpftop.sources.recording import Tape
from tests.record_lab import RECORDING


@pytest.fixture(scope="module")
def tape() -> Tape:
    return Tape(RECORDING)


def test_the_report_has_every_list_of_the_last_tick_and_all_events(
    tape: Tape, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["replay", str(RECORDING), "--json"]) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    answer = json.loads(printed.out)
    ticks = [tape.tick(number) for number in range(len(tape))]
    assert answer == report.everything(ticks[-1], [e for tick in ticks for e in tick.events])
    assert {event["kind"] for event in answer["events"]} >= {"flood", "auto-block"}


@pytest.mark.parametrize("tick", [1, 30, 59])
def test_a_damaged_recording_is_printed_up_to_its_damage_then_the_error(
    tape: Tape, tmp_path: Path, capsys: pytest.CaptureFixture[str], tick: int
) -> None:
    damaged = bytearray(RECORDING.read_bytes())
    damaged[tape._frames[tick].at + 5] ^= 1
    path = tmp_path / "damaged"
    path.write_bytes(damaged)

    assert cli.run(["replay", str(path), "--json"]) == 1

    printed = capsys.readouterr()
    before = tape.tick(tick - 1)
    assert json.loads(printed.out)["status"]["packets"]["total"] == before.totals.received.packets
    ticks = "1 tick" if tick == 1 else f"{tick} ticks"
    assert printed.err == (
        f"ebpftop: {path} is damaged, a checksum is wrong: the {ticks} before it can be read\n"
    )


def test_what_is_no_recording_prints_nothing_but_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none"
    path.write_text("1,2,3\n")

    assert cli.run(["replay", str(path), "--json"]) == 1
    assert capsys.readouterr() == ("", f"ebpftop: {path} is no recording of ebpftop\n")


def test_the_dashboard_on_a_recording_wants_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["replay", str(RECORDING)]) == 2
    assert "replay FILE --json" in capsys.readouterr().err
