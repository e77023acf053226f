# SPDX-License-Identifier: Apache-2.0
"""Instances to measure on: attached in a lab, their tables filled."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop import lab as labs
from ebpftop.bpf import layout
from ebpftop.config import CapacityPolicy, Policy, ProtectionPolicy
from ebpftop.control import policy as policies
from ebpftop.kernel import bpffs, libbpf
from ebpftop.kernel.instance import Instance
from ebpftop.kernel.netlink.links import netlink
from tests.bench.machine import lacks

FIRST_SOURCE = 0x0A000000
"""10.0.0.0: where the sources of `fill_sources` begin."""


@contextmanager
def attached(*, clients: int = 1, **capacity: int) -> Iterator[tuple[labs.Lab, Instance]]:
    """Build a lab and attach to its server, whose network namespace this thread is in then.

    Args:
        clients: Hosts besides the server and the attacker.
        capacity: Of the tables, by the policy's names; what is left out has the default.
    """
    # Every new source is tracked, however many come.
    protection = ProtectionPolicy(new_sources_per_core_s=1 << 30)
    policy = Policy(capacity=CapacityPolicy(**capacity), protection=protection)
    with labs.Lab(clients=clients) as lab, labs.joined(lab.server):
        instance = policies.attach(["eth0"], policy, mode="auto", path=None, pinned=False)
        try:
            yield lab, instance
        finally:
            with bpffs.locked(instance.name):
                instance.remove()


def fill_sources(instance: Instance, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Put that many sources into the table, as if no list held them; returns keys and rows."""
    keys, rows = np.zeros(count, layout.ADDRESS), np.zeros(count, layout.SOURCE)
    keys["low"] = (0xFFFF << 32) | (FIRST_SOURCE + np.arange(count))
    rows["first_ns"] = rows["last_ns"] = time.monotonic_ns()
    rows["policy"] = int(instance.maps["config"].read()[1]["generation"][0]) << 32
    instance.maps["ip_tracker"].put_all(keys, rows)
    return keys, rows


@contextmanager
def xdp_filter(host: labs.Host, blocked: str) -> Iterator[int | None]:
    """Load xdp-filter by its own tool, with all its features; yields its program, or None.

    Args:
        host: On whose interface.
        blocked: An address that it drops.
    """
    loaded = not lacks("xdp-filter") and (
        host.run(["xdp-filter", "load", host.interface], check=False).returncode == 0
    )
    if not loaded:
        yield None
        return
    try:
        host.run(["xdp-filter", "ip", "-m", "src", blocked])
        with labs.joined(host), netlink() as socket:
            program = libbpf.program_fd(socket.link(host.interface).xdp_program)
        yield program
        os.close(program)
    finally:
        host.run(["xdp-filter", "unload", host.interface], check=False)
