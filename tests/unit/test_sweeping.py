# SPDX-License-Identifier: Apache-2.0
"""The thread that sweeps, with controls that need no kernel."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from ebpftop.control.sweeping import Sweeper
from ebpftop.errors import KernelRefusedError

WAIT_S = 10.0


class Ways:
    """Counts how often it was asked, and may hear of changes."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.refreshed = 0
        self.heard = threading.Event()
        self.closed = False

    def fileno(self) -> int:
        return self.read_fd

    def change(self) -> None:
        os.write(self.write_fd, b"!")

    def refresh(self, *, only_changes: bool = False) -> None:
        self.refreshed += 1
        if only_changes:
            os.read(self.read_fd, 1)
            self.heard.set()

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        os.close(self.read_fd)
        os.close(self.write_fd)


class Control:
    """Counts how often it is told to sweep, and may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.swept = 0
        self.thrice = threading.Event()
        self.ways = Ways()

    def keep_ways(self) -> Ways:
        return self.ways

    def sweep(self) -> None:
        self.swept += 1
        if self.error:
            raise self.error
        if self.swept == 3:
            self.thrice.set()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweeper, "INTERVAL_S", 0.01)


def test_it_sweeps_again_and_again_until_it_is_stopped() -> None:
    control = Control()
    sweeper = Sweeper(control)
    sweeper.start()
    assert control.thrice.wait(WAIT_S)
    sweeper.stop()
    swept = control.swept

    assert not sweeper.is_alive()
    assert sweeper.error is None
    assert control.swept == swept
    assert control.ways.closed
    assert control.ways.refreshed > swept


def test_it_stops_in_the_middle_of_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweeper, "INTERVAL_S", 600.0)
    sweeper = Sweeper(Control())
    sweeper.start()
    sweeper.stop()
    assert not sweeper.is_alive()


def test_it_may_be_stopped_before_it_was_started() -> None:
    Sweeper(Control()).stop()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KernelRefusedError("another ebpftop keeps writing"), "another ebpftop keeps writing"),
        (OSError(errno.EPERM, "no"), "the kernel refused"),
    ],
)
def test_what_ends_it_early_is_kept_for_who_started_it(error: Exception, told: str) -> None:
    control = Control(error)
    sweeper = Sweeper(control)
    sweeper.start()
    sweeper.join(WAIT_S)

    assert control.swept == 1
    assert told in str(sweeper.error)


def test_a_changed_way_is_seen_to_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweeper, "INTERVAL_S", 600.0)
    control = Control()
    sweeper = Sweeper(control)
    sweeper.start()
    for _ in range(2):
        control.ways.heard.clear()
        control.ways.change()
        assert control.ways.heard.wait(WAIT_S)
    sweeper.stop()
    assert control.swept == 0


def test_changes_without_end_do_not_keep_it_from_sweeping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sweeper, "INTERVAL_S", 0.05)
    monkeypatch.setattr(Ways, "refresh", lambda *_, **__: None)
    control = Control()
    control.ways.change()
    sweeper = Sweeper(control)
    sweeper.start()
    assert control.thrice.wait(WAIT_S)
    sweeper.stop()
