# SPDX-License-Identifier: Apache-2.0
"""A pane that is one long table with a filter and a sort order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult

from ebpftop import model
from ebpftop.control import Controls
from ebpftop.filtering import Kind
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.pane import Picture
from ebpftop.screens.sieve import Sieve, SievedPane, field_kinds
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell, Column
from ebpftop.widgets.table import Rows, Table

__all__ = ["ListPane", "field_kinds"]


class ListPane(SievedPane):
    """A filter line, a table, and a line about the selected row."""

    COLUMNS: ClassVar[tuple[Column, ...]]
    """The table's columns; `s` walks through those that have a key."""
    SORT: ClassVar[str]
    """The field it is sorted by at first, largest first."""
    FILTER_FIELDS: ClassVar[Mapping[str, Kind]]
    """The fields it can be sorted and filtered by, and what they are."""
    IDENTITY: ClassVar[tuple[str, ...]] = ()
    """The fields that tell rows apart; empty where the first column's does."""

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(controls)
        self.table = Table(self.COLUMNS, css_id=f"{self.NAME}-table")
        self.detail = Bar(pinned="left")
        identity = self.IDENTITY or (self.COLUMNS[0].key,)
        self.main_sieve = Sieve(self.FILTER_FIELDS, self.table, sort=self.SORT, identity=identity)

    def compose(self) -> ComposeResult:
        """Lay out the filter line, the table and the line about the selected row."""
        yield self.filter_line
        yield self.table
        yield self.detail

    @abstractmethod
    def fields(self, snapshot: model.Snapshot) -> Mapping[str, model.Column]:
        """Return the columns that are sorted and filtered by."""

    @abstractmethod
    def rows(self, snapshot: model.Snapshot) -> Rows:
        """Return where the table's text comes from."""

    @abstractmethod
    def about(self, target: Any) -> Sequence[Cell]:
        """Say what is known of what is selected: what the keys of its rows are."""

    @abstractmethod
    def empty_text(self) -> str:
        """Say why there is no row, when there is no filter."""

    @property
    def sieves(self) -> Sequence[Sieve]:
        """What can be filtered here now."""
        return (self.main_sieve,)

    def show(self, picture: Picture) -> None:
        """Filter, sort and draw."""
        self.picture = picture
        sieve = self.main_sieve
        ordered = sieve.rows(self.fields(picture.snapshot))
        empty = sieve.empty(self.empty_text())
        self.table.show(self.rows(picture.snapshot), ordered, sorted_by=sieve.sort, empty=empty)
        self._show_detail()

    @property
    def active_table(self) -> Table:
        """The table that acts are about."""
        return self.table

    @property
    def target(self) -> Any:
        """What the selection is on, None where it is on nothing."""
        return self.active_table.selected

    def enter(self) -> None:
        """Take the focus, and start the selection on the row that is first at this moment."""
        self.table.focus()
        if self.table.selected is None:
            self.table.select(0)

    def _open(self, dialog: Callable[[Controls, model.Snapshot, Any], Dialog | None]) -> None:
        """Open a dialog that is locked to what the selection is on now."""
        if self.controls is not None and self.picture is not None and self.target is not None:
            opened = dialog(self.controls, self.picture.snapshot, self.target)
            if opened is not None:
                self.app.push_screen(opened)

    def _show_detail(self) -> None:
        target = self.target
        if target is None:
            self.detail.show([Cell("no row selected: ↓ selects one", "muted")])
            return
        table = self.active_table
        where = "not in the table"
        if table.cursor is not None:
            where = f"row {table.cursor + 1:,} of {len(table.order):,}"
        self.detail.show([Cell(f"▸ {target}", "strong"), *self.about(target), Cell(where, "muted")])

    def on_descendant_focus(self) -> None:
        """Offer what fits the widget that takes the keys now."""
        self.post_message(self.Changed())

    @on(Table.Selected)
    def _selection_moved(self) -> None:
        self._show_detail()
        self.post_message(self.Changed())
