# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile recordings: found where they are wrong, read up to there, never believed."""

from __future__ import annotations

import contextlib
import resource
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpftop.errors import EbpftopError, KernelRefusedError
from ebpftop.model import Clock, Interface, Prefix, Snapshot, Totals
from ebpftop.sources.recording import (
    SCHEMA,
    Tape,
    TapeWriter,
    frames,
    shapes,
)
from ebpftop.sources.recording.numbers import (
    DamagedError,
    folded,
    pack,
    pack_places,
    unfolded,
    unpack,
)
from ebpftop.sources.recording.ticks import TickDecoder, TickEncoder
from tests.tui.driving import steers_terminal
from tests.tui.fakes import HOSTILE
from tests.unit.invented import Inventor, differences
from tests.unit.taping import SMALL, played, record_small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of few bytes with key ticks in its midst."""
    return record_small(tmp_path_factory.mktemp("recordings") / "small")


def test_a_recording_cut_anywhere_is_readable_up_to_the_cut(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    ends = frame_ends(whole)
    cut = tmp_path / "cut"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        readable = sum(end <= length for end in ends[1:])
        if not readable:
            with pytest.raises(KernelRefusedError, match=r"is damaged|is no recording"):
                Tape(cut)
            continue
        tape = Tape(cut)
        assert len(tape) == readable, length
        assert (tape.damage is None) == (length in ends)
        tape.close()
        if length % 10 == 0:
            seen: deque[Snapshot] = deque()
            with pytest.raises(EbpftopError, match=r"it ends within a tick|the recording ends"):
                seen.extend(played(cut))
            assert differences(SMALL[:readable], list(seen)) == []


def frame_ends(whole: bytes) -> list[int]:
    """Return where the frames of a recording end, the head's first."""
    ends, at = [], len(frames.MAGIC)
    while at < len(whole):
        length = frames.HEADER.unpack_from(whole, at)[2]
        at += frames.HEADER.size + length
        ends.append(at)
    return ends


def test_every_changed_byte_is_found_and_what_is_before_it_is_read(
    small: Path, tmp_path: Path
) -> None:
    whole = small.read_bytes()
    ends = frame_ends(whole)
    changed = tmp_path / "changed"
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        changed.write_bytes(damaged)
        before = sum(end <= place for end in ends)
        if before < 2:
            with pytest.raises(KernelRefusedError, match=r"is damaged|is no recording"):
                Tape(changed)
        else:
            tape = Tape(changed)
            assert len(tape) == before - 1
            assert "is damaged" in str(tape.damage)
            assert f"the {before - 1} tick" in str(tape.damage)
            tape.close()


def test_a_newer_recording_is_refused_with_the_version_that_reads_it(tmp_path: Path) -> None:
    head = msgspec.msgpack.encode(frames.Head(SCHEMA + 1, "9.9\x1b[2J", "eth0"))
    path = tmp_path / "r"
    path.write_bytes(frames.MAGIC + frames.framed(frames.HEAD, head, Clock(0, 0.0)))

    with pytest.raises(KernelRefusedError, match=r"written by ebpftop 9\.9") as refused:
        Tape(path)
    assert not steers_terminal(str(refused.value))


@pytest.mark.parametrize("content", [b"", b"a,b\n", b"\x89ebpftop recording\n"])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "\x1b[31mr"
    path.write_bytes(content)

    with pytest.raises(KernelRefusedError, match="is no recording") as refused:
        Tape(path)
    assert not steers_terminal(str(refused.value))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "is no file"), (tmp_path / "none", "No such file")):
        with pytest.raises(KernelRefusedError, match=why):
            Tape(path)


def test_a_recording_of_an_older_ebpftop_gets_defaults(tmp_path: Path) -> None:
    tick = reopened(Inventor(0).snapshot(), tmp_path, drop=("classes", "vips", "invariants"))

    assert len(tick.classes) == len(tick.vips) == 0
    assert tick.invariants == {}


def test_a_column_that_an_older_ebpftop_did_not_have_is_nothing_or_unknown(tmp_path: Path) -> None:
    made = Inventor(0).snapshot()
    tick = reopened(made, tmp_path, columns=("would_drop", "dropped_pps"))

    assert tick.sources.would_drop.tolist() == [0] * 7
    assert np.isnan(tick.sources.dropped_pps).all()
    assert differences(tick.sources.pps, made.sources.pps) == []


def reopened(
    made: Snapshot, folder: Path, drop: tuple[str, ...] = (), columns: tuple[str, ...] = ()
) -> Snapshot:
    """Record a tick, take fields out of the file, add one of the future, and read it."""
    fields_, tables = msgspec.msgpack.decode(TickEncoder().encode(made, key=True))
    fields_ = {name: value for name, value in fields_.items() if name.split(".")[0] not in drop}
    tables = {name: value for name, value in tables.items() if name not in drop}
    for name in columns:
        del tables["sources"][-1][name]
    fields_["of the future"] = tables["of the future"] = [1, {"a": 2}]
    return TickDecoder().decode(msgspec.msgpack.encode([fields_, tables]), key=True)


