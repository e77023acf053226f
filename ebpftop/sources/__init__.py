# SPDX-License-Identifier: Apache-2.0
"""Where a `Snapshot` comes from: one protocol, and the thread that asks it once a tick."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from ebpftop.errors import EbpftopError
from ebpftop.model import Snapshot


class Source(Protocol):
    """Anything that can be asked for snapshots: a live instance, a recording, a test's list."""

    wants: frozenset[str]
    """What to read besides what is always read, from the next snapshot on: `connections`,
    `inspection`, `instructions:PROGRAM`, `entries:MAP`. May be set from any thread; a source
    that does not have it passes over it."""

    def snapshot(self) -> Snapshot:
        """Read one snapshot; may take milliseconds, and is called from one thread only.

        Raises:
            SourceLostError: There will be no more, and why.
        """
        ...

    def close(self) -> None:
        """Give back what it holds. A closed source is not asked again."""
        ...


class Sampler(threading.Thread):
    """Asks a source once an interval and hands on each snapshot, until stopped or lost.

    The first two snapshots come a quarter of a second apart, so that rates are on the screen
    soon. A tick that was missed is not made up for: the next snapshot covers both.

    Args:
        source: What to ask; the thread closes it when it ends.
        interval_s: Seconds between snapshots; may be changed while it runs.
        deliver: Called in this thread with each snapshot.
        lost: Called in this thread, once, with the error that ended it.
    """

    FIRST_INTERVAL_S = 0.25

    def __init__(
        self,
        source: Source,
        interval_s: float,
        deliver: Callable[[Snapshot], None],
        lost: Callable[[EbpftopError], None],
    ) -> None:
        super().__init__(name="ebpftop-sampler", daemon=True)
        self.interval_s = interval_s
        self._source = source
        self._deliver = deliver
        self._lost = lost
        self._wake = threading.Event()
        self._stopping = False

    def run(self) -> None:
        """Sample until `stop`; not called directly."""
        interval_s = min(self.interval_s, self.FIRST_INTERVAL_S)
        try:
            while not self._stopping:
                started_s = time.monotonic()
                self._deliver(self._source.snapshot())
                self._wake.wait(max(0.0, started_s + interval_s - time.monotonic()))
                self._wake.clear()
                interval_s = self.interval_s
        except EbpftopError as error:
            self._lost(error)
        except Exception as error:
            self._lost(EbpftopError(f"reading failed: {error!r}", "this is a fault of ebpftop"))
        finally:
            self._source.close()

    def sample_now(self) -> None:
        """Take the next snapshot at once, as after an act of the operator."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread and wait for it; the source is closed when this returns."""
        self._stopping = True
        self._wake.set()
        if self.is_alive():
            self.join()
