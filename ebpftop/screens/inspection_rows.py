# SPDX-License-Identifier: Apache-2.0
"""Programs, maps, fixtures and listings as rows of tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ebpftop import format as fmt
from ebpftop.model import Inspection, Listing, MapInfo, ProgramFacts, Snapshot
from ebpftop.widgets.cells import Cell, Column, Tone

NEARLY_FULL = 0.8
"""Part of a map's entries from which on it is a warning."""

PROGRAM_COLUMNS = (
    Column("program", "program", 15, "left", grows=True),
    Column("hook", "hook", 11, "left", rank=4),
    Column("id", "id", 5, rank=6),
    Column("runs_per_s", "runs/s", 8),
    Column("ns_per_run", "ns/run", 7, rank=1),
    Column("cpu_share", "cpu", 6, rank=2),
    Column("insns", "insns", 6, rank=3),
    Column("jited_bytes", "jited", 8, rank=7),
    Column("verified_insns", "verified", 8, rank=8),
    Column("tag", "tag", 16, "left", rank=9),
)
MAP_COLUMNS = (
    Column("map", "map", 17, "left", grows=True),
    Column("type", "type", 12, "left", rank=2),
    Column("entries", "entries", 8),
    Column("max_entries", "of", 8, rank=1),
    Column("fill", "full", 16, "left", stretch=20),
    Column("memory_bytes", "memory", 8, rank=3),
)
FIXTURE_COLUMNS = (
    Column("interface", "interface", 10, "left", grows=True),
    Column("place", "place", 11, "left"),
    Column("what", "what", 18, "left", stretch=20),
    Column("id", "id", 6, "left", rank=1),
    Column("whose", "whose", 6, "left"),
    Column("packets", "packets", 8, rank=3),
    Column("dropped", "dropped", 8, rank=2),
)
LISTING_COLUMNS = (Column("", "", 70, "left", stretch=2000),)


def _number(value: float | None, form: str = ",.0f") -> str:
    return fmt.UNKNOWN if value is None else format(value, form)


class ProgramRows:
    """The programs of a snapshot.

    Args:
        snapshot: Where they are.
        found: What they cost.
    """

    def __init__(self, snapshot: Snapshot, found: Inspection) -> None:
        self._programs = snapshot.programs
        self._found = found

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each column."""
        program = self._programs[row]
        facts = self._found.programs.get(program.id, ProgramFacts())
        size = facts.translated_bytes
        share = facts.cpu_share
        return (
            Cell(program.name, "strong"),
            Cell(program.hook.partition(",")[0], "muted"),
            Cell(str(program.id)),
            Cell(_number(facts.runs_per_s)),
            Cell(_number(facts.ns_per_run), "strong"),
            Cell(fmt.UNKNOWN if share is None else f"{100 * share:.1f}%"),
            Cell(_number(None if size is None else size / 8)),
            Cell(fmt.size(facts.jited_bytes) if facts.jited_bytes is not None else fmt.UNKNOWN),
            Cell(_number(program.verified_insns)),
            Cell(program.tag, "muted"),
        )

    def key(self, row: int) -> str:
        """Return the name of the program in `row`."""
        return self._programs[row].name

    def row_of(self, key: str) -> int | None:
        """Return the row of the program of that name."""
        return next((i for i, p in enumerate(self._programs) if p.name == key), None)


def fill(info: MapInfo) -> float | None:
    """Return which part of a map is in use; None for arrays, which are always full."""
    if info.entries is None or not info.max_entries:
        return None
    return info.entries / info.max_entries


def fullest(snapshot: Snapshot) -> NDArray[np.intp]:
    """Return the maps' rows: those that are nearly full first, then by memory."""

    def place(row: int) -> tuple[bool, int]:
        part = fill(snapshot.maps[row])
        return part is None or part < NEARLY_FULL, -(snapshot.maps[row].memory_bytes or 0)

    return np.array(sorted(range(len(snapshot.maps)), key=place), np.intp)


class MapRows:
    """The maps of a snapshot.

    Args:
        snapshot: Where they are.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._maps = snapshot.maps

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each column."""
        info = self._maps[row]
        part = fill(info)
        tone: Tone = "plain" if part is None or part < NEARLY_FULL else "warn"
        full = Cell("", "muted")
        if part is not None:
            sign = "▲ " if part >= NEARLY_FULL else ""
            full = Cell(f"{sign}{100 * part:>3.0f}%", tone, part=min(1.0, part))
        memory = fmt.UNKNOWN if info.memory_bytes is None else fmt.size(info.memory_bytes)
        return (
            Cell(info.name, "strong"),
            Cell(info.type, "muted"),
            Cell(_number(info.entries), tone),
            Cell(f"{info.max_entries:,}"),
            full,
            Cell(memory),
        )

    def key(self, row: int) -> str:
        """Return the name of the map in `row`."""
        return self._maps[row].name

    def row_of(self, key: str) -> int | None:
        """Return the row of the map of that name."""
        return next((i for i, info in enumerate(self._maps) if info.name == key), None)


class FixtureRows:
    """What stands on the interfaces.

    Args:
        found: Where it is.
    """

    def __init__(self, found: Inspection) -> None:
        self._fixtures = found.fixtures

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each column."""
        fixture = self._fixtures[row]
        dropped = fixture.dropped
        return (
            Cell(fixture.interface, "strong"),
            Cell(fixture.place, "muted"),
            Cell(fixture.name),
            Cell(fixture.id, "muted"),
            Cell("ours") if fixture.ours else Cell("other", "warn"),
            Cell("" if fixture.packets is None else fmt.count(fixture.packets)),
            Cell("" if dropped is None else fmt.count(dropped), "bad" if dropped else "plain"),
        )

    def key(self, row: int) -> tuple[str, str, str]:
        """Return what tells the thing in `row` from others."""
        fixture = self._fixtures[row]
        return fixture.interface, fixture.place, fixture.id

    def row_of(self, key: tuple[str, str, str]) -> int | None:
        """Return the row of that thing."""
        return next((i for i in range(len(self._fixtures)) if self.key(i) == key), None)


class ListingRows:
    """The lines of a listing.

    Args:
        listing: What was found; None while it is not there yet.
        asked: What was asked for: another listing is not shown.
    """

    def __init__(self, listing: Listing | None, asked: str) -> None:
        fits = listing is not None and listing.of == asked
        self._lines = listing.lines if listing is not None and fits else ()
        self.why_empty = listing.note if listing is not None and fits else "it is being read"
        """Why there is no line."""

    @property
    def lines(self) -> Sequence[str]:
        """The lines there are."""
        return self._lines

    def cells(self, row: int) -> Sequence[Cell]:
        """Return the one cell of a line."""
        return (Cell(self._lines[row]),)

    def key(self, row: int) -> int:
        """Return the number of the line."""
        return row

    def row_of(self, key: int) -> int | None:
        """Return the row of that line."""
        return key if key < len(self._lines) else None
