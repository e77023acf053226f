# SPDX-License-Identifier: Apache-2.0
"""Figures that several panes and dialogs show, always in the same words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ebpftop import format as fmt
from ebpftop.model import Limits, Prefix, Snapshot, SourceState
from ebpftop.screens.targets import covering
from ebpftop.widgets.cells import STATES, Cell, Tone


def number_of(count: int, noun: str) -> str:
    """Return a number of things in words: `1 source`, `12,345 sources`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def rate_in(value: float | None, unit: str) -> str:
    """Return a rate with its unit: `1.2k pps`, `3.4 Mbit/s`, `5.6 MB/s`.

    Args:
        value: In that unit a second.
        unit: A word of `history.UNITS`.
    """
    if unit == "packets":
        return f"{rate(value)} pps"
    return fmt.bits_rate_unit(value) if unit == "bits" else f"{fmt.size(value)}/s"


def rate(value: float | None) -> str:
    """Return packets a second in whole packets, in at most six characters."""
    return fmt.count(value if value is None or not math.isfinite(value) else round(value))


def share_cell(part: float, whole: float, tone: Tone) -> Cell:
    """Return `part` of `whole` as a percentage and a bar."""
    if not whole > 0 or not math.isfinite(part):
        return Cell("")
    share = min(1.0, part / whole)
    return Cell(f"{fmt.percent(share):>5}", tone, part=share)


def source_summary(snapshot: Snapshot) -> Sequence[Cell]:
    """Return how many sources there are, and how many of them are held back."""
    state = snapshot.sources.state
    cells = []
    for kind in (SourceState.BLOCKED, SourceState.LIMITED):
        if number := int(np.count_nonzero(state == kind)):
            sign, tone = STATES[kind]
            cells.append(Cell(f"{sign} {fmt.count(number)} {kind.label}", tone))
    return [*cells, Cell(number_of(len(state), "source"), "muted")]


def limits_cells(limits: Limits) -> Sequence[Cell]:
    """Return the limits in force, a text each."""
    if not limits.any:
        return [Cell("limits", "muted"), Cell("off: nothing is dropped by rate")]
    cells = [Cell("limits", "muted")]
    if limits.pps:
        cells.append(Cell(f"{fmt.count(limits.pps)} pps", "strong"))
    if limits.bps:
        cells.append(Cell(fmt.bits_rate_unit(limits.bps), "strong"))
    if limits.syn:
        cells.append(Cell(f"{fmt.count(limits.syn)} syn/s", "strong"))
    times = f"burst {fmt.duration_text(limits.burst_s)}"
    if limits.block_for_s:
        times += f", blocks after {fmt.duration_text(limits.grace_s)}"
        times += f" for {fmt.duration_text(limits.block_for_s)}"
    cells.append(Cell(times))
    if limits.dry_run:
        cells.append(Cell("DRY RUN: nothing is dropped", "badge"))
    return cells


def standing(snapshot: Snapshot, target: Prefix) -> Sequence[Cell]:
    """Say what blocks or allows `target`, and for how long."""
    cells = []
    if (block := covering(snapshot.blocks, target)) is not None:
        row = snapshot.blocks.row_of(block)
        assert row is not None
        who = "auto" if snapshot.blocks.automatic[row] else "manual"
        by = "" if block == target else f" by {block}"
        left = time_left(snapshot, int(snapshot.blocks.expires_ns[row]))
        cells.append(Cell(f"✖ blocked {left}{by} ({who})", "bad"))
    if (allowed := covering(snapshot.allowed, target)) is not None:
        by = "" if allowed == target else f" by {allowed}"
        cells.append(Cell(f"✔ allowed{by}", "info"))
    return cells


def time_left(snapshot: Snapshot, expires_ns: int) -> str:
    """Return the time until `expires_ns`; 0 is for ever."""
    if not expires_ns:
        return "forever"
    return fmt.duration(max(0, expires_ns - snapshot.clock.monotonic_ns) // 10**9)


def age(snapshot: Snapshot, at_ns: int) -> str:
    """Return the time since `at_ns`, in whole seconds."""
    seconds = max(0, snapshot.clock.monotonic_ns - at_ns) // 10**9
    return "now" if seconds == 0 else fmt.duration(seconds)
