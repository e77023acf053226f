# SPDX-License-Identifier: Apache-2.0
"""The dashboard: one thread brings snapshots, the panes draw them, actions change the kernel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.message import Message
from textual.screen import Screen

from ebpftop import actions
from ebpftop import format as fmt
from ebpftop.actions import ACTIONS, Action
from ebpftop.control import Controls
from ebpftop.errors import EbpftopError
from ebpftop.format import printable
from ebpftop.model import Act, Event, Snapshot
from ebpftop.model.acts import last_to_undo
from ebpftop.screens import chrome
from ebpftop.screens.class_history import ClassHistory
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.figures import number_of
from ebpftop.screens.help import HelpScreen
from ebpftop.screens.history import History
from ebpftop.screens.limits_dialog import LimitsDialog
from ebpftop.screens.main import MainScreen
from ebpftop.screens.pane import Picture
from ebpftop.screens.source_history import SourceHistory
from ebpftop.screens.undo_dialog import UndoDialog
from ebpftop.sources import Sampler, Source
from ebpftop.widgets.cells import Cell

_KEPT_EVENTS = 200
_NOTICE_S = 12.0
_MAX_WORDS = 1000


class DashboardApp(App[None]):
    """The dashboard of one instance.

    Args:
        source: Where snapshots come from; the dashboard closes it.
        title: The names of the interfaces.
        interval_s: Seconds between snapshots.
        controls: What changes the kernel's state; None for a dashboard that may only watch.
        read_only_reason: Why it may only watch.
        notices: What the operator should know from the start, in sentences.
    """

    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = list(actions.bindings())

    class SnapshotReady(Message, bubble=False):
        """There is a new snapshot; one that waits behind a slow terminal is skipped."""

        def __init__(self, snapshot: Snapshot) -> None:
            super().__init__()
            self.snapshot = snapshot

        def can_replace(self, message: Message) -> bool:
            """Say that of two in a row only the later one matters."""
            return isinstance(message, DashboardApp.SnapshotReady)

    class SourceLost(Message, bubble=False):
        """There will be no more snapshots."""

        def __init__(self, error: EbpftopError) -> None:
            super().__init__()
            self.error = error

    class Attempted(Message, bubble=False):
        """An act is over."""

        def __init__(self, attempt: Dialog.Attempt, error: EbpftopError | None) -> None:
            super().__init__()
            self.attempt = attempt
            self.error = error

    def __init__(
        self,
        source: Source,
        *,
        title: str,
        interval_s: float = 1.0,
        controls: Controls | None = None,
        read_only_reason: str = "",
        notices: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.title = "ebpftop"
        self.sub_title = printable(title)
        self.controls = controls
        self.lost_error: EbpftopError | None = None
        """Why there are no more snapshots; None while there are."""
        self.paused = False
        """Whether the display stands still."""
        self.picture: Picture | None = None
        """The latest of everything, whether or not it is displayed."""
        self.shown: Picture | None = None
        """What is displayed."""
        why = [f"Read-only: {read_only_reason}"] if read_only_reason else []
        self._read_only_reason = printable(read_only_reason)
        self._notes = [printable(note, _MAX_WORDS) for note in (*why, *notices)]
        # Snapshots replace each other in the queue; what happened meanwhile must not get lost.
        self._arrived: deque[tuple[Sequence[Event], int]] = deque()
        self._source = source
        self.sampler = Sampler(source, interval_s, self._deliver, self._lose)
        self.main = MainScreen(self.sub_title, controls)

    def get_default_screen(self) -> Screen[None]:
        """Return the screen with the panes."""
        return self.main

    def on_mount(self) -> None:
        """Start the thread that brings snapshots, and say what must be known."""
        self._show_chrome()
        for note in self._notes:
            self.notify(note, timeout=_NOTICE_S, markup=False)
        self.sampler.start()

    async def on_unmount(self) -> None:
        """Stop the thread and wait for it, off the event loop."""
        await asyncio.to_thread(self.sampler.stop)

    def offers(self, action: Action) -> bool:
        """Whether `action` can be done here and now."""
        if action.writes and (self.controls is None or self.lost_error is not None):
            return False
        pane = self.main.pane
        if not action.panes:
            return self._can(action.id)
        return action.works_in(pane.NAME) and pane.can(action.id)

    def _can(self, action_id: str) -> bool:
        """Whether an action that works everywhere makes sense now."""
        if action_id == "confirm":
            return bool(self._waiting())
        return action_id != "undo" or self._last_act() is not None

    def _last_act(self) -> Act | None:
        acts = self.picture.snapshot.acts if self.picture else None
        return last_to_undo(list(acts or ()))

    def _waiting(self) -> Sequence[Act]:
        """Return the acts that will take themselves back."""
        if self.picture is None:
            return ()
        now_s = self.picture.snapshot.clock.wall_s
        acts = self.picture.snapshot.acts or ()
        return [act for act in acts if act.reverts_at_s and act.reverts_at_s > now_s]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Withhold what is not offered from the keys."""
        if action == "perform":
            return self.offers(actions.by_id(str(parameters[0])))
        return super().check_action(action, parameters)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield what is offered now, for the command palette; over a dialog, only its colours."""
        for action in ACTIONS:
            if screen is self.main and self.offers(action):
                act = partial(self.action_perform, action.id)
                yield SystemCommand(action.label.capitalize(), action.help, act)
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)

    def action_perform(self, action_id: str) -> None:
        """Do what the registry calls `action_id`, if it is offered."""
        action = actions.by_id(action_id)
        if not self.offers(action):
            return
        if action.opens:
            self.main.open_pane(action.opens, self.shown)
        elif action.panes:
            self.main.pane.acts()[action_id]()
        else:
            self.acts()[action_id]()
        self._show_chrome()

    def acts(self) -> Mapping[str, Callable[[], object]]:
        """Return what is done for each action that works everywhere, by its id."""
        return {
            "pause": self._toggle_pause,
            "limits": self._open_limits,
            "undo": self._open_undo,
            "confirm": self._confirm,
            "redraw": partial(self.refresh, layout=True),
            "help": self._open_help,
            "quit": self.exit,
        }

    def on_dashboard_app_snapshot_ready(self, message: SnapshotReady) -> None:
        """Take in a snapshot, and draw it unless the display is paused."""
        self.picture = self._continued(message.snapshot)
        with self.batch_update():
            for screen in self.screen_stack:
                if isinstance(screen, Dialog):
                    screen.show(message.snapshot)
            if not self.paused:
                self._show_latest()

    def on_dashboard_app_source_lost(self, message: SourceLost) -> None:
        """Say that nothing new comes; what was displayed stays."""
        self.lost_error = message.error
        words = f"SOURCE LOST  {printable(str(message.error), _MAX_WORDS)}."
        if self.shown is not None:
            words += f" The figures are from {chrome.wall_time(self.shown.snapshot).text}."
        self.main.show_lost(f"{words} q quits")
        self._show_chrome()

    def on_dialog_attempt(self, attempt: Dialog.Attempt) -> None:
        """Run an act in a thread: it may block, and several may be under way."""
        self.run_worker(
            partial(self._attempt, attempt),
            thread=True,
            group="control",
            exclusive=False,
            exit_on_error=False,
        )

    def on_dashboard_app_attempted(self, message: Attempted) -> None:
        """Say how the act went; its effect shows in the next snapshot, which is asked for."""
        dialog, said = message.attempt.dialog, printable(message.attempt.said)
        waits = dialog is not None and dialog in self.screen_stack
        if waits and dialog is not None:
            dialog.attempted(message.error)
        if message.error is None:
            self.notify(f"{said}: accepted", markup=False)
            self.sampler.sample_now()
        elif not waits:
            words = f"{said}: {printable(str(message.error), _MAX_WORDS)}"
            self.notify(words, severity="error", markup=False)

    def on_pane_changed(self) -> None:
        """Offer what fits what is selected now."""
        self._show_chrome()

    def _deliver(self, snapshot: Snapshot) -> None:
        """Hand a snapshot to the event loop; runs in the sampler's thread."""
        self._arrived.append((snapshot.events, snapshot.missed_events))
        self.post_message(self.SnapshotReady(snapshot))

    def _lose(self, error: EbpftopError) -> None:
        """Tell the event loop that there are no more snapshots; runs in the sampler's thread."""
        self.post_message(self.SourceLost(error))

    def _attempt(self, attempt: Dialog.Attempt) -> None:
        """Run an act; runs in a worker's thread."""
        failure: EbpftopError | None = None
        try:
            attempt.act()
        except EbpftopError as error:
            failure = error
        except Exception as error:
            failure = EbpftopError(f"it failed: {error!r}", "this is a fault of ebpftop")
        self.post_message(self.Attempted(attempt, failure))

    def _continued(self, snapshot: Snapshot) -> Picture:
        """Return the picture that `snapshot` makes of the one before it."""
        before = self.picture
        events = deque(before.events if before else (), _KEPT_EVENTS)
        missed = before.missed_events if before else 0
        while self._arrived:
            happened, overwritten = self._arrived.popleft()
            events.extendleft(happened)
            missed += overwritten
        history = before.history if before else History()
        classes = before.classes if before else ClassHistory()
        sources = before.sources if before else SourceHistory()
        return Picture(
            snapshot, history.extended(snapshot), tuple(events), missed,
            classes=classes.extended(snapshot), sources=sources.extended(snapshot),
        )  # fmt: skip

    def _show_latest(self) -> None:
        if self.picture is not None:
            self.shown = self.picture
            self.main.pane.show(self.picture)
            self._show_chrome()

    def _show_chrome(self) -> None:
        """Draw the header, the tabs and the footer as they must be now."""
        self._ask_for(self.main.pane.wants)
        paused_at = []
        if self.paused and self.shown is not None:
            at = chrome.wall_time(self.shown.snapshot).text
            paused_at = [Cell(f"PAUSED at {at}: p resumes", "badge")]
        self.main.show_chrome(
            self.shown,
            interval_s=self.sampler.interval_s,
            offered=[self._labelled(action) for action in ACTIONS if self.offers(action)],
            badges=list(self._badges()),
            beside_tabs=paused_at,
        )

    def _ask_for(self, parts: frozenset[str]) -> None:
        """Let the source read what the pane in sight needs, and no more."""
        if parts != self._source.wants:
            self._source.wants = parts
            self.sampler.sample_now()

    def _badges(self) -> Iterator[Cell]:
        if self.lost_error is not None:
            yield Cell("SOURCE LOST", "alarm")
        if waiting := self._waiting():
            yield self._countdown(waiting)
        if self.controls is None:
            who = f": {self._read_only_reason}" if self._read_only_reason else ""
            yield Cell(f"READ-ONLY{who}", "badge")
        if self.paused:
            yield Cell("PAUSED", "badge")
        if self.main.pane.filter_text:
            yield Cell(f"FILTER {self.main.pane.filter_text}", "badge")

    def _countdown(self, waiting: Sequence[Act]) -> Cell:
        """Say when the first act takes itself back."""
        assert self.picture is not None
        first_s = min(act.reverts_at_s or 0.0 for act in waiting)
        left = fmt.duration(max(1.0, first_s - self.picture.snapshot.clock.wall_s))
        keys = ": y confirms" if self.controls is not None else ""
        return Cell(f"REVERTS IN {left}{keys}", "alarm")

    def _labelled(self, action: Action) -> Action:
        """Return `action` under the name of what it would do now."""
        if action.id == "pause" and self.paused:
            return replace(action, label="resume")
        return action

    def _toggle_pause(self) -> None:
        self.paused = not self.paused
        if not self.paused:
            self._show_latest()

    def _open_limits(self) -> None:
        if self.controls is not None and self.picture is not None:
            self.push_screen(LimitsDialog(self.controls, self.picture))

    def _open_undo(self) -> None:
        last = self._last_act()
        if self.controls is not None and self.picture is not None and last is not None:
            self.push_screen(UndoDialog(self.controls, self.picture.snapshot, last))

    def _confirm(self) -> None:
        if self.controls is not None:
            said = f"Confirm {number_of(len(self._waiting()), 'act')}"
            self.on_dialog_attempt(Dialog.Attempt(None, self.controls.confirm, said))

    def _open_help(self) -> None:
        possible = [action for action in ACTIONS if self.controls is not None or not action.writes]
        sections = chrome.help_sections(possible, self.main.panes.values())
        self.push_screen(HelpScreen(sections, self._notes))
