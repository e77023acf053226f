# SPDX-License-Identifier: Apache-2.0
"""Lines over a logarithmic scale, as an SVG file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 250, 44, 48
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot."""

    name: str
    """For the legend."""
    points: Sequence[tuple[float, float]]
    """From left to right; the first coordinate is above 0."""


def svg(title: str, across: str, up: str, lines: Sequence[Line]) -> str:
    """Draw lines; the axis across is logarithmic, the one upwards begins at 0.

    Args:
        title: Over the plot.
        across: What the axis across says.
        up: What the axis upwards says.
        lines: At least one, with a point each.
    """
    points = [point for line in lines for point in line.points]
    decades = max(1, math.ceil(math.log10(max(x for x, _ in points)) - 1e-9))
    top = _round_up(max(y for _, y in points))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + wide * math.log10(x) / decades, TOP + high * (1 - y / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 24, title, size=15),
        _text(LEFT + wide / 2, HEIGHT - 8, across, anchor="middle"),
        _text(LEFT, TOP - 6, up),
    ]
    for step in range(6):
        y = top * step / 5
        (left, at), (right, _) = place(1, y), place(10**decades, y)
        parts.append(
            f'<path d="M{left:.1f} {at:.1f}H{right:.1f}" stroke="#d4d4d8" stroke-width="1"/>'
        )
        parts.append(_text(left - 6, at + 4, f"{y:g}", anchor="end"))
    for power in range(decades + 1):
        at, below = place(10**power, 0)
        parts.append(_text(at, below + 18, f"x {10**power:,}", anchor="middle"))
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(x, y) for x, y in line.points]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        row = TOP + 10 + 20 * number
        edge = WIDTH - RIGHT + 18
        parts.append(f'<path d="M{edge} {row}h16" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(edge + 22, row + 4, line.name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="#27272a">{escape(words)}</text>'
    )


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten, so that the axis has round numbers."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)
