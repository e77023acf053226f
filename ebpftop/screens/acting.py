# SPDX-License-Identifier: Apache-2.0
"""The operator's acts, whatever the pane: each runs in a thread, and how it went is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from textual.app import App

from ebpftop import format as fmt
from ebpftop.actions import key
from ebpftop.control import Controls
from ebpftop.errors import EbpftopError
from ebpftop.model import Act
from ebpftop.model.acts import last_to_undo
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.figures import number_of
from ebpftop.screens.limits_dialog import LimitsDialog
from ebpftop.screens.messages import Attempted
from ebpftop.screens.picture import Picture
from ebpftop.screens.undo_dialog import UndoDialog
from ebpftop.widgets.cells import Cell

_MAX_WORDS = 1000


class Acting:
    """What changes the kernel's state from everywhere, and what is under way of it.

    Args:
        app: The dashboard.
        controls: What changes the kernel's state; None for a dashboard that may only watch.
    """

    def __init__(self, app: App[None], controls: Controls | None) -> None:
        self._app = app
        self._controls = controls
        self.picture: Picture | None = None
        """The latest of everything."""

    def acts(self) -> Mapping[str, Callable[[], object]]:
        """Return what is done for each of its actions, by its id."""
        return {"limits": self._open_limits, "undo": self._open_undo, "confirm": self._confirm}

    def can(self, action_id: str) -> bool:
        """Whether an action makes sense now."""
        if action_id == "confirm":
            return bool(self._waiting())
        return action_id != "undo" or self._last() is not None

    def _last(self) -> Act | None:
        acts = self.picture.snapshot.acts if self.picture else None
        return last_to_undo(list(acts or ()))

    def _waiting(self) -> Sequence[Act]:
        """Return the acts that will take themselves back."""
        if self.picture is None:
            return ()
        now_s = self.picture.snapshot.clock.wall_s
        acts = self.picture.snapshot.acts or ()
        return [act for act in acts if act.reverts_at_s and act.reverts_at_s > now_s]

    @property
    def has_control(self) -> bool:
        """Whether anything can be changed at all."""
        return self._controls is not None

    def countdown(self) -> Cell | None:
        """Say when the first act takes itself back; None where none does."""
        waiting = self._waiting()
        if self.picture is None or not waiting:
            return None
        first_s = min(act.reverts_at_s or 0.0 for act in waiting)
        left = fmt.duration(max(1.0, first_s - self.picture.snapshot.clock.wall_s))
        confirms = f": {key('confirm')} confirms" if self.has_control else ""
        return Cell(f"REVERTS IN {left}{confirms}", "alarm")

    def attempt(self, attempt: Dialog.Attempt) -> None:
        """Run an act in a thread: it may block, and several may be under way."""
        self._app.run_worker(
            partial(self._run, attempt),
            thread=True,
            group="control",
            exclusive=False,
            exit_on_error=False,
        )

    def _run(self, attempt: Dialog.Attempt) -> None:
        """Run an act; runs in a worker's thread."""
        failure: EbpftopError | None = None
        try:
            attempt.act()
        except EbpftopError as error:
            failure = error
        except Exception as error:
            failure = EbpftopError(f"it failed: {error!r}", "this is a fault of ebpftop")
        self._app.post_message(Attempted(attempt, failure))

    def tell(self, message: Attempted) -> None:
        """Say how an act went, in the dialog that asked for it while that is open."""
        dialog, said = message.attempt.dialog, fmt.printable(message.attempt.said)
        waits = dialog is not None and dialog in self._app.screen_stack
        if waits and dialog is not None:
            dialog.attempted(message.error)
        if message.attempt.told is not None:
            message.attempt.told(message.error)
        if message.error is None:
            self._app.notify(f"{said}: accepted", markup=False)
        elif not waits:
            words = f"{said}: {fmt.printable(str(message.error), _MAX_WORDS)}"
            self._app.notify(words, severity="error", markup=False)

    def _open_limits(self) -> None:
        if self._controls is not None and self.picture is not None:
            self._app.push_screen(LimitsDialog(self._controls, self.picture))

    def _open_undo(self) -> None:
        last = self._last()
        if self._controls is not None and self.picture is not None and last is not None:
            self._app.push_screen(UndoDialog(self._controls, self.picture.snapshot, last))

    def _confirm(self) -> None:
        if self._controls is not None:
            said = f"Confirm {number_of(len(self._waiting()), 'act')}"
            self.attempt(Dialog.Attempt(None, self._controls.confirm, said))
