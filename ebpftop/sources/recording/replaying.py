# SPDX-License-Identifier: Apache-2.0
"""A recording as a source: each of its ticks once, from the first to the last."""

from __future__ import annotations

from ebpftop.errors import SourceLostError
from ebpftop.model import Snapshot
from ebpftop.sources.recording.tape import Tape


class RecordingSource:
    """Gives the ticks of a recording one after another; it closes the recording.

    Args:
        tape: The recording.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        """The recording."""
        self.wants: frozenset[str] = frozenset()
        """Nothing comes of it: a recording has what was read when it was made."""
        self._next = 0

    def snapshot(self) -> Snapshot:
        """Return the next tick.

        Raises:
            SourceLostError: There is none.
            EbpftopError: It cannot be read.
        """
        if self._next >= len(self.tape):
            raise self.tape.damage or SourceLostError("the recording ends here")
        snapshot = self.tape.tick(self._next)
        self._next += 1
        return snapshot

    def close(self) -> None:
        """Close the recording."""
        self.tape.close()
