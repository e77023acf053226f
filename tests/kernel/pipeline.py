# SPDX-License-Identifier: Apache-2.0
"""The loaded pipeline under test: packets in by BPF_PROG_TEST_RUN, a clock by hand."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Flag
from ebpftop.kernel import bpffs, libbpf, loading
from ebpftop.kernel.maps import Map
from ebpftop.model import Prefix
from tests.kernel.observing import Observed

SECOND_NS = 10**9
START_NS = 1000 * SECOND_NS
DROPPED, PASSED = 1, 2
_numbers = itertools.count()

CAPACITY = {
    "SOURCES": 2048, "BLOCKS": 256, "PREFIXES": 64, "RULES": 256 + 2 * 64, "CONNECTIONS": 65536,
}  # fmt: skip


def limits(
    pps: float = 0,
    bps: float = 0,
    syn_pps: float = 0,
    burst_s: float = 0.1,
    grace_s: float = 1.0,
    block_for_s: float = 0.0,
) -> dict[str, int]:
    """Return the fields of `config` for limits in common units; 0 is no limit."""
    second = SECOND_NS << layout.LIMITER_SHIFT
    return {
        "pps_cost": int(second / pps) if pps else 0,
        "byte_cost": int((second * 8 << layout.BYTE_COST_SHIFT) / bps) if bps else 0,
        "syn_cost": int(second / syn_pps) if syn_pps else 0,
        "burst": round(burst_s * second),
        "grace_ns": round(grace_s * SECOND_NS),
        "block_for_ns": round(block_for_s * SECOND_NS),
    }


class Pipeline(Observed):
    """One loaded instance that is attached to nothing.

    Args:
        folder: Where it is pinned.
        test_clock: It was compiled with TEST_CLOCK.
    """

    def __init__(self, folder: Path, *, test_clock: bool) -> None:
        def opened(name: str, key: np.dtype[Any], value: np.dtype[Any]) -> Map:
            return Map(libbpf.open_pin(folder / name), key, value)

        super().__init__({name: opened(name, *types) for name, types in layout.MAPS.items()})
        self.clock = opened("test_clock", layout.U32, layout.U64) if test_clock else None
        self.program = libbpf.open_pin(folder / "prog_xdp_pipeline")
        self.control_program = libbpf.open_pin(folder / "prog_control")
        self.explain_program = libbpf.open_pin(folder / "prog_explain")
        self._cpus = sorted(os.sched_getaffinity(0))
        self._config = np.zeros(1, layout.CONFIG)
        self.reset()

    def close(self) -> None:
        """Give back what it opened."""
        for opened in (*self.maps.values(), *([self.clock] if self.clock else [])):
            opened.close()
        os.close(self.program)
        os.close(self.control_program)
        os.close(self.explain_program)

    def reset(self) -> None:
        """Empty every map and begin again at START_NS, with nothing but counting on.

        Rings stay: they are half a million slots, and where no VIP names one it is not read.
        """
        for name, opened in self.maps.items():
            if opened.type in ("array", "percpu_array"):
                if name not in ("meta", "rings"):
                    indexes = np.arange(opened.max_entries, dtype=layout.U32)
                    opened.put_all(indexes, np.zeros(opened.max_entries, opened.value))
            else:
                opened.delete_all(opened.read()[0].copy())
        self._free_slots = list(range(self.maps["rules"].max_entries))[::-1]
        self._config = np.zeros(1, layout.CONFIG)
        self.configure(new_sources=1 << 20, flood_pps=1 << 40)
        if self.clock:
            self.now_ns = START_NS

    @property
    def now_ns(self) -> int:
        """What the program takes for the time."""
        return self._now_ns

    @now_ns.setter
    def now_ns(self, value: int) -> None:
        assert self.clock is not None
        self._now_ns = value
        self.clock.put(0, np.array([value], layout.U64))

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.now_ns += round(seconds * SECOND_NS)

    def pin_to(self, cpu: int) -> None:
        """Run what follows on the first (0) or second (1) processor of this process."""
        os.sched_setaffinity(0, {self._cpus[cpu]})

    def unpin(self) -> None:
        """Take every processor again."""
        os.sched_setaffinity(0, self._cpus)

    # Configuration and lists

    def configure(self, flags: Iterable[Flag] | None = None, **fields: int) -> None:
        """Change fields of `config`; the lists' flags are seen to, the others stay on None."""
        for name, value in fields.items():
            self._config[name] = value
        lists = {"allowed": Flag.ALLOWED, "blocked_ips": Flag.BLOCKS,
                 "blocked_nets": Flag.PREFIXES, "protected": Flag.PROTECTED}  # fmt: skip
        kept = int(self._config["flags"][0]) & ~sum(lists.values())
        filled = [flag for name, flag in lists.items() if len(self.maps[name].read()[0])]
        self._config["flags"] = sum(filled) | (kept if flags is None else sum(flags))
        self._config["generation"] += 1
        self.maps["config"].put(0, self._config)

    def limit(self, *flags: Flag, **limit: float) -> None:
        """Set limits in the units of `limits`, with any flags besides."""
        self.configure([Flag.LIMITS, Flag.AUTO, *flags], **limits(**limit))

    def block(self, text: str, until_ns: int = 0) -> int:
        """Block an address or prefix; returns the slot of its rule."""
        name = "blocked_ips" if Prefix.parse(text).is_host else "blocked_nets"
        return self._list(name, text, layout.Rule.BLOCKED, until_ns)

    def allow(self, text: str) -> int:
        """Put an address or prefix on the allow list; returns the slot of its rule."""
        return self._list("allowed", text, layout.Rule.ALLOWED, 0)

    def protect(self, text: str) -> None:
        """Except an address or prefix from limits."""
        self.maps["protected"].put(_key("protected", text), np.zeros(1, layout.U64))
        self.configure()

    def remove(self, name: str, text: str) -> None:
        """Take an entry off a list, named by its map."""
        found = self.maps[name].get(_key(name, text))
        assert found is not None
        if name != "protected":
            gone = np.zeros(1, layout.RULE)
            gone["until_ns"] = layout.RULE_ENDED
            self.maps["rules"].put(int(found[0]), gone)
            self._free_slots.append(int(found[0]))
        assert self.maps[name].delete(_key(name, text))
        self.configure()

    def _list(self, name: str, text: str, kind: layout.Rule, until_ns: int) -> int:
        slot, prefix = self._free_slots.pop(), Prefix.parse(text)
        rule = np.zeros(1, layout.RULE)
        rule["until_ns"], rule["length"], rule["kind"] = until_ns, prefix.length, kind
        rule["address"] = (prefix.high, prefix.low)
        self.maps["rules"].put(slot, rule)
        self.maps[name].put(_key(name, text), np.array([slot], layout.U64))
        self.configure()
        return slot

    # Packets

    def run(self, frame: bytes) -> int:
        """Give it one packet; returns the XDP action."""
        return libbpf.run_program(self.program, frame)[0]

    def passes(self, frame: bytes) -> bool:
        """Give it one packet; returns whether it passed."""
        action = self.run(frame)
        assert action in (PASSED, DROPPED)
        return action == PASSED

    def passed(self, frame: bytes, times: int) -> int:
        """Give it a packet many times; returns how many passed."""
        return sum(self.passes(frame) for _ in range(times))

    def control(self, op: int, slot: int = 0, **event: Any) -> int:
        """Run the control program on a request; `event` holds fields of its event."""
        request = np.zeros(1, layout.CONTROL_REQUEST)
        request["op"], request["slot"] = op, slot
        for name, value in event.items():
            request["event"][name] = value
        return libbpf.run_program(self.control_program, request.tobytes())[0]

    def unblock_auto(self, text: str) -> None:
        """Remove an automatic block, as the operator does."""
        assert self.maps["auto_blocks"].delete(_key("auto_blocks", text))


