# SPDX-License-Identifier: Apache-2.0
"""The process that takes one act back unless it is confirmed in time.

`python -m ebpftop.reverter FILE`: the file holds its orders, see `ebpftop.control.pending`.
While it waits it has loaded nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

LOOK_EVERY_S = 0.2
_UNHEARD = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE)
"""What ends whoever started it, and must not end it."""


def main(path: Path) -> None:
    """Wait in the background until the deadline, or until the orders are gone."""
    orders = json.loads(path.read_bytes())
    if os.fork():
        os._exit(0)  # so that nobody's child it is, and nobody has to wait for it
    os.setsid()
    for number in _UNHEARD:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    os.write(1, b"ready\n")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    if _waited(path, Path(orders["folder"]), orders["deadline_ns"]):
        with contextlib.suppress(FileNotFoundError):  # it was confirmed just now
            content = path.read_bytes()
            path.unlink()
            _revert(content)


def _waited(path: Path, folder: Path, deadline_ns: int) -> bool:
    """Wait; returns whether the time is over and nobody has decided otherwise."""
    while path.exists() and folder.exists():
        left_s = (deadline_ns - time.monotonic_ns()) / 1e9
        if left_s <= 0:
            return True
        time.sleep(min(left_s, LOOK_EVERY_S))
    path.unlink(missing_ok=True)
    return False


def _revert(content: bytes) -> None:
    from ebpftop.control import undoing

    undoing.revert(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
