# SPDX-License-Identifier: Apache-2.0
"""The thread that asks a source once a tick, with sources that need no kernel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue

import pytest

from ebpftop.errors import EbpftopError, SourceLostError
from ebpftop.model import Snapshot
from ebpftop.sources import Sampler
from tests.tui import fakes

WAIT_S = 10.0


class Counting:
    """A source whose snapshots are numbered, until one raises."""

    def __init__(self, error: Exception | None = None, after: int = 0) -> None:
        self.error, self.after = error, after
        self.asked = 0
        self.asked_by: set[int] = set()
        self.closed = 0
        self.wants: frozenset[str] = frozenset()

    def snapshot(self) -> Snapshot:
        assert not self.closed
        self.asked_by.add(threading.get_ident())
        if self.error and self.asked == self.after:
            raise self.error
        self.asked += 1
        return fakes.snapshot(self.asked - 1)

    def close(self) -> None:
        self.closed += 1


@contextmanager
def sampling(
    source: Counting,
    interval_s: float,
    deliver: Callable[[Snapshot], None],
    lost: Callable[[EbpftopError], None] = lambda error: None,
) -> Iterator[Sampler]:
    sampler = Sampler(source, interval_s, deliver, lost)
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.stop()


def test_it_delivers_snapshots_in_order_from_a_thread_of_its_own() -> None:
    source, delivered = Counting(), Queue[Snapshot]()
    with sampling(source, 0.01, delivered.put):
        sequences = [delivered.get(timeout=WAIT_S).sequence for _ in range(5)]

    assert sequences == [0, 1, 2, 3, 4]
    assert len(source.asked_by) == 1
    assert threading.get_ident() not in source.asked_by


def test_the_second_snapshot_comes_soon_after_the_first() -> None:
    delivered = Queue[float]()
    with sampling(Counting(), 600.0, lambda _: delivered.put(time.monotonic())):
        first_s, second_s = delivered.get(timeout=WAIT_S), delivered.get(timeout=WAIT_S)

    assert second_s - first_s == pytest.approx(Sampler.FIRST_INTERVAL_S, abs=0.24)


def test_it_stops_at_once_in_the_middle_of_an_interval() -> None:
    source, delivered = Counting(), Queue[Snapshot]()
    with sampling(source, 600.0, delivered.put) as sampler:
        for _ in range(2):
            delivered.get(timeout=WAIT_S)
        started_s = time.monotonic()
        sampler.stop()
        assert time.monotonic() - started_s < WAIT_S

    assert not sampler.is_alive()
    assert (source.asked, source.closed) == (2, 1)
    assert delivered.empty()


def test_it_samples_at_once_when_told_to() -> None:
    delivered = Queue[Snapshot]()
    with sampling(Counting(), 600.0, delivered.put) as sampler:
        for _ in range(2):
            delivered.get(timeout=WAIT_S)
        for sequence in (2, 3):
            sampler.sample_now()
            assert delivered.get(timeout=WAIT_S).sequence == sequence


def test_an_interval_may_be_changed_while_it_runs() -> None:
    delivered = Queue[Snapshot]()
    with sampling(Counting(), 600.0, delivered.put) as sampler:
        delivered.get(timeout=WAIT_S)
        delivered.get(timeout=WAIT_S)
        sampler.interval_s = 0.01
        sampler.sample_now()
        for _ in range(5):
            delivered.get(timeout=WAIT_S)


@pytest.mark.parametrize("after", [0, 2])
def test_a_lost_source_is_told_once_and_closed(after: int) -> None:
    error = SourceLostError("eth0 was deleted")
    source, delivered, lost = Counting(error, after), Queue[Snapshot](), Queue[EbpftopError]()
    with sampling(source, 0.01, delivered.put, lost.put) as sampler:
        assert lost.get(timeout=WAIT_S) is error
        sampler.join(WAIT_S)

    assert lost.empty()
    assert delivered.qsize() == after
    assert source.closed == 1


def test_a_fault_of_ours_is_told_as_an_error_too() -> None:
    source, lost = Counting(ZeroDivisionError("oops")), Queue[EbpftopError]()
    with sampling(source, 0.01, lambda _: None, lost.put):
        assert "ZeroDivisionError('oops')" in str(lost.get(timeout=WAIT_S))
    assert source.closed == 1
