# SPDX-License-Identifier: Apache-2.0
"""The thread that sweeps, with controls that need no kernel."""

from __future__ import annotations

import errno
import threading
from typing import cast

import pytest

from ebpftop.control.protection import ProtectionControl
from ebpftop.control.sweeping import Sweeper
from ebpftop.errors import KernelRefusedError

WAIT_S = 10.0


class Control:
    """Counts how often it is told to sweep, and may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.swept = 0
        self.thrice = threading.Event()

    def sweep(self) -> None:
        self.swept += 1
        if self.error:
            raise self.error
        if self.swept == 3:
            self.thrice.set()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweeper, "INTERVAL_S", 0.01)


def sweeping(control: Control) -> Sweeper:
    return Sweeper(cast(ProtectionControl, control))


def test_it_sweeps_again_and_again_until_it_is_stopped() -> None:
    control = Control()
    sweeper = sweeping(control)
    sweeper.start()
    assert control.thrice.wait(WAIT_S)
    sweeper.stop()
    swept = control.swept

    assert not sweeper.is_alive()
    assert sweeper.error is None
    assert control.swept == swept


def test_it_stops_in_the_middle_of_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweeper, "INTERVAL_S", 600.0)
    sweeper = sweeping(Control())
    sweeper.start()
    sweeper.stop()
    assert not sweeper.is_alive()


def test_it_may_be_stopped_before_it_was_started() -> None:
    sweeping(Control()).stop()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KernelRefusedError("another ebpftop keeps writing"), "another ebpftop keeps writing"),
        (OSError(errno.EPERM, "no"), "the kernel refused"),
    ],
)
def test_what_ends_it_early_is_kept_for_who_started_it(error: Exception, told: str) -> None:
    control = Control(error)
    sweeper = sweeping(control)
    sweeper.start()
    sweeper.join(WAIT_S)

    assert control.swept == 1
    assert told in str(sweeper.error)
