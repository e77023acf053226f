# SPDX-License-Identifier: Apache-2.0
"""Measuring what a class lets through on a lab: on the wire, at the receiver, in the maps."""

from __future__ import annotations

import ctypes
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ebpftop.bpf import shaper_layout as layout
from ebpftop.control.shaping import ShapingControl
from ebpftop.kernel.netlink.links import netlink
from ebpftop.lab import Host, Job, joined, send_udp, serve_bulk, transfer_bulk
from ebpftop.model import ClassKey, Prefix
from tests.kernel.stage import Stage, ebpftop

TCX_HOOKS = (46, 47)
"""BPF_TCX_INGRESS and BPF_TCX_EGRESS of linux/bpf.h."""
WARM_UP_S = 1.0
MEASURED_S = 2.5


def received_bytes(host: Host) -> int:
    """Return the bytes that a host's interface has received.

    Read in this process: what another takes to start would be in the measured time.
    """
    with joined(host):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    (counted,) = (line for line in lines if line.strip().startswith(f"{host.interface}:"))
    return int(counted.partition(":")[2].split()[0])


def wire_bps(host: Host, seconds: float = MEASURED_S) -> float:
    """Measure the bits a second that reach a host."""
    before, started_s = received_bytes(host), time.monotonic()
    time.sleep(seconds)
    return (received_bytes(host) - before) * 8 / (time.monotonic() - started_s)


def goodput_bps(job: Job, from_s: float = WARM_UP_S) -> float:
    """End a transfer; return its bits a second, its start left out."""
    samples = [(at, moved) for at, moved in job.stop()["samples"] if at >= from_s]
    (first_s, first), (last_s, last) = samples[0], samples[-1]
    return float((last - first) * 8 / (last_s - first_s))


def make(stage: Stage, name: str, rate: str, *hosts: Host, **options: str) -> None:
    """Make a class by the command line and put hosts into it."""
    words = [word for option, value in options.items() for word in (f"--{option}", value)]
    done = ebpftop("class", "set", "eth0", name, "--rate", rate, *words)
    assert done.status == 0, done
    for host in hosts:
        assert ebpftop("assign", "eth0", host.ipv4, name).status == 0


def listed(name: str) -> Mapping[str, Any]:
    """Return what `classes` says of a class."""
    (row,) = (c for c in ebpftop("classes", "eth0", "--json").json() if c["class"] == name)
    found: Mapping[str, Any] = row
    return found


@contextmanager
def downloading(stage: Stage, *hosts: Host, way: str = "down") -> Iterator[Sequence[Job]]:
    """Transfer over one TCP connection a host."""
    server = serve_bulk(stage.lab.server)
    server.wait_ready()
    jobs = [transfer_bulk(host, stage.lab.server.ipv4, way=way) for host in hosts]
    for job in jobs:
        job.wait_ready()
    time.sleep(WARM_UP_S)
    yield jobs
    for job in jobs:
        job.stop()
    server.stop()


def passed_samples(stage: Stage, key: ClassKey, seconds: float) -> list[tuple[float, float, int]]:
    """Watch the bytes that a class lets through: (before, after, bytes) of each reading."""
    records = stage.instance.maps["traffic_classes"].read()[1]
    (slot,) = np.flatnonzero(records["name"] == key.name.encode())
    samples = []
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        before_s = time.monotonic()
        found = stage.instance.maps["class_stats"].get(int(slot))
        after_s = time.monotonic()
        assert found is not None
        passed = int(found["bytes"].sum()) - int(found["dropped_bytes"].sum())
        samples.append((before_s, after_s, passed))
        time.sleep(0.01)
    return samples


def most_over_bytes(samples: Sequence[tuple[float, float, int]], rate_bps: float) -> float:
    """Return the most that was passed in any interval beyond the rate times its length."""
    # What was passed less the rate's line, and the lowest it ever was before.
    lowest, most = float("inf"), float("-inf")
    for before_s, after_s, passed in samples:
        most = max(most, passed - rate_bps / 8 * after_s - lowest)
        lowest = min(lowest, passed - rate_bps / 8 * before_s)
    return most


def qdiscs(interface: str = "eth0") -> str:
    """Return what tc(8) says of an interface's qdiscs."""
    argv = ["tc", "qdisc", "show", "dev", interface]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def tc(*words: str) -> None:
    """Change queues or filters by hand; it must succeed."""
    subprocess.run(["tc", *words], check=True, capture_output=True)


def owed_bytes(stage: Stage, name: str) -> float:
    """Return the bytes that a class's bucket owes now."""
    records = stage.instance.maps["traffic_classes"].read()[1]
    (slot,) = np.flatnonzero(records["name"] == name.encode())
    bucket = stage.instance.maps["buckets"].get(int(slot))
    assert bucket is not None
    owed = layout.owed(int(bucket["time"][0]), time.monotonic_ns())
    return owed / (1 << layout.TIME_SHIFT) * int(records["rate_bps"][slot]) / 8e9


def shaping(stage: Stage) -> ShapingControl:
    """Return the controls of the shaper."""
    return ShapingControl(stage.instance)


def clear(stage: Stage) -> None:
    """Delete every class."""
    shaping(stage).apply([])


def prefix(host: Host) -> Prefix:
    """Return a host's IPv4 address."""
    return Prefix.parse(host.ipv4)


def tcx_programs() -> list[int]:
    """Return the programs on TCX of the server's interface.

    Links do not tell of which network namespace their interface is: the interface is asked.
    """
    with netlink() as socket:
        index = socket.link("eth0").index
    query, found = ctypes.CDLL("libbpf.so.1").bpf_prog_query, []
    for hook in TCX_HOOKS:
        flags, count, ids = ctypes.c_uint32(), ctypes.c_uint32(64), (ctypes.c_uint32 * 64)()
        if query(index, hook, 0, ctypes.byref(flags), ids, ctypes.byref(count)) == 0:
            found += ids[: count.value]
    return found


def filters(hook: str) -> list[dict[str, Any]]:
    """Return the filters of clsact in a direction."""
    argv = ["tc", "-json", "filter", "show", "dev", "eth0", hook]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [found for found in json.loads(done.stdout or "[]") if "options" in found]


def send(stage: Stage, host: Host, count: int = 50) -> None:
    """Send datagrams from the server to a host."""
    send_udp(stage.lab.server, host.ipv4, 2000, count=count, size_bytes=1000).wait(10)
