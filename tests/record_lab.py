# SPDX-License-Identifier: Apache-2.0
"""Record the lab under the demo's traffic: `python -m tests.record_lab [FILE]`, as root.

The dashboard's tests and pictures draw from this recording. Make it anew (`make recording`) when
a snapshot gains what they are to show, look at the pictures, and commit it with them.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from ebpftop import lab as labs
from ebpftop.cli.demo import POLICY
from ebpftop.control import policy as policies
from ebpftop.control.everything import InstanceControl
from ebpftop.control.sweeping import Sweeper
from ebpftop.errors import EbpftopError
from ebpftop.journal.log import PATH_VARIABLE
from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import Instance
from ebpftop.model import BlockRequest, Prefix, Snapshot
from ebpftop.sources import Sampler
from ebpftop.sources.balancing import CONNECTIONS
from ebpftop.sources.inspection import WANTED as INSPECTION
from ebpftop.sources.live import LiveSource
from ebpftop.sources.recording import TapeWriter

RECORDING = Path(__file__).parent / "data" / "lab.ebpftop"
"""The recording that the tests use."""

TICKS = 60
INTERVAL_S = 1.0


def _prepare(control: InstanceControl) -> None:
    """Set what an operator had set before the flood."""
    control.protect()
    control.block_all(
        [
            BlockRequest(Prefix.parse("203.0.113.9"), 7200, "scans ports"),
            BlockRequest(Prefix.parse("198.51.100.0/24"), None, "botnet, ticket 4711"),
            BlockRequest(Prefix.parse("2001:db8:bad::/48"), 86_400, "SYN flood in July"),
        ]
    )
    control.allow(Prefix.parse("192.0.2.80"))


def _record(instance: Instance, path: Path) -> int:
    """Write `TICKS` ticks of an instance; returns the length of the file."""
    writer = TapeWriter(path, instance.describe())
    done = threading.Event()
    failures: list[EbpftopError] = []

    def write(snapshot: Snapshot) -> None:
        if writer.ticks < TICKS:
            writer.write(snapshot)
        else:
            done.set()

    def lost(error: EbpftopError) -> None:
        failures.append(error)
        done.set()

    source = LiveSource(Instance(instance.folder, read_only=False))
    source.wants = frozenset((CONNECTIONS, INSPECTION))
    sampler = Sampler(source, INTERVAL_S, write, lost)
    try:
        sampler.start()
        done.wait()
    finally:
        sampler.stop()
        writer.close()
    if failures:
        raise failures[0]
    return writer.size_bytes


def main() -> None:
    """Build the lab, run the demo's traffic, record."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDING
    path.unlink(missing_ok=True)
    bpffs.mount(lasting=False)
    with TemporaryDirectory() as log, labs.Lab() as lab, labs.joined(lab.server):
        # What is done in the lab is no act on this machine.
        os.environ[PATH_VARIABLE] = f"{log}/acts.jsonl"
        instance = policies.attach(["eth0"], POLICY, mode="auto", path=None, pinned=False)
        try:
            octets = _record_flood(lab, instance, path)
        finally:
            with bpffs.locked(instance.name):
                instance.remove()
    # Those who test are not always root.
    path.chmod(0o644)
    print(f"{path}: {TICKS} ticks, {octets:,} bytes")


def _record_flood(lab: labs.Lab, instance: Instance, path: Path) -> int:
    """Record the demo's traffic; returns the length of the file."""
    control = InstanceControl(instance)
    _prepare(control)
    sweeper = Sweeper(control)
    sweeper.start()
    traffic = labs.start_demo_traffic(lab)
    try:
        octets = _record(instance, path)
    finally:
        sweeper.stop()
    traffic.stop()
    return octets


if __name__ == "__main__":
    main()
