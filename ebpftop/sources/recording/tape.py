# SPDX-License-Identifier: Apache-2.0
"""A recording that is read: any of its ticks, by its number or its time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ebpftop.errors import EbpftopError
from ebpftop.model import Clock, Event, Snapshot
from ebpftop.sources.recording.frames import DELTA, KEY, Frame, FrameFile, damage
from ebpftop.sources.recording.numbers import DamagedError
from ebpftop.sources.recording.ticks import TickDecoder

_SHORT_TABLES = frozenset({"classes"})
"""Tables of which a history is kept, and no row is costly."""


@dataclass
class _Reel:
    """How far one way of reading has come."""

    decoder: TickDecoder
    next: int = 0
    """The tick that can be read without going back; -1 where none can."""


class Tape:
    """A recording, open for reading.

    Every checksum is looked at when it is opened. What stands before a damage can be read;
    `damage` says what is wrong with the rest.

    Args:
        path: The file.

    Raises:
        EbpftopError: It cannot be read, is no recording, a newer ebpftop wrote it, or not even
            its first tick can be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = FrameFile(path)
        self.damage: EbpftopError | None = None
        """What is wrong with what follows the last tick; None for a whole recording."""
        self._frames: list[Frame] = []
        self._whole = _Reel(TickDecoder())
        self._glances = _Reel(TickDecoder(_SHORT_TABLES))
        try:
            head, frame = self._file.head()
            self.title = head.title
            """The names of the interfaces."""
            self.version = head.version
            """Version of the ebpftop that wrote it."""
            self._index(frame)
            if not self._frames:
                raise self.damage or damage(self._file.name, "it has no tick", "")
            self.tick(0)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._frames)

    def clock(self, number: int) -> Clock:
        """Return when a tick was taken."""
        return self._frames[number].clock

    def offset_s(self, number: int) -> float:
        """Return how long after the first tick another one was taken."""
        return (self.clock(number).monotonic_ns - self.clock(0).monotonic_ns) / 1e9

    @property
    def length_s(self) -> float:
        """Time from the first tick to the last."""
        return self.offset_s(len(self) - 1)

    def at_offset(self, offset_s: float) -> int:
        """Return the last tick that is not later than `offset_s` after the first."""
        return max(0, bisect_right(range(len(self)), offset_s, key=self.offset_s) - 1)

    def tick(self, number: int) -> Snapshot:
        """Read a tick; those after one another come quickly, others from the last key tick on.

        Raises:
            EbpftopError: It cannot be read; the recording ends before it from now on.
        """
        return self._read(self._whole, number)

    def glance(self, number: int) -> Snapshot:
        """Read a tick without its long tables, in a tenth of the time.

        Raises:
            EbpftopError: It cannot be read; the recording ends before it from now on.
        """
        return self._read(self._glances, number)

    def events(self) -> Iterator[Event]:
        """Yield all that happened, as far as it can be read."""
        for number in range(len(self)):
            try:
                yield from self.glance(number).events
            except EbpftopError:
                return

    def _read(self, reel: _Reel, number: int) -> Snapshot:
        start = number
        while self._frames[start].kind != KEY:
            start -= 1
        if start <= reel.next <= number:
            start = reel.next
        for each in range(start, number + 1):
            snapshot = self._read_next(reel, each)
        return snapshot

    def _read_next(self, reel: _Reel, number: int) -> Snapshot:
        frame = self._frames[number]
        reel.next = -1
        try:
            snapshot = reel.decoder.decode(self._file.body(frame), key=frame.kind == KEY)
            if snapshot.clock != frame.clock:
                raise DamagedError("a tick of another time")
        except DamagedError as error:
            del self._frames[number:]
            self.damage = self._describe(error)
            raise self.damage from None
        reel.next = number + 1
        return snapshot

    def _index(self, head: Frame) -> None:
        """Find every tick that can be read, up to the end or the first damage."""
        before = head
        try:
            while (frame := self._file.frame_at(before.end)) is not None:
                first = not self._frames
                if frame.kind != KEY and (first or frame.kind != DELTA):
                    raise DamagedError("a tick of an unknown kind")
                if not first and frame.clock.monotonic_ns < before.clock.monotonic_ns:
                    raise DamagedError("time runs backwards")
                self._frames.append(frame)
                before = frame
        except DamagedError as error:
            self.damage = self._describe(error)

    def _describe(self, error: DamagedError) -> EbpftopError:
        if not self._frames:
            return damage(self._file.name, str(error), "nothing of it can be read")
        ticks = f"{len(self._frames):,} {'tick' if len(self._frames) == 1 else 'ticks'}"
        return damage(self._file.name, str(error), f"the {ticks} before it can be read")
