# SPDX-License-Identifier: Apache-2.0
"""What comes from threads, on its way to the dashboard's event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from textual.app import App

from ebpftop.errors import EbpftopError
from ebpftop.model import Event, Snapshot
from ebpftop.screens import messages
from ebpftop.screens.picture import Picture
from ebpftop.screens.player import Playback


class Arrivals:
    """Hands over what threads bring; all but `happened` runs in them.

    Args:
        app: The dashboard.
    """

    def __init__(self, app: App[None]) -> None:
        self._app = app
        # Snapshots replace each other in the queue; what happened meanwhile must not get lost.
        self._told: deque[tuple[Sequence[Event], int]] = deque()

    def deliver(self, snapshot: Snapshot) -> None:
        """Hand over a snapshot."""
        self._told.append((snapshot.events, snapshot.missed_events))
        self._app.post_message(messages.SnapshotReady(snapshot))

    def happened(self) -> tuple[Sequence[Event], int]:
        """Return the events of all snapshots since the last call, and how many were missed."""
        happened: list[Event] = []
        missed = 0
        while self._told:
            events, overwritten = self._told.popleft()
            happened.extend(events)
            missed += overwritten
        return happened, missed

    def play(self, picture: Picture, playback: Playback) -> None:
        """Hand over a tick of a recording."""
        self._app.post_message(messages.Played(picture, playback))

    def tell(self, words: str, bad: bool) -> None:
        """Have the operator told."""
        self._app.post_message(messages.Told(words, bad))

    def lose(self, error: EbpftopError) -> None:
        """Say that there are no more snapshots."""
        self._app.post_message(messages.SourceLost(error))
