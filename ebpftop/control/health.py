# SPDX-License-Identifier: Apache-2.0
"""Health checks: who is asked, how often, and after how many answers its health changes."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from ebpftop.control.probing import probe
from ebpftop.errors import EbpftopError
from ebpftop.kernel.instance import describe_failure
from ebpftop.model import HealthCheck, Service


@dataclass(frozen=True, slots=True)
class Target:
    """One backend of one VIP, and how it is checked."""

    vip: Service
    """The VIP."""
    backend: Service
    """The backend."""
    check: HealthCheck
    """The VIP's check."""


class Patients(Protocol):
    """Whose health is checked, and where the outcome goes. May block for milliseconds."""

    def begin_round(self) -> Mapping[Target, bool | None]:
        """Return whom to check, and what is known of them; none where another process checks.

        Called about once a second, which also tells readers that somebody checks.
        """
        ...

    def set_health(self, vip: Service, backend: Service, healthy: bool) -> None:
        """Note a change of a backend's health.

        Raises:
            EbpftopError: It cannot be noted now, or the backend is gone.
        """
        ...

    def end(self) -> None:
        """Tell readers that nobody checks any more."""
        ...


class Tally:
    """Turns single answers into health: `rise` good or `fall` bad ones in a row change it."""

    def __init__(self, check: HealthCheck, healthy: bool | None) -> None:
        self.healthy = healthy
        """What is known; None for nothing yet."""
        self._check = check
        self._good = self._bad = 0

    def add(self, good: bool) -> bool | None:
        """Count an answer; returns the health that is now due, None for no change."""
        self._good = self._good + 1 if good else 0
        self._bad = 0 if good else self._bad + 1
        if self._good >= self._check.rise and self.healthy is not True:
            return True
        if self._bad >= self._check.fall and self.healthy is not False:
            return False
        return None


class HealthChecker(threading.Thread):
    """Checks every backend in its interval, until stopped; one thread for all of them.

    Backends and checks that come, go and change are noticed within a second.

    Args:
        patients: Whom to check.
    """

    ROUND_S = 1.0
    """Time between looks at whom to check."""
    FIRST_WITHIN_S = 2.0
    """First checks are spread over so long, or the interval, so that they never go out at once."""
    AT_ONCE = 400
    """Most checks under way; each has a file descriptor."""

    def __init__(self, patients: Patients) -> None:
        super().__init__(name="ebpftop-health", daemon=True)
        self._patients = patients
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._turns = asyncio.Semaphore(self.AT_ONCE)
        self._writing = asyncio.Lock()
        self._watches: dict[Target, tuple[Tally, asyncio.Task[None]]] = {}
        self.error: EbpftopError | None = None
        """What ended it early; a viewer of the instance meets the same."""

    def run(self) -> None:
        """Check until `stop`; not called directly."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._check_until_stopped())
            except EbpftopError as error:
                self.error = error
            except OSError as error:
                self.error = describe_failure(error)

    def stop(self) -> None:
        """End the thread and wait for it; checks under way are broken off."""
        # The loop may close just now, and then there is nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopped.set)
        if self.is_alive():
            self.join()
        self._loop.close()

    async def _check_until_stopped(self) -> None:
        try:
            while not self._stopped.is_set():
                async with self._writing:
                    self._watch(await asyncio.to_thread(self._patients.begin_round))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), self.ROUND_S)
                self._raise_failures()
        finally:
            self._watch({})
            self._patients.end()

    def _watch(self, targets: Mapping[Target, bool | None]) -> None:
        """Begin and end watches, so that exactly `targets` are watched, and by what is known."""
        for target in self._watches.keys() - targets.keys():
            self._watches.pop(target)[1].cancel()
        for target, healthy in targets.items():
            if target in self._watches:
                self._watches[target][0].healthy = healthy
            else:
                tally = Tally(target.check, healthy)
                watch = self._loop.create_task(self._check_again_and_again(target, tally))
                self._watches[target] = tally, watch

    def _raise_failures(self) -> None:
        for _, watch in self._watches.values():
            if watch.done():
                watch.result()

    async def _check_again_and_again(self, target: Target, tally: Tally) -> None:
        check = target.check
        due_s = self._loop.time() + random.uniform(  # noqa: S311 - no secret
            0.0, min(check.interval_s, self.FIRST_WITHIN_S)
        )
        while True:
            await asyncio.sleep(due_s - self._loop.time())
            async with self._turns:
                good = await probe(target.backend, check)
            change = None if good is None else tally.add(good)
            if change is not None:
                await self._note(target, tally, change)
            # What could not be kept up with is not made up for.
            due_s = max(due_s + check.interval_s, self._loop.time())

    async def _note(self, target: Target, tally: Tally, healthy: bool) -> None:
        """Note a change; where that cannot be now, the next answer tries again."""
        # One at a time: writers of one process would wait for each other's lock.
        async with self._writing:
            with suppress(EbpftopError):
                await asyncio.to_thread(
                    self._patients.set_health, target.vip, target.backend, healthy
                )
                tally.healthy = healthy
