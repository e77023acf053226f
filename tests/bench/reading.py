# SPDX-License-Identifier: Apache-2.0
"""What reading and ranking a hundred thousand sources costs, beside the bare system calls."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from ebpftop import lab as labs
from ebpftop import report
from ebpftop.bpf import layout
from ebpftop.config import Policy
from ebpftop.control import policy as policies
from ebpftop.filtering import Filter
from ebpftop.kernel.instance import Instance
from ebpftop.sources.live import LiveSource

COUNTS = (1_000, 10_000, 100_000)
ROUNDS = 9


def run() -> list[dict[str, object]]:
    """Measure each size; returns a row for each."""
    rows = []
    for count in COUNTS:
        with labs.Lab(clients=1) as lab, labs.joined(lab.server):
            instance = policies.attach(["eth0"], Policy(), mode="auto", path=None, pinned=False)
            source = LiveSource(Instance(instance.folder, read_only=False))
            try:
                rows.append(_measured(instance, source, count))
            finally:
                source.close()
                instance.remove()
    return rows


def _measured(instance: Instance, source: LiveSource, count: int) -> dict[str, object]:
    keys, rows = np.zeros(count, layout.ADDRESS), np.zeros(count, layout.SOURCE)
    keys["low"] = (0xFFFF << 32) | (0x0A000000 + np.arange(count))
    rows["first_ns"] = time.monotonic_ns()
    everything = Filter.parse("", report.TOP_FIELDS)
    generator = np.random.default_rng(1)
    tracker = instance.maps["ip_tracker"]

    def changed() -> None:
        rows["counted"]["passed_packets"] += generator.integers(1, 1000, count, np.uint64)
        tracker.put_all(keys, rows)

    def ranked() -> None:
        snapshot = source.snapshot()
        report.chosen_sources(snapshot, sort="pps", count=100, only=everything)

    changed()
    ranked()
    bare, whole = [], []
    for _ in range(ROUNDS):
        changed()
        bare.append(_milliseconds(lambda: tracker.read()))
        whole.append(_milliseconds(ranked))
    fastest = statistics.median(bare)
    return {
        "sources": count,
        "bare_ms": round(fastest, 2),
        "snapshot_and_rank_ms": round(statistics.median(whole), 2),
        "ratio": round(statistics.median(whole) / fastest, 2),
    }


def _milliseconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return (time.perf_counter() - started_s) * 1e3
