# SPDX-License-Identifier: Apache-2.0
"""Packets through the protection, beside xdp-filter."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial

from ebpftop.control.protection import ProtectionControl
from ebpftop.kernel.instance import PIPELINE, Instance
from ebpftop.model import BlockRequest, Limits, Prefix
from tests.bench.figures import Row
from tests.bench.instances import attached, xdp_filter
from tests.bench.machine import lacks
from tests.bench.paths import XDP, XDP_DROP, XDP_PASS, Path, empty_program, measure, rows
from tests.bench.registry import Effort, measurement
from tests.kernel.packets import VLAN, frame

KNOWN, BLOCKED, IN_PREFIX = "192.0.2.1", "192.0.2.2", "198.51.100.9"
ARP = (b"\xff" * 6 + bytes(6) + b"\x08\x06").ljust(64, b"\0")
PREFIXES = (10, 1_000, 100_000)
PASS_LIMITED, DROP = "known source, one limit", "blocked address"
FRESH = 150_000
"""Sources whose packets come in turn where each must be new: more than the table holds."""
OFF = Limits()
ONE = Limits(pps=1_000_000_000, burst_s=3600)
THREE = Limits(10**9, 10**12, 10**9, burst_s=3600)


def _paths(instance: Instance, control: ProtectionControl) -> list[Path]:
    program = instance.programs[PIPELINE]
    plain, six = frame(KNOWN), frame("2001:db8::1")

    def path(name: str, packet: bytes, answer: int, limits: Limits = OFF) -> Path:
        prepare = partial(control.set_limits, limits)
        return Path(name, program, [packet], answer, prepare=prepare)

    return [
        path("ARP", ARP, XDP_PASS),
        path("known source, no limits", plain, XDP_PASS),
        path(PASS_LIMITED, plain, XDP_PASS, ONE),
        path("known source, three limits", plain, XDP_PASS, THREE),
        path("known source, VLAN, one limit", frame(KNOWN, vlans=[VLAN]), XDP_PASS, ONE),
        path("known IPv6 source, no limits", six, XDP_PASS),
        path("known IPv6 source, one limit", six, XDP_PASS, ONE),
        path(DROP, frame(BLOCKED), XDP_DROP),
        path("blocked IPv6 address", frame("2001:db8::bad"), XDP_DROP),
    ]


@measurement(
    "protection",
    "Packets through the protection",
    place=10,
    note="Nanoseconds a packet over an empty XDP program; one hot source.",
)
def protection(effort: Effort) -> Sequence[Row]:
    """Measure the paths of one hot source."""
    with attached() as (lab, instance), xdp_filter(lab.clients[0], BLOCKED) as peer:
        control = ProtectionControl(instance)
        blocks = [BlockRequest(Prefix.parse(text), None) for text in (BLOCKED, "2001:db8::bad")]
        control.block_all(blocks, override=True)
        empty = Path("empty XDP program", empty_program(XDP), [frame(KNOWN)], XDP_PASS)
        paths = _paths(instance, control)
        if peer is None:
            measure([empty, *paths], effort.rounds)
            return [*rows(empty, paths), no_xdp_filter()]
        passes = Path("xdp-filter, pass", peer, [frame(KNOWN)], XDP_PASS)
        drops = Path("xdp-filter, drop", peer, [frame(BLOCKED)], XDP_DROP)
        measure([empty, *paths, passes, drops], effort.rounds)
        return rows(
            empty,
            [*paths, passes, drops],
            peers={PASS_LIMITED: passes, "known source, no limits": passes, DROP: drops},
            budgets={PASS_LIMITED: "pass", DROP: "drop"},
        )


def no_xdp_filter() -> Row:
    """Return the row that says why xdp-filter is not in a table."""
    return Row("xdp-filter", skipped=lacks("xdp-filter") or "it could not be loaded")


@measurement(
    "prefixes",
    "A source blocked by a prefix",
    place=11,
    note="Nanoseconds over an empty program. A known source costs one hash lookup however long"
    " the list is; a new one's first packet searches it: each packet a run of its own.",
)
def prefixes(effort: Effort) -> Sequence[Row]:
    """Measure prefix blocks among many, for known and for new sources."""
    answer: list[Row] = []
    for count in PREFIXES:
        with attached(prefixes=count + 1) as (_, instance):
            ProtectionControl(instance).block_all(_many_prefixes(count), override=True)
            answer += _blocked_among(instance, count, effort)
    return answer


def _many_prefixes(count: int) -> list[BlockRequest]:
    """Return that many prefixes: the two that are looked for, and /24s beside them."""
    texts = ["198.51.100.0/24", "100.64.0.0/10"]
    texts += [f"{20 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.0/24" for n in range(count - 2)]
    return [BlockRequest(Prefix.parse(text), None) for text in texts]


def _blocked_among(instance: Instance, count: int, effort: Effort) -> list[Row]:
    program, fresh = instance.programs[PIPELINE], packets_from("100.64.0.0", FRESH)
    empty = [
        Path("empty XDP program", empty_program(XDP), [frame(KNOWN)], XDP_PASS),
        Path("empty XDP program, singly", empty_program(XDP), fresh, XDP_PASS, single=True),
    ]
    known = Path(f"known source, {count:,} prefixes", program, [frame(IN_PREFIX)], XDP_DROP)
    new = Path(f"new source, {count:,} prefixes", program, fresh, XDP_DROP, single=True)
    measure([*empty, known, new], effort.rounds)
    return rows(empty[0], [known])[1:] + rows(empty[1], [new])[1:]


def packets_from(first: str, count: int) -> list[bytes]:
    """Return a packet of each of `count` IPv4 sources, from `first` on."""
    packet, number = frame(KNOWN), Prefix.parse(first).low & 0xFFFFFFFF
    return [
        packet[:26] + struct.pack("!I", number + at) + packet[30:] for at in range(count)
    ]  # fmt: skip
