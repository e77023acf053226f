# SPDX-License-Identifier: Apache-2.0
"""The dashboard: one thread brings snapshots, the panes draw them, actions change the kernel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic

from textual.app import App, SystemCommand
from textual.binding import BindingsMap
from textual.filter import LineFilter
from textual.notifications import SeverityLevel
from textual.screen import Screen

from ebpftop import actions
from ebpftop.actions import Action
from ebpftop.config import RecordingPolicy
from ebpftop.config.dashboard import DashboardSettings
from ebpftop.control import Controls
from ebpftop.errors import EbpftopError
from ebpftop.format import printable
from ebpftop.model import Event, Snapshot
from ebpftop.screens import chrome, messages
from ebpftop.screens.alerts import kinds
from ebpftop.screens.cost import OwnCost
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.help import HelpScreen
from ebpftop.screens.history import UNITS
from ebpftop.screens.limits_dialog import LimitsDialog
from ebpftop.screens.main import MainScreen
from ebpftop.screens.pane import Pane, Picture
from ebpftop.screens.player import Playback, Player
from ebpftop.screens.recording import Recording
from ebpftop.screens.replay import Replay
from ebpftop.screens.source_screen import SourceScreen
from ebpftop.sources import Sampler, Source
from ebpftop.sources.names import Names
from ebpftop.sources.recording import RecordingSource
from ebpftop.widgets.cells import Cell
from ebpftop.widgets.plain import PlainFilter

_NOTICE_S = 12.0
_MAX_WORDS = 1000
_UNSEEN_S = 5.0
"""Time between pictures on a terminal that somebody has turned away from."""
INTERVALS_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Times between snapshots that a key walks through."""
THEMES = {"dark": "textual-dark", "light": "textual-light", "terminal": "ansi-dark"}
"""Textual's names of the themes that settings name."""


