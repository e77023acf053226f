# SPDX-License-Identifier: Apache-2.0
"""What threads tell the dashboard's event loop."""

from __future__ import annotations

from textual.message import Message

from ebpftop.errors import EbpftopError
from ebpftop.model import Snapshot
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.pane import Picture
from ebpftop.screens.player import Playback


class SnapshotReady(Message, bubble=False):
    """There is a new snapshot; one that waits behind a slow terminal is skipped."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot

    def can_replace(self, message: Message) -> bool:
        """Say that of two in a row only the later one matters."""
        return isinstance(message, SnapshotReady)


class SourceLost(Message, bubble=False):
    """There will be no more snapshots."""

    def __init__(self, error: EbpftopError) -> None:
        super().__init__()
        self.error = error


class Played(Message, bubble=False):
    """A recording is at another tick; one that waits behind a slow terminal is skipped."""

    def __init__(self, picture: Picture, playback: Playback) -> None:
        super().__init__()
        self.picture = picture
        self.playback = playback

    def can_replace(self, message: Message) -> bool:
        """Say that of two in a row only the later one matters."""
        return isinstance(message, Played)


class Told(Message, bubble=False):
    """Something ended by itself, and the operator must know how."""

    def __init__(self, words: str, bad: bool) -> None:
        super().__init__()
        self.words = words
        self.bad = bad


class Attempted(Message, bubble=False):
    """An act is over."""

    def __init__(self, attempt: Dialog.Attempt, error: EbpftopError | None) -> None:
        super().__init__()
        self.attempt = attempt
        self.error = error
