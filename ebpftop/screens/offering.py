# SPDX-License-Identifier: Apache-2.0
"""Which of the actions are offered here and now, and under what name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ebpftop import actions
from ebpftop.actions import Action
from ebpftop.screens.acting import Acting
from ebpftop.screens.main import MainScreen
from ebpftop.screens.recording import Recording
from ebpftop.screens.replay import Replay


class Offering:
    """What can be done on this dashboard.

    Args:
        main: The screen with the panes.
        acting: What changes the kernel's state.
        recording: The recording that is made of what is shown.
        replay: What moves about in a recording; None on an instance.
    """

    def __init__(
        self, main: MainScreen, acting: Acting, recording: Recording, replay: Replay | None
    ) -> None:
        self._main = main
        self._acting = acting
        self._recording = recording
        self._replay = replay
        self.is_lost = False
        """Whether nothing new comes, and so nothing can be changed any more."""

    def has(self, action: Action) -> bool:
        """Whether `action` can be done here and now."""
        if not self._is_possible(action) or (action.writes and self.is_lost):
            return False
        pane = self._main.pane
        if not action.panes:
            return self._acting.can(action.id)
        return action.works_in(pane.NAME) and pane.can(action.id)

    def _is_possible(self, action: Action) -> bool:
        if action.writes and not self._acting.has_control:
            return False
        return not action.replays if self._replay is None else action.id != "record"

    def possible(self) -> Sequence[Action]:
        """Return all that can ever be done on this dashboard."""
        return [action for action in actions.current() if self._is_possible(action)]

    def now(self, *, paused: bool) -> Sequence[Action]:
        """Return what can be done now, each under the name of what it would do."""
        return [self._labelled(each, paused) for each in actions.current() if self.has(each)]

    def _labelled(self, action: Action, paused: bool) -> Action:
        if action.id == "pause" and paused:
            return replace(action, label="resume")
        if action.id == "record" and self._recording.under_way:
            return replace(action, label="end recording")
        return self._replay.labelled(action) if self._replay else action
