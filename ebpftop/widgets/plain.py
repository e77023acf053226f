# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001
"""Drawing for terminals and fonts that have ASCII and nothing else."""

from __future__ import annotations

import unicodedata

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_SIGNS = {
    "●": "o", "✔": "+", "▲": "^", "✖": "x", "▸": ">", "▼": "v", "▾": "v", "–": "-", "…": "~",
    "└": "`", "├": "|", "│": "|", "─": "-", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "┌": "+",
    "┐": "+", "┘": "+", "↓": "v", "↑": "^", "→": ">", "←": "<", "×": "x", "·": ".", "•": "*",
    "█": "#", "▉": "#", "▊": "#", "▋": "#", "▌": "=", "▍": "=", "▎": "-", "▏": "-",
    "▁": "_", "▂": "_", "▃": ".", "▄": "=", "▅": "=", "▆": "#", "▇": "#", "▔": "-",
}  # fmt: skip
_BRAILLE = range(0x2800, 0x2900)
_DENSITY = " ..::||##"
"""By how many of the eight dots are set."""


def plain(text: str) -> str:
    """Return `text` in ASCII, as wide as before; what has no likeness becomes a `?`."""
    return text if text.isascii() else "".join(map(_plain, text))


def _plain(character: str) -> str:
    if character.isascii():
        return character
    if ord(character) in _BRAILLE:
        return _DENSITY[(ord(character) - _BRAILLE.start).bit_count()]
    known = _SIGNS.get(character)
    if known is not None:
        return known
    if unicodedata.combining(character):
        return ""
    width = 2 if unicodedata.east_asian_width(character) in ("F", "W") else 1
    base = unicodedata.normalize("NFKD", character)[:1]
    return base if base.isascii() and width == 1 else "?" * width


class PlainFilter(LineFilter):
    """Draws every line of an app in ASCII."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments with their texts in ASCII."""
        return [Segment(plain(text), style, control) for text, style, control in segments]