class DashboardApp(App[None]):
    """The dashboard of one instance.

    Args:
        source: Where snapshots come from; the dashboard closes it.
        title: The names of the interfaces.
        interval_s: Seconds between snapshots.
        controls: What changes the kernel's state; None for a dashboard that may only watch.
        read_only_reason: Why it may only watch.
        notices: What the operator should know from the start, in sentences.
        settings: How it looks and is worked.
        recording: Where its own recordings go.

    Raises:
        UsageError: The settings give a key to an action that is none, or to two.
    """

    CSS_PATH = "app.tcss"

    def __init__(
        self,
        source: Source,
        *,
        title: str,
        interval_s: float = 1.0,
        controls: Controls | None = None,
        read_only_reason: str = "",
        notices: Sequence[str] = (),
        settings: DashboardSettings | None = None,
        recording: RecordingPolicy | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or DashboardSettings()
        actions.use_keys(self.settings.keys)
        # `App.bind` takes no priority, and a class attribute is made before settings are read.
        self._bindings = BindingsMap.merge([self._bindings, BindingsMap(actions.bindings())])
        self.theme = THEMES[self.settings.theme]
        self._plain = [PlainFilter()] if self.settings.ascii else []
        self._own_cost, self._cost = OwnCost(), ""
        self._unit = UNITS[0]
        self._looked_at, self._drawn_s = True, 0.0
        self.names: Names | None = None
        """Where names of addresses are looked up; None until somebody wants them."""
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
        self._notes = [printable(note, _MAX_WORDS) for note in (*why, *notices)]
        # Snapshots replace each other in the queue; what happened meanwhile must not get lost.
        self._arrived: deque[tuple[Sequence[Event], int]] = deque()
        self._source = source
        player = None
        if isinstance(source, RecordingSource):
            player = Player(source, self._play, self._lose)
        self.sampler = player or Sampler(source, interval_s, self._deliver, self._lose)
        self.replay = Replay(self, player) if player else None
        """What moves about in the recording; None on an instance."""
        self.recording = Recording(self.sub_title, recording or RecordingPolicy(), self._tell)
        """The recording that is made of what is shown."""
        self.main = MainScreen(self.sub_title, controls)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return what every line goes through on its way to the terminal."""
        return [*super().get_line_filters(), *self._plain]

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
        """Stop the threads and wait for them, off the event loop."""
        await asyncio.to_thread(self.sampler.stop)
        if self.names is not None:
            await asyncio.to_thread(self.names.stop)
        await asyncio.to_thread(self.recording.close)

    def offers(self, action: Action) -> bool:
        """Whether `action` can be done here and now."""
        if action.writes and (self.controls is None or self.lost_error is not None):
            return False
        if not self._fits(action):
            return False
        pane = self.main.pane
        return action.works_in(pane.NAME) and (not action.panes or pane.can(action.id))

    def _fits(self, action: Action) -> bool:
        """Whether `action` is one for a recording or for an instance, whichever this is."""
        return not action.replays if self.replay is None else action.id != "record"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Withhold what is not offered from the keys."""
        if action == "perform":
            return self.offers(actions.by_id(str(parameters[0])))
        return super().check_action(action, parameters)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield what is offered now, for the command palette; over a dialog, only its colours."""
        for action in actions.current():
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
            "record": self.recording.toggle,
            "limits": self._open_limits,
            "names": self._toggle_names,
            "unit": self._change_unit,
            "interval": lambda: self._change_interval(1),
            "interval-back": lambda: self._change_interval(-1),
            "redraw": partial(self.refresh, layout=True),
            "help": self._open_help,
            "quit": self.exit,
            **(self.replay.acts() if self.replay else {}),
        }

    def on_snapshot_ready(self, message: messages.SnapshotReady) -> None:
        """Take in a snapshot, and draw it unless the display is paused."""
        happened: list[Event] = []
        missed = 0
        while self._arrived:
            events, overwritten = self._arrived.popleft()
            happened.extend(events)
            missed += overwritten
        self._take_in(Picture.after(self.picture, message.snapshot, happened, missed))

    def on_played(self, message: messages.Played) -> None:
        """Take in another tick of a recording."""
        assert self.replay is not None
        self.replay.playback = message.playback
        self._take_in(message.picture)

    def on_told(self, message: messages.Told) -> None:
        """Say what ended by itself."""
        severity: SeverityLevel = "warning" if message.bad else "information"
        words = printable(message.words, _MAX_WORDS)
        self.notify(words, severity=severity, timeout=_NOTICE_S, markup=False)
        self._show_chrome()

    def on_app_blur(self) -> None:
        """Draw seldom while nobody looks; everything is still taken in."""
        self._looked_at = False

    def on_app_focus(self) -> None:
        """Draw what was not drawn meanwhile."""
        self._looked_at = True
        if not self.paused:
            self._show_latest()

    def on_source_lost(self, message: messages.SourceLost) -> None:
        """Say that nothing new comes; what was displayed stays."""
        self.lost_error = message.error
        words = f"SOURCE LOST  {printable(str(message.error), _MAX_WORDS)}."
        if self.shown is not None:
            words += f" The figures are from {chrome.wall_time(self.shown.snapshot).text}."
        self.main.show_lost(f"{words} {actions.key('quit')} quits")
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

    def on_attempted(self, message: messages.Attempted) -> None:
        """Say how the act went; its effect shows in the next snapshot, which is asked for."""
        dialog, said = message.attempt.dialog, printable(message.attempt.said)
        waits = dialog is not None and dialog in self.screen_stack
        if waits and dialog is not None:
            dialog.attempted(message.error)
        if message.attempt.told is not None:
            message.attempt.told(message.error)
        if message.error is None:
            self.notify(f"{said}: accepted", markup=False)
            self.sampler.sample_now()
        elif not waits:
            words = f"{said}: {printable(str(message.error), _MAX_WORDS)}"
            self.notify(words, severity="error", markup=False)

    def on_pane_go_to(self, message: Pane.GoTo) -> None:
        """Open another pane on what a pane found there."""
        self.main.open_pane(message.name, self.shown)
        self.main.pane.look_for(message.filter, message.target)
        self._show_chrome()

    def on_pane_changed(self) -> None:
        """Offer what fits what is selected now."""
        self._show_chrome()

    def _deliver(self, snapshot: Snapshot) -> None:
        """Hand a snapshot to the event loop; runs in the sampler's thread."""
        self.recording.put(snapshot)
        self._arrived.append((snapshot.events, snapshot.missed_events))
        self.post_message(messages.SnapshotReady(snapshot))

    def _play(self, picture: Picture, playback: Playback) -> None:
        """Hand a tick of a recording to the event loop; runs in the player's thread."""
        self.post_message(messages.Played(picture, playback))

    def _tell(self, words: str, bad: bool) -> None:
        """Have the operator told; runs in any thread."""
        self.post_message(messages.Told(words, bad))

    def _lose(self, error: EbpftopError) -> None:
        """Tell the event loop that there are no more snapshots; runs in the sampler's thread."""
        self.post_message(messages.SourceLost(error))

    def _attempt(self, attempt: Dialog.Attempt) -> None:
        """Run an act; runs in a worker's thread."""
        failure: EbpftopError | None = None
        try:
            attempt.act()
        except EbpftopError as error:
            failure = error
        except Exception as error:
            failure = EbpftopError(f"it failed: {error!r}", "this is a fault of ebpftop")
        self.post_message(messages.Attempted(attempt, failure))

    def _take_in(self, picture: Picture) -> None:
        """Draw a picture, unless the display is paused or nobody looks."""
        before = kinds(self.picture)
        self.picture = replace(picture, unit=self._unit)
        if self.settings.bell and kinds(picture) - before:
            self.bell()
        if not self._looked_at and monotonic() - self._drawn_s < _UNSEEN_S:
            return
        self._drawn_s = monotonic()
        self._cost = self._own_cost.words(picture.snapshot)
        with self.batch_update():
            for screen in self.screen_stack:
                if isinstance(screen, Dialog):
                    screen.show(picture.snapshot)
                elif isinstance(screen, SourceScreen):
                    screen.show(self.picture)
            if not self.paused:
                self._show_latest()

    def _show_latest(self) -> None:
        if self.picture is not None:
            self.shown = self.picture
            self.main.pane.show(self.picture)
            self._show_chrome()

    def _show_chrome(self) -> None:
        """Draw the header, the tabs and the footer as they must be now."""
        over = [screen.WANTS for screen in self.screen_stack if isinstance(screen, SourceScreen)]
        self._ask_for(self.main.pane.wants.union(*over))
        paused_at = []
        if self.paused and self.shown is not None:
            at = chrome.wall_time(self.shown.snapshot).text
            paused_at = [Cell(f"PAUSED at {at}", "badge")]
        self.main.show_chrome(
            self.shown,
            interval_s=self.sampler.interval_s,
            offered=[self._labelled(action) for action in actions.current() if self.offers(action)],
            badges=list(self._badges()),
            beside_tabs=paused_at,
            cost=self._cost,
            place=self.replay.line() if self.replay else None,
        )

    def _ask_for(self, parts: frozenset[str]) -> None:
        """Let the source read what the pane in sight needs, and no more."""
        if parts != self._source.wants:
            self._source.wants = parts
            self.sampler.sample_now()

    def _badges(self) -> Iterator[Cell]:
        if self.lost_error is not None:
            yield Cell("SOURCE LOST", "alarm")
        if (recording := self.recording.badge()) is not None:
            yield recording
        if self.controls is None and self.replay is None:
            yield Cell("READ-ONLY", "badge")
        if self.paused:
            yield Cell("PAUSED", "badge")
        if self.main.pane.holds_order:
            yield Cell("ORDER HELD", "badge")
        if self.main.pane.filter_text:
            yield Cell(f"FILTER {self.main.pane.filter_text}", "badge")

    def _labelled(self, action: Action) -> Action:
        """Return `action` under the name of what it would do now."""
        if action.id == "pause" and self.paused:
            return replace(action, label="resume")
        if action.id == "record" and self.recording.under_way:
            return replace(action, label="end recording")
        return self.replay.labelled(action) if self.replay else action

    def _toggle_pause(self) -> None:
        self.paused = not self.paused
        if not self.paused:
            self._show_latest()

    def _change_interval(self, steps: int) -> None:
        """Take the next of the usual times between snapshots, or the one before."""
        now_s = self.sampler.interval_s
        at = min(range(len(INTERVALS_S)), key=lambda i: abs(INTERVALS_S[i] - now_s))
        self.sampler.interval_s = INTERVALS_S[(at + steps) % len(INTERVALS_S)]
        self.sampler.sample_now()

    def _change_unit(self) -> None:
        """Show rates in the next unit."""
        self._unit = UNITS[(UNITS.index(self._unit) + 1) % len(UNITS)]
        self.picture = self.picture and replace(self.picture, unit=self._unit)
        self.shown = self.shown and replace(self.shown, unit=self._unit)
        if self.shown is not None:
            self.main.pane.show(self.shown)

    def _toggle_names(self) -> None:
        """Show names beside addresses, or none; what was looked up is kept."""
        self.names = self.names or Names()
        for pane in self.main.panes.values():
            pane.names = None if pane.names else self.names
        self._show_latest()

    def _open_limits(self) -> None:
        if self.controls is not None and self.picture is not None:
            self.push_screen(LimitsDialog(self.controls, self.picture.snapshot))

    def _open_help(self) -> None:
        possible = [
            action
            for action in actions.current()
            if (self.controls is not None or not action.writes) and self._fits(action)
        ]
        panes = sorted(self.main.panes.values(), key=lambda pane: pane is not self.main.pane)
        sections = chrome.help_sections(possible, panes)
        self.push_screen(HelpScreen(sections, self._notes))
