# SPDX-License-Identifier: Apache-2.0
"""The line of a dialog that lets its act take itself back unless it is confirmed."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Label

from ebpftop import format as fmt
from ebpftop.actions import key
from ebpftop.control import Controls
from ebpftop.errors import UsageError


class RevertField(Horizontal):
    """A time within which the act must be confirmed; empty where it stays by itself."""

    def __init__(self) -> None:
        super().__init__(classes="field")
        self.entry = Input(compact=True, id="revert")

    def compose(self) -> ComposeResult:
        """Lay out the line."""
        yield Label("revert in", classes="label", markup=False)
        yield self.entry
        hint = f"60s: taken back then, unless {key('confirm')} confirms"
        yield Label(hint, classes="hint", markup=False)

    def seconds(self) -> float | None:
        """Return what was typed; None for nothing.

        Raises:
            UsageError: It is no time, or one without end.
        """
        if not self.entry.value.strip():
            return None
        seconds = fmt.parse_duration(self.entry.value)
        if not seconds:
            raise UsageError("it reverts after a time that ends", "write 30s or 2m, or nothing")
        return seconds

    def guarding(self, controls: Controls) -> Controls:
        """Return the acts as they must be done.

        Raises:
            UsageError: As of `seconds`.
        """
        seconds = self.seconds()
        return controls if seconds is None else controls.reverting(seconds)

    def said(self) -> str:
        """Return what the operator is told besides, once it is done."""
        return (
            f", reverts in {self.entry.value.strip()}: {key('confirm')} confirms"
            if self.seconds()
            else ""
        )
