# SPDX-License-Identifier: Apache-2.0
"""A small table that is all on the screen: a few rows, no cursor, no scrolling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from ebpftop.widgets.cells import TONE_CLASSES, Cell, Column, base_style, place, row_strip


class Ledger(Widget):
    """A few rows under a heading; the first column's title is the title of the whole.

    Args:
        columns: What a row consists of.
        headed: Whether the first line is the heading.
        fitted: Whether it is as high as its rows, and not as the style sheet says.
        css_id: Its name in the style sheet.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {*TONE_CLASSES, "ledger--heading"}
    can_focus = False

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        headed: bool = True,
        fitted: bool = False,
        css_id: str | None = None,
    ) -> None:
        super().__init__(id=css_id)
        self._columns = tuple(columns)
        self._headed = headed
        self._fitted = fitted
        self._rows: tuple[tuple[Cell, ...], ...] = ()
        self._widths = [column.width for column in columns]

    def show(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Draw these rows, a cell for each column; only lines that differ are drawn again."""
        old, new = self._rows, tuple(map(tuple, rows))
        self._rows = new
        widths = [self._width(index) for index in range(len(self._columns))]
        if len(old) != len(new) or widths != self._widths:
            self._widths = widths
            if self._fitted:
                self.styles.height = len(new) + self._headed
            self.refresh()
            return
        for y, (before, after) in enumerate(zip(old, new, strict=True), int(self._headed)):
            if before != after:
                self.refresh(Region(0, y, self.size.width, 1))

    @property
    def lines(self) -> list[str]:
        """What is drawn now, a text each line, without its styles."""
        return [self.render_line(y).text for y in range(self.size.height)]

    def _width(self, index: int) -> int:
        """Return the cells that a column needs for the rows there are."""
        column = self._columns[index]
        if not column.grows:
            return column.width
        return max([column.width, *(len(row[index].text) for row in self._rows)])

    def render_line(self, y: int) -> Strip:
        """Draw the heading, a row, or nothing."""
        width = self.size.width
        base = base_style(self)
        margin = Segment(" ", base)
        placed = place(self._columns, self._widths, width - 2)
        if self._headed and y == 0:
            base = self.get_component_rich_style("ledger--heading")
            margin = Segment(" ", base)
            cells: Sequence[Cell] = [Cell(column.title) for column in self._columns]
        elif (row := y - self._headed) < len(self._rows):
            cells = self._rows[row]
        else:
            return Strip.blank(width, base)
        drawn = row_strip(self, cells, self._columns, placed, base)
        return Strip([margin, *drawn]).adjust_cell_length(width, base)
