# SPDX-License-Identifier: Apache-2.0
"""A table of any length that turns only its visible rows into text.

The rows stay what they are (columns of numbers), sorted as far as somebody looks; a line
becomes text when it is drawn, and is drawn again when its text is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ebpftop.format import printable
from ebpftop.ordering import Ordered
from ebpftop.widgets.cells import (
    GAP,
    TONE_CLASSES,
    Cell,
    Column,
    Placed,
    base_style,
    place,
    row_strip,
)

_SELECTED, _MARKED = "▸", "*"
_MARGIN = 2
_KEPT_LINES = 1000


class Rows(Protocol):
    """Where a table's text comes from."""

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each column, hidden ones included."""
        ...

    def key(self, row: int) -> Any:
        """Return what the row is about: the selection holds on to it."""
        ...

    def row_of(self, key: Any) -> int | None:
        """Return the row that is about `key`, None where there is none."""
        ...


class Table(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows under a heading, with a selection that is held by address.

    A selected row that moves takes the selection with it, and one that goes leaves the
    selection on its address, on no row; it is never on another row unless the operator puts it
    there. The table does not scroll after it.

    Args:
        columns: What a row consists of.
        css_id: Its name in the style sheet.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *TONE_CLASSES,
        "table--heading",
        "table--sorted",
        "table--cursor",
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Select the row above", key_display="↑ k"),
        Binding("down,j", "move(1)", "Select the row below", key_display="↓ j"),
        Binding("pageup", "page(-1)", "Select a page above", key_display="PgUp"),
        Binding("pagedown", "page(1)", "Select a page below", key_display="PgDn"),
        Binding("g,home", "end(0)", "Select the first row", key_display="g Home"),
        Binding("G,end", "end(-1)", "Select the last row", key_display="G End"),
    ]

    @dataclass
    class Selected(Message):
        """The operator put the selection on another row."""

        table: Table
        """The sender."""

        @property
        def control(self) -> Table:
            """The sender."""
            return self.table

    @dataclass
    class SortRequested(Message):
        """The heading of a column was clicked."""

        table: Table
        """The sender."""
        key: str
        """The field to sort by."""

        @property
        def control(self) -> Table:
            """The sender."""
            return self.table

    def __init__(self, columns: Sequence[Column], *, css_id: str | None = None) -> None:
        super().__init__(id=css_id)
        self._columns = tuple(columns)
        self._widths = [column.width for column in columns]
        self._left_out: frozenset[int] = frozenset()
        self._rows: Rows | None = None
        self._order = Ordered.of(np.zeros(0, np.intp))
        self._sorted_by = ("", True)
        self._empty = ""
        self._drawn: dict[int, tuple[tuple[Cell, ...], bool, bool]] = {}
        self._marked: dict[Any, None] = {}
        self._selected: Any = None
        self._cursor: int | None = None
        self._last_cursor = 0

    @property
    def selected(self) -> Any:
        """What the operator has selected, whether or not there is a row for it now."""
        return self._selected

    @property
    def marked(self) -> tuple[Any, ...]:
        """What the operator has marked, in that order, whether or not there are rows for it now."""
        return tuple(self._marked)

    @property
    def cursor(self) -> int | None:
        """The position of the selected row, from 0; None where it has none now."""
        return self._cursor

    @property
    def order(self) -> Ordered:
        """The rows that are in the table, in their order."""
        return self._order

    @property
    def lines(self) -> list[str]:
        """What is drawn now, a text each line, without its styles."""
        return [self.render_line(y).text for y in range(self.size.height)]

    def show(
        self,
        rows: Rows,
        order: NDArray[np.intp] | Ordered,
        *,
        sorted_by: tuple[str, bool] = ("", True),
        empty: str = "",
    ) -> None:
        """Draw these rows in this order; lines that stay the same are not drawn again.

        Args:
            rows: Where the text comes from.
            order: Row numbers, first row first.
            sorted_by: The field they are sorted by, and whether the largest is first.
            empty: What to say when there is no row.
        """
        whole = sorted_by != self._sorted_by or empty != self._empty or not self._drawn
        self._rows = rows
        self._order = order if isinstance(order, Ordered) else Ordered.of(order)
        self._sorted_by, self._empty = sorted_by, empty
        self._seat_cursor()
        size = Size(1, max(len(order), int(bool(empty))) + 1)
        if size != self.virtual_size:
            self.virtual_size = size
        before, self._drawn = self._drawn, {}
        changed = [p for p in self._visible() if self._line(p) != before.get(p)]
        whole |= self._grow() or len(before.keys() & set(self._visible())) != len(before)
        if whole:
            self.refresh()
            return
        for position in changed:
            self._refresh_position(position)

    @property
    def hidden(self) -> list[int]:
        """The columns for which there is no room."""
        shown = {index for index, _ in self._placed()} | self._left_out
        return [at for at in range(len(self._columns)) if at not in shown]

    def leave_out(self, *keys: str) -> None:
        """Do not show the columns of these fields or headings, for they hold nothing now."""
        left_out = frozenset(
            i for i, column in enumerate(self._columns) if (column.key or column.title) in keys
        )
        if left_out != self._left_out:
            self._left_out = left_out
            self.refresh()

    @property
    def keys_shown(self) -> list[str]:
        """The fields of the columns that are not left out, in their order."""
        return [c.key for i, c in enumerate(self._columns) if i not in self._left_out and c.key]

    def select(self, position: int) -> None:
        """Put the selection on the row at `position`, or on the nearest there is."""
        if self._rows is None or not len(self._order):
            return
        position = min(max(position, 0), len(self._order) - 1)
        if self._cursor is not None:
            self._forget(self._cursor)
        self._cursor = self._last_cursor = position
        self._selected = self._rows.key(self._order[position])
        self._forget(position)
        top, page = self.scroll_offset.y, self._page
        if position < top:
            self.scroll_to(y=position, animate=False)
        elif position >= top + page:
            self.scroll_to(y=position - page + 1, animate=False)
        self.post_message(self.Selected(self))

    def select_key(self, key: Any) -> None:
        """Put the selection on what `key` is about, whether or not there is a row for it now."""
        if self._cursor is not None:
            self._forget(self._cursor)
        self._selected = key
        self._seat_cursor()
        if self._cursor is not None:
            self.select(self._cursor)
        else:
            self.post_message(self.Selected(self))

    def mark(self) -> None:
        """Mark what is selected, or take its mark away."""
        if self._selected is None:
            return
        if self._selected in self._marked:
            del self._marked[self._selected]
        else:
            self._marked[self._selected] = None
        if self._cursor is not None:
            self._forget(self._cursor)

    def unmark(self) -> None:
        """Take all marks away."""
        self._marked.clear()
        self._drawn.clear()
        self.refresh()

    def action_move(self, rows: int) -> None:
        """Move the selection by `rows`; without one, select the first row in sight."""
        if self._cursor is not None:
            self.select(self._cursor + rows)
        elif self._selected is not None:
            self.select(self._last_cursor)
        else:
            self.select(self.scroll_offset.y)

    def action_page(self, pages: int) -> None:
        """Move the selection by `pages` screens."""
        self.action_move(pages * max(1, self._page - 1))

    def action_end(self, position: int) -> None:
        """Select the first row (0) or the last (-1)."""
        self.select(len(self._order) - 1 if position else 0)

    def on_resize(self) -> None:
        """Make room for what has come into sight."""
        if self._grow():
            self.refresh()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Make room for what has come into sight."""
        super().watch_scroll_y(old_value, new_value)
        if self._grow():
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Select the row, or ask to sort by the column, that was clicked."""
        if event.y:
            position = self.scroll_offset.y + event.y - 1
            if position < len(self._order):
                self.select(position)
            return
        start = _MARGIN
        for index, width in self._placed():
            if start <= event.x < start + width + GAP and self._columns[index].key:
                self.post_message(self.SortRequested(self, self._columns[index].key))
            start += width + GAP

    def render_line(self, y: int) -> Strip:
        """Draw the heading (0) or one row."""
        width = self.size.width
        if y == 0:
            return self._heading().adjust_cell_length(
                width, self.get_component_rich_style("table--heading")
            )
        position = self.scroll_offset.y + y - 1
        base = base_style(self)
        if position >= len(self._order):
            at = min(2, self.size.height - 1)
            text = f" {printable(self._empty)}" if y == at and not len(self._order) else ""
            style = base + self.get_component_rich_style("tone--muted", partial=True)
            return Strip([Segment(text, style)]).adjust_cell_length(width, base)
        cells, selected, marked = self._line(position)
        if selected:
            base = self.get_component_rich_style("table--cursor")
        margin = (_SELECTED if selected else " ") + (_MARKED if marked else " ")
        mark = Segment(margin, base)
        row = row_strip(self, cells, self._columns, self._placed(), base)
        return Strip([mark, *row]).adjust_cell_length(width, base)

    @property
    def _page(self) -> int:
        """Rows that are in sight."""
        return max(1, self.size.height - 1)

    def _visible(self) -> range:
        top = self.scroll_offset.y
        return range(top, min(top + self._page, len(self._order)))

    def _seat_cursor(self) -> None:
        """Find the row that the selected address has now."""
        self._cursor = None
        if self._selected is None or self._rows is None:
            return
        row = self._rows.row_of(self._selected)
        if row is not None:
            position = self._order.position(row)
            if position is not None:
                self._cursor = self._last_cursor = position

    def _line(self, position: int) -> tuple[tuple[Cell, ...], bool, bool]:
        """Return the cells at `position`, and whether they are selected and marked."""
        line = self._drawn.get(position)
        if line is None:
            assert self._rows is not None
            if len(self._drawn) > _KEPT_LINES:
                self._drawn.clear()
            row = self._order[position]
            marked = bool(self._marked) and self._rows.key(row) in self._marked
            line = (tuple(self._rows.cells(row)), position == self._cursor, marked)
            self._drawn[position] = line
        return line

    def _forget(self, position: int) -> None:
        self._drawn.pop(position, None)
        self._refresh_position(position)

    def _refresh_position(self, position: int) -> None:
        y = position - self.scroll_offset.y + 1
        if 0 < y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    def _grow(self) -> bool:
        """Widen the columns that grow to what is in sight; return whether any did."""
        grown = False
        for index, column in enumerate(self._columns):
            if column.grows:
                needed = max(
                    (len(self._line(p)[0][index].text) for p in self._visible()), default=0
                )
                if needed > self._widths[index]:
                    self._widths[index] = needed
                    grown = True
        return grown

    def _placed(self) -> tuple[Placed, ...]:
        kept = [at for at in range(len(self._columns)) if at not in self._left_out]
        columns, widths = [self._columns[at] for at in kept], [self._widths[at] for at in kept]
        placed = place(columns, widths, self.size.width - _MARGIN - 1)
        return tuple(Placed(kept[at], width) for at, width in placed)

    def _heading(self) -> Strip:
        key, descending = self._sorted_by
        base = self.get_component_rich_style("table--heading")
        marked = base + self.get_component_rich_style("table--sorted", partial=True)
        arrow = " ▼" if descending else " ▲"
        segments = [Segment(" " * _MARGIN, base)]
        placed = self._placed()
        for index, width in placed:
            column = self._columns[index]
            is_sorted = bool(key) and column.key == key
            title = column.title + arrow if is_sorted else column.title
            text = title.rjust(width) if column.align == "right" else title.ljust(width)
            segments.append(Segment(text[:width], marked if is_sorted else base))
            segments.append(Segment(" " * GAP, base))
        return Strip(segments)
