# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds a packet through the pipeline, over an empty program, beside xdp-filter."""

from __future__ import annotations

import os
import shutil
import statistics
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ebpftop import lab as labs
from ebpftop.bpf import shaper_layout
from ebpftop.config import Policy
from ebpftop.control import policy as policies
from ebpftop.control.class_states import ClassRequest
from ebpftop.control.protection import ProtectionControl
from ebpftop.control.shaping import ShapingControl
from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import PIPELINE, PROGRAMS, Instance
from ebpftop.kernel.netlink.links import netlink
from ebpftop.model import BlockRequest, ClassKey, Limits, Prefix, TrafficClass

ROUNDS = 15
REPEAT = 300_000
FRAME_BYTES = 64
PASSES, DROPS = 2, 1
NEXT = 2**32 - 1
"""What a TC program answers that lets the next one have its say."""

KNOWN, BLOCKED, IN_PREFIX = "192.0.2.1", "192.0.2.2", "198.51.100.9"


def frame(source: str, *, tagged: bool = False) -> bytes:
    """Return a UDP frame of the smallest size, from an address."""
    packed = Prefix.parse(source)
    tag = struct.pack("!HH", 0x8100, 7) if tagged else b""
    if packed.is_ipv4:
        length = FRAME_BYTES - 14
        header = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 17, 0)
        ip = header + packed.to_bytes()[12:] + bytes((203, 0, 113, 1))
        kind = 0x0800
    else:
        length = FRAME_BYTES - 14 - 40
        ip = struct.pack("!IHBB", 6 << 28, length, 17, 64) + packed.to_bytes() + packed.to_bytes()
        kind = 0x86DD
    udp = struct.pack("!HHHH", 1234, 80, length - (20 if packed.is_ipv4 else 0), 0)
    return (bytes(12) + tag + struct.pack("!H", kind) + ip + udp).ljust(FRAME_BYTES, b"\0")


@dataclass
class Path:
    """One way through a program."""

    name: str
    """For the table."""
    program: int
    """Its file descriptor."""
    packet: bytes
    """What goes in."""
    verdict: int
    """What must come out; a path that was not taken is not measured."""
    prepare: Callable[[], None] = lambda: None
    """Called before each round."""
    nanoseconds: list[int] | None = None
    """What each round took."""


def measure(paths: list[Path]) -> None:
    """Run all paths in turn, round by round, so that a slow moment hits them all alike."""
    for path in paths:
        path.nanoseconds = []
    for _ in range(ROUNDS):
        for path in paths:
            path.prepare()
            verdict = libbpf.run_program(path.program, path.packet)[0]
            if verdict != path.verdict:
                raise SystemExit(f"{path.name}: verdict {verdict}, not {path.verdict}")
            assert path.nanoseconds is not None
            path.nanoseconds.append(libbpf.run_program(path.program, path.packet, repeat=REPEAT)[2])


@contextmanager
def xdp_filter(host: labs.Host) -> Iterator[int | None]:
    """Load xdp-filter by its own tool, with all its features, in a lab's host; yields its fd."""
    if shutil.which("xdp-filter") is None:
        yield None
        return
    done = host.run(["xdp-filter", "load", host.interface], check=False)
    if done.returncode:
        yield None
        return
    try:
        host.run(["xdp-filter", "ip", "-m", "src", BLOCKED])
        with labs.joined(host), netlink() as socket:
            fd = libbpf.program_fd(socket.link(host.interface).xdp_program)
        yield fd
        os.close(fd)
    finally:
        host.run(["xdp-filter", "unload", host.interface], check=False)


def empty_program() -> int:
    """Load a program that passes everything."""
    passes = bytes.fromhex("b7000000020000009500000000000000")  # r0 = XDP_PASS; exit
    return libbpf.call("bpf_prog_load", 6, b"empty", b"GPL", passes, 2, None)


def _paths(instance: Instance, control: ProtectionControl) -> list[Path]:
    program = instance.programs[PIPELINE]

    def unlimited() -> None:
        control.set_limits(Limits())

    def limited() -> None:
        control.set_limits(Limits(pps=1_000_000_000, burst_s=3600))

    def limited_thrice() -> None:
        control.set_limits(Limits(10**9, 10**12, 10**9, burst_s=3600))

    arp = (b"\xff" * 6 + bytes(6) + b"\x08\x06").ljust(FRAME_BYTES, b"\0")
    plain, six = frame(KNOWN), frame("2001:db8::1")
    return [
        Path("ARP", program, arp, PASSES),
        Path("known source, no limits", program, plain, PASSES, unlimited),
        Path("known source, one limit", program, plain, PASSES, limited),
        Path("known source, three limits", program, plain, PASSES, limited_thrice),
        Path("known source, VLAN, one limit", program, frame(KNOWN, tagged=True), PASSES, limited),
        Path("known IPv6 source, no limits", program, six, PASSES, unlimited),
        Path("known IPv6 source, one limit", program, six, PASSES, limited),
        Path("blocked address", program, frame(BLOCKED), DROPS, unlimited),
        Path("blocked by prefix", program, frame(IN_PREFIX), DROPS, unlimited),
    ]


