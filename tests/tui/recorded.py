# SPDX-License-Identifier: Apache-2.0
"""The recording of the lab, for a dashboard that takes it for an instance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ebpftop import lab as labs
from ebpftop.model import Prefix, Snapshot, SourceState
from ebpftop.sources.recording import Tape
from tests.record_lab import RECORDING
from tests.tui.driving import Dashboard, dashboard


class RecordedLab:
    """Every tick of the recording, and who is who in it.

    Args:
        path: The recording.
    """

    def __init__(self, path: Path = RECORDING) -> None:
        self.path = path
        tape = Tape(path)
        self.title = tape.title
        self.ticks = [tape.tick(number) for number in range(len(tape))]
        assert tape.damage is None
        tape.close()
        self.downloader = Prefix.parse(labs.DOWNLOADER)
        """Who is held to a rate."""

    @property
    def last(self) -> Snapshot:
        """The last tick, in the midst of the flood."""
        return self.ticks[-1]

    @property
    def attacker(self) -> Prefix:
        """Who floods: what sends most at the last tick."""
        return self.last.sources.address(int(self.last.sources.pps.argmax()))

    @property
    def blocked_from(self) -> int:
        """The first tick in which a limit has blocked the attacker."""
        return next(n for n, tick in enumerate(self.ticks) if self.state(n) == SourceState.BLOCKED)

    def state(self, number: int) -> SourceState | None:
        """Return what a tick shows of the attacker; None before it came."""
        sources = self.ticks[number].sources
        row = sources.row_of(self.attacker)
        return None if row is None else SourceState(int(sources.state[row]))

    @asynccontextmanager
    async def dashboard(self, upto: int | None = None, **options: Any) -> AsyncIterator[Dashboard]:
        """Run the dashboard as if it had been open from the first tick up to another one."""
        async with dashboard(self.ticks[0], **{"title": self.title, **options}) as running:
            last = len(self.ticks) - 1 if upto is None else upto
            for tick in self.ticks[1 : last + 1]:
                await running.tick(tick)
            yield running