def hostile_file(path: Path, bodies: list[bytes]) -> Path:
    """Write a recording whose ticks are these bytes."""
    head = msgspec.msgpack.encode(frames.Head(SCHEMA, "0", "eth0"))
    parts = [frames.framed(frames.HEAD, head, Clock(0, 0.0))]
    for number, body in enumerate(bodies):
        clock = Clock(10**15 + number * 10**9, 1.7e9 + number)
        parts.append(frames.framed(frames.DELTA if number else frames.KEY, body, clock))
    path.write_bytes(frames.MAGIC + b"".join(parts))
    return path


def bodies() -> list[bytes]:
    encoder = TickEncoder()
    return [encoder.encode(Inventor(seed, 5).snapshot(seed), key=not seed) for seed in range(2)]


GOOD = bodies()


@given(
    which=st.integers(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.floats(0.3, 1),
)
@settings(max_examples=400, deadline=None)
def test_changed_bytes_under_right_checksums_raise_our_errors_and_no_others(
    tmp_path_factory: pytest.TempPathFactory,
    which: int,
    changes: list[tuple[float, int]],
    cut: float,
) -> None:
    changed = bytearray(GOOD[which])
    for at, octet in changes:
        changed[int(at * len(changed))] = octet
    written = list(GOOD)
    written[which] = bytes(changed[: max(1, int(cut * len(changed)))])
    path = hostile_file(tmp_path_factory.getbasetemp() / "hostile", written)

    with contextlib.suppress(EbpftopError):
        for tick in played(path):
            assert_sound(tick)


def assert_sound(tick: Snapshot) -> None:
    """Check what the panes rely on."""
    for name, table in shapes.shape().tables.items():
        value = getattr(tick, name)
        if value is not None:
            lengths = {len(getattr(value, column)) for column in table.columns}
            assert len(lengths) == 1
            assert {len(getattr(value, each)) for each in table.by_row} <= lengths
            for column, kind in table.columns.items():
                assert getattr(value, column).dtype == kind
    assert tick.sources.state.max(initial=0) < 4
    assert 0 <= tick.clock.wall_s < 3e11
    for event in tick.events:
        assert not steers_terminal(event.kind + event.address + event.detail)
    for prefix, _ in tick.protected:
        assert Prefix.parse(str(prefix.truncated(prefix.length)))


@given(values=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=50))
def test_numbers_come_back(values: list[int]) -> None:
    column = np.array(values, np.uint64)
    assert unpack(pack(column), len(values)).tolist() == values
    assert unfolded(folded(column)).tolist() == values


@given(packed=st.binary(max_size=60), count=st.integers(0, 40))
def test_bytes_that_are_no_numbers_are_refused(packed: bytes, count: int) -> None:
    with contextlib.suppress(DamagedError):
        assert len(unpack(packed, count)) == count


def test_hostile_text_is_printable_as_soon_as_it_is_read(tmp_path: Path) -> None:
    made = Inventor(0).snapshot()
    made.blocks.reason[:] = HOSTILE
    made = replace(
        made,
        events=[replace(made.events[0], kind=HOSTILE, address=HOSTILE, detail=HOSTILE)],
        interfaces=[Interface(HOSTILE, "native")],
        invariants={HOSTILE: False},
        protected=[(Prefix.parse("10.0.0.0/8"), HOSTILE)],
    )
    path = tmp_path / "r"
    writer = TapeWriter(path, HOSTILE)
    writer.write(made)
    writer.close()

    tape = Tape(path)
    tick = tape.tick(0)
    texts = [
        tape.title, *tick.blocks.reason, *tick.invariants, tick.interfaces[0].name,
        tick.protected[0][1], tick.events[0].kind, tick.events[0].address, tick.events[0].detail,
    ]  # fmt: skip
    assert len(texts) == 14
    assert [text for text in texts if steers_terminal(text)] == []
    assert all("[/b][red]" in text for text in texts)


WRONG: dict[str, Any] = {
    "clock out of range": {"clock": Clock(10**15, 1e15)},
    "no number": {"uptime_s": float("nan")},
    "infinite": {"uptime_s": float("inf")},
    "interval": {"interval_s": -1.0},
    "prefix length": {"protected": [(Prefix(0, 1, 129), "why")]},
    "negative address": {"protected": [(Prefix(0, -1, 128), "why")]},
    "event time": {"events": [replace(Inventor(0).snapshot().events[0], time_s=1e30)]},
    "verdicts": {
        "totals": Totals(**{
            **{f.name: getattr(Inventor(0).snapshot().totals, f.name) for f in fields(Totals)},
            "verdicts": {},
        })
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_values_that_no_snapshot_has_are_refused(changes: dict[str, Any]) -> None:
    packed = TickEncoder().encode(replace(Inventor(0).snapshot(), **changes), key=True)

    with pytest.raises(DamagedError):
        TickDecoder().decode(packed, key=True)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("sources", "state", 4), ("blocks", "automatic", 2), ("blocks", "length", 129),
        ("connections", "vip", 3), ("connections", "backend", 3), ("connections", "state", 8),
    ],
)  # fmt: skip
def test_columns_that_point_to_nothing_are_refused(table: str, column: str, value: int) -> None:
    made = Inventor(0).snapshot()
    getattr(getattr(made, table), column)[-1] = value

    with pytest.raises(DamagedError, match=column):
        TickDecoder().decode(TickEncoder().encode(made, key=True), key=True)


