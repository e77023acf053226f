# SPDX-License-Identifier: Apache-2.0
"""Dialogs about traffic classes: change one, delete one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Label

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import UsageError
from ebpftop.model import ClassKey, Snapshot, default_burst
from ebpftop.screens.class_history import ClassHistory
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.figures import rate
from ebpftop.screens.foresight import foresight, unknown
from ebpftop.screens.pane import Picture
from ebpftop.screens.revert_field import RevertField
from ebpftop.widgets.cells import Cell


def field_row(label: str, field: Input, hint: str = "") -> Horizontal:
    """Return a line of a dialog in which something is filled in."""
    words = [Label(label, classes="label", markup=False), field]
    if hint:
        words.append(Label(hint, classes="hint", markup=False))
    return Horizontal(*words, classes="field")


def size_text(size_bytes: int) -> str:
    """Return the SIZE that `parse_size` reads as exactly `size_bytes`."""
    for unit, shift in (("gb", 30), ("mb", 20), ("kb", 10)):
        if size_bytes and size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{unit}"
    return f"{size_bytes}b"


class ClassDialog(Dialog):
    """Changes the rate and the burst of the class that was selected when it opened.

    Args:
        controls: What changes it.
        picture: What is known when it opens.
        key: The class.
        field: `rate` or `burst`: where the cursor starts.
    """

    def __init__(self, controls: Controls, picture: Picture, key: ClassKey, field: str) -> None:
        super().__init__(f"Class {key}", "put in force")
        self._controls = controls
        self._history: ClassHistory = picture.classes
        self._snapshot = picture.snapshot
        self.target = key
        self._first = field
        held, row = self._snapshot.classes, self._snapshot.classes.row_of(key)
        before = held.wanted[row] if row is not None else None
        self._before = before
        self._rate = Input(
            fmt.rate_text(before.rate_bps) if before else "", compact=True, id="rate"
        )
        self._burst = Input(
            size_text(before.burst_bytes) if before else "", compact=True, id="burst"
        )
        self._revert = RevertField()

    def fields(self) -> Sequence[Widget]:
        """Return the rate, the burst, and the time to confirm them within."""
        return (
            field_row("rate", self._rate, "8kbit, 50mbit, 1gbit"),
            field_row("burst", self._burst, "64kb, 1mb; 0 for what suits the rate"),
            self._revert,
        )

    def on_mount(self) -> None:
        """Start in the field that was asked for."""
        (self._burst if self._first == "burst" else self._rate).focus()
        self._draw()

    def show(self, snapshot: Snapshot) -> None:
        """Draw what the class carries now, and what the fields would have done to it."""
        if snapshot.sequence != self._snapshot.sequence:
            self._history = self._history.extended(snapshot)
        self._snapshot = snapshot
        self._draw()

    def _draw(self) -> None:
        held = self._snapshot.classes
        row = held.row_of(self.target)
        if row is None:
            self.facts.show([[Cell("now", "muted"), Cell("there is no such class", "warn")]])
            return
        now = f"{fmt.bits_rate_unit(held.bps[row])}   {rate(held.dropped_pps[row])} drops/s"
        in_force = f"{fmt.rate_text(int(held.rate_bps[row]))}   "
        in_force += f"burst {fmt.size(int(held.burst_bytes[row]))}   by {held.action[row]}"
        rows = [
            [Cell("in force", "muted"), Cell(in_force)],
            [Cell("carries", "muted"), Cell(now, "strong")],
        ]
        self.facts.show([*rows, *self._foresight(held.action[row])])

    def _foresight(self, action: str) -> list[list[Cell]]:
        """Say what the last minute's traffic would have met under the values in the fields."""
        try:
            rate_bps, burst_bytes = self._values()
        except UsageError:
            rate_bps = burst_bytes = 0
        if not rate_bps:
            return unknown(fmt.UNKNOWN)
        burst_bytes = burst_bytes or default_burst(rate_bps, action)
        return foresight(self._history.of(self.target), rate_bps, burst_bytes, action)

    def _values(self) -> tuple[int, int]:
        return fmt.parse_rate(self._rate.value), fmt.parse_size(self._burst.value)

    def action_confirm(self) -> None:
        """Check the fields and put what has changed in force."""
        try:
            field = self._rate
            rate_bps = fmt.parse_rate(self._rate.value)
            field = self._burst
            burst_bytes = fmt.parse_size(self._burst.value)
            field = self._revert.entry
            controls = self._revert.guarding(self._controls)
        except UsageError as error:
            self.complain(str(error), field)
            return
        changes: dict[str, Any] = {}
        if self._before is None or rate_bps != self._before.rate_bps:
            changes["rate_bps"] = rate_bps
        if self._before is None or burst_bytes != self._before.burst_bytes:
            changes["burst_bytes"] = burst_bytes
        if not changes:
            self.complain("neither is changed", self._rate)
            return
        act = partial(controls.shaping.set_class, self.target, changes)
        self.attempt(act, f"Set class {self.target}{self._revert.said()}")

    @on(Input.Changed)
    def _changed(self) -> None:
        self._draw()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()


class DeleteClassDialog(Dialog):
    """Asks for a yes before a class goes.

    Args:
        controls: What deletes it.
        snapshot: What is known when it opens.
        key: The class.
    """

    def __init__(self, controls: Controls, snapshot: Snapshot, key: ClassKey) -> None:
        super().__init__(f"Delete class {key}", "delete")
        self._controls = controls
        self.target = key
        self.show(snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw what it carries, and what will come of it."""
        held = snapshot.classes
        row = held.row_of(self.target)
        now = "there is no such class" if row is None else fmt.bits_rate_unit(held.bps[row])
        members = 0 if row is None else len(held.members[row])
        self.facts.show(
            [
                [Cell("carries", "muted"), Cell(now, "strong")],
                [Cell("then", "muted"), Cell(f"its {members} addresses are held to no rate")],
            ]
        )

    def action_confirm(self) -> None:
        """Delete it."""
        act = partial(self._controls.shaping.delete_class, self.target)
        self.attempt(act, f"Delete class {self.target}")
