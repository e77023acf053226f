# SPDX-License-Identifier: Apache-2.0
"""Plays a recording: brings pictures as the sampler brings snapshots of an instance."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ebpftop.errors import EbpftopError
from ebpftop.model import Clock
from ebpftop.screens.pane import Picture
from ebpftop.screens.source_history import KEPT_S, SourceHistory
from ebpftop.sources.recording import RecordingSource, Tape

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""How many seconds of the recording may pass in one of ours."""

_KEEP_EVERY = 60
"""Ticks from one picture that is kept to the next."""


@dataclass(frozen=True, slots=True)
class Playback:
    """Where in a recording we are."""

    tick: int
    """Number of the tick that is shown, from 0."""
    ticks: int
    """How many there are."""
    at_s: float
    """Time from the first tick to it."""
    length_s: float
    """Time from the first tick to the last."""
    began: Clock
    """When the first tick was taken."""
    clock: Clock
    """When the tick that is shown was taken."""
    speed: float
    """A number of `SPEEDS`."""
    playing: bool
    """Whether it goes on by itself."""
    damage: str
    """Why it ends before its end; empty where it does not."""


class Player(threading.Thread):
    """Brings the pictures of a recording in their time, until stopped.

    Every picture is what the live dashboard would have shown at that moment, had it been open
    from the first tick on: with the history and the events of all that came before.

    Args:
        source: The recording; the thread closes it when it ends.
        deliver: Called in this thread with each picture.
        lost: Called in this thread, once, with the error that ended it.
    """

    def __init__(
        self,
        source: RecordingSource,
        deliver: Callable[[Picture, Playback], None],
        lost: Callable[[EbpftopError], None],
    ) -> None:
        super().__init__(name="ebpftop-player", daemon=True)
        self.interval_s = 0.0
        """Seconds of the recording between the tick that is shown and the one before it."""
        self._source = source
        self._tape: Tape = source.tape
        self._deliver = deliver
        self._lost = lost
        self._changed = threading.Condition()
        self._stopping = False
        self._wanted: int | None = 0
        self._playing = True
        self._speed = 1.0
        self._tick = 0
        self._kept: dict[int, Picture] = {}
        self._picture: Picture | None = None
        # At the first of these times by our clock, the second was the place in the recording.
        self._since_s, self._since_at_s = time.monotonic(), 0.0

    def run(self) -> None:
        """Play until `stop`; not called directly."""
        try:
            while (wanted := self._next()) is not None:
                self._show(wanted)
        except EbpftopError as error:
            self._lost(error)
        except Exception as error:
            self._lost(EbpftopError(f"reading failed: {error!r}", "this is a fault of ebpftop"))
        finally:
            self._source.close()

    def stop(self) -> None:
        """End the thread and wait for it; the recording is closed when this returns."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self.is_alive():
            self.join()

    def sample_now(self) -> None:
        """Show the present tick again."""
        self.seek(0.0)

    def toggle(self) -> None:
        """Stand still, or go on; at the end, from the beginning."""
        with self._changed:
            at_end = self._tick == len(self._tape) - 1
            if not self._playing and at_end:
                self._want(0)
            self._playing = not self._playing
            self._settle()

    def step(self, ticks: int) -> None:
        """Stand still, some ticks further on, or back."""
        with self._changed:
            self._playing = False
            self._want(self._place() + ticks)

    def seek(self, by_s: float) -> None:
        """Go some seconds on, or back."""
        with self._changed:
            at_s = self._tape.offset_s(self._place()) + by_s
            self._want(self._tape.at_offset(at_s))

    def go_to(self, at_s: float) -> None:
        """Go to a time, in seconds after the first tick."""
        with self._changed:
            self._want(self._tape.at_offset(at_s))

    def faster(self, by: int) -> None:
        """Go to the next higher speed, or with -1 to the next lower."""
        with self._changed:
            at = SPEEDS.index(self._speed) + by
            self._speed = SPEEDS[min(max(0, at), len(SPEEDS) - 1)]
            self._settle()

    def _place(self) -> int:
        """Return the tick that is shown, or the one that will be next."""
        return self._tick if self._wanted is None else self._wanted

    def _want(self, tick: int) -> None:
        self._wanted = min(max(0, tick), len(self._tape) - 1)
        self._changed.notify()

    def _settle(self) -> None:
        """Count time from here on, and say what changed."""
        self._since_s, self._since_at_s = time.monotonic(), self._tape.offset_s(self._place())
        if self._wanted is None:
            self._wanted = self._tick
        self._changed.notify()

    def _next(self) -> int | None:
        """Wait for the tick that is to be shown next; None once it was stopped."""
        with self._changed:
            while not self._stopping:
                if self._wanted is not None:
                    wanted, self._wanted = self._wanted, None
                    self._since_s = time.monotonic()
                    self._since_at_s = self._tape.offset_s(wanted)
                    return wanted
                if not self._playing:
                    self._changed.wait()
                    continue
                if self._tick >= len(self._tape) - 1:
                    self._playing = False
                    return self._tick
                passed_s = (time.monotonic() - self._since_s) * self._speed
                now_s = self._since_at_s + passed_s
                due_s = self._tape.offset_s(self._tick + 1)
                if now_s >= due_s:
                    return max(self._tick + 1, self._tape.at_offset(now_s))
                self._changed.wait((due_s - now_s) / self._speed)
            return None

    def _show(self, wanted: int) -> None:
        try:
            picture = self._picture_at(wanted)
        except EbpftopError:
            # It turned out to be damaged here, and ends before the damage now.
            if not len(self._tape):
                raise
            wanted = len(self._tape) - 1
            picture = self._picture_at(wanted)
        with self._changed:
            self._tick, self._picture = wanted, picture
            self.interval_s = round(picture.snapshot.interval_s or 0.0, 1)
            playback = self._playback()
        self._deliver(picture, playback)

    def _picture_at(self, wanted: int) -> Picture:
        """Return the picture of a tick, from one before it and what happened in between."""
        if self._picture is not None and self._tick == wanted:
            return self._picture
        # What each source sent is kept for so long: before that, glances will do.
        since = self._tape.at_offset(self._tape.offset_s(wanted) - KEPT_S) - 1
        start, picture = self._before(wanted, since)
        for number in range(start + 1, wanted + 1):
            read = self._tape.glance if number < since else self._tape.tick
            passed = read(number)
            picture = Picture.after(picture, passed, passed.events, passed.missed_events)
            if number % _KEEP_EVERY == 0 and number not in self._kept:
                short = self._tape.glance(number)
                self._kept[number] = replace(picture, snapshot=short, sources=SourceHistory())
        assert picture is not None
        return picture

    def _before(self, wanted: int, since: int) -> tuple[int, Picture | None]:
        """Return a picture to go on from: the present one, or one kept from before `since`."""
        kept = max((number for number in self._kept if number < since), default=-1)
        if self._picture is not None and kept <= self._tick < wanted:
            return self._tick, self._picture
        return kept, self._kept.get(kept)

    def _playback(self) -> Playback:
        tape = self._tape
        return Playback(
            tick=self._tick,
            ticks=len(tape),
            at_s=tape.offset_s(self._tick),
            length_s=tape.length_s,
            began=tape.clock(0),
            clock=tape.clock(self._tick),
            speed=self._speed,
            playing=self._playing,
            damage=str(tape.damage) if tape.damage else "",
        )
