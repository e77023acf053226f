# SPDX-License-Identifier: Apache-2.0
"""A rate over time, drawn in braille: two columns and four levels to a character."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from ebpftop.model import F64
from ebpftop.widgets.cells import TONE_CLASSES, base_style, fit, tone_style

_LEFT_DOTS = (0, 0x40, 0x44, 0x46, 0x47)
_RIGHT_DOTS = (0, 0x80, 0xA0, 0xB0, 0xB8)
"""Braille bits of a half cell filled to 0 to 4 dots (Unicode 16, U+2800)."""


def buckets(times_s: F64, values: F64, now_s: float, span_s: float, count: int) -> list[float]:
    """Return the largest value in each of `count` equal parts of the last `span_s` seconds.

    The parts' edges are multiples of their length on the clock, so that a peak keeps its shape
    while it moves to the left. A part without a sample repeats the sample before it; a part
    before the first sample is NaN.
    """
    part_s = span_s / count
    last_part = math.floor(now_s / part_s)
    parts = np.floor(times_s / part_s).astype(np.int64) - (last_part - count + 1)
    largest = [math.nan] * count
    held = math.nan
    previous = -1
    for part, value in zip(parts.tolist(), values.tolist(), strict=True):
        if part < 0:
            held = value
            continue
        if part >= count:
            break
        if part != previous:
            largest[previous + 1 : part] = [held] * (part - previous - 1)
            largest[part] = value
        elif not largest[part] >= value:
            largest[part] = value
        previous, held = part, value
    largest[previous + 1 :] = [held] * (count - previous - 1)
    return largest


def braille(values: Sequence[float], top: float, rows: int) -> list[str]:
    """Draw `values`, two to a character, as filled columns under `top`; the first row is on top.

    Nothing at all is one dot, the least traffic two: a quiet second differs from no data.
    """
    levels = [_level(value, top, 4 * rows) for value in values]
    lines = []
    for row in range(rows - 1, -1, -1):
        filled = [min(4, max(0, level - 4 * row)) for level in levels]
        cells = zip(filled[::2], filled[1::2], strict=True)
        dots = (_LEFT_DOTS[left] | _RIGHT_DOTS[right] for left, right in cells)
        lines.append("".join(chr(0x2800 + bits) if bits else " " for bits in dots))
    return lines


def _level(value: float, top: float, levels: int) -> int:
    if math.isnan(value):
        return 0
    if value <= 0 or top <= 0:
        return 1
    return min(levels, 2 + round((levels - 2) * value / top))


class Graph(Widget):
    """The last minutes of one rate; the style sheet colours its `graph--fill`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*TONE_CLASSES, "graph--fill"}
    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self._series: tuple[F64, F64, float, float, float] | None = None
        self._label = ""
        self._lines: list[str] = []

    def show(
        self, times_s: F64, values: F64, *, now_s: float, span_s: float, top: float, label: str
    ) -> None:
        """Draw `values` at `times_s`, if that gives another picture than the one drawn.

        Args:
            times_s: When, on a clock that only goes forward.
            values: One for each time.
            now_s: The time at the right edge.
            span_s: Seconds from edge to edge.
            top: The value of a full column.
            label: What is written into the upper left corner.
        """
        self._series = (times_s, values, now_s, span_s, top)
        self._label = label
        self._redraw()

    def on_resize(self) -> None:
        """Draw as many columns as there are now."""
        self._redraw()

    def render_line(self, y: int) -> Strip:
        """Draw one row of braille, the label over the first."""
        style = base_style(self)
        width = self.size.width
        line = self._lines[y] if y < len(self._lines) else ""
        fill = tone_style(self, "plain", style) + self.get_component_rich_style(
            "graph--fill", partial=True
        )
        if y == 0 and self._label and width > 2 * len(self._label):
            label = fit(self._label, len(self._label) + 1)
            rest = line[len(label) :]
            segments = [Segment(label, tone_style(self, "muted", style)), Segment(rest, fill)]
            return Strip(segments).adjust_cell_length(width, style)
        return Strip([Segment(line, fill)]).adjust_cell_length(width, style)

    def _redraw(self) -> None:
        width, height = self.size
        if self._series is None or not width or not height:
            return
        times_s, values, now_s, span_s, top = self._series
        lines = braille(buckets(times_s, values, now_s, span_s, 2 * width), top, height)
        lines[0] = lines[0].ljust(width)
        if lines != self._lines or self._label:
            self._lines = lines
            self.refresh()
