# SPDX-License-Identifier: Apache-2.0
"""Recording from within the dashboard: one key begins it, the same key ends it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from ebpftop.config import RecordingPolicy
from ebpftop.errors import EbpftopError
from ebpftop.format import printable, size
from ebpftop.model import Snapshot
from ebpftop.sources.recording import FullError, Recorder
from ebpftop.widgets.cells import Cell

_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


class Recording:
    """The recording that is being made, if one is.

    Args:
        title: The names of the interfaces.
        policy: Where recordings go, and how large one may become.
        say: Called, in any thread, with what the operator must know, and whether it is bad.
    """

    def __init__(
        self, title: str, policy: RecordingPolicy, say: Callable[[str, bool], None]
    ) -> None:
        self._title = title
        self._policy = policy
        self._say = say
        self._recorder: Recorder | None = None

    @property
    def under_way(self) -> bool:
        """Whether one is being made."""
        return self._recorder is not None

    def toggle(self) -> None:
        """Begin one, or end the one that is under way."""
        if self._recorder is not None:
            self._recorder.tell_to_stop()
            return
        path = self._new_path()
        recorder = Recorder(path, self._title, int(self._policy.max_bytes), self._ended)
        self._recorder = recorder
        recorder.start()

    def put(self, snapshot: Snapshot) -> None:
        """Take in a snapshot; never waits for the disk."""
        recorder = self._recorder
        if recorder is not None:
            recorder.put(snapshot)

    def badge(self) -> Cell | None:
        """Return what the header says of it; None while none is under way."""
        recorder = self._recorder
        if recorder is None:
            return None
        return Cell(f"● REC {size(recorder.size_bytes)}", "alarm")

    def close(self) -> None:
        """End what is under way, and wait until its file is closed."""
        recorder = self._recorder
        if recorder is not None:
            recorder.stop()

    def _new_path(self) -> Path:
        names = _NO_NAME.sub("-", self._title).strip("-.") or "recording"
        began = time.strftime("%Y%m%d-%H%M%S")
        folder = Path(self._policy.folder).expanduser().absolute()
        return folder / f"{names[:60]}-{began}.ebpftop"

    def _ended(self, error: EbpftopError | None) -> None:
        """Say what became of it; runs in the recorder's thread."""
        recorder, self._recorder = self._recorder, None
        assert recorder is not None
        name, ticks = printable(str(recorder.path)), recorder.ticks
        written = f"recorded {ticks:,} ticks, {size(recorder.size_bytes)}, in {name}"
        if error is None:
            self._say(written, False)
        elif isinstance(error, FullError):
            self._say(f"the recording has its full size: {written}", True)
        else:
            self._say(f"not recording: {error}" + (f"; {written}" if ticks else ""), True)
