# SPDX-License-Identifier: Apache-2.0
"""A program on a terminal: what it shows, keys for it, signals, and its last words.

A pseudo-terminal with as much of a terminal emulator as Textual's output needs.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Sequence

COLUMNS, LINES = 140, 45
PATIENCE_S = 30.0

_SEQUENCE = re.compile(
    r"\x1b(?:\[(?P<arguments>[0-?]*)[ -/]*(?P<final>[@-~])|[\]P_^X].*?(?:\x07|\x1b\\)"
    r"|(?![\[\]P_^X])[ -/]*[0-~])",
    re.DOTALL,
)


class Screen:
    """What a terminal would show of the output it was given."""

    def __init__(self) -> None:
        self._rest = ""
        self._clear()

    def _clear(self) -> None:
        self._cells = [[" "] * COLUMNS for _ in range(LINES)]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Take in more output; an escape sequence may be cut off at its end."""
        text = self._rest + text
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self._put(text[at])
                at += 1
                continue
            sequence = _SEQUENCE.match(text, at)
            if sequence is None:
                break
            self._obey(sequence["final"] or "", sequence["arguments"] or "")
            at = sequence.end()
        self._rest = text[at:]

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row += 1
        elif character >= " ":
            if self._column >= COLUMNS:
                self._row, self._column = self._row + 1, 0
            self._scroll()
            self._cells[self._row][self._column] = character
            self._column += 1
        self._scroll()

    def _scroll(self) -> None:
        while self._row >= LINES:
            self._cells = [*self._cells[1:], [" "] * COLUMNS]
            self._row -= 1

    def _obey(self, final: str, arguments: str) -> None:
        if final == "H":
            row, _, column = arguments.partition(";")
            self._row, self._column = int(row or 1) - 1, int(column or 1) - 1
        elif (final == "J" and arguments == "2") or (final in "hl" and arguments == "?1049"):
            self._clear()

    def __str__(self) -> str:
        return "\n".join("".join(cells).rstrip() for cells in self._cells)


class Terminal:
    """A program that runs on a terminal of its own, in a session of its own.

    Args:
        argv: The program and its arguments.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            # setsid makes the terminal the session's: closing it hangs the program up.
            ["setsid", "--ctty", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
        )
        os.close(slave)
        self._screen = Screen()
        self._lock = threading.Lock()
        self._hanging_up = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # Reading from a terminal that nobody has open any more fails with EIO.
        with contextlib.suppress(OSError):
            while not self._hanging_up:
                if select.select([self._master], [], [], 0.05)[0]:
                    text = decoder.decode(os.read(self._master, 1 << 16))
                    with self._lock:
                        self._screen.feed(text)

    @property
    def shown(self) -> str:
        """The lines of the screen."""
        with self._lock:
            return str(self._screen)

    def wait_until(self, holds: Callable[[str], bool], what: str) -> str:
        """Wait until `holds` is true of the screen, and return the screen."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not holds(shown := self.shown):
            ended = self.process.poll()
            assert time.monotonic() < deadline_s, f"{what} in time:\n{shown}"
            assert ended is None or holds(self.shown), f"{what}, and it ended ({ended}):\n{shown}"
            time.sleep(0.02)
        return shown

    def wait_for(self, *texts: str) -> str:
        """Wait until the screen shows every one of `texts`, and return the screen."""
        return self.wait_until(
            lambda shown: all(text in shown for text in texts), f"no {texts} was shown"
        )

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        self.process.send_signal(number)

    def hang_up(self) -> None:
        """Close the terminal, as when a connection breaks."""
        if not self._hanging_up:
            self._hanging_up = True
            self._reader.join()
            os.close(self._master)

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        status = self.process.wait(PATIENCE_S)
        if not self._hanging_up:
            self._reader.join(PATIENCE_S)
        return status

    def close(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait()
        self.hang_up()
