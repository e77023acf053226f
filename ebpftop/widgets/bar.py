# SPDX-License-Identifier: Apache-2.0
"""One line of short texts: the header, the tabs, the footer, the line under a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.strip import Strip
from textual.widget import Widget

from ebpftop.format import printable
from ebpftop.widgets.cells import GAP, TONE_CLASSES, Cell, Tone, base_style, fit, tone_style

_LEAST = 8
"""A text that keeps fewer cells than this says nothing."""


class Bar(Widget):
    """Texts at the left and texts at the right of one line.

    When both sides do not fit, the side that is not pinned yields: texts are dropped from its
    far end, and the last one left is cut.

    Args:
        pinned: The side that is shown in full.
        css_id: Its name in the style sheet.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONE_CLASSES)
    can_focus = False
    ALLOW_SELECT = False

    def __init__(
        self,
        *,
        pinned: Literal["left", "right"] = "right",
        css_id: str | None = None,
    ) -> None:
        super().__init__(id=css_id)
        self._pinned = pinned
        self._left: tuple[Cell, ...] = ()
        self._right: tuple[Cell, ...] = ()

    def show(self, left: Sequence[Cell], right: Sequence[Cell] = ()) -> None:
        """Draw these texts, if they are not the ones drawn already."""
        new = (tuple(left), tuple(right))
        if new != (self._left, self._right):
            self._left, self._right = new
            self.refresh()

    @property
    def text(self) -> str:
        """What is on the line now, without its styles."""
        return self.render_line(0).text

    def render_line(self, y: int) -> Strip:
        """Draw the line; whatever is under it is blank."""
        if y:
            return Strip.blank(self.size.width, base_style(self))
        style = base_style(self)
        segments = []
        drawn_to = 0
        for start, text, cell in self._layout():
            segments.append(Segment(" " * (start - drawn_to), style))
            if cell.key:
                tone: Tone = "key" if cell.tone == "plain" else cell.tone
                segments.append(Segment(cell.key, tone_style(self, tone, style)))
            rest = text[len(cell.key) :]
            segments.append(Segment(rest, tone_style(self, cell.tone, style)))
            drawn_to = start + cell_len(text)
        return Strip(segments).adjust_cell_length(self.size.width, style)

    async def on_click(self, event: events.Click) -> None:
        """Run the action of the text that was clicked."""
        for start, text, cell in self._layout():
            if cell.action and start <= event.x < start + cell_len(text):
                await self.run_action(cell.action)

    def _layout(self) -> Iterator[tuple[int, str, Cell]]:
        """Yield where each text starts, what is left of it, and its cell."""
        width = self.size.width - 2
        left, right = list(self._left), list(self._right)
        kept, yielding = (right, left) if self._pinned == "right" else (left, right)
        self._cut(kept, width)
        self._cut(yielding, width - length_of(kept) - (GAP if kept else 0))
        yield from self._placed(left, 1)
        yield from self._placed(right, 1 + width - length_of(right))

    def _cut(self, cells: list[Cell], room: int) -> None:
        """Drop texts from the end of `cells`, and cut the last one, until they fit."""
        while cells and (excess := length_of(cells) - room) > 0:
            last = cells.pop()
            remains = cell_len(_text(last)) - excess
            if remains >= _LEAST and not last.key:
                cells.append(last._replace(text=fit(last.text, remains)))

    def _placed(self, cells: Sequence[Cell], start: int) -> Iterator[tuple[int, str, Cell]]:
        for cell in cells:
            text = _text(cell)
            yield start, text, cell
            start += cell_len(text) + GAP


def length_of(cells: Sequence[Cell]) -> int:
    """Count the cells of a line that texts take with the gaps between them."""
    texts = sum(cell_len(_text(cell)) for cell in cells)
    return texts + GAP * max(0, len(cells) - 1)


def _text(cell: Cell) -> str:
    """Return what is drawn of a cell."""
    text = printable(cell.text)
    return f"{cell.key} {text}" if cell.key else text
