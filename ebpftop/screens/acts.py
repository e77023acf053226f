# SPDX-License-Identifier: Apache-2.0
"""The seventh pane: who changed what, and how it went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ebpftop import actions, model
from ebpftop import format as fmt
from ebpftop.journal import words
from ebpftop.model import Act, Snapshot
from ebpftop.model.acts import DONE, UNKNOWN_RESULT
from ebpftop.screens.figures import number_of
from ebpftop.screens.list_pane import ListPane, field_kinds
from ebpftop.screens.undo_dialog import UndoDialog
from ebpftop.widgets.cells import Cell, Column, Tone


def _fields(acts: Sequence[Act]) -> Mapping[str, model.Column]:
    def texts(values: Sequence[str]) -> model.Column:
        column = np.empty(len(values), np.object_)
        column[:] = values
        return model.Column("text", column)

    return {
        "time": model.Column("number", np.array([act.time_s for act in acts], np.float64)),
        "user": texts([act.user for act in acts]),
        "terminal": texts([act.terminal or "" for act in acts]),
        "what": texts([act.what for act in acts]),
        "target": texts([act.target for act in acts]),
        "change": texts([words.change(act) for act in acts]),
        "result": texts(["undone" if act.undone else act.result for act in acts]),
        "id": texts([act.id for act in acts]),
    }


def result_cell(act: Act, now_s: float) -> Cell:
    """Return how an act went, and what became of it."""
    if act.undone:
        return Cell("↶ undone", "muted")
    if act.reverts_at_s is not None and act.reverts_at_s > now_s:
        return Cell(f"⏲ reverts in {fmt.duration(act.reverts_at_s - now_s)}", "warn")
    if act.result == DONE:
        return Cell("✔ done", "good")
    tone: Tone = "warn" if act.result == UNKNOWN_RESULT else "bad"
    return Cell(f"✖ {act.result}", tone)


class ActRows:
    """The acts of a snapshot as rows of a table.

    Args:
        snapshot: Where they are.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._acts = snapshot.acts or ()
        self._now_s = snapshot.clock.wall_s

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each of the pane's columns."""
        act = self._acts[row]
        today = words.when(act).partition(" ")[2]
        return (
            Cell(today if self._now_s - act.time_s < 86_400 else words.when(act)[5:16], "muted"),
            Cell(act.user, "strong"),
            Cell(act.what, "info"),
            Cell(act.target, "strong"),
            Cell(words.change(act)),
            result_cell(act, self._now_s),
            Cell(act.terminal or "none", "muted"),
            Cell(act.id, "muted"),
        )

    def key(self, row: int) -> str:
        """Return the name of the act in `row`."""
        return self._acts[row].id

    def row_of(self, key: str) -> int | None:
        """Return the row of the act called `key`."""
        return next((row for row, act in enumerate(self._acts) if act.id == key), None)


class ActsPane(ListPane):
    """Every act, the latest first; undo them one by one.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    NAME = actions.ACTS
    COLUMNS = (
        Column("time", "time", 11, "left"),
        Column("user", "user", 8, "left", rank=3, grows=True),
        Column("what", "act", 9, "left"),
        Column("target", "target", 13, "left", rank=1, grows=True),
        Column("change", "change", 18, "left", rank=4, stretch=32),
        Column("result", "result", 10, "left", rank=2, stretch=60),
        Column("terminal", "terminal", 10, "left", rank=6),
        Column("id", "id", 8, "left", rank=5),
    )
    SORT = "time"
    IDENTITY = ("id",)
    FILTER_FIELDS = field_kinds(_fields(()))

    def fields(self, snapshot: Snapshot) -> Mapping[str, model.Column]:
        """Return the columns that are sorted and filtered by."""
        return _fields(snapshot.acts or ())

    def rows(self, snapshot: Snapshot) -> ActRows:
        """Return where the table's text comes from."""
        return ActRows(snapshot)

    @property
    def selected_act(self) -> Act | None:
        """The selected act."""
        acts = (self.picture.snapshot.acts if self.picture else None) or ()
        return next((act for act in acts if act.id == self.target), None)

    def about(self, target: str) -> Sequence[Cell]:
        """Say all of the selected act that may not fit into its row."""
        act = self.selected_act
        if act is None:
            return [Cell("not in the log any more", "warn")]
        assert self.picture is not None
        return [Cell(words.change(act)), result_cell(act, self.picture.snapshot.clock.wall_s)]

    def empty_text(self) -> str:
        """Say why there is no row."""
        if self.picture is not None and self.picture.snapshot.acts is None:
            return "The audit log is closed to you: be a member of the group that may read it"
        return "Nobody has changed anything yet"

    def summary(self) -> Sequence[Cell]:
        """Say how many acts there are."""
        acts = (self.picture.snapshot.acts if self.picture else None) or ()
        return [Cell(number_of(len(acts), "act"), "muted")]

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return its acts."""
        return {**super().acts(), "undo-act": self._undo}

    def can(self, action_id: str) -> bool:
        """Whether one of its acts makes sense for the selected row."""
        if action_id == "undo-act":
            act = self.selected_act
            return act is not None and act.can_be_undone
        return super().can(action_id)

    def _undo(self) -> None:
        act = self.selected_act
        if self.controls is not None and self.picture is not None and act is not None:
            self.app.push_screen(UndoDialog(self.controls, self.picture.snapshot, act))
