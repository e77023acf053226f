# SPDX-License-Identifier: Apache-2.0
"""An attached instance on a lab's server, the verbs and the source that work on it.

The thread that builds a stage stays in the server's network namespace until it is gone.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ebpftop import cli
from ebpftop.bpf.layout import Flag, Rule
from ebpftop.config import Policy
from ebpftop.control import policy as policies
from ebpftop.control.protection import ProtectionControl
from ebpftop.control.rules import RuleTable
from ebpftop.kernel import bpffs, libbpf
from ebpftop.kernel.instance import PIPELINE, Instance
from ebpftop.lab import Lab, joined
from ebpftop.model import Limits, Prefix, Snapshot
from ebpftop.sources.live import LiveSource
from tests.kernel.observing import columns_of
from tests.kernel.packets import Segment, frame

PROGRAM = str(Path(sys.executable).with_name("ebpftop"))
IFACE = "eth0"


@dataclass(frozen=True)
class Done:
    """What a verb did."""

    status: int
    """Its exit status."""
    out: str
    """Its standard output."""
    err: str
    """Its standard error."""

    def json(self) -> Any:
        """Its standard output as JSON; it must have succeeded."""
        assert (self.status, self.err) == (0, "")
        return json.loads(self.out)


def ebpftop(*words: str) -> Done:
    """Run a verb in this process, in the network namespace of this thread."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.run(list(words))
    return Done(status, out.getvalue(), err.getvalue())


def until(met: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Wait for a condition; returns what it was met with."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := met()):
        assert time.monotonic() < deadline_s, "this did not come about"
        time.sleep(0.02)
    return answer


@dataclass
class Stage:
    """A lab whose server has an instance attached."""

    lab: Lab
    """The network."""
    instance: Instance
    """Open for writing."""
    sources: list[LiveSource] = field(default_factory=list)
    """Opened by `source`; closed with the stage."""

    @property
    def control(self) -> ProtectionControl:
        """Its controls."""
        return ProtectionControl(self.instance)

    def source(self) -> LiveSource:
        """Open another source on it."""
        self.sources.append(LiveSource(Instance(self.instance.folder, read_only=False)))
        return self.sources[-1]

    def snapshot(self) -> Snapshot:
        """Return one snapshot of a new source."""
        source = LiveSource(Instance(self.instance.folder, read_only=False))
        try:
            return source.snapshot()
        finally:
            source.close()

    def send(self, address: str, times: int = 1, segment: Segment | None = None) -> None:
        """Give the attached program packets from a source, as if they had come."""
        program = self.instance.programs[PIPELINE]
        libbpf.run_program(program, frame(address, segment), repeat=times)

    def find_row(self, address: str) -> dict[str, int] | None:
        """Return the kernel's row of a source as plain numbers, None where it has none."""
        prefix = Prefix.parse(address)
        found = self.instance.maps["ip_tracker"].get((prefix.high, prefix.low))
        if found is None:
            return None
        return {name: int(column[0]) for name, column in columns_of(found).items()}

    def row(self, address: str) -> dict[str, int]:
        """Return the kernel's row of a source, which must have one."""
        found = self.find_row(address)
        assert found is not None
        return found

    def received(self, address: str) -> int:
        """Return how many packets of a source came."""
        row = self.find_row(address)
        return row["passed_packets"] + row["dropped_packets"] if row else 0

    def clear(self) -> None:
        """Take every rule, limit, automatic block and source away."""
        self.control.set_limits(Limits())
        with bpffs.locked(self.instance.name):
            table = RuleTable(self.instance.maps)
            table.remove(np.flatnonzero(table.rules["kind"] != 0).tolist())
            flags = int(table.config["flags"][0])
            table.config["flags"] = flags & ~(Flag.AUTO | Flag.PROTECTED)
            table.commit()
            for name in ("auto_blocks", "ip_tracker", "net_limiters", "protected"):
                opened = self.instance.maps[name]
                opened.delete_all(opened.read()[0].copy())

    def listed(self, kind: Rule = Rule.BLOCKED) -> set[str]:
        """Return the prefixes of a list, as the kernel's maps have them."""
        table = RuleTable(self.instance.maps)
        slots = np.flatnonzero(table.rules["kind"] == kind)
        return {str(table.prefix(int(slot))) for slot in slots}


@contextlib.contextmanager
def staged(
    policy: Policy | None = None, *, mode: str = "auto", clients: int = 3, quiet: bool = False
) -> Iterator[Stage]:
    """Build a lab, attach to its server's interface, and enter its server's namespace.

    Args:
        policy: What is in force; the default has every limit off.
        mode: Of XDP.
        clients: How many client hosts.
        quiet: Nothing comes over the wire, so that only what a test sends is counted.
    """
    with Lab(clients) as lab, joined(lab.server):
        if quiet:
            for host in (*lab.clients, lab.attacker):
                host.ip(f"link set {host.interface} down")
        instance = policies.attach([IFACE], policy or Policy(), mode=mode, path=None, pinned=False)
        stage = Stage(lab, instance)
        try:
            yield stage
        finally:
            for source in stage.sources:
                source.close()
            with bpffs.locked(instance.name):
                instance.remove()


def child(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start a verb as a process of its own, in the network namespace of this thread."""
    return subprocess.Popen(
        [PROGRAM, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
