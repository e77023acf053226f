# SPDX-License-Identifier: Apache-2.0
"""The eighth pane: what runs in the kernel and what it costs, its maps, and what else is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from textual import on
from textual.app import ComposeResult

from ebpftop import actions
from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.model import Inspection, Snapshot
from ebpftop.ordering import Ordered
from ebpftop.screens.fields import (
    fixture_fields,
    listing_fields,
    map_fields,
    program_fields,
)
from ebpftop.screens.inspection_rows import (
    FIXTURE_COLUMNS,
    LISTING_COLUMNS,
    MAP_COLUMNS,
    PROGRAM_COLUMNS,
    FixtureRows,
    ListingRows,
    MapRows,
    ProgramRows,
    fullest,
)
from ebpftop.screens.pane import Picture
from ebpftop.screens.sieve import Sieve, SievedPane, field_kinds
from ebpftop.screens.trace_screen import TraceScreen
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell
from ebpftop.widgets.table import Rows, Table

WANTED, INSTRUCTIONS, ENTRIES = "inspection", "instructions:", "entries:"
"""Words of `Source.wants`."""
_NOTHING = Inspection()


class ProgramsPane(SievedPane):
    """Programs, maps, what is on the interfaces; and inside one of the first two.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    NAME = actions.PROGRAMS

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(controls)
        self.programs = Table(PROGRAM_COLUMNS, css_id="program-table")
        self.maps = Table(MAP_COLUMNS, css_id="map-table")
        self.fixtures = Table(FIXTURE_COLUMNS, css_id="fixture-table")
        self.listing = Table(LISTING_COLUMNS, css_id="listing-table")
        kinds = field_kinds(program_fields((), _NOTHING))
        self._programs = Sieve(kinds, self.programs, identity=("program",))
        self._maps = Sieve(field_kinds(map_fields(())), self.maps, identity=("map",))
        kinds = field_kinds(fixture_fields(_NOTHING))
        identity = ("interface", "place", "id")
        self._fixtures = Sieve(kinds, self.fixtures, identity=identity)
        self._lines = Sieve(field_kinds(listing_fields(())), self.listing, identity=("line",))
        self.detail = Bar(pinned="left")
        self._inside = ""

    def compose(self) -> ComposeResult:
        """Lay out the three tables, the listing that takes their place, and lines about them."""
        yield self.filter_line
        yield self.programs
        yield self.maps
        yield self.fixtures
        yield self.listing
        yield self.detail

    def on_mount(self) -> None:
        """Begin outside."""
        self.listing.display = False

    @property
    def sieves(self) -> Sequence[Sieve]:
        """What can be filtered here now."""
        return (self._lines,) if self._inside else (self._programs, self._maps, self._fixtures)

    @property
    def copied(self) -> str:
        """What is selected, as it is called."""
        if self.sieve is self._fixtures:
            return "" if self.fixtures.selected is None else " ".join(self.fixtures.selected)
        return "" if self._inside else super().copied

    @property
    def wants(self) -> frozenset[str]:
        """A close look, and what was asked for in particular."""
        return frozenset({WANTED, self._inside} if self._inside else {WANTED})

    def show(self, picture: Picture) -> None:
        """Draw what is in sight."""
        self.picture = picture
        snapshot = picture.snapshot
        found = snapshot.inspection or _NOTHING
        if self._inside:
            rows = ListingRows(found.listing, self._inside)
            chosen = self._lines.rows(listing_fields(rows.lines))
            _show(self._lines, rows, chosen, rows.why_empty)
        else:
            programs = self._programs.rows(program_fields(snapshot.programs, found))
            maps = self._maps.rows(map_fields(snapshot.maps), fullest(snapshot))
            fixtures = self._fixtures.rows(fixture_fields(found))
            _show(self._programs, ProgramRows(snapshot, found), programs, "no program is known")
            _show(self._maps, MapRows(snapshot), maps, "no map is known")
            _show(self._fixtures, FixtureRows(found), fixtures, "looking at the interfaces")
        self._show_detail(snapshot, found)

    def _show_detail(self, snapshot: Snapshot, found: Inspection) -> None:
        if self._inside:
            listing = found.listing
            more = f"and {listing.left_out:,} more" if listing and listing.left_out else ""
            self.detail.show([Cell(f"▸ {self._inside}", "strong"), Cell(more, "muted")])
            return
        cells = []
        for counted in found.counters:
            lost = counted.dropped_before, counted.dropped_after, counted.dropped_sending
            cells += [
                Cell(counted.interface, "strong"),
                Cell(f"in {fmt.count(counted.received_packets)}"),
                Cell(f"lost before XDP {fmt.count(lost[0])}", "bad" if lost[0] else "muted"),
                Cell(f"after {fmt.count(lost[1])}", "warn" if lost[1] else "muted"),
                Cell(f"out {fmt.count(counted.sent_packets)}"),
                Cell(f"lost {fmt.count(lost[2])}", "warn" if lost[2] else "muted"),
            ]
        self.detail.show(cells or [Cell("the interfaces' own counters are not known", "muted")])

    def summary(self) -> Sequence[Cell]:
        """Say what the programs take together, and whether that is measured."""
        if self.picture is None:
            return ()
        found = self.picture.snapshot.inspection
        if found is None or not found.measured:
            return [Cell("run times need root", "muted")]
        shares = [facts.cpu_share for facts in found.programs.values()]
        return [Cell(f"{100 * sum(share or 0.0 for share in shares):.1f}% of a core", "muted")]

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return its acts."""
        return {
            **super().acts(),
            "look-inside": self._look_inside,
            "look-away": lambda: self._look(""),
            "trace": self._open_trace,
        }

    def can(self, action_id: str) -> bool:
        """Whether one of its acts makes sense now."""
        if action_id == "look-inside":
            return not self._inside and self._asked() != ""
        if action_id == "look-away":
            # The key that leads out first takes away the filter of what is inside.
            return bool(self._inside) and not super().can("clear-filter")
        return super().can(action_id)

    def enter(self) -> None:
        """Take the focus, and start the selections on the first rows."""
        for table in (self.programs, self.maps, self.fixtures):
            if table.selected is None:
                table.select(0)
        (self.listing if self._inside else self.programs).focus()

    def _asked(self) -> str:
        """Return the word for what the selection is on; empty for what has no inside."""
        if self.maps.has_focus and self.maps.selected is not None:
            return f"{ENTRIES}{self.maps.selected}"
        if self.programs.has_focus and self.programs.selected is not None:
            return f"{INSTRUCTIONS}{self.programs.selected}"
        return ""

    def _look_inside(self) -> None:
        self._look(self._asked())

    def _open_trace(self) -> None:
        if self.controls is not None:
            self.app.push_screen(TraceScreen(self.controls))

    def _look(self, inside: str) -> None:
        was_map = self._inside.startswith(ENTRIES)
        self._lines.look_for("")
        self.filter_line.close()
        self._inside = inside
        for table in (self.programs, self.maps, self.fixtures):
            table.display = not inside
        self.listing.display = bool(inside)
        if inside:
            self.listing.focus()
        else:
            (self.maps if was_map else self.programs).focus()
        if self.picture is not None:
            self.show(self.picture)
        if inside:
            self.listing.select(0)
        self.post_message(self.Changed())

    def on_descendant_focus(self) -> None:
        """Offer what fits the table that takes the keys now."""
        self.post_message(self.Changed())

    @on(Table.Selected)
    def _selection_moved(self) -> None:
        self.post_message(self.Changed())


def _show(sieve: Sieve, rows: Rows, chosen: Ordered, otherwise: str) -> None:
    """Draw a table, or say why it is empty."""
    assert sieve.table is not None
    sieve.table.show(rows, chosen, sorted_by=sieve.sort, empty=sieve.empty(otherwise))
