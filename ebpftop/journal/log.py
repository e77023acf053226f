# SPDX-License-Identifier: Apache-2.0
"""The file of the audit log: appended to, never changed, and opened anew for each line.

An act leaves two lines with one id: its intent before anything is changed, and then the whole
again with its result. An intent without a result is what a crash leaves.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from ebpftop.errors import KernelRefusedError
from ebpftop.format import printable
from ebpftop.model import Act
from ebpftop.model.acts import DONE, UNKNOWN_RESULT

DEFAULT_PATH = Path("/var/log/ebpftop/acts.jsonl")
PATH_VARIABLE = "EBPFTOP_AUDIT_LOG"
"""The environment variable that names another default."""
MOST_READ_BYTES = 64 << 20
"""A reader begins so far before the end of a longer log."""
MOST_ACTS = 1000
"""Acts that a reader keeps."""


def default_path() -> Path:
    """Return where the log is unless the policy says otherwise."""
    return Path(os.environ.get(PATH_VARIABLE) or DEFAULT_PATH)


class Line(msgspec.Struct, kw_only=True, frozen=True):
    """One line of the log."""

    id: str
    """What the act is called by."""
    time: float
    """When it began, in seconds since 1970."""
    user: str
    """Who; the one behind sudo where there is one."""
    login: str | None = None
    """Who logged in at first, as the kernel remembers it; None where it does not."""
    terminal: str | None = None
    """The terminal; None for none."""
    pid: int = 0
    """The process."""
    instance: str = ""
    """What was acted on: one attached instance; empty before there is one."""
    interfaces: tuple[str, ...] = ()
    """Its interfaces."""
    what: str
    """`block`, `limit`, `class set`, ..."""
    facet: str = ""
    """The part of the state that it changes."""
    target: str = ""
    """The address, prefix or class; or how many."""
    old: Any = None
    """The state before."""
    new: Any = None
    """The state after; in an intent what is wanted."""
    result: str | None = None
    """How it ended; None in an intent."""
    undoes: str | None = None
    """The act that it takes back."""
    confirms: tuple[str, ...] = ()
    """The acts that it lets stay."""
    reverts_at: float | None = None
    """When it takes itself back unless it is confirmed, in seconds since 1970."""


class Log:
    """The log, to be written.

    Args:
        path: The file; it and its folder are made where they are missing.
        gid: The group that may read it; 0 for root alone.
    """

    def __init__(self, path: Path, gid: int) -> None:
        self.path = path
        self._gid = gid

    def append(self, line: Line, *, durable: bool) -> None:
        """Write one line at the end.

        Args:
            line: What to write.
            durable: Wait until it is on the disk.

        Raises:
            KernelRefusedError: It cannot be written.
        """
        content = msgspec.json.encode(line) + b"\n"
        try:
            with self._opened() as handle:
                if _is_torn(handle):
                    content = b"\n" + content
                if os.write(handle, content) != len(content):
                    raise OSError(28, "No space left on device")
                if durable:
                    os.fsync(handle)
        except OSError as error:
            raise KernelRefusedError(
                f"the audit log {printable(str(self.path))} cannot be written: {error.strerror}",
                "nothing was changed; mend that, or attach with another [audit] path",
            ) from None

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the file as it is now, whoever rotated it, and keep other writers off."""
        self._make_folder()
        # A FIFO nobody reads would hold us up for ever.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.open(self.path, flags, 0o640)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(22, "it is no ordinary file")
            if not status.st_size or (self._gid and status.st_gid == 0):
                os.fchown(handle, -1, self._gid)
                os.fchmod(handle, 0o640)
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def _make_folder(self) -> None:
        folder = self.path.parent
        if not folder.exists():
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        ours = folder == DEFAULT_PATH.parent
        if ours and self._gid and folder.stat().st_gid == 0:
            os.chown(folder, -1, self._gid)


def _is_torn(handle: int) -> bool:
    """Whether the last line was never finished, as when the disk was full."""
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"


@dataclass(frozen=True, slots=True)
class Acts:
    """What a log says of one instance."""

    acts: tuple[Act, ...] = ()
    """Oldest first."""
    skipped: int = 0
    """Lines that are no act: torn, or another's."""


class Reader:
    """Follows the log, and tells the acts on one instance.

    Args:
        path: The file; it may come later, and be rotated.
        instance: As lines name it.
    """

    def __init__(self, path: Path, instance: str) -> None:
        self._path = path
        self._instance = instance
        self._inode = 0
        self._offset = 0
        self._rest = b""
        self._skipped = 0
        self._acts: dict[str, Act] = {}
        self._answer = Acts()

    def read(self) -> Acts:
        """Return all acts that are known now.

        Raises:
            OSError: The file is closed to us.
        """
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return self._answer
        try:
            content = self._fresh(handle)
        finally:
            os.close(handle)
        if content:
            *lines, self._rest = (self._rest + content).split(b"\n")
            for line in lines:
                self._take(line)
            while len(self._acts) > MOST_ACTS:
                del self._acts[next(iter(self._acts))]
            self._answer = Acts(tuple(self._acts.values()), self._skipped)
        return self._answer

    def _fresh(self, handle: int) -> bytes:
        """Return what was appended since the last time; all of it after a rotation."""
        status = os.fstat(handle)
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._inode, self._rest = status.st_ino, b""
            self._offset = max(0, status.st_size - MOST_READ_BYTES)
            if self._offset:
                self._offset = _next_line(handle, self._offset)
        pieces = []
        while piece := os.pread(handle, 1 << 20, self._offset):
            pieces.append(piece)
            self._offset += len(piece)
        return b"".join(pieces)

    def _take(self, content: bytes) -> None:
        if not content.strip():
            return
        try:
            line = _DECODER.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._skipped += 1
            return
        if line.instance == self._instance:
            self._fold(line)

    def _fold(self, line: Line) -> None:
        known = self._acts.get(line.id)
        self._acts[line.id] = _act(line, undone=known.undone if known else False)
        if line.result != DONE:
            return
        if line.undoes:
            self._mark(line.undoes)
        for name in line.confirms:
            if name in self._acts:
                self._acts[name] = replace(self._acts[name], reverts_at_s=None)

    def _mark(self, name: str) -> None:
        """Mark an act as undone; where it undid one itself, that one holds again."""
        act = self._acts.get(name)
        if act is None:
            return
        self._acts[name] = replace(act, undone=True, reverts_at_s=None)
        if (before := self._acts.get(act.undoes)) is not None:
            self._acts[act.undoes] = replace(before, undone=False)


_DECODER = msgspec.json.Decoder(Line)


def _next_line(handle: int, offset: int) -> int:
    """Return where the first line after `offset` begins."""
    with suppress(ValueError):
        return offset + os.pread(handle, 1 << 24, offset).index(b"\n") + 1
    return offset


def _act(line: Line, *, undone: bool) -> Act:
    return Act(
        id=printable(line.id, 20),
        time_s=line.time,
        user=printable(line.user, 40),
        terminal=None if line.terminal is None else printable(line.terminal, 40),
        what=printable(line.what, 20),
        target=printable(line.target, 80),
        facet=line.facet,
        old=line.old,
        new=line.new,
        result=UNKNOWN_RESULT if line.result is None else printable(line.result, 300),
        undone=undone,
        undoes=line.undoes or "",
        reverts_at_s=line.reverts_at if line.result == DONE else None,
    )
