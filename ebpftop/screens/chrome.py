# SPDX-License-Identifier: Apache-2.0
"""What stands around the panes: the line on top, the tabs, the keys at the bottom."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ebpftop import format as fmt
from ebpftop.actions import PINNED, Action, command
from ebpftop.model import Snapshot
from ebpftop.screens.pane import Pane, Picture
from ebpftop.widgets.bar import length_of
from ebpftop.widgets.cells import Cell, Tone

_LETTERS = (None, 6, 4, 3, 2)
"""How many letters of a tab's label are shown; the first with which all tabs fit."""
_READABLE = 3
"""How many there are where they never fit, and what stands beside them is cut."""


def identity(
    title: str,
    snapshot: Snapshot | None,
    *,
    interval_s: float,
    badges: Iterable[Cell],
    cost: str = "",
) -> tuple[Sequence[Cell], Sequence[Cell]]:
    """Return the header: what is watched and how, at the left; the time of the data, at the right.

    Args:
        title: The names of the interfaces.
        snapshot: What is displayed; None before the first.
        interval_s: Seconds between snapshots.
        badges: What the app itself has to say.
        cost: What the dashboard itself takes, and the program for each packet.
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
    if cost:
        left.append(Cell(cost, "muted"))
    left.append(Cell(f"up {fmt.duration(snapshot.uptime_s)}", "muted"))
    return left, [wall_time(snapshot)]


def paused_at(picture: Picture | None) -> Sequence[Cell]:
    """Return what is said beside the tabs while the display stands still."""
    if picture is None:
        return ()
    return [Cell(f"PAUSED at {wall_time(picture.snapshot).text}", "badge")]


def wall_time(snapshot: Snapshot) -> Cell:
    """Return the time of day at which the snapshot was taken."""
    return Cell(time.strftime("%H:%M:%S", time.localtime(snapshot.clock.wall_s)))


def tabs(switches: Iterable[Action], current: str, room: int) -> Sequence[Cell]:
    """Return a tab for each action that opens a pane.

    Args:
        switches: The actions.
        current: The pane in sight.
        room: Cells of the line there are for them; where they take more, all but the current
            one are cut short.
    """

    def tab(action: Action, letters: int | None) -> Cell:
        active = action.opens == current
        tone: Tone = "active" if active else "plain"
        label = action.label if active else action.label[:letters]
        return Cell(label, tone, command(action), action.key_label)

    actions = list(switches)
    for letters in _LETTERS:
        cells = [tab(action, letters) for action in actions]
        if length_of(cells) <= room:
            return cells
    return [tab(action, _READABLE) for action in actions]


def footer(offered: Sequence[Action]) -> tuple[Sequence[Cell], Sequence[Cell]]:
    """Return the keys that work now, and apart from them those that must never be dropped."""
    others = [_key(action) for action in offered if action.in_footer]
    pinned = [_key(action) for action in offered if action.id in PINNED]
    return others, pinned


def help_sections(
    offered: Sequence[Action], panes: Iterable[Pane], current: Pane
) -> Sequence[tuple[str, Sequence[Action]]]:
    """Sort the actions that can ever be offered under headings.

    Args:
        offered: The actions.
        panes: All panes.
        current: The pane in sight, whose own actions come first; then those that work everywhere.
    """
    everywhere = [action for action in offered if not action.panes]
    others = [pane for pane in panes if pane is not current]
    sections = [
        (f"IN {pane.NAME.upper()}", [action for action in offered if pane.NAME in action.panes])
        for pane in (current, *others)
    ]
    sections.insert(1, ("EVERYWHERE", everywhere))
    return [(title, own) for title, own in sections if own]


def _key(action: Action) -> Cell:
    return Cell(action.label, "plain", command(action), action.key_label)
