# SPDX-License-Identifier: Apache-2.0
"""What reading and ranking sources costs, beside the system calls alone, bcc and bpftool."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ebpftop import report
from ebpftop.bpf import layout
from ebpftop.filtering import Filter
from ebpftop.kernel.instance import Instance
from ebpftop.kernel.loading import SYSTEM_PYTHON
from ebpftop.sources.live import LiveSource
from tests.bench.figures import Figure, Row
from tests.bench.instances import attached, fill_sources
from tests.bench.machine import lacks
from tests.bench.registry import Effort, measurement

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
DECIDES = 100_000
TOP = 100
_BCC = Path(__file__).with_name("bcc_reader.py")


@measurement(
    "reading",
    "Reading and ranking sources",
    place=40,
    note="Milliseconds until the hundred busiest sources are known: of all of them for ebpftop,"
    " rates and states included; bcc and bpftool only read, and rank nothing. The system calls"
    " are the batched reads alone, into memory that is there already. All sources change"
    " between two reads.",
)
def reading(effort: Effort) -> Sequence[Row]:
    """Measure each size."""
    answer: list[Row] = []
    for count in COUNTS:
        capacity = max(131_072, 2 * count)
        with attached(sources=capacity) as (_, instance):
            source = LiveSource(Instance(instance.folder, read_only=False))
            try:
                rounds = max(5, min(effort.rounds // 2, 2_000_000 // count))
                answer += _measured(instance, source, count, rounds)
            finally:
                source.close()
    return answer


def _measured(instance: Instance, source: LiveSource, count: int, rounds: int) -> list[Row]:
    keys, rows = fill_sources(instance, count)
    everything = Filter.parse("", report.TOP_FIELDS)
    generator = np.random.default_rng(1)
    tracker = instance.maps["ip_tracker"]

    def ranked() -> None:
        report.chosen_sources(source.snapshot(), sort="pps", count=TOP, only=everything)

    bare: list[float] = []
    whole: list[float] = []
    for _ in range(rounds + 1):
        rows["counted"]["passed_packets"] += generator.integers(1, 1000, count, np.uint64)
        tracker.put_all(keys, rows)
        bare.append(_milliseconds(tracker.read))
        whole.append(_milliseconds(ranked))
    ours = Row(
        f"ebpftop, {count:,} sources", "ms", whole[1:],
        peer="the system calls", peer_samples=bare[1:],
        budget="read" if count == DECIDES else "",
    )  # fmt: skip
    calls = Row(f"the system calls, {count:,}", "ms", bare[1:])
    pinned = str(instance.folder / "ip_tracker")
    return [ours, calls, *_peers(pinned, count, instance.maps["ip_tracker"].max_entries, whole[1:])]


def _peers(pinned: str, count: int, capacity: int, ours: Sequence[float]) -> list[Row]:
    rounds = 5 if count < 100_000 else 3 if count == 100_000 else 1
    answer = []
    if reason := lacks("bcc"):
        answer.append(Row(f"bcc, {count:,}", skipped=reason))
    else:
        words = [str(capacity), str(layout.SOURCE.itemsize), str(rounds)]
        found = _output([SYSTEM_PYTHON, str(_BCC), pinned, *words])
        answer += [
            Row(f"bcc's {name}, {count:,}", "ms", samples, details=_times(samples, ours))
            for name, samples in json.loads(found).items()
        ]
    if reason := lacks("bpftool"):
        answer.append(Row(f"bpftool map dump, {count:,}", skipped=reason))
    else:
        argv = ["bpftool", "--json", "map", "dump", "pinned", pinned]
        samples = [_milliseconds(lambda: _output(argv)) for _ in range(min(rounds, 3))]
        details = _times(samples, ours)
        answer.append(Row(f"bpftool map dump, {count:,}", "ms", samples, details=details))
    return answer


def _times(samples: Sequence[float], ours: Sequence[float]) -> dict[str, object]:
    """Say how many times as long as ebpftop it takes."""
    factor = Figure.of(samples).median / Figure.of(ours).median
    return {"times_ebpftop": f"{factor:.1f} x"}


def _output(argv: Sequence[str]) -> str:
    """Run a command that must succeed; returns what it wrote, a large output unread."""
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.decode() if len(done.stdout) < 1 << 16 else ""


def _milliseconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return (time.perf_counter() - started_s) * 1e3
