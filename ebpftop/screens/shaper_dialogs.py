# SPDX-License-Identifier: Apache-2.0
"""Dialogs about traffic classes: change one, make one, delete one, say who is in it."""

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
from ebpftop.model import DIRECTIONS, SHAPINGS, ClassKey, Prefix, Snapshot
from ebpftop.screens.class_history import ClassHistory, WhatIf, what_if
from ebpftop.screens.dialog import Dialog, target_facts
from ebpftop.screens.figures import rate
from ebpftop.screens.pane import Picture
from ebpftop.screens.revert_field import RevertField
from ebpftop.widgets.cells import Cell, Tone


def _row(label: str, field: Input, hint: str = "") -> Horizontal:
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


def verdict(found: WhatIf, *, queued: bool) -> tuple[str, str]:
    """Say what the last minute's traffic was, and what it would have met."""
    if not found.seconds:
        return "nothing has been seen of it yet", ""
    span = f"its last {found.seconds:.0f} s"
    if not found.bytes:
        return f"nothing came in {span}", ""
    words = f"{fmt.percent(found.at_once)} goes at once"
    held = max(0.0, 1 - found.at_once - found.dropped)
    if queued and held > 0:
        words += f", {fmt.percent(held)} waits up to {fmt.duration(found.longest_wait_s)}"
    words += f", {fmt.percent(found.dropped)} dropped"
    return f"{span} brought {fmt.size(found.bytes)}, of which", words


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
            _row("rate", self._rate, "8kbit, 50mbit, 1gbit"),
            _row("burst", self._burst, "64kb, 1mb; 0 for what suits the rate"),
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
        self.facts.show([*rows, *self._foresight(held.action[row], int(held.burst_bytes[row]))])

    def _foresight(self, action: str, burst_in_force: int) -> list[list[Cell]]:
        """Say what the last minute's traffic would have met under the values in the fields."""
        try:
            rate_bps, burst_bytes = self._values()
        except UsageError:
            rate_bps = burst_bytes = 0
        if not rate_bps:
            return [[Cell("foresight", "muted"), Cell(fmt.UNKNOWN, "muted")], [Cell(""), Cell("")]]
        queued = action != "police"
        found = what_if(
            self._history.of(self.target), rate_bps, burst_bytes or burst_in_force, queued=queued
        )
        tone: Tone = "bad" if found.dropped > 0 else "good"
        brought, meets = verdict(found, queued=queued)
        return [[Cell("foresight", "muted"), Cell(brought)], [Cell(""), Cell(meets, tone)]]

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


class NewClassDialog(Dialog):
    """Makes a class.

    Args:
        controls: What makes it.
        snapshot: What is known when it opens.
    """

    def __init__(self, controls: Controls, snapshot: Snapshot) -> None:
        super().__init__("New class", "make it")
        self._controls = controls
        texts = {"name": "", "way": "egress", "rate": "", "burst": "0", "action": "auto",
                 "parent": ""}  # fmt: skip
        self._inputs = {
            name: Input(text, compact=True, id=f"class-{name}") for name, text in texts.items()
        }
        self.show(snapshot)

    def fields(self) -> Sequence[Widget]:
        """Return a line for each value."""
        hints = {
            "way": "egress or ingress",
            "rate": "8kbit, 50mbit, 1gbit",
            "burst": "64kb, 1mb; 0 for what suits the rate",
            "action": ", ".join(SHAPINGS),
            "parent": "a class whose rate is a ceiling",
        }
        return [_row(name, field, hints.get(name, "")) for name, field in self._inputs.items()]

    def on_mount(self) -> None:
        """Start with the name."""
        self._inputs["name"].focus()

    def show(self, snapshot: Snapshot) -> None:
        """Draw the classes there are."""
        names = ", ".join(str(key) for key in snapshot.classes.keys) or "none yet"
        self.facts.show([[Cell("classes", "muted"), Cell(names)]])

    def action_confirm(self) -> None:
        """Check the fields and make the class."""
        values = {name: field.value.strip() for name, field in self._inputs.items()}
        field = self._inputs["way"]
        try:
            if values["way"] not in DIRECTIONS:
                raise UsageError("the way is egress or ingress")
            field = self._inputs["rate"]
            changes: dict[str, Any] = {"rate_bps": fmt.parse_rate(values["rate"])}
            field = self._inputs["burst"]
            changes["burst_bytes"] = fmt.parse_size(values["burst"])
        except UsageError as error:
            self.complain(str(error), field)
            return
        changes |= {"action": values["action"], "parent": values["parent"]}
        key = ClassKey(values["name"], values["way"])
        self.attempt(partial(self._controls.shaping.set_class, key, changes), f"Make class {key}")

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


class AssignDialog(Dialog):
    """Puts an address into a class, or takes it out.

    Args:
        controls: What does it.
        snapshot: What is known when it opens.
        target: The address; None for one that is typed.
        into: The class that is offered.
    """

    def __init__(
        self,
        controls: Controls,
        snapshot: Snapshot,
        target: Prefix | None = None,
        *,
        into: ClassKey | None = None,
    ) -> None:
        super().__init__("Assign" if target is None else f"Assign {target}", "assign")
        self._controls = controls
        self._snapshot = snapshot
        self.target = target
        offered = into or next(iter(snapshot.classes.keys), None)
        self._address = Input(compact=True, id="address", placeholder="192.0.2.1 or 192.0.2.0/24")
        self._into = Input(offered.name if offered else "", compact=True, id="class-name")

    def fields(self) -> Sequence[Widget]:
        """Return the address, where it is typed, and the class."""
        rows = [] if self.target is not None else [_row("address", self._address)]
        return (*rows, _row("class", self._into, "nothing takes it out of its class"))

    def on_mount(self) -> None:
        """Start where something has to be typed."""
        (self._address if self.target is None else self._into).focus()
        self.show(self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw what the address sends, and the class it is in."""
        self._snapshot = snapshot
        rows = []
        if (prefix := self._prefix_or_none()) is not None:
            rows = target_facts(snapshot, prefix)
            held = snapshot.classes
            inside = [
                f"{key} by {member}"
                for key, members in zip(held.keys, held.members, strict=True)
                for member in members
                if member.contains(prefix)
            ]
            rows.append([Cell("is in", "muted"), Cell(", ".join(inside) or "no class")])
        names = ", ".join(dict.fromkeys(key.name for key in snapshot.classes.keys))
        self.facts.show([*rows, [Cell("classes", "muted"), Cell(names or "none yet")]])

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

    @on(Input.Changed, "#address")
    def _address_changed(self) -> None:
        self.show(self._snapshot)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()
