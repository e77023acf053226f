# SPDX-License-Identifier: Apache-2.0
"""A program on a terminal of its own, and the processor time and memory that it takes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Watched:
    """What a process took while it was watched."""

    core_percent: list[float]
    """Percent of one core, each second."""
    rss_mb: list[float]
    """Resident memory, each second."""


def processor_ns(pid: int) -> int:
    """Return the processor time that all threads of a process have used, ended ones left out."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process, in 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(pid)


def watch(pid: int, seconds: float, each_second: Callable[[], None] = lambda: None) -> Watched:
    """Watch a process; `each_second` is called in between."""
    used, memory = [], []
    started_s, before = time.monotonic(), processor_ns(pid)
    deadline_s = started_s + seconds
    while started_s < deadline_s:
        each_second()
        time.sleep(max(0.0, started_s + INTERVAL_S - time.monotonic()))
        now_s, now = time.monotonic(), processor_ns(pid)
        used.append((now - before) / (now_s - started_s) / 1e7)
        memory.append(rss_mb(pid))
        started_s, before = now_s, now
    return Watched(used, memory)


class Screenless:
    """A program on a terminal whose output goes nowhere.

    Args:
        argv: The program and its arguments.
        size: Columns and lines.
        environment: Besides this process's.
    """

    def __init__(
        self, argv: Sequence[str], size: tuple[int, int], environment: Mapping[str, str] = {}
    ) -> None:
        self._master, slave = pty.openpty()
        columns, lines = size
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment},
        )
        os.close(slave)
        self.octets = 0
        """Bytes that it has written."""
        self._ending = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # Reading from a terminal that nobody has open any more fails with EIO.
        with suppress(OSError):
            while not self._ending:
                if select.select([self._master], [], [], 0.1)[0]:
                    self.octets += len(os.read(self._master, 1 << 16))

    @property
    def pid(self) -> int:
        """Its process: `setsid` and `nsenter` become what they start."""
        return self.process.pid

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def wait_for_output(self, octets: int, timeout_s: float = 20.0) -> None:
        """Wait until it has written so much.

        Raises:
            TimeoutError: It ended, or did not.
        """
        deadline_s = time.monotonic() + timeout_s
        while self.octets < octets:
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.process.args!r} wrote {self.octets} bytes")
            time.sleep(0.02)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._ending = True
        self._reader.join()
        os.close(self._master)


@contextmanager
def shown(
    argv: Sequence[str], size: tuple[int, int], environment: Mapping[str, str] = {}
) -> Iterator[Screenless]:
    """Run a program on a terminal for the length of a `with` block."""
    program = Screenless(argv, size, environment)
    try:
        yield program
    finally:
        program.close()
