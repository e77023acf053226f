# SPDX-License-Identifier: Apache-2.0
"""Snapshots with traffic classes, and the Shaper pane driven on them."""

from __future__ import annotations

from typing import Any

from textual.widgets import Input

from ebpftop.model import Snapshot
from ebpftop.screens.shaper import ShaperPane
from tests.tui.driving import Dashboard
from tests.tui.fakes import Shaped, Talker, classes, snapshot, sources

VIDEO = Shaped("video", members=("10.0.0.1", "10.1.0.0/16"))
BUSY = Shaped(
    "backup", 8_000_000, 40_000, -2_000, 16_000_000, 8_000_000, "police", dropped=321, members=()
)
TALKERS = [Talker("10.0.0.1", pps=5_000), Talker("10.0.0.2", pps=1)]


def shaped(sequence: int = 0, *entries: Shaped, **changes: Any) -> Snapshot:
    """Build a snapshot with these classes, or the two of every day."""
    held = classes(entries or (VIDEO, BUSY))
    return snapshot(sequence, classes=held, sources=sources(TALKERS), **changes)


def pane(running: Dashboard) -> ShaperPane:
    """Return the pane in sight, which is the shaper's."""
    found = running.app.main.pane
    assert isinstance(found, ShaperPane)
    return found


async def fill(running: Dashboard, field: str, text: str) -> None:
    """Write into a field of the dialog."""
    entry = running.app.screen.query_one(f"#{field}", Input)
    entry.value = text
    entry.focus()
    await running.pilot.pause()


async def minute(running: Dashboard, *entries: Shaped, tick_s: int = 20) -> None:
    """Let a minute go by in which the classes carry what they carry."""
    for second in range(1 + tick_s, 62, tick_s):
        await running.tick(shaped(second, *entries, interval_s=float(tick_s)))
