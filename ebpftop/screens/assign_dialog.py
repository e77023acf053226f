# SPDX-License-Identifier: Apache-2.0
"""The dialog that puts an address into a traffic class, or takes it out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import UsageError
from ebpftop.model import ClassKey, Prefix, Snapshot
from ebpftop.screens.class_dialog import field_row
from ebpftop.screens.class_history import ClassHistory
from ebpftop.screens.dialog import Dialog, target_facts
from ebpftop.screens.foresight import NOT_COUNTED, foresight, traffic_of, unknown
from ebpftop.screens.pane import Picture
from ebpftop.screens.source_history import SourceHistory
from ebpftop.widgets.cells import Cell


class AssignDialog(Dialog):
    """Puts an address into a class, or takes it out.

    Args:
        controls: What does it.
        picture: What is known when it opens.
        target: The address; None for one that is typed.
        into: The class that is offered.
    """

    def __init__(
        self,
        controls: Controls,
        picture: Picture,
        target: Prefix | None = None,
        *,
        into: ClassKey | None = None,
    ) -> None:
        super().__init__("Assign" if target is None else f"Assign {target}", "assign")
        self._controls = controls
        self._snapshot = picture.snapshot
        self._class_history: ClassHistory = picture.classes
        self._source_history: SourceHistory = picture.sources
        self.target = target
        offered = into or next(iter(self._snapshot.classes.keys), None)
        self._address = Input(compact=True, id="address", placeholder="192.0.2.1 or 192.0.2.0/24")
        name = fmt.printable(offered.name) if offered else ""
        self._into = Input(name, compact=True, id="class-name")

    def fields(self) -> Sequence[Widget]:
        """Return the address, where it is typed, and the class."""
        rows = [] if self.target is not None else [field_row("address", self._address)]
        return (*rows, field_row("class", self._into, "nothing takes it out of its class"))

    def on_mount(self) -> None:
        """Start where something has to be typed."""
        (self._address if self.target is None else self._into).focus()
        self._draw()

    def show(self, snapshot: Snapshot) -> None:
        """Draw what the address sends, the class it is in, and what it would meet in another."""
        if snapshot.sequence != self._snapshot.sequence:
            self._class_history = self._class_history.extended(snapshot)
            self._source_history = self._source_history.extended(snapshot)
        self._snapshot = snapshot
        self._draw()

    def _draw(self) -> None:
        rows, held = [], self._snapshot.classes
        prefix = self._prefix_or_none()
        if prefix is not None:
            rows = target_facts(self._snapshot, prefix)
            inside = [
                f"{key} by {member}"
                for key, members in zip(held.keys, held.members, strict=True)
                for member in members
                if member.contains(prefix)
            ]
            rows.append([Cell("is in", "muted"), Cell(", ".join(inside) or "no class")])
        names = ", ".join(dict.fromkeys(key.name for key in held.keys))
        rows.append([Cell("classes", "muted"), Cell(names or "none yet")])
        self.facts.show([*rows, *self._foresight(prefix)])

    def _foresight(self, prefix: Prefix | None) -> list[list[Cell]]:
        """Say what the address's last minute would have met in the class, beside what it has."""
        held, name = self._snapshot.classes, self._into.value.strip()
        row = next((row for row, key in enumerate(held.keys) if key.name == name), None)
        if prefix is None or row is None:
            return unknown("nothing holds it then" if not name else fmt.UNKNOWN)
        key, action = held.keys[row], held.action[row]
        samples = traffic_of(self._source_history, prefix, key.direction)
        if samples is None:
            return unknown(NOT_COUNTED)
        beside = ""
        if not any(member.contains(prefix) for member in held.members[row]):
            samples, own = samples.and_of(self._class_history.of(key)), samples
            if own.offered_bytes.sum() < samples.offered_bytes.sum():
                beside = f" with what {key} has"
        rate_bps, burst_bytes = int(held.rate_bps[row]), int(held.burst_bytes[row])
        return foresight(samples, rate_bps, burst_bytes, action, beside=beside)

    def _prefix_or_none(self) -> Prefix | None:
        try:
            return self._prefix()
        except UsageError:
            return None

    def _prefix(self) -> Prefix:
        return self.target if self.target is not None else fmt.parse_address(self._address.value)

    def action_confirm(self) -> None:
        """Check the address and put it where it belongs."""
        try:
            prefix = self._prefix()
        except UsageError as error:
            self.complain(str(error), self._address)
            return
        name = self._into.value.strip()
        if name:
            act = partial(self._controls.shaping.assign, prefix, name)
            self.attempt(act, f"Assign {prefix} to {name}")
        else:
            act = partial(self._controls.shaping.unassign, prefix)
            self.attempt(act, f"Take {prefix} out of its class")

    @on(Input.Changed)
    def _changed(self) -> None:
        self._draw()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()
