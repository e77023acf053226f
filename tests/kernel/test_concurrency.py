# SPDX-License-Identifier: Apache-2.0
"""Two processors at once, by the real clock: limits stay exact and nothing is counted twice."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ebpftop.bpf.layout import EventKind, Flag
from ebpftop.kernel import libbpf
from tests.kernel.observing import as_number
from tests.kernel.packets import frame, sources
from tests.kernel.pipeline import SECOND_NS, Pipeline, loaded

pytestmark = pytest.mark.kernel

HOST, HOST6 = "192.0.2.1", "2001:db8::1"
FORK = multiprocessing.get_context("fork")
CPUS = sorted(os.sched_getaffinity(0))[:2]
REPEAT = 5000
TOGETHER_S = 10.0


@pytest.fixture(scope="module")
def loaded_by_real_clock() -> Iterator[Pipeline]:
    with loaded(test_clock=False) as pipeline:
        yield pipeline


@pytest.fixture
def real(loaded_by_real_clock: Pipeline) -> Pipeline:
    """The pipeline with the kernel's own clock, emptied."""
    loaded_by_real_clock.reset()
    return loaded_by_real_clock


def on_two_processors(job: Callable[[int], Any]) -> list[Any]:
    """Run a job in two processes that begin at once, on a processor each; return both results."""
    assert len(CPUS) == 2, "this takes two processors"
    results: Any = FORK.SimpleQueue()
    start = FORK.Barrier(2)

    def work(number: int) -> None:
        os.sched_setaffinity(0, {CPUS[number]})
        start.wait(TOGETHER_S)
        results.put(job(number))

    workers = [FORK.Process(target=work, args=(number,), daemon=True) for number in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    return [results.get() for _ in workers]


def hammer(pipeline: Pipeline, packet: bytes, seconds: float) -> tuple[int, float]:
    """Run a packet on two processors; returns how often, and for how many seconds."""

    def job(_: int) -> tuple[int, float, float]:
        began_s, runs = time.monotonic(), 0
        while time.monotonic() < began_s + seconds:
            libbpf.run_program(pipeline.program, packet, repeat=REPEAT)
            runs += REPEAT
        return runs, began_s, time.monotonic()

    runs, began_s, ended_s = zip(*on_two_processors(job), strict=True)
    return sum(runs), max(ended_s) - min(began_s)


def check_sums(pipeline: Pipeline, runs: int, octets: int) -> None:
    """Every run is in every counter, once."""
    totals = pipeline.totals()
    assert totals["received"] == (runs, runs * octets)
    assert totals["passed"][0] + totals["dropped"][0] == runs
    assert totals["passed"][1] + totals["dropped"][1] == runs * octets
    assert sum(totals["drops"].values()) == totals["dropped"][0]
    assert sum(totals["protocols"].values()) == runs
    rows = list(pipeline.rows().values())
    for part in ("passed", "dropped"):
        assert sum(row[f"{part}_packets"] for row in rows) == totals[part][0]
        assert sum(row[f"{part}_bytes"] for row in rows) == totals[part][1]


@pytest.mark.parametrize("source", [HOST, HOST6])
def test_two_processors_share_one_limit(real: Pipeline, source: str) -> None:
    rate_pps, burst_s = 50_000, 0.1
    real.limit(pps=rate_pps, burst_s=burst_s)
    packet = frame(source)

    runs, seconds = hammer(real, packet, 2)

    passed = real.totals()["passed"][0]
    assert passed == pytest.approx(rate_pps * (seconds + burst_s), rel=0.05)
    assert runs > 2 * passed
    check_sums(real, runs, len(packet))


def test_traffic_within_its_limits_loses_no_packet_to_contention(real: Pipeline) -> None:
    real.limit(pps=10**9, bps=10**12, burst_s=3600)
    packet = frame(HOST)

    runs, _ = hammer(real, packet, 0.5)

    assert real.totals()["dropped"] == (0, 0)
    check_sums(real, runs, len(packet))


def test_one_automatic_block_is_set_and_told_once(real: Pipeline) -> None:
    real.limit(pps=1000, burst_s=0.1, grace_s=0.1, block_for_s=60)
    packet = frame(HOST)

    runs, _ = hammer(real, packet, 0.5)

    assert [event[0] for event in real.events()] == [EventKind.BLOCK_AUTO]
    block = real.auto_blocks()[as_number(HOST)]
    assert block["strikes"] == 1
    assert block["packets"] == real.totals()["drops"]["blocked-auto"] > 0
    assert block["bytes"] == block["packets"] * len(packet)
    check_sums(real, runs, len(packet))


@pytest.mark.parametrize("text", [HOST, "192.0.2.0/24"])
def test_the_end_of_a_block_is_told_once(real: Pipeline, text: str) -> None:
    until_ns = time.monotonic_ns() + SECOND_NS // 4
    slot = real.block(text, until_ns)
    packet = frame(HOST)

    runs, _ = hammer(real, packet, 0.5)

    events = real.events()
    assert [event[:2] for event in events] == [(EventKind.BLOCK_END, as_number(text))]
    assert until_ns <= events[0][3] < until_ns + SECOND_NS // 4
    dropped = real.totals()["dropped"][0]
    assert 0 < dropped < runs
    assert real.hits() == {slot: (dropped, dropped * len(packet))}
    check_sums(real, runs, len(packet))


def test_a_source_that_two_processors_see_first_gets_one_row(real: Pipeline) -> None:
    # GIVEN both processors at the same source at the same time, again and again
    packets = [frame(source) for source in sources(1500)]
    turns = FORK.RawArray("Q", 2)

    def job(number: int) -> None:
        deadline_s = time.monotonic() + TOGETHER_S
        for turn, packet in enumerate(packets, 1):
            turns[number] = turn
            while turns[1 - number] < turn and time.monotonic() < deadline_s:
                pass
            libbpf.run_program(real.program, packet)

    on_two_processors(job)

    assert len(real.rows()) == len(packets)
    assert real.shared()["sources_added"] == len(packets)
    assert {row["passed_packets"] for row in real.rows().values()} == {2}
    check_sums(real, 2 * len(packets), len(packets[0]))


def test_a_flood_is_told_once(real: Pipeline) -> None:
    real.configure([Flag.DROP_NEW], new_sources=0, flood_pps=1000)

    hammer(real, frame(HOST), 0.5)

    assert [event[0] for event in real.events()] == [EventKind.FLOOD]
