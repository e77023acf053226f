# SPDX-License-Identifier: Apache-2.0
"""The file of a recording: frames, each with its length and checksum.

A file is `MAGIC`, a head frame, and a frame for each tick. A frame is a header (mark, kind,
length as it is and as it was before zlib, the tick's two clocks, CRC-32 of all of it) and its
body. So damage is found where it is, what stands before it can be read, and a tick is found
by its time without reading those before it.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from ebpftop.errors import EbpftopError, KernelRefusedError
from ebpftop.format import printable
from ebpftop.model import Clock
from ebpftop.sources.recording.checks import LATEST_S, MAX_NS
from ebpftop.sources.recording.numbers import DamagedError

MAGIC = b"\x89ebpftop recording\r\n"
"""The first bytes; the line's end shows a copy that was made as text."""

SCHEMA = 1
"""What the ticks mean. It grows when an older ebpftop would misread them, not when it would
miss something: fields that it does not know it leaves out."""

HEAD, KEY, DELTA = 0, 1, 2
"""Kinds of frames: the first, ticks that stand by themselves, ticks that need the one before."""

MAX_BODY_BYTES = 128 << 20
"""The longest body, before zlib and after it."""

HEADER = struct.Struct("<2sHIIQdI")
_MARK = b"eT"
_CHECKED = HEADER.size - 4
_LEVEL = 6


class Head(msgspec.Struct, frozen=True):
    """What a recording says of itself."""

    schema: Annotated[int, msgspec.Meta(ge=1)]
    """`SCHEMA` of its writer."""
    version: str
    """Version of its writer."""
    title: str
    """The names of the interfaces."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a frame is, and when it is from."""

    kind: int
    """One of `HEAD`, `KEY`, `DELTA`."""
    at: int
    """Place of its body in the file."""
    length: int
    """Length of its body in the file."""
    raw_length: int
    """Length of its body before zlib."""
    clock: Clock
    """When its snapshot was taken."""

    @property
    def end(self) -> int:
        """Place of what follows it."""
        return self.at + self.length


def framed(kind: int, body: bytes, clock: Clock) -> bytes:
    """Return a frame.

    Raises:
        KernelRefusedError: It is longer than a recording can hold.
    """
    packed = zlib.compress(body, _LEVEL)
    if max(len(packed), len(body)) > MAX_BODY_BYTES:
        raise KernelRefusedError(f"this cannot be recorded, a tick is {len(body):,} bytes long")
    header = HEADER.pack(_MARK, kind, len(packed), len(body), clock.monotonic_ns, clock.wall_s, 0)[
        :_CHECKED
    ]
    checksum = zlib.crc32(packed, zlib.crc32(header))
    return header + checksum.to_bytes(4, "little") + packed


class FrameFile:
    """A file of frames, open for reading.

    Args:
        path: Where it is.

    Raises:
        KernelRefusedError: It cannot be read, or is no recording.
    """

    def __init__(self, path: Path) -> None:
        self.name = printable(str(path))
        try:
            # A pipe would keep us waiting for somebody to write.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise KernelRefusedError(
                f"{self.name} cannot be read, {error.strerror or error}"
            ) from None
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise KernelRefusedError(f"{self.name} is no file")
            if os.pread(self._fd, len(MAGIC), 0) != MAGIC:
                raise KernelRefusedError(f"{self.name} is no recording of ebpftop")
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def frame_at(self, place: int) -> Frame | None:
        """Return the frame that begins at `place`; None at the end of the file.

        Raises:
            DamagedError: It is cut, or is not what was written.
        """
        header = os.pread(self._fd, HEADER.size, place)
        if not header:
            return None
        if len(header) < HEADER.size:
            raise DamagedError("it ends within a tick")
        mark, kind, length, raw_length, monotonic_ns, wall_s, checksum = HEADER.unpack(header)
        if mark != _MARK or max(length, raw_length) > MAX_BODY_BYTES:
            raise DamagedError("what follows is no tick")
        frame = Frame(kind, place + HEADER.size, length, raw_length, Clock(monotonic_ns, wall_s))
        if zlib.crc32(self._read(frame), zlib.crc32(header[:_CHECKED])) != checksum:
            raise DamagedError("a checksum is wrong")
        if not (0 <= wall_s <= LATEST_S and monotonic_ns <= MAX_NS):
            raise DamagedError("a time that is none")
        return frame

    def body(self, frame: Frame) -> bytes:
        """Return the body of a frame as it was before zlib.

        Raises:
            DamagedError: It is not what was written.
        """
        inflater = zlib.decompressobj()
        try:
            body = inflater.decompress(self._read(frame), frame.raw_length + 1)
        except zlib.error as error:
            raise DamagedError(f"a tick cannot be unpacked, {error}") from None
        if len(body) != frame.raw_length or not inflater.eof:
            raise DamagedError("a tick is not as long as it says")
        return body

    def head(self) -> tuple[Head, Frame]:
        """Return what the recording says of itself, and its frame.

        Raises:
            EbpftopError: That cannot be read, or a newer ebpftop wrote it.
        """
        try:
            frame = self.frame_at(len(MAGIC))
            if frame is None or frame.kind != HEAD:
                raise DamagedError("its head is missing")
            head = msgspec.msgpack.decode(self.body(frame), type=Head)
        except (DamagedError, msgspec.MsgspecError, RecursionError) as error:
            raise damage(self.name, str(error), "nothing of it can be read") from None
        if head.schema > SCHEMA:
            raise KernelRefusedError(
                f"{self.name} was written by ebpftop {printable(head.version)}",
                f"replay it with that version, this one reads recordings up to schema {SCHEMA}"
                f" and it has {head.schema}",
            )
        return Head(head.schema, printable(head.version), printable(head.title)), frame

    def _read(self, frame: Frame) -> bytes:
        try:
            body = os.pread(self._fd, frame.length, frame.at)
        except OSError as error:
            raise DamagedError(f"it cannot be read on, {error.strerror or error}") from None
        if len(body) != frame.length:
            raise DamagedError("it ends within a tick")
        return body


def damage(name: str, what: str, remedy: str) -> EbpftopError:
    """Return the error that says that the recording called `name` is damaged."""
    return KernelRefusedError(f"{name} is damaged, {printable(what)}", remedy)
