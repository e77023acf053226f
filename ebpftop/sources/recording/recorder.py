# SPDX-License-Identifier: Apache-2.0
"""A thread that writes a recording beside the one that reads the instance."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ebpftop.errors import EbpftopError
from ebpftop.model import Event, Snapshot
from ebpftop.sources.recording.writing import TapeWriter

_MOST_WAITING = 8
"""Snapshots that may wait for a slow disk; each holds all its tables in memory."""


class Recorder(threading.Thread):
    """Writes the snapshots that it is given, until told to stop or the file is full.

    A tick that would wait too long behind a slow disk is left out, never what happened in it.

    Args:
        path: The file, which must not exist.
        title: The names of the interfaces.
        max_bytes: How large it may become.
        ended: Called in this thread, once, with what ended it; None where it was told to.
    """

    def __init__(
        self,
        path: Path,
        title: str,
        max_bytes: int,
        ended: Callable[[EbpftopError | None], None],
    ) -> None:
        super().__init__(name="ebpftop-recorder", daemon=True)
        self.path = path
        """The file."""
        self.ticks = 0
        """Ticks in the file."""
        self.size_bytes = 0
        """Length of the file."""
        self._title = title
        self._max_bytes = max_bytes
        self._ended = ended
        self._changed = threading.Condition()
        self._waiting: deque[Snapshot] = deque()
        self._stopping = False
        self._happened: list[Event] = []
        self._missed = 0

    def put(self, snapshot: Snapshot) -> None:
        """Have a snapshot written; never waits for the disk."""
        with self._changed:
            self._happened += snapshot.events
            self._missed += snapshot.missed_events
            if self._stopping or len(self._waiting) >= _MOST_WAITING:
                return
            self._waiting.append(
                replace(snapshot, events=self._happened, missed_events=self._missed)
            )
            self._happened, self._missed = [], 0
            self._changed.notify()

    def run(self) -> None:
        """Write until `stop`; not called directly."""
        failure: EbpftopError | None = None
        try:
            self._write()
        except EbpftopError as error:
            failure = error
        except Exception as error:
            failure = EbpftopError(f"recording failed: {error!r}", "this is a fault of ebpftop")
        with self._changed:
            self._stopping = True
            self._waiting.clear()
        self._ended(failure)

    def tell_to_stop(self) -> None:
        """Have it write what waits, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def stop(self) -> None:
        """End it, and wait until the file is closed."""
        self.tell_to_stop()
        if self.is_alive():
            self.join()

    def _write(self) -> None:
        writer = TapeWriter(self.path, self._title, max_bytes=self._max_bytes)
        try:
            while (snapshot := self._take()) is not None:
                writer.write(snapshot)
                self.ticks, self.size_bytes = writer.ticks, writer.size_bytes
        finally:
            writer.close()

    def _take(self) -> Snapshot | None:
        with self._changed:
            while not self._waiting and not self._stopping:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None
