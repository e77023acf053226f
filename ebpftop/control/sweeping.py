# SPDX-License-Identifier: Apache-2.0
"""What the process that holds an instance does from time to time."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import closing
from typing import Protocol

from ebpftop.errors import EbpftopError
from ebpftop.kernel.instance import describe_failure


class Ways(Protocol):
    """Keeps the ways to backends; see `control.ways.WayKeeper`."""

    def fileno(self) -> int:
        """Return the descriptor that can be read once a way may have changed."""
        ...

    def refresh(self, *, only_changes: bool = False) -> None:
        """Bring ways up to date."""
        ...

    def close(self) -> None:
        """Let the kernel look for the ways itself."""
        ...


class Sweepable(Protocol):
    """What is swept; see `control.everything.InstanceControl`."""

    def sweep(self) -> None:
        """Do what is due."""
        ...

    def keep_ways(self) -> Ways:
        """Begin to keep the ways to backends."""
        ...


class Sweeper(threading.Thread):
    """Ends blocks and flows that are over, and keeps what depends on the host up to date.

    Args:
        control: Of the instance.
    """

    INTERVAL_S = 2.0

    def __init__(self, control: Sweepable) -> None:
        super().__init__(name="ebpftop-sweeper", daemon=True)
        self._control = control
        self._told, self._teller = socket.socketpair()
        self.error: EbpftopError | None = None
        """What ended it early; a viewer of the instance meets the same."""

    def run(self) -> None:
        """Sweep until `stop`; not called directly."""
        try:
            with closing(self._control.keep_ways()) as ways:
                ways.refresh()
                while self._waited(ways):
                    self._control.sweep()
                    ways.refresh()
        except EbpftopError as error:
            self.error = error
        except OSError as error:
            self.error = describe_failure(error)

    def _waited(self, ways: Ways) -> bool:
        """Wait for the next sweep, and see to ways that change meanwhile; False once stopped."""
        due_s = time.monotonic() + self.INTERVAL_S
        while (left_s := due_s - time.monotonic()) > 0:
            ready, _, _ = select.select([self._told.fileno(), ways.fileno()], [], [], left_s)
            if self._told.fileno() in ready:
                return False
            if ready:
                ways.refresh(only_changes=True)
        return not select.select([self._told], [], [], 0)[0]

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._teller.close()
        if self.is_alive():
            self.join()
        self._told.close()