def _key(name: str, text: str) -> tuple[Any, ...]:
    prefix = Prefix.parse(text)
    if layout.MAPS[name][0] is layout.PREFIX:
        return (prefix.length, prefix.to_bytes())
    return (prefix.high, prefix.low)


@contextmanager
def loaded(*, test_clock: bool = True, **capacity: int) -> Iterator[Pipeline]:
    """Load an instance into a folder of this process's own, and take it away again.

    The lock keeps other processes from sweeping it as stale: nothing is attached to it.

    Args:
        test_clock: With a clock that is set by hand.
        capacity: Other numbers than those of `CAPACITY`.
    """
    bpffs.mount(lasting=False)
    name = f"test-{os.getpid()}-{next(_numbers)}"
    folder = bpffs.BPFFS / name
    defines = {f"CAPACITY_{kind}": count for kind, count in (CAPACITY | capacity).items()}
    with bpffs.locked(name):
        folder.mkdir()
        try:
            loading.load(
                folder, defines | ({"TEST_CLOCK": 1} if test_clock else {}), [loading.PROTECTION]
            )
            pipeline = Pipeline(folder, test_clock=test_clock)
            try:
                yield pipeline
            finally:
                pipeline.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            (bpffs.RUN / f"{name}.lock").unlink(missing_ok=True)
