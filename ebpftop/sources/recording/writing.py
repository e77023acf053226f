# SPDX-License-Identifier: Apache-2.0
"""Writing a recording: to a new file that only its owner can read, up to a size."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import msgspec

from ebpftop import __version__
from ebpftop.errors import KernelRefusedError
from ebpftop.format import printable, size
from ebpftop.model import Clock, Snapshot
from ebpftop.sources.recording.brief import Brief
from ebpftop.sources.recording.frames import DELTA, HEAD, KEY, MAGIC, SCHEMA, Head, framed
from ebpftop.sources.recording.ticks import TickEncoder

KEY_EVERY = 120
"""Ticks from one that stands by itself to the next: how far a seek may have to read."""


class FullError(KernelRefusedError):
    """The recording is as large as it may be (exit status 1)."""


class TapeWriter:
    """A recording that is being made. Whatever ends it, what was written stays readable.

    Args:
        path: The file, which must not exist.
        title: The names of the interfaces.
        max_bytes: How large it may become; None for as large as the disk takes.

    Raises:
        KernelRefusedError: There is such a file already, or it cannot be made.
    """

    def __init__(self, path: Path, title: str, *, max_bytes: int | None = None) -> None:
        self.path = path
        self.ticks = 0
        """Ticks that were written."""
        self.size_bytes = 0
        """Length of the file."""
        self._name = printable(str(path))
        self._max_bytes = max_bytes
        self._encoder = TickEncoder()
        self._brief = Brief()
        self._until_key = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            # It holds addresses of people.
            self._fd = os.open(path, flags, 0o600)
        except FileExistsError:
            raise KernelRefusedError(
                f"{self._name} exists already", "choose another name or remove it"
            ) from None
        except OSError as error:
            raise KernelRefusedError(
                f"{self._name} cannot be made, {error.strerror or error}"
            ) from None
        _give_to_who_ran_sudo(self._fd)
        head = msgspec.msgpack.encode(Head(SCHEMA, __version__, title))
        self._append(MAGIC + framed(HEAD, head, Clock(0, 0.0)))

    def write(self, snapshot: Snapshot) -> None:
        """Add a tick.

        Raises:
            FullError: It would become larger than it may.
            KernelRefusedError: The disk is full, or the snapshot is too large to be recorded.
        """
        key = not self._until_key
        until_key = KEY_EVERY if key else self._until_key
        # Should it fail, no later tick can build on it.
        self._until_key = 0
        told = replace(snapshot, acts=self._brief.of(snapshot.acts))
        body = self._encoder.encode(told, key=key)
        frame = framed(KEY if key else DELTA, body, snapshot.clock)
        if self._max_bytes is not None and self.size_bytes + len(frame) > self._max_bytes:
            raise FullError(f"{self._name} has reached {size(self._max_bytes)}")
        self._append(frame)
        self._until_key = until_key - 1
        self.ticks += 1

    def close(self) -> None:
        """End it."""
        os.close(self._fd)

    def _append(self, octets: bytes) -> None:
        """Write all of `octets` or nothing."""
        rest = memoryview(octets)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.ftruncate(self._fd, self.size_bytes)
            raise KernelRefusedError(
                f"{self._name} cannot be written on, {error.strerror or error}",
                "what was recorded before can be replayed",
            ) from None
        self.size_bytes += len(octets)


def _give_to_who_ran_sudo(fd: int) -> None:
    """Let those who record with sudo replay without it."""
    owner, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and owner.isdecimal() and group.isdecimal():
        with contextlib.suppress(OSError):  # some file systems have no owners
            os.fchown(fd, int(owner), int(group))
