# SPDX-License-Identifier: Apache-2.0
"""What must not be overlooked in any pane: conditions that hold now, worst first."""

from __future__ import annotations

from collections.abc import Iterator

from ebpftop import format as fmt
from ebpftop.model import Event, MapInfo
from ebpftop.screens.pane import Picture
from ebpftop.widgets.cells import Cell

FULL_SHARE = 0.8
"""Part of a map's entries from which on it is told."""


def alerts(picture: Picture) -> Iterator[Cell]:
    """Yield a cell for each alert; its words stay the same while it lasts, but for figures."""
    snapshot = picture.snapshot
    for name, holds in snapshot.invariants.items():
        if not holds:
            yield Cell(f"✖ figures disagree: {name}", "alarm")
    for fault in snapshot.faults:
        yield Cell(f"✖ {fault}", "alarm")
    flood = _flood(picture)
    if flood is not None:
        since_s = max(0.0, snapshot.clock.wall_s - flood.time_s)
        yield Cell(f"✖ flood for {fmt.duration(since_s)}", "alarm")
    if snapshot.rates and snapshot.rates.untracked >= 1:
        untracked = fmt.count(snapshot.rates.untracked)
        yield Cell(f"✖ {untracked} pps from more new sources than are tracked", "alarm")
    for info in snapshot.maps:
        if (share := _fill(info)) >= FULL_SHARE:
            yield Cell(f"▲ map {info.name} {fmt.percent(share)} full", "badge")
    if picture.missed_events:
        yield Cell(f"▲ {fmt.count(picture.missed_events)} events missed", "badge")


def kinds(picture: Picture | None) -> frozenset[str]:
    """Return which alerts there are, without their figures: a new one rings the bell."""
    if picture is None:
        return frozenset()
    return frozenset(
        " ".join(word for word in cell.text.split() if not any(map(str.isdigit, word)))
        for cell in alerts(picture)
    )


def _fill(info: MapInfo) -> float:
    return info.entries / info.max_entries if info.entries and info.max_entries else 0.0


def _flood(picture: Picture) -> Event | None:
    """Return the beginning of the flood that has not ended."""
    for event in picture.events:  # the latest first
        if event.kind == "flood-end":
            return None
        if event.kind == "flood":
            return event
    return None