def run() -> list[dict[str, object]]:
    """Measure every path; returns a row for each."""
    with labs.Lab(clients=1) as lab:
        with labs.joined(lab.server):
            instance = policies.attach(["eth0"], Policy(), mode="auto", path=None, pinned=False)
        try:
            control = ProtectionControl(instance)
            control.block_all(
                [BlockRequest(Prefix.parse(BLOCKED), None)]
                + [BlockRequest(Prefix.parse(f"198.51.{n}.0/24"), None) for n in range(256)],
                override=True,
            )
            with xdp_filter(lab.clients[0]) as peer:
                return _measured(instance, control, peer)
        finally:
            instance.remove()


def _measured(
    instance: Instance, control: ProtectionControl, peer: int | None
) -> list[dict[str, object]]:
    empty = Path("empty program", empty_program(), frame(KNOWN), PASSES)
    paths = _paths(instance, control)
    if peer is not None:
        paths += [
            Path("xdp-filter, pass", peer, frame(KNOWN), PASSES),
            Path("xdp-filter, drop", peer, frame(BLOCKED), DROPS),
        ]
    measure([empty, *paths])
    return _rows(empty, paths)


def _rows(empty: Path, paths: list[Path]) -> list[dict[str, object]]:
    base = statistics.median(empty.nanoseconds or [])
    rows: list[dict[str, object]] = []
    for path in [empty, *paths]:
        taken = path.nanoseconds or []
        rows.append(
            {
                "path": path.name,
                "ns": statistics.median(taken),
                "over_empty_ns": statistics.median(taken) - base,
                "spread_ns": float(np.percentile(taken, 75) - np.percentile(taken, 25)),
            }
        )
    return rows


def shaper() -> list[dict[str, object]]:
    """Measure a conformant packet through a token bucket, over an empty TC program."""
    with labs.Lab(clients=1) as lab, labs.joined(lab.server):
        instance = policies.attach(["eth0"], Policy(), mode="auto", path=None, pinned=False)
        control = ShapingControl(instance)
        try:
            return _measured_shaper(instance, control)
        finally:
            instance.remove()


def _measured_shaper(instance: Instance, control: ShapingControl) -> list[dict[str, object]]:
    def using(
        action: str, count: str, *prefixes: str, burst_bytes: int = 1 << 30
    ) -> Callable[[], None]:
        def prepare() -> None:
            wanted = TrafficClass(ClassKey("bench"), 100_000_000_000, burst_bytes, action)
            idle = TrafficClass(ClassKey("in", "ingress"), 100_000_000_000, 1 << 30)
            members = [Prefix.parse(prefix) for prefix in prefixes]
            inside = [Prefix.parse(KNOWN)] if prefixes else []
            control.apply([ClassRequest(wanted, members), ClassRequest(idle, inside)], count)

        return prepare

    egress, ingress = (instance.programs[name] for name in shaper_layout.HOOKED[::-1])
    packet, all_of_it = frame(KNOWN), "203.0.113.0/24"
    nothing = bytes.fromhex("b7000000ffffffff9500000000000000")  # r0 = TC_ACT_UNSPEC; exit
    empty = Path(
        "empty TC program",
        libbpf.call("bpf_prog_load", 3, b"empty", b"GPL", nothing, 2, None),
        packet,
        NEXT,
    )
    paths = [
        Path("egress, nothing shaped", egress, packet, NEXT, lambda: control.apply([], "off")),
        Path("egress, in no class", egress, packet, NEXT, using("police", "off")),
        Path("egress, token bucket", egress, packet, NEXT, using("police", "off", all_of_it)),
        Path("egress, token bucket, counted", egress, packet, NEXT,
             using("police", "on", all_of_it)),
        Path("egress, a burst of microseconds", egress, packet, NEXT,
             using("police", "off", all_of_it, burst_bytes=1 << 20)),
        Path("egress, a burst of microseconds, counted", egress, packet, NEXT,
             using("police", "on", all_of_it, burst_bytes=1 << 20)),
        Path("egress, sorted for HTB", egress, packet, NEXT, using("htb", "off", all_of_it)),
        Path("ingress, token bucket", ingress, packet, NEXT, using("police", "off", all_of_it)),
    ]  # fmt: skip
    measure([empty, *paths])
    return _rows(empty, paths)


def programs() -> list[dict[str, object]]:
    """Return the sizes of the programs."""
    with labs.Lab(clients=1) as lab, labs.joined(lab.server):
        instance = policies.attach(["eth0"], Policy(), mode="auto", path=None, pinned=False)
        try:
            found = [libbpf.program_info(instance.programs[name]) for name in PROGRAMS]
        finally:
            instance.remove()
    return [
        {
            "program": info.name,
            "verified_insns": info.verified_insns,
            "translated_bytes": info.translated_bytes,
            "jited_bytes": info.jited_bytes,
        }
        for info in found
    ]
