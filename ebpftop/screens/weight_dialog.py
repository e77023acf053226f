# SPDX-License-Identifier: Apache-2.0
"""The dialog in which the weight of a backend is typed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import UsageError
from ebpftop.model import Snapshot
from ebpftop.screens.backend_history import BackendKey
from ebpftop.screens.balancer_rows import row_of, wishes
from ebpftop.screens.dialog import Dialog, field_row
from ebpftop.screens.staging import Staged
from ebpftop.widgets.cells import Cell


def parse_weight(text: str) -> int:
    """Return the weight that was typed.

    Raises:
        UsageError: It is no whole number.
    """
    typed = text.strip()
    if not (typed.isascii() and typed.isdigit()):
        raise UsageError("a weight is a whole number", "0 takes no new flows")
    return int(typed)


class WeightDialog(Dialog):
    """Types the weight of the backend that was selected when it opened.

    Args:
        controls: What writes it.
        snapshot: What is known when it opens.
        key: The backend.
        staged: What else is staged; that stays.
        weight: What is offered.
    """

    def __init__(
        self, controls: Controls, snapshot: Snapshot, key: BackendKey, staged: Staged, weight: int
    ) -> None:
        super().__init__(f"Weight of {key}", "write")
        self._controls = controls
        self._snapshot = snapshot
        self.target = key
        self._staged = staged
        self._weight = Input(str(weight), compact=True, id="weight", restrict=r"[0-9]{0,5}")

    def fields(self) -> Sequence[Widget]:
        """Return the weight."""
        return (field_row("weight", self._weight, "0 takes no new flows"),)

    def on_mount(self) -> None:
        """Start in the field."""
        self._weight.focus()
        self.show(self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw each backend's share, and what the typed weight would make of it."""
        self._snapshot = snapshot
        held = snapshot.backends
        if row_of(snapshot, self.target) is None:
            self.facts.show([[Cell("now", "muted"), Cell("there is no such backend", "warn")]])
            return
        expected = self._expected()
        rows = []
        for at, row in enumerate(held.rows_of(self.target.vip)):
            own = held.wanted[row].service == self.target.backend
            then = f"{fmt.percent(held.share[row]):>5} → {fmt.percent(expected[at]):>5}"
            words = f"{then}   {held.wanted[row].service.endpoint}"
            label = "share" if not at else ""
            rows.append([Cell(label, "muted"), Cell(words, "strong" if own else "plain")])
        self.facts.show(rows)

    def _expected(self) -> list[float]:
        row = row_of(self._snapshot, self.target)
        assert row is not None
        typed = Staged()
        try:
            weight = parse_weight(self._weight.value)
            typed.stage(self.target, self._snapshot.backends.wanted[row], weight=weight)
        except UsageError:
            return [float("nan")] * len(self._snapshot.backends.rows_of(self.target.vip))
        return wishes(self._snapshot, self.target.vip, typed)[1]

    def action_confirm(self) -> None:
        """Check the weight and write it."""
        try:
            weight = parse_weight(self._weight.value)
        except UsageError as error:
            self.complain(str(error), self._weight)
            return
        vip, backend = self.target.vip, self.target.backend
        act = partial(self._controls.balancing.set_backends, vip, {backend: {"weight": weight}})
        self.attempt(act, f"Set the weight of {self.target} to {weight}")

    @on(Input.Changed)
    def _changed(self) -> None:
        self.show(self._snapshot)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()
