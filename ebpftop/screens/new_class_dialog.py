# SPDX-License-Identifier: Apache-2.0
"""The dialog that makes a traffic class, and says what would have come of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import UsageError
from ebpftop.model import DIRECTIONS, SHAPINGS, Classes, ClassKey, Prefix, Snapshot, default_burst
from ebpftop.screens.class_dialog import field_row
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.foresight import NOT_COUNTED, foresight, traffic_of, unknown
from ebpftop.screens.pane import Picture
from ebpftop.screens.source_history import SourceHistory
from ebpftop.widgets.cells import Cell


def likely_action(wanted: str, direction: str, classes: Classes) -> str:
    """Return what a class will be held by, as far as those that are there tell."""
    if wanted in SHAPINGS[1:]:
        return wanted
    if direction == "ingress":
        return "police"
    others = {action for key, action in zip(classes.keys, classes.action, strict=True)
              if key.direction == direction}  # fmt: skip
    return others.pop() if len(others) == 1 else "htb"


class NewClassDialog(Dialog):
    """Makes a class, and puts an address into it.

    Args:
        controls: What makes it.
        picture: What is known when it opens.
    """

    def __init__(self, controls: Controls, picture: Picture) -> None:
        super().__init__("New class", "make it")
        self._controls = controls
        self._snapshot = picture.snapshot
        self._history: SourceHistory = picture.sources
        texts = {"name": "", "way": "egress", "rate": "", "burst": "0", "action": "auto",
                 "parent": "", "address": ""}  # fmt: skip
        self._inputs = {
            name: Input(text, compact=True, id=f"class-{name}") for name, text in texts.items()
        }
        self._draw()

    def fields(self) -> Sequence[Widget]:
        """Return a line for each value."""
        hints = {
            "way": "egress or ingress",
            "rate": "8kbit, 50mbit, 1gbit",
            "burst": "64kb, 1mb; 0 for what suits the rate",
            "action": ", ".join(SHAPINGS),
            "parent": "a class whose rate is a ceiling",
            "address": "who is in it: 192.0.2.1, 192.0.2.0/24; c adds more",
        }
        return [field_row(name, field, hints.get(name, "")) for name, field in self._inputs.items()]

    def on_mount(self) -> None:
        """Start with the name."""
        self._inputs["name"].focus()

    def show(self, snapshot: Snapshot) -> None:
        """Draw the classes there are, and what the fields would have done to the address."""
        if snapshot.sequence != self._snapshot.sequence:
            self._history = self._history.extended(snapshot)
        self._snapshot = snapshot
        self._draw()

    def _draw(self) -> None:
        names = ", ".join(str(key) for key in self._snapshot.classes.keys) or "none yet"
        self.facts.show([[Cell("classes", "muted"), Cell(names)], *self._foresight()])

    def _foresight(self) -> list[list[Cell]]:
        values = self._texts()
        try:
            rate_bps, burst_bytes = fmt.parse_rate(values["rate"]), fmt.parse_size(values["burst"])
            members = self._members()
        except UsageError:
            return unknown(fmt.UNKNOWN)
        if not members:
            return unknown("nobody is in it yet: say an address")
        if values["way"] not in DIRECTIONS or not rate_bps:
            return unknown(fmt.UNKNOWN)
        action = likely_action(values["action"], values["way"], self._snapshot.classes)
        samples = traffic_of(self._history, members[0], values["way"])
        if samples is None:
            return unknown(NOT_COUNTED)
        return foresight(samples, rate_bps, burst_bytes or default_burst(rate_bps, action), action)

    def _texts(self) -> dict[str, str]:
        return {name: field.value.strip() for name, field in self._inputs.items()}

    def _members(self) -> Sequence[Prefix]:
        text = self._inputs["address"].value.strip()
        return (fmt.parse_address(text),) if text else ()

    def action_confirm(self) -> None:
        """Check the fields and make the class."""
        values = self._texts()
        field = self._inputs["way"]
        try:
            if values["way"] not in DIRECTIONS:
                raise UsageError("the way is egress or ingress")
            field = self._inputs["rate"]
            changes: dict[str, Any] = {"rate_bps": fmt.parse_rate(values["rate"])}
            field = self._inputs["burst"]
            changes["burst_bytes"] = fmt.parse_size(values["burst"])
            field = self._inputs["address"]
            members = self._members()
        except UsageError as error:
            self.complain(str(error), field)
            return
        changes |= {"action": values["action"], "parent": values["parent"]}
        key = ClassKey(values["name"], values["way"])
        act = partial(self._controls.shaping.set_class, key, changes, members)
        self.attempt(act, f"Make class {key}")

    @on(Input.Changed)
    def _changed(self) -> None:
        self._draw()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()
