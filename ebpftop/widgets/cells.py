# SPDX-License-Identifier: Apache-2.0
"""Cells of text in columns of fixed width, and how they become a line on the screen.

All text that reaches the terminal through these is made printable here, at the last moment,
and is drawn as a `Segment`: nothing in it is ever read as markup or as an escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from ebpftop.format import printable
from ebpftop.model import SourceState

Tone = Literal[
    "plain", "muted", "strong", "good", "warn", "bad", "info", "active", "key", "badge", "alarm"
]
"""What a text means; the style sheet gives each `tone--NAME` its colour."""

TONE_CLASSES: Final = frozenset(
    f"tone--{name}"
    for name in (
        *("plain", "muted", "strong", "good", "warn", "bad", "info"),
        *("active", "key", "badge", "alarm"),
    )
)
"""Component classes of every widget that draws cells."""

STATES: Final[dict[SourceState, tuple[str, Tone]]] = {
    SourceState.PASSED: ("●", "good"),
    SourceState.ALLOWED: ("✔", "info"),
    SourceState.LIMITED: ("▲", "warn"),
    SourceState.BLOCKED: ("✖", "bad"),
}
"""Sign and tone of a state: the sign alone must do where there is no colour."""

GAP = 2
"""Cells between two columns."""

_EIGHTHS = " ▏▎▍▌▋▊▉"


class Cell(NamedTuple):
    """A piece of text, what it means, and what a click on it runs."""

    text: str
    """What is shown; made printable when it is drawn."""
    tone: Tone = "plain"
    """What it means."""
    action: str = ""
    """What a click runs; empty for nothing. Only bars take clicks."""
    key: str = ""
    """The key that does the same, shown before the text. Only bars show keys."""
    part: float | None = None
    """A part of 1, drawn as a bar after the text in what the column has left. Only tables do."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: how it is headed, and how it yields when space is short."""

    key: str
    """The field it is sorted by; empty where it cannot be sorted."""
    title: str
    """Its heading."""
    width: int
    """Cells it needs at least."""
    align: Literal["left", "right"] = "right"
    """Where its text stands."""
    rank: int = 0
    """0 is never hidden; the highest is hidden first."""
    stretch: int = 0
    """Cells it may take beyond its width when there are any left."""
    grows: bool = False
    """Whether it is widened to the longest text shown in it."""


class Placed(NamedTuple):
    """A column that is shown, and how wide."""

    column: int
    """Which one, and which cell of a row."""
    width: int
    """Cells it was given."""


def state_cell(state: int) -> Cell:
    """Return the sign and the word of a `SourceState`."""
    known = SourceState(state)
    sign, tone = STATES[known]
    return Cell(f"{sign} {known.label}", tone)


def place(columns: Sequence[Column], widths: Sequence[int], available: int) -> tuple[Placed, ...]:
    """Choose the columns that fit into `available` cells, and share out what is left.

    Args:
        columns: In the order they are shown.
        widths: The least width of each; at least its own.
        available: Cells of one line.
    """
    shown = list(range(len(columns)))

    def spare() -> int:
        return available - sum(widths[i] for i in shown) - GAP * (len(shown) - 1)

    while spare() < 0 and (hideable := [i for i in shown if columns[i].rank]):
        shown.remove(max(hideable, key=lambda i: columns[i].rank))
    # What cannot be hidden and does not fit is cut at its first column.
    given = dict.fromkeys(shown[:1], min(0, spare()))
    left = max(0, spare())
    for index in shown:
        extra = min(left, columns[index].stretch)
        left -= extra
        given[index] = given.get(index, 0) + extra
    return tuple(Placed(index, max(1, widths[index] + given[index])) for index in shown)


def bar(part: float, width: int) -> str:
    """Draw `part` of 1 as a bar that is `width` cells long when full."""
    full, eighths = divmod(round(8 * width * min(1.0, max(0.0, part))), 8)
    return "█" * full + (_EIGHTHS[eighths] if eighths else "")


def fit(text: str, width: int, align: Literal["left", "right"] = "left") -> str:
    """Return `text`, made printable, in exactly `width` cells; a cut is marked."""
    text = printable(text)
    length = len(text) if text.isascii() else cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    padding = " " * (width - length)
    return padding + text if align == "right" else text + padding


def base_style(widget: Widget) -> Style:
    """Return the style of plain text on `widget`; unlike `Widget.rich_style`, it is kept."""
    return widget.get_component_rich_style("tone--plain")


def tone_style(widget: Widget, tone: Tone, base: Style) -> Style:
    """Return `base` with what the style sheet says of `tone` on top."""
    if tone == "plain":
        return base
    return base + widget.get_component_rich_style(f"tone--{tone}", partial=True)


def row_strip(
    widget: Widget,
    cells: Sequence[Cell],
    columns: Sequence[Column],
    placed: Sequence[Placed],
    base: Style,
) -> Strip:
    """Draw one row of cells under `columns`, as wide as the columns are.

    Neighbours of one style are one segment, and a gap belongs to the cell before it: a segment
    costs some twenty bytes on the way to the terminal.
    """
    runs: list[tuple[str, Style]] = []
    for index, width in placed:
        cell = cells[index]
        text = cell.text
        if cell.part is not None:
            text = f"{text} {bar(cell.part, width - len(text) - 1)}"
        text = fit(text, width, columns[index].align) + " " * GAP
        style = tone_style(widget, cell.tone, base)
        if runs and runs[-1][1] == style:
            text = runs.pop()[0] + text
        runs.append((text, style))
    if runs:
        runs[-1] = (runs[-1][0][:-GAP], runs[-1][1])
    return Strip([Segment(text, style) for text, style in runs])
