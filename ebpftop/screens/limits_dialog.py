# SPDX-License-Identifier: Apache-2.0
"""The dialog that changes what one source may send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Label

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import UsageError
from ebpftop.model import Limits, Snapshot
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.figures import limits_cells
from ebpftop.screens.pane import Picture
from ebpftop.screens.revert_field import RevertField
from ebpftop.screens.stopped import foresight_rows
from ebpftop.screens.what_if import if_limited
from ebpftop.widgets.cells import Cell


@dataclass(frozen=True, slots=True)
class _Setting:
    """One field of `Limits` and how it is written."""

    name: str
    label: str
    hint: str
    text: Callable[[Any], str]
    parse: Callable[[str], Any]


def _ending(text: str) -> float:
    """Read a DURATION that ends.

    Raises:
        UsageError: It is no DURATION, or `forever`.
    """
    seconds = fmt.parse_duration(text)
    if seconds is None:
        raise UsageError("forever has no place here", "write 500ms, 1s or 10m")
    return seconds


def _on_off(value: bool) -> str:
    return "on" if value else "off"


def _switch(text: str) -> bool:
    """Read `on` or `off`.

    Raises:
        UsageError: It is neither.
    """
    word = text.strip().lower()
    if word not in ("on", "off"):
        raise UsageError(f"'{fmt.printable(text, 20)}' is neither on nor off")
    return word == "on"


_SETTINGS: Final = (
    _Setting("pps", "pps", "packets a second, 0 is off", str, fmt.parse_count),
    _Setting("bps", "bps", "8kbit, 50mbit, 1gbit; 0 is off", fmt.rate_text, fmt.parse_rate),
    _Setting("syn", "syn", "TCP requests a second, 0 is off", str, fmt.parse_count),
    _Setting("burst_s", "burst", "how far it may run ahead", fmt.duration_text, _ending),
    _Setting("grace_s", "grace", "over a limit before a block", fmt.duration_text, _ending),
    _Setting("block_for_s", "block for", "0 never blocks", fmt.duration_text, _ending),
    _Setting("dry_run", "dry run", "on counts and drops nothing", _on_off, _switch),
)


class LimitsDialog(Dialog):
    """Shows the limits in force, and puts others in force.

    Args:
        controls: What sets them.
        picture: What is known when it opens.
    """

    def __init__(self, controls: Controls, picture: Picture) -> None:
        super().__init__("Limits for every source", "put in force")
        self._controls = controls
        snapshot = self._snapshot = picture.snapshot
        self._history = picture.sources
        self._inputs = {
            setting.name: Input(
                setting.text(getattr(snapshot.limits, setting.name)),
                compact=True,
                id=f"limit-{setting.name}",
            )
            for setting in _SETTINGS
        }
        self._revert = RevertField()
        self.show(snapshot)

    def fields(self) -> Sequence[Widget]:
        """Return a line for each setting."""
        rows = [
            Horizontal(
                Label(setting.label, classes="label", markup=False),
                self._inputs[setting.name],
                Label(setting.hint, classes="hint", markup=False),
                classes="field",
            )
            for setting in _SETTINGS
        ]
        return [*rows, self._revert]

    def show(self, snapshot: Snapshot) -> None:
        """Draw the limits in force now, and what those in the fields would have stopped."""
        if snapshot.sequence != self._snapshot.sequence:
            self._history = self._history.extended(snapshot)
        self._snapshot = snapshot
        cells = limits_cells(snapshot.limits)[1:]
        amounts = "   ".join(cell.text for cell in cells if cell.tone == "strong")
        rest = "   ".join(cell.text for cell in cells if cell.tone != "strong")
        labels = ("in force", "") if amounts else ("in force",)
        words = (amounts, rest) if amounts else (rest,)
        rows = [[Cell(a, "muted"), Cell(b, "strong")] for a, b in zip(labels, words, strict=True)]
        self.facts.show([*rows, *self._foresight()])

    def _foresight(self) -> list[list[Cell]]:
        """Say what the limits in the fields would have stopped in the last minute."""
        try:
            limits = self._limits()
        except UsageError:
            return [[Cell("foresight", "muted"), Cell(fmt.UNKNOWN, "muted")], [Cell(""), Cell("")]]
        snapshot = self._snapshot
        spared = [snapshot.allowed.prefix(row) for row in range(len(snapshot.allowed))]
        spared += [prefix for prefix, _ in snapshot.protected]
        note = "connection requests are not known by source" if limits.syn else ""
        return foresight_rows(if_limited(self._history, limits, spared), note=note)

    def _limits(self) -> Limits:
        values = {s.name: s.parse(self._inputs[s.name].value) for s in _SETTINGS}
        return Limits(**values)

    @on(Input.Changed)
    def _changed(self) -> None:
        self.show(self._snapshot)

    def action_confirm(self) -> None:
        """Check the fields and put them in force."""
        values: dict[str, Any] = {}
        for setting in _SETTINGS:
            field = self._inputs[setting.name]
            try:
                values[setting.name] = setting.parse(field.value)
            except UsageError as error:
                self.complain(f"{setting.label}: {error}", field)
                return
        limits = Limits(**values)
        try:
            controls = self._revert.guarding(self._controls)
        except UsageError as error:
            self.complain(str(error), self._revert.entry)
            return
        self.attempt(partial(controls.set_limits, limits), f"Set the limits{self._revert.said()}")

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()
