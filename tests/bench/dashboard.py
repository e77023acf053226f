# SPDX-License-Identifier: Apache-2.0
"""The dashboard at one look a second: processor time and memory, and how soon it shows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.kernel.instance import Instance
from tests.bench.figures import Row
from tests.bench.instances import attached, fill_sources
from tests.bench.registry import Effort, measurement
from tests.bench.watching import shown, watch
from tests.kernel.terminal import Terminal

EBPFTOP = [sys.executable, "-m", "ebpftop"]
SMALL, LARGE = (80, 24), (160, 50)
LIVE = 100_000
FEW = 100
SETTLE_S = 5
"""Before a dashboard is watched: what it does at its start is not a tick."""
LONGEST_S = 15
LAUNCHES = 3
TALKERS = "2"


class Changing:
    """Sources whose counters grow as under traffic.

    Args:
        instance: In whose table.
        count: How many there are.
        changing: How many grow at each call.
    """

    def __init__(self, instance: Instance, count: int, changing: int) -> None:
        self._tracker = instance.maps["ip_tracker"]
        self._keys, self._rows = fill_sources(instance, count)
        self._some = np.arange(count)[:: max(1, count // changing)][:changing]
        self._random = np.random.default_rng(1)

    def __call__(self) -> None:
        """Let a second's packets come."""
        rows: NDArray[Any] = self._rows[self._some]
        grown = self._random.integers(1, 1000, len(rows), np.uint64)
        rows["counted"]["passed_packets"] += grown
        rows["counted"]["passed_bytes"] += grown * np.uint64(100)
        rows["last_ns"] = time.monotonic_ns()
        self._rows[self._some] = rows
        self._tracker.put_all(self._keys[self._some], rows)


def _watched(
    name: str,
    size: tuple[int, int],
    effort: Effort,
    change: Callable[[], None],
    *,
    budgets: tuple[str, str] = ("", ""),
) -> list[Row]:
    """Watch a dashboard on the talkers' pane."""
    with shown([*EBPFTOP, "eth0"], size) as program:
        program.wait_for_output(4000)
        program.press(TALKERS)
        watch(program.pid, SETTLE_S, change)
        before = program.octets
        found = watch(program.pid, min(effort.watch_s, LONGEST_S), change)
        written = round((program.octets - before) / len(found.core_percent))
    columns, lines = size
    name = f"{columns}x{lines}, {name}"
    return [
        Row(name, "% of a core", found.core_percent, budget=budgets[0],
            details={"to_the_terminal": f"{written:,} B/s"}),
        Row(f"{name}: memory", "MB", found.rss_mb, budget=budgets[1]),
    ]  # fmt: skip


@measurement(
    "dashboard",
    "The dashboard",
    place=50,
    note="Processor time of the whole process, its reading thread included, at one look a second,"
    " and its resident memory, on the pane of sources sorted by packets.",
)
def dashboard(effort: Effort) -> Sequence[Row]:
    """Watch dashboards with few sources and with many."""
    answer = []
    with attached() as (_, instance):
        answer += _watched("50 sources", LARGE, effort, Changing(instance, 50, 50))
        few = Changing(instance, LIVE, FEW)
        answer += _watched(f"{LIVE:,} sources, {FEW} changing", LARGE, effort, few)
        every = Changing(instance, LIVE, LIVE)
        answer += _watched(f"{LIVE:,} sources changing", SMALL, effort, every)
        name = f"{LIVE:,} sources changing"
        answer += _watched(name, LARGE, effort, every, budgets=("tick", "rss"))
    return answer


@measurement(
    "launch",
    "Launch",
    place=51,
    note="From the start of the process until it is on the screen. `attach` compiles the"
    " programs and loads them first; `join` finds them attached.",
)
def launch(effort: Effort) -> Sequence[Row]:
    """Time starts, one that attaches and one that joins in turn."""
    times: dict[str, list[float]] = {}
    with attached() as (lab, _):
        other = lab.clients[0]
        beyond = ["nsenter", f"--net={other.netns_path}", *EBPFTOP, "eth0"]
        for _ in range(min(LAUNCHES, effort.rounds)):
            for name, argv in (("join", [*EBPFTOP, "eth0"]), ("attach", beyond)):
                frame_s, numbers_s = _launched(argv)
                times.setdefault(f"{name}, first frame", []).append(frame_s)
                times.setdefault(f"{name}, first real numbers", []).append(numbers_s)
    decides = "attach, first real numbers"
    return [
        Row(name, "s", samples, budget="launch" if name == decides else "")
        for name, samples in times.items()
    ]


def _launched(argv: Sequence[str]) -> tuple[float, float]:
    """Start the dashboard; return the seconds to its first frame and to its first rates."""
    started_s = time.perf_counter()
    terminal = Terminal(argv)
    try:
        terminal.wait_for("RECEIVED")
        frame_s = time.perf_counter() - started_s
        terminal.wait_until(_has_rates, "no rates")
        numbers_s = time.perf_counter() - started_s
        terminal.press("q")
        terminal.wait()
        return frame_s, numbers_s
    finally:
        terminal.close()


def _has_rates(screen: str) -> bool:
    return "peak" in screen and "peak –" not in screen
