# SPDX-License-Identifier: Apache-2.0
"""What an act would have stopped, as lines of a dialog."""

from __future__ import annotations

from ebpftop import format as fmt
from ebpftop.screens.figures import number_of
from ebpftop.screens.what_if import Foresight
from ebpftop.widgets.cells import Cell


def foresight_rows(found: Foresight, *, note: str = "") -> list[list[Cell]]:
    """Return two lines: how much an act would have stopped, and of whom.

    Args:
        found: What was computed.
        note: What it could not take into account.
    """
    label = Cell("foresight", "muted")
    nothing = [Cell(""), Cell("")]
    if not found.seconds:
        return [[label, Cell("nothing is known of the last minute yet", "muted")], nothing]
    span = f"the last {found.seconds:.0f} s"
    if found.packets < 1:
        words = f"would have stopped nothing in {span}"
        return [[label, Cell(words)], [Cell(""), Cell(_uncertain(found, note), "muted")]]
    words = f"{fmt.count(round(found.packets))} packets, {fmt.percent(found.share)} of {span}"
    if found.already >= 1:
        words += f"; {fmt.percent(min(1.0, found.already / found.packets))} dropped anyway"
    named = ", ".join(
        f"{address} {'' if part > 0.999 else fmt.percent(part) + ' '}".strip()
        for address, part in found.talkers
    )
    more = found.hit - len(found.talkers)
    named += f" and {number_of(more, 'more source')}" if more > 0 else ""
    doubt = _uncertain(found, note)
    rows = [[label, Cell(words, "strong")], [Cell("of", "muted"), Cell(named)]]
    return [*rows, [Cell(""), Cell(doubt, "muted")]] if doubt else rows


def _uncertain(found: Foresight, note: str) -> str:
    if found.received and found.rest / found.received > 0.001:
        share = fmt.percent(min(1.0, found.rest / found.received))
        return f"{share} came from sources too small to be kept"
    return note
