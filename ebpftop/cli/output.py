# SPDX-License-Identifier: Apache-2.0
"""What verbs print: JSON, aligned tables, pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value as JSON, in one line where many follow each other."""
    click.echo(json.dumps(value, indent=None if one_line else 2, ensure_ascii=False))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print aligned columns; the first `left` to the left, the others to the right."""
    widths = [max(len(cell) for cell in cells) for cells in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = [
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def print_pairs(pairs: Mapping[str, str]) -> None:
    """Print names and values, a line each."""
    width = max(map(len, pairs))
    for name, value in pairs.items():
        click.echo(f"{name.ljust(width)}  {value}")
