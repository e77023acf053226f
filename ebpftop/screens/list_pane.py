# SPDX-License-Identifier: Apache-2.0
"""A pane that is one long table with a filter and a sort order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from textual import on
from textual.app import ComposeResult

from ebpftop import model
from ebpftop.control import Controls
from ebpftop.filtering import Filter, FilterError, Kind
from ebpftop.format import printable
from ebpftop.ordering import Ordered
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.held_order import MOST_HELD, HeldOrder
from ebpftop.screens.pane import Pane, Picture
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell, Column
from ebpftop.widgets.filter_line import FilterLine
from ebpftop.widgets.table import Rows, Table


class ListPane(Pane):
    """A filter line, a table, and a line about the selected row."""

    COLUMNS: ClassVar[tuple[Column, ...]]
    """The table's columns; `s` walks through those that have a key."""
    SORT: ClassVar[str]
    """The field it is sorted by at first, largest first."""
    FILTER_FIELDS: ClassVar[Mapping[str, Kind]]
    """The fields it can be sorted and filtered by, and what they are."""
    IDENTITY: ClassVar[tuple[str, ...]] = ("address",)
    """The fields that tell rows apart."""

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(controls)
        self.table = Table(self.COLUMNS, css_id=f"{self.NAME}-table")
        self.detail = Bar(pinned="left")
        self.filter_line = FilterLine(self._mistake)
        self.sort = (self.SORT, True)
        self.filter: Filter | None = None
        self._filter_text = ""
        self._held: HeldOrder | None = None

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

    def show(self, picture: Picture) -> None:
        """Filter, sort and draw."""
        self.picture = picture
        fields = self.fields(picture.snapshot)
        rows = None if self.filter is None else np.flatnonzero(self.filter.mask(fields))
        key, descending = self.sort
        ordered = Ordered.by(fields, key, descending=descending, rows=rows)
        if self._held is not None:
            ordered = Ordered.of(self._held.apply(fields, ordered.first()))
        empty = self.empty_text()
        if self.filter is not None:
            empty = f"No row matches {self._filter_text} (Esc shows all rows)"
        self.table.show(self.rows(picture.snapshot), ordered, sorted_by=self.sort, empty=empty)
        self._show_detail()

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return the acts of every list."""
        return {
            "filter": lambda: self.filter_line.open(self._filter_text),
            "clear-filter": lambda: self._set_filter(""),
            "sort": self._sort_next,
            "invert": self._invert,
            "hold-order": self._hold_order,
            "copy": self._copy,
        }

    def can(self, action_id: str) -> bool:
        """Whether one of its actions makes sense now."""
        if action_id == "clear-filter":
            return self.filter is not None or self.filter_line.is_open
        return super().can(action_id)

    def typing_keys(self) -> Sequence[Cell]:
        """Return the keys of the filter line while it is open."""
        keys = (Cell("show what matches", key="Enter"), Cell("show all", key="Esc"))
        return keys if self.filter_line.has_keys else ()

    @property
    def filter_text(self) -> str:
        """The filter in force; empty where all rows are shown."""
        return self._filter_text

    @property
    def holds_order(self) -> bool:
        """Whether the rows stay in the order that they had."""
        return self._held is not None

    @property
    def active_table(self) -> Table:
        """The table that acts are about."""
        return self.table

    @property
    def target(self) -> Any:
        """What the selection is on, None where it is on nothing."""
        return self.active_table.selected

    def look_for(self, expression: str, target: Any) -> None:
        """Show what another pane sent the operator here for."""
        self._set_filter(expression)
        if target is not None:
            self.table.select_key(target)

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

    def _redraw(self) -> None:
        if self.picture is not None:
            self.show(self.picture)
        self.post_message(self.Changed())

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

    def _sort_next(self) -> None:
        keys = [key for key in self.table.keys_shown if key in self.FILTER_FIELDS]
        at = keys.index(self.sort[0]) if self.sort[0] in keys else -1
        self._sort_by(keys[(at + 1) % len(keys)])

    def _sort_by(self, key: str) -> None:
        """Sort by `key`, numbers from the largest and words from the first letter on."""
        descending = self.FILTER_FIELDS[key] == "number"
        self._held = None
        self.sort = (key, descending)
        self._redraw()

    def _invert(self) -> None:
        key, descending = self.sort
        self._held = None
        self.sort = (key, not descending)
        self._redraw()

    def _copy(self) -> None:
        """Hand what is selected to the terminal's clipboard (OSC 52)."""
        if self.target is not None:
            self.app.copy_to_clipboard(str(self.target))
            self.app.notify(f"copied {self.target}", markup=False)

    def _hold_order(self) -> None:
        """Hold the order of the moment, or let go of it."""
        if self._held is not None:
            self._held = None
        elif self.picture is not None:
            fields = self.fields(self.picture.snapshot)
            self._held = HeldOrder(fields, self.IDENTITY, self.table.order.first(MOST_HELD))
        self._redraw()

    def _mistake(self, expression: str) -> tuple[str, int] | None:
        try:
            Filter.parse(expression, self.FILTER_FIELDS)
        except FilterError as error:
            return str(error), error.position
        return None

    def on_descendant_focus(self) -> None:
        """Offer what fits the widget that takes the keys now."""
        self.post_message(self.Changed())

    def _set_filter(self, expression: str) -> None:
        self.filter_line.close()
        self._filter_text = printable(expression)
        self.filter = Filter.parse(expression, self.FILTER_FIELDS) if expression else None
        self._redraw()

    @on(FilterLine.Accepted)
    def _filter_accepted(self, event: FilterLine.Accepted) -> None:
        self._set_filter(event.expression)
        self.table.focus()

    @on(FilterLine.Cancelled)
    def _filter_cancelled(self) -> None:
        self._set_filter("")
        self.table.focus()

    @on(Table.SortRequested)
    def _heading_clicked(self, event: Table.SortRequested) -> None:
        if event.key == self.sort[0]:
            self._invert()
        elif event.key in self.FILTER_FIELDS:
            self._sort_by(event.key)

    @on(Table.Selected)
    def _selection_moved(self) -> None:
        self._show_detail()
        self.post_message(self.Changed())


def field_kinds(fields: Mapping[str, model.Column]) -> Mapping[str, Kind]:
    """Return what the columns of a table are, by their names."""
    return {name: column.kind for name, column in fields.items()}
