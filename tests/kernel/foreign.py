# SPDX-License-Identifier: Apache-2.0
"""Somebody else's XDP program: two instructions that pass everything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ebpftop.kernel import libbpf
from ebpftop.kernel.netlink.links import netlink
from ebpftop.lab import Host, joined

NAME = "somebody_elses"
_PASS_ALL = bytes.fromhex("b700000002000000 9500000000000000")
"""`r0 = XDP_PASS; exit`."""
_TYPE_XDP = 6


@contextmanager
def program_on(host: Host, interface: str) -> Iterator[int]:
    """Attach it over netlink, as `ip link set xdp` does; yields its number."""
    fd = libbpf.call(
        "bpf_prog_load", _TYPE_XDP, NAME.encode(), b"GPL", _PASS_ALL, len(_PASS_ALL) // 8, None
    )
    try:
        with joined(host), netlink() as socket:
            libbpf.call(
                "bpf_xdp_attach", socket.link(interface).index, fd, libbpf.XDP_FLAGS_SKB_MODE, None
            )
        yield libbpf.program_info(fd).id
    finally:
        os.close(fd)
