# SPDX-License-Identifier: Apache-2.0
"""Names of addresses, looked up in the background and kept: never waited for."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from ebpftop.format import printable
from ebpftop.model import Prefix

LOOKUP = ("getent", "hosts")
"""The command that asks what the machine's own resolver would be asked (nsswitch.conf)."""
LONGEST_LOOKUP_S = 3.0
KEPT_FOR_S = 600.0
"""How long an answer holds, that there is no name included."""
MOST_KEPT = 4096
MOST_WAITING = 200
"""Addresses that may wait for their turn; more are asked again when they are still in sight."""
WORKERS = 4
_LONGEST_NAME = 120


class Names:
    """Looks up names in threads of its own, a killable process for each lookup.

    Args:
        command: What is run with an address as its last word; prints the address and names.
    """

    def __init__(self, command: Sequence[str] = LOOKUP) -> None:
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._kept: OrderedDict[Prefix, tuple[float, str]] = OrderedDict()
        self._waiting: queue.Queue[Prefix | None] = queue.Queue()
        self._asked: set[Prefix] = set()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"ebpftop-names-{number}", daemon=True)
            for number in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def of(self, address: Prefix) -> str:
        """Return the name of an address; empty while it is not known, and then it is asked for."""
        now_s = time.monotonic()
        with self._lock:
            kept = self._kept.get(address)
            if kept is not None:
                self._kept.move_to_end(address)
            stale = kept is None or now_s - kept[0] > KEPT_FOR_S
            if stale and address not in self._asked and len(self._asked) < MOST_WAITING:
                self._asked.add(address)
                self._waiting.put(address)
        return kept[1] if kept is not None else ""

    def stop(self) -> None:
        """End every lookup that is under way, and wait for the threads."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                child.kill()
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (address := self._waiting.get()) is not None and not self._stopped:
            name = self._look_up(address)
            with self._lock:
                self._asked.discard(address)
                self._kept[address] = (time.monotonic(), name)
                self._kept.move_to_end(address)
                while len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)

    def _look_up(self, address: Prefix) -> str:
        """Return the first name that the resolver gives, made printable; empty for none."""
        with self._lock:
            if self._stopped:
                return ""
            try:
                child = subprocess.Popen(
                    [*self._command, str(address)], stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace",
                )  # fmt: skip
            except OSError:
                return ""
            self._running.add(child)
        try:
            words = child.communicate(timeout=LONGEST_LOOKUP_S)[0].split()
        except subprocess.TimeoutExpired:
            child.kill()
            words = []
            with suppress(OSError):
                child.communicate()
        finally:
            with self._lock:
                self._running.discard(child)
        return printable(words[1], _LONGEST_NAME) if len(words) > 1 else ""
