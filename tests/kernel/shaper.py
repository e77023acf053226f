# SPDX-License-Identifier: Apache-2.0
"""The loaded shaper under test: packets and their context in and out, a clock by hand."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.layout import U64
from ebpftop.bpf.shaper_layout import ShaperFlag, Shaping
from ebpftop.kernel import bpffs, libbpf, loading
from ebpftop.kernel.maps import Map
from ebpftop.model import DIRECTIONS, Prefix
from tests.kernel.packets import frame

SECOND_NS = 10**9
START_NS = 1000 * SECOND_NS
NEXT, DROPPED = 2**32 - 1, 2
HORIZON_NS, MARK_NS = 2 * SECOND_NS, 5_000_000
CAPACITY = {"CAPACITY_PREFIXES": 64, "CAPACITY_SENT": 1024, "CAPACITY_CACHE": 1024}
_numbers = itertools.count()

SK_BUFF = np.dtype(
    {
        "names": ["len", "vlan_present", "vlan_tci", "vlan_proto", "priority", "tstamp",
                  "wire_len", "gso_segs", "gso_size"],
        "formats": ["<u4", "<u4", "<u4", "<u4", "<u4", "<u8", "<u4", "<u4", "<u4"],
        "offsets": [0, 20, 24, 28, 32, 152, 160, 164, 176],
        "itemsize": 192,
    }
)  # fmt: skip
"""The fields of `struct __sk_buff` (linux/bpf.h) that tests set or look at."""


V4, V6 = frame("192.0.2.1"), frame("2001:db8::1")
TO_V4, TO_V6 = "198.51.100.1", "2001:db8:ffff::1"
"""Where the frames go to."""
RATE_BPS, BURST_BYTES = 8_000_000, 10_000


@dataclass(frozen=True)
class Outcome:
    """What became of one packet."""

    verdict: int
    packet: bytes
    priority: int
    tstamp: int

    @property
    def passed(self) -> bool:
        """Whether it goes on to the next program."""
        assert self.verdict in (NEXT, DROPPED)
        return self.verdict == NEXT


class Shaper:
    """The loaded shaper, attached to nothing.

    Args:
        folder: Where it is pinned.
        test_clock: It was compiled with TEST_CLOCK.
    """

    def __init__(self, folder: Path, *, test_clock: bool) -> None:
        self.maps = {
            name: Map(libbpf.open_pin(folder / name), *types) for name, types in layout.MAPS.items()
        }
        self._clock = (
            Map(libbpf.open_pin(folder / "shaper_clock"), np.dtype("<u4"), U64)
            if test_clock
            else None
        )
        self.programs = [libbpf.open_pin(folder / f"prog_{name}") for name in layout.PROGRAMS]
        self.reset()

    def close(self) -> None:
        """Give back what it opened."""
        for opened in (*self.maps.values(), *([self._clock] if self._clock else [])):
            opened.close()
        for program in self.programs:
            os.close(program)

    def reset(self) -> None:
        """Empty every map and begin again at START_NS, without a class."""
        for opened in self.maps.values():
            if opened.type in ("array", "percpu_array"):
                indexes = np.arange(opened.max_entries, dtype="<u4")
                opened.put_all(indexes, np.zeros(opened.max_entries, opened.value))
            else:
                opened.delete_all(opened.read()[0].copy())
        self._config = np.zeros(1, layout.CONFIG)
        self.configure(
            flags=ShaperFlag.INGRESS | ShaperFlag.EGRESS,
            horizon=HORIZON_NS << layout.TIME_SHIFT,
            mark=MARK_NS << layout.TIME_SHIFT,
        )
        self._next_slot = 0
        if self._clock:
            self.now_ns = START_NS

    def configure(self, **fields: int) -> None:
        """Change fields of the configuration."""
        for name, value in fields.items():
            self._config[name] = value
        self._config["generation"] += 1
        self.maps["shaper_config"].put(0, self._config)

    @property
    def now_ns(self) -> int:
        """What the programs take for the time."""
        return self._now_ns

    @now_ns.setter
    def now_ns(self, value: int) -> None:
        assert self._clock is not None
        self._now_ns = value
        self._clock.put(0, np.array([value], U64))

    # Classes

    def add(
        self,
        rate_bps: int,
        burst_bytes: int,
        *prefixes: str,
        shaping: Shaping = Shaping.POLICE,
        direction: str = "egress",
        mark: int | None = None,
        **fields: int,
    ) -> int:
        """Make a class with a full bucket and put prefixes into it; returns its slot."""
        slot = self._next_slot
        self._next_slot += 1
        record = np.zeros(1, layout.TRAFFIC_CLASS)
        record["shaping"], record["direction"] = shaping, DIRECTIONS.index(direction)
        record["shapes"]["byte_cost"] = layout.byte_cost(rate_bps)
        record["shapes"]["burst"] = layout.line_time(burst_bytes, rate_bps)
        record["shapes"]["mark"] = layout.WORD if mark is None else mark
        for name, value in fields.items():
            record[name] = value
        self.maps["traffic_classes"].put(slot, record)
        self.set_time(slot, self.now_ns << layout.TIME_SHIFT if self._clock else 0)
        for prefix in prefixes:
            self.assign(prefix, slot, direction)
        return slot

    def set_time(self, slot: int, time: int) -> None:
        """Set the line time up to which a bucket is paid."""
        bucket = np.zeros(1, layout.BUCKET)
        bucket["time"] = layout.bucket_at(time)
        self.maps["buckets"].put(slot, bucket)

    def owed(self, slot: int) -> int:
        """Return the line time that a bucket owes now."""
        found = self.maps["buckets"].get(slot)
        assert found is not None
        return layout.owed(int(found["time"][0]), self.now_ns)

    def assign(self, text: str, slot: int, direction: str = "egress") -> None:
        """Put a prefix into a class."""
        key = np.zeros((), layout.CLASSIFIED)
        prefix = Prefix.parse(text)
        key["length"], key["word"] = 32 + prefix.length, np.void(prefix.to_bytes())
        key["direction"] = DIRECTIONS.index(direction)
        self.maps["ip_classification"].put(key, np.array([slot + 1], U64))
        self.configure()

    def stats(self, slot: int) -> dict[str, int]:
        """Return the counters of a class."""
        found = self.maps["class_stats"].get(slot)
        assert found is not None
        return {name: int(found[name].sum()) for name in layout.CLASS_STATS.names or ()}

    def totals(self, direction: str = "egress") -> dict[str, tuple[int, int]]:
        """Return packets and bytes that were classified, not classified, and exempt."""
        found = self.maps["shaper_stats"].get(0)
        assert found is not None
        at = DIRECTIONS.index(direction)
        return {
            name: (
                int(found[name][0, :, at]["packets"].sum()),
                int(found[name][0, :, at]["bytes"].sum()),
            )
            for name in layout.STATS.names or ()
        }

    # Packets

    def run(self, packet: bytes, direction: str = "egress", **context: Any) -> Outcome:
        """Give it one packet, with fields of its context."""
        skb = np.zeros(1, SK_BUFF)
        for name, value in context.items():
            skb[name] = value
        program = self.programs[DIRECTIONS.index(direction)]
        verdict, after, out = libbpf.run_with_context(program, packet, skb.tobytes())
        told = np.frombuffer(out, SK_BUFF)[0]
        return Outcome(verdict, after, int(told["priority"]), int(told["tstamp"]))

    def passes(self, packet: bytes, direction: str = "egress", **context: Any) -> bool:
        """Give it one packet; returns whether it passed."""
        return self.run(packet, direction, **context).passed


def until_dropped(shaper: Shaper, packet: bytes, **context: Any) -> list[Outcome]:
    """Send until one is dropped; return what became of those before it."""
    outcomes = []
    while (outcome := shaper.run(packet, **context)).passed:
        outcomes.append(outcome)
        assert len(outcomes) < 1000
    return outcomes


@contextmanager
def loaded(*, test_clock: bool = True) -> Iterator[Shaper]:
    """Load the shaper into a folder of this process's own, and take it away again.

    The lock keeps other processes from sweeping it as stale: nothing is attached to it.
    """
    bpffs.mount(lasting=False)
    name = f"test-{os.getpid()}-shaper-{next(_numbers)}"
    folder = bpffs.BPFFS / name
    with bpffs.locked(name):
        folder.mkdir()
        try:
            defines = CAPACITY | ({"TEST_CLOCK": 1} if test_clock else {})
            loading.load(folder, defines, [loading.SHAPER])
            shaper = Shaper(folder, test_clock=test_clock)
            try:
                yield shaper
            finally:
                shaper.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            (bpffs.RUN / f"{name}.lock").unlink(missing_ok=True)
