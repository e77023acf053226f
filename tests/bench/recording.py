# SPDX-License-Identifier: Apache-2.0
"""What an hour of recording takes, in bytes and in time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ebpftop.model import F64, U64, Clock, Snapshot, Sources
from ebpftop.sources.recording import Tape, TapeWriter
from ebpftop.sources.recording.writing import KEY_EVERY
from tests.tui.fakes import START_NS, START_S, attack, many_sources, rates

HOUR = 3600
CLOCK_TICK_NS = 4_000_000
"""Between two readings of the kernel's coarse clock: 250 a second."""


class Synthetic:
    """Sources of which some send in each tick: a few much, most of them little.

    Args:
        sources: How many there are.
        active: How many of them send in a tick.
    """

    def __init__(self, sources: int = 10_000, active: int = 1000) -> None:
        self._random = np.random.default_rng(1)
        self._active = active
        base = many_sources(sources)
        self._state, self._high, self._low = base.state, base.high, base.low
        self._first_ns = np.full(sources, START_NS, np.uint64)
        zero = np.zeros(sources, np.uint64)
        self._counters = dict.fromkeys(("packets", "bytes", "dropped", "dropped_bytes"), zero)
        self._last_ns = self._first_ns
        self._taken_ns = START_NS

    def tick(self, number: int) -> Snapshot:
        """Return the next snapshot."""
        now_ns = START_NS + number * 10**9 + int(self._random.integers(0, 10**6))
        interval_s = (now_ns - self._taken_ns) / 1e9 if number else None
        self._taken_ns = now_ns
        before, self._counters = self._counters, self._counted(now_ns)

        def rate(name: str, factor: int = 1) -> F64:
            grown = self._counters[name] - before[name]
            return grown / interval_s * factor if interval_s else np.full(len(grown), np.nan)

        sources = Sources(
            high=self._high,
            low=self._low,
            packets=self._counters["packets"],
            bytes=self._counters["bytes"],
            dropped=self._counters["dropped"],
            dropped_bytes=self._counters["dropped_bytes"],
            would_drop=np.zeros(len(self._low), np.uint64),
            pps=rate("packets"),
            bps=rate("bytes", 8),
            dropped_pps=rate("dropped"),
            state=self._state,
            first_ns=self._first_ns,
            last_ns=self._last_ns,
        )
        clock = Clock(now_ns, START_S + number)
        flow = rates(float(np.nansum(sources.pps)), float(np.nansum(sources.dropped_pps)))
        return replace(
            attack(number), clock=clock, interval_s=interval_s, sources=sources, rates=flow
        )

    def _counted(self, now_ns: int) -> dict[str, U64]:
        random, count = self._random, self._active
        rows = random.choice(len(self._low), count, replace=False)
        packets = random.geometric(1 / 50, count).astype(np.uint64)
        packets[: count // 20] *= np.uint64(1000)
        octets = packets * random.integers(60, 1500, count).astype(np.uint64)
        held = np.arange(count) < count // 10
        grown = {
            "packets": packets,
            "bytes": octets,
            "dropped": np.where(held, packets // np.uint64(2), 0),
            "dropped_bytes": np.where(held, octets // np.uint64(2), 0),
        }
        counters = {name: column.copy() for name, column in self._counters.items()}
        for name, values in grown.items():
            counters[name][rows] += values
        self._last_ns = self._last_ns.copy()
        readings = random.integers(0, 10**9 // CLOCK_TICK_NS, count).astype(np.uint64)
        ago = readings * np.uint64(CLOCK_TICK_NS) + np.uint64(now_ns % CLOCK_TICK_NS)
        self._last_ns[rows] = np.uint64(now_ns) - ago
        return counters


def hour(ticks: int = HOUR) -> dict[str, object]:
    """Record an hour of 10,000 sources of which 1,000 send in each tick, and read it again.

    Args:
        ticks: How many are recorded, a second apart; the size is told for an hour.
    """
    synthetic = Synthetic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour"
        writer = TapeWriter(path, "eth0")
        written_s = 0.0
        for number in range(ticks):
            snapshot = synthetic.tick(number)
            started_s = time.perf_counter()
            writer.write(snapshot)
            written_s += time.perf_counter() - started_s
        writer.close()
        opened_s = _seconds(lambda: Tape(path).close())
        tape = Tape(path)
        read_s = _seconds(lambda: [tape.tick(number) for number in range(ticks)])
        sought_s = _seconds(lambda: tape.tick(min(ticks, KEY_EVERY) - 1))
        tape.close()
    return {
        "sources": 10_000,
        "active_in_a_tick": 1000,
        "MB_an_hour": round(writer.size_bytes / ticks * HOUR / 1e6, 1),
        "write_ms_a_tick": round(written_s / ticks * 1e3, 2),
        "read_ms_a_tick": round(read_s / ticks * 1e3, 2),
        "farthest_seek_ms": round(sought_s * 1e3, 1),
        "open_ms": round(opened_s * 1e3, 1),
    }


def run() -> list[dict[str, object]]:
    """Measure, and return the rows of a table."""
    return [hour()]


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
