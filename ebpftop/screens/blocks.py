# SPDX-License-Identifier: Apache-2.0
"""The third pane: who is blocked and until when, and who is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from textual.app import ComposeResult

from ebpftop import actions, model
from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.model import Allowed, Blocks, Clock, Prefix, Snapshot
from ebpftop.screens.block_dialog import BlockDialog
from ebpftop.screens.dialog import disallow_dialog, unblock_dialog
from ebpftop.screens.fields import allowed_fields
from ebpftop.screens.figures import age, limits_cells, number_of, rate, time_left
from ebpftop.screens.list_dialogs import ExportDialog, ImportDialog
from ebpftop.screens.list_pane import field_kinds
from ebpftop.screens.marking import MarkingPane
from ebpftop.screens.pane import Picture
from ebpftop.screens.sieve import Sieve
from ebpftop.screens.targets import sending
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell, Column
from ebpftop.widgets.table import Table


def _fields(blocks: Blocks, clock: Clock) -> Mapping[str, model.Column]:
    set_s = model.Column("number", clock.unix_s(blocks.set_ns))
    return {**blocks.columns(clock), "set_s": set_s}


class BlockRows:
    """The blocks of a snapshot as rows of a table.

    Args:
        snapshot: Where they are.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each of the pane's columns."""
        blocks = self._snapshot.blocks
        automatic = bool(blocks.automatic[row])
        return (
            Cell(str(blocks.prefix(row)), "strong"),
            Cell("auto" if automatic else "manual", "warn" if automatic else "info"),
            Cell(time_left(self._snapshot, int(blocks.expires_ns[row])), "strong"),
            Cell(fmt.count(int(blocks.packets[row]))),
            Cell(fmt.size(int(blocks.bytes[row]))),
            Cell(age(self._snapshot, int(blocks.set_ns[row])), "muted"),
            Cell(str(blocks.reason[row])),
        )

    def key(self, row: int) -> Prefix:
        """Return the address or prefix in `row`."""
        return self._snapshot.blocks.prefix(row)

    def row_of(self, key: Prefix) -> int | None:
        """Return the row that blocks exactly `key`."""
        return self._snapshot.blocks.row_of(key)


class AllowedRows:
    """The allowed addresses of a snapshot as rows of a table.

    Args:
        snapshot: Where they are.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._allowed = snapshot.allowed

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each column."""
        return (
            Cell(str(self._allowed.prefix(row)), "info"),
            Cell(fmt.count(int(self._allowed.packets[row]))),
            Cell(fmt.size(int(self._allowed.bytes[row]))),
        )

    def key(self, row: int) -> Prefix:
        """Return the address or prefix in `row`."""
        return self._allowed.prefix(row)

    def row_of(self, key: Prefix) -> int | None:
        """Return the row that allows exactly `key`."""
        allowed = self._allowed
        hits = np.flatnonzero(
            (allowed.low == key.low) & (allowed.high == key.high) & (allowed.length == key.length)
        )
        return int(hits[0]) if len(hits) else None