def test_rates_that_are_no_number_are_unknown() -> None:
    made = Inventor(0).snapshot()
    made.sources.pps[1:4] = np.inf, -np.inf, 1e300
    encoder, decoder = TickEncoder(), TickDecoder()
    tick = decoder.decode(encoder.encode(made, key=True), key=True)

    assert np.isnan(tick.sources.pps[:4]).all()
    assert tick.sources.pps[4:].tolist() == made.sources.pps[4:].tolist()
    # AND what follows does not suffer from it
    after = Inventor(3).snapshot(1)
    assert differences(after, decoder.decode(encoder.encode(after, key=False), key=False)) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [((0, -1), "time runs backwards"), ((0, 2), "a tick of another time")],
)
def test_ticks_that_are_not_from_when_they_say_are_refused(
    tmp_path: Path, seconds: tuple[int, int], words: str
) -> None:
    path = hostile_file(tmp_path / "r", [])
    parts = [path.read_bytes()]
    for number, second in enumerate(seconds):
        clock = Clock(10**15 + second * 10**9, 1.7e9 + second)
        parts.append(frames.framed(frames.DELTA if number else frames.KEY, GOOD[number], clock))
    path.write_bytes(b"".join(parts))

    tape = Tape(path)
    with contextlib.suppress(EbpftopError):
        tape.tick(len(tape) - 1)
    assert len(tape) == 1
    assert words in str(tape.damage)


def test_tables_of_uneven_columns_are_refused() -> None:
    made = Inventor(0).snapshot()
    uneven = replace(made, classes=replace(made.classes, keys=made.classes.keys[:-1]))

    with pytest.raises(DamagedError, match="classes has a row without keys"):
        TickDecoder().decode(TickEncoder().encode(uneven, key=True), key=True)


@contextlib.contextmanager
def memory_limit() -> Iterator[None]:
    """Let this process take 200 MB more than it has, and no more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def bombs() -> dict[str, bytes]:
    """Return ticks of few bytes that claim to be enormous."""
    fields_, tables = msgspec.msgpack.decode(GOOD[0])
    many = 2**31
    rows = {**tables, "sources": [many, *tables["sources"][1:]]}
    touched = {**tables, "sources": [*tables["sources"][:4], many, *tables["sources"][5:]]}
    nested = b"\x91" * 100_000 + b"\x90"
    return {
        "rows": msgspec.msgpack.encode([fields_, rows]),
        "touched": msgspec.msgpack.encode([fields_, touched]),
        "nested": nested,
        "deep field": msgspec.msgpack.encode([{**fields_, "maps": msgspec.Raw(nested)}, tables]),
        "long field": msgspec.msgpack.encode([{**fields_, "maps": [{}] * (9 << 20)}, tables]),
        "array of a length that is not there": b"\xdd\xff\xff\xff\xff",
    }


@pytest.mark.parametrize("name", bombs())
def test_a_small_file_cannot_make_a_large_process(tmp_path: Path, name: str) -> None:
    path = hostile_file(tmp_path / "bomb", [bombs()[name]])
    with memory_limit(), pytest.raises(KernelRefusedError, match="is damaged"):
        Tape(path)


def test_a_body_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(256 << 20), 1)
    header = frames.HEADER.pack(b"eT", frames.KEY, len(packed), 1000, 10**15, 1.7e9, 0)[:-4]
    checksum = zlib.crc32(packed, zlib.crc32(header)).to_bytes(4, "little")
    path = hostile_file(tmp_path / "bomb", [])
    path.write_bytes(path.read_bytes() + header + checksum + packed)

    with memory_limit(), pytest.raises(KernelRefusedError, match="not as long as it says"):
        Tape(path)


def test_rows_that_continue_rows_which_are_not_there_are_refused() -> None:
    decoder = TickDecoder()
    decoder.decode(GOOD[0], key=True)
    others, tables = msgspec.msgpack.decode(GOOD[1])
    one = np.array([0], np.intp)
    leap = [1, pack_places(one), pack(np.array([201], np.uint64))]
    tables["sources"] = [tables["sources"][0], *leap, *tables["sources"][4:]]

    with pytest.raises(DamagedError, match="a row that continues none"):
        decoder.decode(msgspec.msgpack.encode([others, tables]), key=False)


def test_words_that_mean_nothing_are_refused() -> None:
    made = Inventor(0).snapshot()
    made.classes.wanted[0] = replace(made.classes.wanted[0], action="guess")  # type: ignore[index]

    with pytest.raises(DamagedError, match="action that means nothing"):
        TickDecoder().decode(TickEncoder().encode(made, key=True), key=True)
