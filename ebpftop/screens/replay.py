# SPDX-License-Identifier: Apache-2.0
"""Moving about in a recording: the keys, the line that says where we are, the dialog for a time."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from textual.app import App
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Static

from ebpftop.actions import Action
from ebpftop.errors import UsageError
from ebpftop.format import parse_duration
from ebpftop.model import Clock, Snapshot
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.player import Playback, Player
from ebpftop.widgets.cells import Cell

SEEK_S = 10.0
"""How far the keys for it go on or back."""

_TIME_OF_DAY = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_DAY_S = 86_400.0


class Replay:
    """What can be done with a recording.

    Args:
        app: The dashboard.
        player: What plays it.
    """

    def __init__(self, app: App[None], player: Player) -> None:
        self._app = app
        self._player = player
        self.playback: Playback | None = None
        """Where we are; None before the first tick."""

    def acts(self) -> Mapping[str, Callable[[], object]]:
        """Return what is done for each action that replays, by its id."""
        player = self._player
        return {
            "play": player.toggle,
            "pause": player.toggle,
            "step": partial(player.step, 1),
            "step-back": partial(player.step, -1),
            "rewind": partial(player.seek, -SEEK_S),
            "forward": partial(player.seek, SEEK_S),
            "slower": partial(player.faster, -1),
            "faster": partial(player.faster, 1),
            "to-start": partial(player.go_to, 0.0),
            "to-end": partial(player.go_to, math.inf),
            "go-to": self._open_dialog,
        }

    def labelled(self, action: Action) -> Action:
        """Return `action` under the name of what it would do now."""
        if action.id == "play" and self.playback is not None and self.playback.playing:
            return replace(action, label="stand still")
        # One key for one thing is enough for the footer; both work.
        return replace(action, in_footer=False) if action.id == "pause" else action

    def line(self) -> tuple[Sequence[Cell], Sequence[Cell]]:
        """Return where we are, for the left and the right of a line."""
        now = self.playback
        if now is None:
            return [Cell("REPLAY", "badge")], []
        speed = f"{now.speed:g}x"
        left = [
            Cell("REPLAY", "badge"),
            Cell(f"▶ {speed}", "strong") if now.playing else Cell(f"■ stands, {speed}", "warn"),
            Cell(f"{_clock_time(now.at_s)} of {_clock_time(now.length_s)}", "strong"),
        ]
        if now.damage:
            left.insert(1, Cell("DAMAGED", "alarm"))
            left.append(Cell(now.damage, "bad"))
        left.append(Cell(f"tick {now.tick + 1:,} of {now.ticks:,}", "muted"))
        return left, [Cell(f"recorded {_wall_time(now.clock)}")]

    def _open_dialog(self) -> None:
        if self.playback is not None:
            self._app.push_screen(GoToDialog(self._player, self.playback))


class GoToDialog(Dialog):
    """Asks for a time of the recording.

    Args:
        player: What goes there.
        playback: What the recording is.
    """

    def __init__(self, player: Player, playback: Playback) -> None:
        super().__init__("Go to a time of the recording", "go there")
        self._player = player
        self._playback = playback
        self._time = Input(id="time", compact=True, max_length=20)

    def fields(self) -> Sequence[Widget]:
        """Return where the time is typed."""
        hint = Static("as 14:03:22, or 90s after the start", classes="hint", markup=False)
        label = Static("time", classes="label", markup=False)
        return [Horizontal(label, self._time, hint, classes="field")]

    def on_mount(self) -> None:
        """Say from when to when the recording is."""
        super().on_mount()
        began, length_s = self._playback.began, self._playback.length_s
        ended = Clock(began.monotonic_ns, began.wall_s + length_s)
        self.facts.show(
            [
                [Cell("from", "muted"), Cell(_wall_time(began))],
                [Cell("to", "muted"), Cell(_wall_time(ended))],
                [Cell("length", "muted"), Cell(_clock_time(length_s))],
            ]
        )
        self._time.focus()

    def show(self, snapshot: Snapshot) -> None:
        """Leave it as it is: nothing in it changes."""

    def on_input_submitted(self) -> None:
        """Go there."""
        self.action_confirm()

    def action_confirm(self) -> None:
        """Go to the time, if it is one of the recording."""
        try:
            at_s = offset_of(self._time.value, self._playback.began)
        except UsageError as error:
            self.complain(str(error), self._time)
            return
        if at_s > self._playback.length_s + 1:
            self.complain("the recording ends before that", self._time)
            return
        self._player.go_to(at_s)
        self.dismiss()


def offset_of(text: str, began: Clock) -> float:
    """Return how long after the start of a recording a typed time is.

    Args:
        text: A time of day, the first one after the start; or a DURATION after the start.
        began: When the recording began.

    Raises:
        UsageError: It is neither.
    """
    match = _TIME_OF_DAY.fullmatch(text.strip())
    if match is None:
        try:
            seconds = parse_duration(text)
        except UsageError:
            seconds = None
        if seconds is None:
            raise UsageError(f"'{text}' is no time", "write it as 14:03, 14:03:22, 90s or 10m")
        return seconds
    hour, minute, second = (int(part or 0) for part in match.groups())
    if hour > 23 or minute > 59 or second > 59:
        raise UsageError(f"'{text}' is no time of day")
    day = time.localtime(began.wall_s)
    at_s = time.mktime((*day[:3], hour, minute, second, 0, 0, -1))
    # The second in which it began is within it.
    return (
        max(0.0, at_s - began.wall_s) if at_s > began.wall_s - 1 else at_s - began.wall_s + _DAY_S
    )


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _wall_time(clock: Clock) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(clock.wall_s))
