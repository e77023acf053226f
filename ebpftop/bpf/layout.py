# SPDX-License-Identifier: Apache-2.0
"""The twin of `maps.h`: a numpy dtype for every key and value, and the words of its enums.

`check` compares it, field by field, with what the compiler made of the C side; it runs at
each load, so that the two cannot drift. Addresses are two big-endian 64-bit numbers, which
is their network order.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from ebpftop.errors import KernelRefusedError
from ebpftop.model import VERDICTS, Limits

LIMITER_SHIFT = 4
BYTE_COST_SHIFT = 20
EVENTS = 1024
EVENT_TEXT_BYTES = 32
RULE_TEXT_BYTES = 40
META_BYTES = 8176
NEW_SOURCES_WINDOW_S = 0.125
FLOWS_AT_ONCE = 64
SERVICE_PROTOCOL_SHIFT = FLOW_ID_SHIFT = 16
VIPS, BACKENDS, RING_SLOTS, RING_WORD = 256, 1024, 4096, 4
VIP_DSR, VIP_RESET, VIP_ALL, VIP_POLICY = 1, 2, 4, 8
"""Flags of a VIP in force, and of its slot."""
BACKEND_SERVES, BACKEND_POLICY = 1, 2
BALANCED_VIP, BALANCED_BACKEND = 1, 2
VLAN_TAGS_SHIFT = 12
CHECK_PATH_BYTES, CHECK_HOST_BYTES = 128, 64
CHECKER_SILENT_S = 5.0
"""Without a sign of life in `checker` for so long nobody checks, and health is not known."""
RULE_ENDED = 1
"""`until_ns` of a rule that is over and whose end was told."""
STRIKES_FORGOTTEN_S = 24 * 3600
BLOCK_LONGEST_S = 30 * 24 * 3600


class Flag(IntEnum):
    """Bits of `config.flags`."""

    ALLOWED = 1 << 0
    BLOCKS = 1 << 1
    PREFIXES = 1 << 2
    PROTECTED = 1 << 3
    LIMITS = 1 << 4
    AUTO = 1 << 5
    DRY_RUN = 1 << 6
    DROP_NEW = 1 << 7
    DROP_UNPARSED = 1 << 8
    VIPS = 1 << 9
    DROP_FRAGMENTS = 1 << 10
    DROP_OPTIONS = 1 << 11
    MERGED = 1 << 12


class Rule(IntEnum):
    """Bits of a rule as rows cache it; the rest is its slot."""

    ALLOWED = 1 << 31
    BLOCKED = 1 << 30
    PROTECTED = 1 << 29
    PREFIX = 1 << 28


RULE_SLOT_MASK = 0xFFFFFF

PROTOCOLS = ("tcp", "udp", "icmp", "icmpv6", "other")
REASONS = (
    "", "blocked", "blocked-prefix", "blocked-auto", "limit-pps", "limit-bps", "limit-syn",
    "new-source", "unparsed", "vip-fragment", "vip-options", "no-backend",
    "reply-no-flow", "no-next-hop", "flow-collision", "too-big", "hop-limit",
)  # fmt: skip
"""Words for `enum reason`."""
UNPARSED = (
    "", "vlan-truncated", "vlan-depth", "ip-truncated", "ip-header", "extension-depth",
    "l4-truncated", "l4-header",
)  # fmt: skip
"""Words for `enum unparsed`."""
HANDED = ("", "fragment", "options", "neighbour", "too-big")
"""Words for `enum handed`: why packets of VIPs were left to the stack."""
ANSWERED = ("", "too-big", "hop-limit")
"""Words for `enum answer`: why packets of VIPs were answered with an ICMP error."""


class EventKind(IntEnum):
    """`enum event_kind`."""

    BLOCK = 1
    BLOCK_AUTO = 2
    BLOCK_END = 3
    UNBLOCK = 4
    FLOOD = 5
    FLOOD_END = 6
    TABLE_FULL = 7
    BACKEND_UP = 8
    BACKEND_DOWN = 9
    BACKEND_STATE = 10


class ControlOp(IntEnum):
    """`enum control_op`."""

    EVENT = 1
    END_RULE = 2
    END_AUTO = 3
    END_FLOWS = 4
    CORRECT_FLOWS = 5


PROTECTED_WHY = ("", "gateway", "management", "operator", "backend")
"""Words for the values of `protected`: why a prefix is in it."""

U32, U64 = np.dtype("<u4"), np.dtype("<u8")
ADDRESS = np.dtype([("high", ">u8"), ("low", ">u8")])
PREFIX = np.dtype([("length", U32), ("word", "V16")])
COUNT = np.dtype([("packets", U64), ("bytes", U64)])
CPU_STATS = np.dtype(
    [
        ("received", COUNT),
        ("verdicts", COUNT, len(VERDICTS)),
        ("protocols", U64, len(PROTOCOLS)),
        ("syn", U64),
        ("drops", U64, len(REASONS)),
        ("would_drop", U64, len(REASONS)),
        ("unparsed", U64, len(UNPARSED)),
        ("handed", U64, len(HANDED)),
        ("answered", U64, len(ANSWERED)),
        ("number", U64),
        ("tick_ns", U64),
        ("untracked", U64),
        ("flood_packets", U64),
        ("flood_untracked", U64),
        ("budget_window_ns", U64),
        ("budget_used", U64),
        ("flows_window_ns", U64),
        ("flows_used", U64),
        ("answers_window_ns", U64),
        ("answers_used", U64),
    ]
)
CONFIG = np.dtype(
    [
        (name, U64)
        for name in (
            "generation", "flags", "pps_cost", "byte_cost", "syn_cost", "burst", "grace_ns",
            "block_for_ns", "new_sources", "flood_pps", "pps", "bps", "syn",
            "burst_ns", "rules_used",
            "new_flows", "ids_used", "tcp_idle_ns", "tcp_opening_ns", "udp_idle_ns",
            "hops_until_ns",
        )
    ]
)  # fmt: skip
LIMITER = np.dtype(
    [(name, U64) for name in ("pps_time", "byte_time", "over_since_ns", "blocked", "syn_time")]
)
TRAFFIC = np.dtype(
    [(name, U64) for name in ("passed_packets", "passed_bytes", "dropped_packets", "dropped_bytes")]
)
SOURCE = np.dtype(
    [
        ("policy", U64),
        ("last_ns", U64),
        ("owner", U64),
        ("counted", TRAFFIC),
        ("limiter", LIMITER),
        ("others", TRAFFIC),
        ("would_drop_packets", U64),
        ("limited_ns", U64),
        ("first_ns", U64),
    ]
)
RULE = np.dtype(
    [
        ("until_ns", U64),
        ("set_ns", U64),
        ("address", ADDRESS),
        ("length", U32),
        ("kind", U32),
        ("text", f"S{RULE_TEXT_BYTES}"),
    ]
)
AUTO_BLOCK = np.dtype(
    [
        (name, U64)
        for name in ("until_ns", "set_ns", "strikes", "reason", "packets", "bytes", "ended")
    ]
)
EVENT = np.dtype(
    [
        ("seq", U64),
        ("time_ns", U64),
        ("address", ADDRESS),
        ("length", U32),
        ("kind", U32),
        ("value", U64, 2),
        ("text", f"S{EVENT_TEXT_BYTES}"),
    ]
)
STATE = np.dtype(
    [
        (name, U64)
        for name in (
            "event_seq", "flood_since_ns", "flood_last_ns", "flood_window_ns", "flood_packets",
            "flood_untracked", "sources_added", "table_full_ns", "stateless_ns",
        )
    ]
)  # fmt: skip
CONTROL_REQUEST = np.dtype([("op", U64), ("slot", U64), ("event", EVENT)])
META = np.dtype([("length", U64), ("crc32", U64), ("json", f"V{META_BYTES}")])

SERVICE = np.dtype([("address", ADDRESS), ("port", U64)])
VIP = np.dtype(
    [(name, U32) for name in ("id", "slot", "algorithm", "flags", "ring_start", "ring_length")]
)
VIP_SLOT = np.dtype([("service", SERVICE), ("id", U32), ("flags", U32)])
CHECK = np.dtype(
    [
        ("interval_ns", U64),
        ("timeout_ns", U64),
        *((name, U32) for name in ("kind", "port", "rise", "fall", "status", "_pad")),
        ("path", f"S{CHECK_PATH_BYTES}"),
        ("host", f"S{CHECK_HOST_BYTES}"),
    ]
)
HOP = np.dtype([("ifindex", U32), ("destination", "V6"), ("source", "V6")])
BACKEND = np.dtype(
    [
        ("service", SERVICE),
        ("id", U32),
        ("flags", U32),
        ("vip_slot", U32),
        ("vip_id", U32),
        ("weight", U32),
        ("first_weight", U32),
        ("state", U32),
        ("health", U32),
        ("hop", HOP),
        ("vlan", U32),
        ("mtu", U32),
    ]
)
ENDPOINT = np.dtype([(name, U32) for name in ("id", "vip_slot", "vip_id", "users")])
PORT = np.dtype([("ifindex", U32), ("vlan", U32)])
FLOW = np.dtype([("client", ADDRESS), ("port", U64)])
CONNECTION = np.dtype(
    [
        ("word", U64),
        ("last_ns", U64),
        ("first_ns", U64),
        ("packets", U64),
        ("bytes", U64),
        ("vip", U32),
        ("backend", "<u2"),
        ("vlan", "<u2"),
        ("hop", HOP),
        ("mtu", U64),
    ]
)
FLOWS_REQUEST = np.dtype(
    [("op", U64), ("number", U64), ("value", U64), ("flows", FLOW, FLOWS_AT_ONCE)]
)
BALANCE_COUNT = np.dtype(
    [
        (name, U64)
        for name in (
            "packets", "bytes", "reply_packets", "reply_bytes", "opened", "closed", "dropped",
            "handed", "reply_dropped", "reply_handed", "stranded",
        )
    ]
)  # fmt: skip

MAPS: Mapping[str, tuple[np.dtype[Any], np.dtype[Any]]] = {
    "config": (U32, CONFIG),
    "stats": (U32, CPU_STATS),
    "state": (U32, STATE),
    "events": (U32, EVENT),
    "ip_tracker": (ADDRESS, SOURCE),
    "net_limiters": (U64, LIMITER),
    "auto_blocks": (ADDRESS, AUTO_BLOCK),
    "blocked_ips": (ADDRESS, U64),
    "blocked_nets": (PREFIX, U64),
    "allowed": (PREFIX, U64),
    "protected": (PREFIX, U64),
    "rules": (U32, RULE),
    "rule_hits": (U32, COUNT),
    "vips": (SERVICE, VIP),
    "vip_slots": (U32, VIP_SLOT),
    "checks": (U32, CHECK),
    "checker": (U32, U64),
    "vip_turns": (U32, U64),
    "vip_stats": (U32, BALANCE_COUNT),
    "backends": (U32, BACKEND),
    "backend_flows": (U32, U64),
    "backend_stats": (U32, BALANCE_COUNT),
    "endpoints": (SERVICE, ENDPOINT),
    "balanced": (ADDRESS, U64),
    "ports": (U32, PORT),
    "rings": (U32, U64),
    "connections": (FLOW, CONNECTION),
    "meta": (U32, META),
}
"""Key and value of each map by its name; of per-CPU maps, the value of one CPU."""

PER_CPU = frozenset({"stats", "rule_hits", "vip_stats", "backend_stats"})
"""Maps that hold a value for every possible CPU."""

PROGRAMS = ("xdp_pipeline", "control", "explain")
"""Functions of the module, as they are loaded."""


def limits(config: np.ndarray[Any, Any]) -> Limits:
    """Return the limits in force from the one `config` record."""
    record = config[0]
    return Limits(
        pps=int(record["pps"]),
        bps=int(record["bps"]),
        syn=int(record["syn"]),
        burst_s=int(record["burst_ns"]) / 1e9,
        grace_s=int(record["grace_ns"]) / 1e9,
        block_for_s=int(record["block_for_ns"]) / 1e9,
        dry_run=bool(int(record["flags"]) & Flag.DRY_RUN),
    )


def flattened(dtype: np.dtype[Any], name: str = "", offset: int = 0) -> list[tuple[str, int, int]]:
    """Return every scalar or plain array of a dtype as (dotted name, offset, size).

    Of an array of records it is the array, and then every part of its first record.
    """
    base, shape = (dtype.subdtype or (dtype, ()))[:2]
    if base.fields is None:
        return [(name, offset, dtype.itemsize)]
    found: list[tuple[str, int, int]] = []
    if shape:
        found, name = [(name, offset, dtype.itemsize)], f"{name}[]"
    for field, (inner, at, *_) in base.fields.items():
        found += flattened(inner, f"{name}.{field}" if name else field, offset + at)
    return found


Maps = Mapping[str, tuple[np.dtype[Any], np.dtype[Any]]]


def fingerprint(maps: Maps | None = None) -> str:
    """Return a short hash of the layout: sides with the same one understand each other."""
    wanted = (MAPS if maps is None else maps).items()
    text = repr({name: (flattened(k), flattened(v)) for name, (k, v) in wanted})
    text += repr((PROTOCOLS, REASONS, UNPARSED, VERDICTS, list(EventKind), list(Flag)))
    return f"{zlib.crc32(text.encode()):08x}"


def check(
    compiled: Mapping[str, Mapping[str, Sequence[Sequence[Any]]]], maps: Maps | None = None
) -> None:
    """Compare this page with the compiler's view of `maps.h`.

    Args:
        compiled: For each map its key's and value's fields, as `compile.py` reports them.
        maps: Another module's layout; this page's without it.

    Raises:
        KernelRefusedError: They differ; names the map and the first field.
    """
    for name, (key, value) in (MAPS if maps is None else maps).items():
        if name not in compiled:
            raise KernelRefusedError(f"the compiled programs have no map {name}", _REINSTALL)
        for part, dtype in (("key", key), ("value", value)):
            ours = [tuple(field) for field in flattened(dtype)]
            theirs = [tuple(field) for field in compiled[name][part]]
            for mine, other in zip(ours, theirs, strict=False):
                if mine != other:
                    raise KernelRefusedError(
                        f"{part} of map {name}: {mine} here, {other} in the program", _REINSTALL
                    )
            if len(ours) != len(theirs):
                raise KernelRefusedError(f"{part} of map {name} has another shape", _REINSTALL)


_REINSTALL = "the installation is mixed from two versions; install ebpftop again"
