# SPDX-License-Identifier: Apache-2.0
"""The dialog that takes one act back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Label

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import ChangedSinceError, EbpftopError, NotPermittedError
from ebpftop.journal import words
from ebpftop.model import Act, Snapshot
from ebpftop.screens.dialog import Dialog
from ebpftop.widgets.cells import Cell

FORCE, OVERRIDE = "force", "override"
"""What must be typed before what came since, or one's own access, is passed over."""


class UndoDialog(Dialog):
    """Says what an act changed and what holds without it, and takes it back.

    Args:
        controls: What takes it back.
        snapshot: What is known when it opens.
        act: The act; it stays this one, whatever is done meanwhile.
    """

    def __init__(self, controls: Controls, snapshot: Snapshot, act: Act) -> None:
        super().__init__(f"Undo {act.what} {act.target}".strip(), "undo")
        self._controls = controls
        self.target = act
        self._needed = ""
        self._typed = Input(compact=True, id="force")
        self._row = Horizontal(Label("type", classes="label", markup=False), self._typed)
        self._row.add_class("field", "override")
        self._row.display = False
        self.show(snapshot)

    def fields(self) -> Sequence[Widget]:
        """Return where a word is typed once one is needed."""
        return (self._row,)

    def show(self, snapshot: Snapshot) -> None:
        """Draw what the act was, and what taking it back does."""
        act, now_s = self.target, snapshot.clock.wall_s
        ago = fmt.duration(max(0.0, now_s - act.time_s))
        who = f"{act.user}, {ago} ago, from {act.terminal or 'no terminal'}"
        rows = [
            [Cell("was done", "muted"), Cell(words.change(act))],
            [Cell("by", "muted"), Cell(who)],
            [Cell("then", "muted"), Cell(words.going_back(act, now_s), "strong")],
        ]
        latest = next((each for each in snapshot.acts or () if each.id == act.id), act)
        if latest.undone:
            rows.append([Cell("careful", "alarm"), Cell("it was undone meanwhile", "bad")])
        self.facts.show(rows)

    def action_confirm(self) -> None:
        """Take it back."""
        typed = self._typed.value.strip().lower()
        if self._needed and typed != self._needed:
            self.complain(f"type {self._needed} to take it back all the same", self._typed)
            return
        act = partial(
            self._controls.undo,
            self.target.id,
            force=bool(self._needed),
            override=self._needed == OVERRIDE,
        )
        self.attempt(act, f"Undo {self.target.what} {self.target.target}".strip())

    def attempted(self, error: EbpftopError | None) -> None:
        """Ask for the word that a refusal needs."""
        super().attempted(error)
        if isinstance(error, NotPermittedError):
            self._needed = FORCE if isinstance(error, ChangedSinceError) else OVERRIDE
            self._typed.value = ""
            self._row.display = True
            asked = f"{error.problem}: type {self._needed} to do it all the same"
            self.complain(asked, self._typed)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()