class BlocksPane(MarkingPane):
    """Every block, the latest first, and below them the allowed addresses.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    NAME = actions.BLOCKS
    COLUMNS = (
        Column("address", "blocked", 18, "left", grows=True),
        Column("source", "set by", 8, "left", rank=3),
        Column("expires_in_s", "ends in", 9, rank=1),
        Column("packets", "packets", 9, rank=2),
        Column("bytes", "bytes", 8, rank=5),
        Column("set_s", "set", 6, rank=6),
        Column("reason", "reason", 20, "left", rank=4, stretch=100),
    )
    SORT = "set_s"
    FILTER_FIELDS = field_kinds(_fields(Blocks.empty(), Clock(0, 0.0)))
    ALLOWED_COLUMNS = (
        Column("address", "allowed", 18, "left", grows=True),
        Column("packets", "packets", 9),
        Column("bytes", "bytes", 8),
    )

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(controls)
        self.allowed_table = Table(self.ALLOWED_COLUMNS, css_id="allowed-table")
        kinds = field_kinds(allowed_fields(Allowed.empty()))
        self._allowed = Sieve(kinds, self.allowed_table, identity=("address",))
        self._limits = Bar(pinned="left")

    @property
    def sieves(self) -> Sequence[Sieve]:
        """What can be filtered here: the blocks and the allowed."""
        return (self.main_sieve, self._allowed)

    def compose(self) -> ComposeResult:
        """Lay out the limits, the blocks, the allowed, and the line about the selection."""
        yield self._limits
        yield self.filter_line
        yield self.table
        yield self.allowed_table
        yield self.detail

    def show(self, picture: Picture) -> None:
        """Draw both tables."""
        snapshot = picture.snapshot
        sieve = self._allowed
        chosen = sieve.rows(allowed_fields(snapshot.allowed))
        self.allowed_table.display = len(snapshot.allowed) > 0
        self.allowed_table.show(
            AllowedRows(snapshot), chosen, sorted_by=sieve.sort, empty=sieve.empty("")
        )
        self._limits.show(limits_cells(snapshot.limits))
        super().show(picture)

    def fields(self, snapshot: Snapshot) -> Mapping[str, model.Column]:
        """Return the columns that are sorted and filtered by."""
        return _fields(snapshot.blocks, snapshot.clock)

    def rows(self, snapshot: Snapshot) -> BlockRows:
        """Return where the table's text comes from."""
        return BlockRows(snapshot)

    def about(self, target: Prefix) -> Sequence[Cell]:
        """Say what the selected address or prefix sends, and whether it is held."""
        assert self.picture is not None
        snapshot = self.picture.snapshot
        now = sending(snapshot, target)
        cells = [Cell(f"{number_of(now.sources, 'source')}  {rate(now.pps)} pps")]
        if not self._on_allowed and snapshot.blocks.row_of(target) is None:
            cells.append(Cell("not blocked any more", "good"))
        return cells

    def empty_text(self) -> str:
        """Say why there is no row."""
        if self.controls is None:
            return "Nobody is blocked"
        typed, selected = actions.key("new-block"), actions.key("block")
        return (
            f"Nobody is blocked: {typed} blocks an address, {selected} in Talkers the selected one"
        )

    def summary(self) -> Sequence[Cell]:
        """Say how many are blocked and allowed."""
        if self.picture is None:
            return ()
        snapshot = self.picture.snapshot
        if self.filter is not None:
            shown = len(self.active_table.order)
            of = len(snapshot.allowed if self._on_allowed else snapshot.blocks)
            return [*self.marks(), Cell(f"{shown:,} shown of {of:,}", "key")]
        return [
            *self.marks(),
            Cell(f"{len(snapshot.blocks):,} blocked", "bad" if len(snapshot.blocks) else "muted"),
            Cell(f"{len(snapshot.allowed):,} allowed", "muted"),
        ]

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return its acts."""
        return {
            **super().acts(),
            "new-block": self._new_block,
            "import": self._import,
            "export": self._export,
            "unblock": lambda: self._open(unblock_dialog),
            "disallow": lambda: self._open(disallow_dialog),
            **self.marked_acts(),
        }

    def can(self, action_id: str) -> bool:
        """Whether one of its acts makes sense for the selected row."""
        if action_id in ("unblock", "disallow"):
            on_allowed = action_id == "disallow"
            if self.marked:
                return self._on_allowed == on_allowed
            return self.active_table.cursor is not None and self._on_allowed == on_allowed
        return super().can(action_id)

    @property
    def active_table(self) -> Table:
        """The one of the two tables that has the focus."""
        return self.allowed_table if self._on_allowed else self.table

    @property
    def _on_allowed(self) -> bool:
        return self.allowed_table.has_focus

    def on_descendant_focus(self) -> None:
        """Offer what the other table has to offer."""
        if self.active_table.selected is None:
            self.active_table.select(0)
        if self.picture is not None:
            self._show_detail()

    def _new_block(self) -> None:
        if self.controls is not None and self.picture is not None:
            self.app.push_screen(BlockDialog(self.controls, self.picture))

    def _import(self) -> None:
        if self.controls is not None and self.picture is not None:
            allow = self._on_allowed
            self.app.push_screen(ImportDialog(self.controls, self.picture.snapshot, allow=allow))

    def _export(self) -> None:
        if self.picture is not None:
            self.app.push_screen(ExportDialog(self.picture.snapshot, allowed=self._on_allowed))
