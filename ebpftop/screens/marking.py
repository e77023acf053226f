# SPDX-License-Identifier: Apache-2.0
"""A list whose rows can be marked, and acted on together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ebpftop import actions
from ebpftop.model import Prefix
from ebpftop.screens.list_pane import ListPane
from ebpftop.screens.marked_dialogs import MARKED_DIALOGS, MarkedDialog, OnMarked
from ebpftop.widgets.cells import Cell
from ebpftop.widgets.table import Table


class MarkingPane(ListPane):
    """A list of addresses; marks are of addresses, and stay on them wherever their rows go."""

    @property
    def marked(self) -> Sequence[Prefix]:
        """What is marked in the table that acts are about."""
        return self.active_table.marked

    def marks(self) -> Sequence[Cell]:
        """Say how many are marked."""
        return [Cell(f"* {len(self.marked):,} marked", "badge")] if self.marked else []

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return the acts on marks."""
        return {**super().acts(), "mark": self._mark, "clear-marks": self._unmark}

    def can(self, action_id: str) -> bool:
        """Whether one of its acts makes sense now."""
        if action_id == "mark":
            return self.target is not None
        if action_id == "clear-marks":
            return bool(self.marked)
        return super().can(action_id)

    def marked_acts(self) -> Mapping[str, Callable[[], None]]:
        """Return the acts on all that is marked; none where nothing is."""
        if not self.marked:
            return {}
        return {
            name: partial(self._open_marked, dialog)
            for name, dialog in MARKED_DIALOGS.items()
            if self.NAME in actions.by_id(name).panes
        }

    def acts_on_marked(self, action_id: str) -> bool:
        """Whether an action is on what is marked, and not on the selected row."""
        return bool(self.marked) and action_id in MARKED_DIALOGS

    def can_on_marked(self, action_id: str) -> bool:
        """Whether an action on what is marked may make sense."""
        if self.picture is None:
            return False
        snapshot = self.picture.snapshot
        held = {
            "unblock": len(snapshot.blocks),
            "disallow": len(snapshot.allowed),
            "assign": len(snapshot.classes),
        }
        return held.get(action_id, 1) > 0

    def _open_marked(self, dialog: OnMarked) -> None:
        """Open a dialog that is locked to what is marked now."""
        if self.controls is None or self.picture is None:
            return
        opened = dialog(self.controls, self.picture.snapshot, self.marked)
        if isinstance(opened, MarkedDialog):
            opened.when_done = partial(self._unmark, self.active_table)
            self.app.push_screen(opened)
        else:
            self.app.notify(opened, markup=False)

    def _mark(self) -> None:
        self.active_table.mark()
        self.post_message(self.Changed())

    def _unmark(self, table: Table | None = None) -> None:
        (table or self.active_table).unmark()
        self.post_message(self.Changed())
