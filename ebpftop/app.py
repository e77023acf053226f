# SPDX-License-Identifier: Apache-2.0
"""The dashboard: one thread brings snapshots, the panes draw them, actions change the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from textual.app import SystemCommand
from textual.screen import Screen

from ebpftop import actions
from ebpftop.config import RecordingPolicy
from ebpftop.config.dashboard import DashboardSettings
from ebpftop.control import Controls
from ebpftop.errors import EbpftopError
from ebpftop.format import printable
from ebpftop.model import Snapshot
from ebpftop.screens import chrome, messages
from ebpftop.screens.acting import Acting
from ebpftop.screens.alerts import kinds
from ebpftop.screens.arrivals import Arrivals
from ebpftop.screens.attention import Attention
from ebpftop.screens.cost import OwnCost
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.help import HelpScreen
from ebpftop.screens.main import MainScreen
from ebpftop.screens.offering import Offering
from ebpftop.screens.pane import Pane, Picture
from ebpftop.screens.player import Player
from ebpftop.screens.recording import Recording
from ebpftop.screens.replay import Replay
from ebpftop.screens.settled import SettledApp
from ebpftop.screens.source_screen import SourceScreen
from ebpftop.screens.switches import Switches
from ebpftop.sources import Sampler, Source
from ebpftop.sources.recording import RecordingSource
from ebpftop.widgets.cells import Cell

_NOTICE_S = 12.0
_MAX_WORDS = 1000


class DashboardApp(SettledApp):
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
        super().__init__(settings or DashboardSettings())
        self._own_cost, self._cost = OwnCost(), ""
        self._attention = Attention()
        self.title = "ebpftop"
        self.sub_title, self.controls = printable(title), controls
        self.lost_error: EbpftopError | None = None
        """Why there are no more snapshots; None while there are."""
        self.paused = False
        """Whether the display stands still."""
        self.picture: Picture | None = None
        """The latest of everything, whether or not it is displayed."""
        self.shown: Picture | None = None
        """What is displayed."""
        why = [f"Read-only: {read_only_reason}"] if read_only_reason else []
        self._why_read_only = f": {printable(read_only_reason)}" if read_only_reason else ""
        self._notes = [printable(note, _MAX_WORDS) for note in (*why, *notices)]
        self._source = source
        arrivals = self._arrivals = Arrivals(self)
        player = None
        if isinstance(source, RecordingSource):
            player = Player(source, arrivals.play, arrivals.lose)
        self.sampler = player or Sampler(source, interval_s, self._deliver, arrivals.lose)
        self.replay = Replay(self, player) if player else None
        """What moves about in the recording; None on an instance."""
        self.recording = Recording(self.sub_title, recording or RecordingPolicy(), arrivals.tell)
        """The recording that is made of what is shown."""
        self.main = MainScreen(self.sub_title, controls)
        self.acting = Acting(self, controls)
        """What changes the kernel's state from everywhere."""
        self.switches = Switches(self.sampler, self.main.panes.values(), self._redraw)
        """What the operator switches while watching."""
        self.offering = Offering(self.main, self.acting, self.recording, self.replay)
        """What can be done here and now."""

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
        await self.switches.stop()
        await asyncio.to_thread(self.recording.close)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Withhold what is not offered from the keys."""
        if action == "perform":
            return self.offering.has(actions.by_id(str(parameters[0])))
        return super().check_action(action, parameters)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield what is offered now, for the command palette; over a dialog, only its colours."""
        for action in actions.current():
            if screen is self.main and self.offering.has(action):
                act = partial(self.action_perform, action.id)
                yield SystemCommand(action.label.capitalize(), action.help, act)
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)

    def action_perform(self, action_id: str) -> None:
        """Do what the registry calls `action_id`, if it is offered."""
        action = actions.by_id(action_id)
        if not self.offering.has(action):
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
            "redraw": partial(self.refresh, layout=True),
            "help": self._open_help,
            "quit": self.exit,
            **self.acting.acts(),
            **self.switches.acts(),
            **(self.replay.acts() if self.replay else {}),
        }

    def on_snapshot_ready(self, message: messages.SnapshotReady) -> None:
        """Take in a snapshot, and draw it unless the display is paused."""
        self._take_in(Picture.after(self.picture, message.snapshot, *self._arrivals.happened()))

    def on_played(self, message: messages.Played) -> None:
        """Take in another tick of a recording."""
        assert self.replay is not None
        self.replay.playback = message.playback
        self._take_in(message.picture)

    def on_told(self, message: messages.Told) -> None:
        """Say what ended by itself."""
        self.notify(
            printable(message.words, _MAX_WORDS),
            severity="warning" if message.bad else "information",
            timeout=_NOTICE_S,
            markup=False,
        )
        self._show_chrome()

    def on_app_blur(self) -> None:
        """Draw seldom while nobody looks; everything is still taken in."""
        self._attention.turn_away()

    def on_app_focus(self) -> None:
        """Draw what was not drawn meanwhile."""
        self._attention.come_back()
        self._show_latest()

    def on_source_lost(self, message: messages.SourceLost) -> None:
        """Say that nothing new comes; what was displayed stays."""
        self.lost_error, self.offering.is_lost = message.error, True
        self.main.show_lost(printable(str(message.error), _MAX_WORDS), self.shown)
        self._show_chrome()

    def on_dialog_attempt(self, attempt: Dialog.Attempt) -> None:
        """Run an act that was asked for."""
        self.acting.attempt(attempt)

    def on_attempted(self, message: messages.Attempted) -> None:
        """Say how an act went; its effect shows in the next snapshot, which is asked for."""
        self.acting.tell(message)
        if message.error is None:
            self.sampler.sample_now()

    def on_pane_go_to(self, message: Pane.GoTo) -> None:
        """Open another pane on what a pane found there."""
        self.main.open_pane(message.name, self.shown)
        self.main.pane.look_for(message.filter, message.target)
        self._show_chrome()

    def on_pane_changed(self) -> None:
        """Offer what fits what is selected now."""
        self._show_chrome()

    def _deliver(self, snapshot: Snapshot) -> None:
        """Record a snapshot and hand it over; runs in the sampler's thread."""
        self.recording.put(snapshot)
        self._arrivals.deliver(snapshot)

    def _take_in(self, picture: Picture) -> None:
        """Draw a picture, unless the display is paused or nobody looks."""
        before = kinds(self.picture)
        self.picture = self.acting.picture = replace(picture, unit=self.switches.unit)
        if self.settings.bell and kinds(picture) - before:
            self.bell()
        if not self._attention.is_due():
            return
        self._cost = self._own_cost.words(picture.snapshot)
        with self.batch_update():
            for screen in self.screen_stack:
                if isinstance(screen, Dialog):
                    screen.show(picture.snapshot)
                elif isinstance(screen, SourceScreen):
                    screen.show(self.picture)
            self._show_latest()

    def _redraw(self) -> None:
        """Draw what is displayed anew, after a switch."""
        unit = self.switches.unit
        self.picture = self.picture and replace(self.picture, unit=unit)
        self.shown = self.shown and replace(self.shown, unit=unit)
        if self.shown is not None:
            self.main.pane.show(self.shown)

    def _show_latest(self) -> None:
        if self.picture is not None and not self.paused:
            self.shown = self.picture
            self.main.pane.show(self.picture)
            self._show_chrome()

    def _show_chrome(self) -> None:
        """Draw the header, the tabs and the footer as they must be now."""
        over = [screen.WANTS for screen in self.screen_stack if isinstance(screen, SourceScreen)]
        self._ask_for(self.main.pane.wants.union(*over))
        self.main.show_chrome(
            self.shown,
            interval_s=self.sampler.interval_s,
            offered=self.offering.now(paused=self.paused),
            badges=list(self._badges()),
            beside_tabs=chrome.paused_at(self.shown) if self.paused else (),
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
        if (countdown := self.acting.countdown()) is not None:
            yield countdown
        if (recording := self.recording.badge()) is not None:
            yield recording
        if self.controls is None and self.replay is None:
            yield Cell(f"READ-ONLY{self._why_read_only}", "badge")
        if self.paused:
            yield Cell("PAUSED", "badge")
        yield from self.main.pane.badges()

    def _toggle_pause(self) -> None:
        self.paused = not self.paused
        self._show_latest()

    def _open_help(self) -> None:
        panes = self.main.panes.values()
        sections = chrome.help_sections(self.offering.possible(), panes, self.main.pane)
        self.push_screen(HelpScreen(sections, self._notes))
