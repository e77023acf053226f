# SPDX-License-Identifier: Apache-2.0
"""What stands around the panes: the line on top, the tabs, the keys at the bottom."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ebpftop import format as fmt
from ebpftop.actions import PINNED, Action, command
from ebpftop.model import Snapshot
from ebpftop.screens.pane import Pane
from ebpftop.widgets.cells import GAP, Cell, Tone

_CUT_TABS = (6, 4, 3, 2)
"""Letters of a tab's label, where there is no room for all of it."""


def identity(
    title: str,
    snapshot: Snapshot | None,
    *,
    interval_s: float,
    badges: Iterable[Cell],
) -> tuple[Sequence[Cell], Sequence[Cell]]:
    """Return the header: what is watched and how, at the left; the time of the data, at the right.

    Args:
        title: The names of the interfaces.
        snapshot: What is displayed; None before the first.
        interval_s: Seconds between snapshots.
        badges: What the app itself has to say.
    """
    left = [Cell("ebpftop", "active"), Cell(title, "strong")]
    if snapshot is None:
        return [*left, *badges], []
    modes = dict.fromkeys(interface.mode for interface in snapshot.interfaces)
    left.append(Cell("/".join(modes)))
    down = [interface.name for interface in snapshot.interfaces if not interface.up]
    if down:
        several = len(snapshot.interfaces) > 1
        left.append(Cell(f"DOWN {' '.join(down)}" if several else "DOWN", "alarm"))
    if snapshot.limits.dry_run:
        left.append(Cell("DRY RUN", "badge"))
    # On a narrow terminal the end goes first, so what can be spared stands there.
    left.extend(badges)
    left.append(Cell(f"every {fmt.duration_text(interval_s)}", "muted"))
    left.append(Cell(f"up {fmt.duration(snapshot.uptime_s)}", "muted"))
    return left, [wall_time(snapshot)]


def wall_time(snapshot: Snapshot) -> Cell:
    """Return the time of day at which the snapshot was taken."""
    return Cell(time.strftime("%H:%M:%S", time.localtime(snapshot.clock.wall_s)))


def tabs(switches: Sequence[Action], current: str, *, room: int | None = None) -> Sequence[Cell]:
    """Return a tab for each action that opens a pane.

    Args:
        switches: The actions.
        current: The pane in sight.
        room: Cells they may take; the labels of the others are cut as far as it needs.
    """
    cells: list[Cell] = []
    for letters in (None, *_CUT_TABS):
        cells = [_tab(action, current, letters) for action in switches]
        width = sum(len(cell.key) + 1 + len(cell.text) for cell in cells) + GAP * (len(cells) - 1)
        if room is None or width <= room:
            break
    return cells


def _tab(action: Action, current: str, letters: int | None) -> Cell:
    here = action.opens == current
    tone: Tone = "active" if here else "plain"
    label = action.label if here else action.label[:letters]
    return Cell(label, tone, command(action), action.key_label)


def footer(offered: Sequence[Action]) -> tuple[Sequence[Cell], Sequence[Cell]]:
    """Return the keys that work now, and apart from them those that must never be dropped."""
    others = [_key(action) for action in offered if action.in_footer]
    pinned = [_key(action) for action in offered if action.id in PINNED]
    return others, pinned


def help_sections(
    offered: Sequence[Action], panes: Iterable[Pane]
) -> Sequence[tuple[str, Sequence[Action]]]:
    """Sort the actions that can ever be offered under headings: everywhere, then pane by pane."""
    sections = [("EVERYWHERE", [action for action in offered if not action.panes])]
    for pane in panes:
        own = [action for action in offered if pane.NAME in action.panes]
        if own:
            sections.append((f"IN {pane.NAME.upper()}", own))
    return sections


def _key(action: Action) -> Cell:
    return Cell(action.label, "plain", command(action), action.key_label)
