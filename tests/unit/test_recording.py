# SPDX-License-Identifier: Apache-2.0
"""Recordings: nothing is lost in one."""

from __future__ import annotations

import resource
import stat
from collections import deque
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from ebpftop.errors import KernelRefusedError
from ebpftop.model import Allowed, Clock, Snapshot, Sources
from ebpftop.sources.recording import (
    FullError,
    Tape,
    TapeWriter,
    shapes,
)
from ebpftop.sources.recording.brief import MOST_ACTS
from tests.bench import recording as bench
from tests.tui.fakes import act, attack, many_sources, snapshot
from tests.unit.invented import Inventor, differences
from tests.unit.taping import SMALL, record, record_small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of few bytes with key ticks in its midst."""
    return record_small(tmp_path_factory.mktemp("recordings") / "small")


def test_every_field_of_a_snapshot_comes_back(tmp_path: Path) -> None:
    ticks = [Inventor(seed, rows).snapshot(seed) for seed, rows in enumerate((7, 7, 0, 3, 40))]
    tape = Tape(record(tmp_path / "r", ticks))

    for number, tick in enumerate(ticks):
        assert differences(tick, tape.tick(number)) == []
    assert tape.title == "eth0"


def test_every_field_is_told_apart_from_its_default() -> None:
    """Guards the test above: what it makes up differs from what a missing field would be."""
    made, other = Inventor(1).snapshot(), Inventor(2).snapshot()

    alike = {field.name for field in fields(made)} - {
        path.removeprefix("snapshot.").partition(".")[0].partition("[")[0]
        for path in differences(made, other)
    }
    assert alike == {"clock"}
    tables = shapes.shape().tables
    assert tables.keys() | shapes.shape().plain.keys() == {field.name for field in fields(made)}
    for name, table in tables.items():
        assert is_dataclass(table.kind), name
        held = {*table.columns, *table.texts, *table.others}
        assert held == {field.name for field in fields(table.kind)}


def test_what_is_absent_stays_absent(tmp_path: Path) -> None:
    full = Inventor(0).snapshot()
    bare = replace(full, sent=None, connections=None, rates=None, interval_s=None)
    tape = Tape(record(tmp_path / "r", [full, bare, full]))

    assert [tape.tick(n).sent is None for n in range(3)] == [False, True, False]
    assert differences(tape.tick(1), bare) == []
    assert differences(tape.tick(2), full) == []


def drifting(ticks: int) -> list[Snapshot]:
    """Return ticks in which sources come, go, change places and count on."""
    random = np.random.default_rng(5)
    made: list[Snapshot] = []
    sources = many_sources(300)
    for number in range(ticks):
        clock = Clock(10**15 + number * 10**9, 1.7e9 + number)
        kept = np.sort(random.choice(len(sources), len(sources) - 3, replace=False))
        kept[5:9] = kept[5:9][::-1]
        columns = {f.name: getattr(sources, f.name)[kept] for f in fields(sources)}
        fresh = many_sources(4, seed=number)
        columns = {
            name: np.insert(column, 50, getattr(fresh, name)) for name, column in columns.items()
        }
        columns["low"][50:54] += np.uint64(1_000_000 + number * 100)
        columns["packets"] = columns["packets"] + random.integers(0, 99, len(kept) + 4, np.uint64)
        sources = Sources(**columns)
        made.append(snapshot(number, sources=sources, clock=clock))
    return made


def test_rows_that_come_go_and_change_places_come_back(tmp_path: Path) -> None:
    ticks = drifting(20)
    path = record(tmp_path / "r", ticks)

    back = Tape(path)
    assert [differences(tick, back.tick(n)) for n, tick in enumerate(ticks)] == [[]] * 20


@pytest.mark.parametrize("order", [(4, 0, 3, 3, 1), (0, 2, 4), (2, 1, 0, 4)])
def test_ticks_can_be_read_in_any_order(small: Path, order: tuple[int, ...]) -> None:
    tape = Tape(small)

    for number in order:
        assert differences(SMALL[number], tape.tick(number)) == []


def test_a_time_is_found_without_reading_what_is_before_it(small: Path) -> None:
    tape = Tape(small)

    assert tape.length_s == 4
    assert [tape.at_offset(at) for at in (-1, 0, 0.9, 1, 3.5, 99)] == [0, 0, 0, 1, 3, 4]
    assert tape.clock(3) == SMALL[3].clock


def test_the_file_is_its_owners_alone_and_replaces_none(tmp_path: Path) -> None:
    path = record(tmp_path / "r", [attack()])
    before = path.read_bytes()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(KernelRefusedError, match="exists already: choose another name"):
        TapeWriter(path, "eth0")
    assert path.read_bytes() == before
    with pytest.raises(KernelRefusedError, match="cannot be made, No such file or directory"):
        TapeWriter(tmp_path / "none" / "r", "eth0")


def test_a_size_limit_ends_it_before_it_is_passed(tmp_path: Path) -> None:
    path = tmp_path / "r"
    writer = TapeWriter(path, "eth0", max_bytes=50_000)
    with pytest.raises(FullError, match=r"has reached 50\.0 kB"):
        deque(map(writer.write, map(attack, range(1000))))
    writer.close()

    assert 40_000 < path.stat().st_size <= 50_000
    tape = Tape(path)
    assert len(tape) == writer.ticks > 1
    assert tape.damage is None


def test_a_full_disk_leaves_whole_ticks(tmp_path: Path) -> None:
    path = tmp_path / "r"
    writer = TapeWriter(path, "eth0")
    writer.write(attack(0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow fails in the midst of a write, as one on a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.size_bytes + 100, before[1]))
    try:
        with pytest.raises(KernelRefusedError, match="cannot be written on, File too large"):
            writer.write(attack(1, sources=many_sources(500)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.close()

    tape = Tape(path)
    assert (len(tape), tape.damage) == (1, None)


def test_a_tick_that_fails_is_left_out_and_the_next_does_not_build_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    writer = TapeWriter(path, "eth0")
    writer.write(attack(0))
    long = replace(attack(1), invariants={f"{n:0100}": True for n in range(90_000)})
    with pytest.raises(KernelRefusedError, match="cannot be recorded"):
        writer.write(long)
    writer.write(attack(2))
    writer.close()

    tape = Tape(path)
    assert [differences(attack(n), tape.tick(i)) for i, n in enumerate((0, 2))] == [[], []]


def test_an_hour_of_ten_thousand_sources_takes_less_than_fifty_megabytes() -> None:
    # Two key ticks in two minutes are twice as many as an hour has for its length.
    assert float(str(bench.hour(ticks=121)["MB_an_hour"])) < 50


def test_empty_tables_come_back(tmp_path: Path) -> None:
    tape = Tape(record(tmp_path / "r", [snapshot(0), snapshot(1, allowed=Allowed.empty())]))

    assert [len(tape.tick(n).sources) for n in (0, 1)] == [0, 0]


def test_the_latest_acts_are_told_and_a_long_list_only_by_its_length(tmp_path: Path) -> None:
    many = [{"state": True, "targets": [f"10.0.{n >> 8}.{n & 255}" for n in range(50_000)]}]
    short = act("block", id="00000001")
    long = act("allow", "50,000 addresses", id="00000002", facet="allow", new=many)
    acts = [*(act(id=f"{n:08x}") for n in range(16, 16 + MOST_ACTS)), short, long]
    path = tmp_path / "file"
    writer = TapeWriter(path, "eth0")
    for sequence in range(3):
        writer.write(snapshot(sequence, acts=acts))
    writer.close()

    assert path.stat().st_size < 200_000
    tape = Tape(path)
    told = tape.tick(2).acts or ()
    assert len(told) == MOST_ACTS
    assert told[-2] == short
    assert (told[-1].target, told[-1].facet, told[-1].new) == ("50,000 addresses", "", None)
    tape.close()
