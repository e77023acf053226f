# SPDX-License-Identifier: Apache-2.0
"""The twin of `shaper_maps.h`: a numpy dtype for every key and value of the traffic shaper."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np

from ebpftop.bpf.layout import ADDRESS, COUNT, U32, U64
from ebpftop.model import DIRECTIONS

TIME_SHIFT = 8
"""Line time is in nanoseconds times 2 to this."""
COST_SHIFT = 16
RESERVE_SHARES = 16
"""Of these parts of its parent's burst a class leaves `reserve` to the others."""
CLASSES = 256
CLASS_NAME_BYTES = 32
HOOKED_INTERFACES = 64
MOST_OWED = 1 << 57
WORD = (1 << 64) - 1


class Shaping(IntEnum):
    """`enum shaping`: how a class is held to its rate."""

    NONE = 0
    PACE = 1
    HTB = 2
    POLICE = 3


class ShaperFlag(IntEnum):
    """Bits of `shaper_config.flags`."""

    INGRESS = 1 << 0
    EGRESS = 1 << 1
    COUNT_SENT = 1 << 2


class Hook(IntEnum):
    """Bits of `shaper_hook.flags`: what was put on an interface."""

    INGRESS = 1 << 0
    EGRESS = 1 << 1
    CLSACT_FILTERS = 1 << 2
    """The programs are filters of clsact, not TCX links."""
    CLSACT_OURS = 1 << 3
    """The clsact qdisc was not there before."""
    ROOT_OURS = 1 << 4
    """The root qdisc is ours: an HTB tree, or fq."""


CLASSIFIED = np.dtype([("length", U32), ("direction", ">u4"), ("word", "V16")])
CONFIG = np.dtype(
    [
        (name, U64)
        for name in ("generation", "flags", "horizon", "mark", "count_sent", "retired_packets")
    ]
)
BUCKET_SHAPE = np.dtype([(name, U64) for name in ("byte_cost", "burst", "mark", "coarse")])
TRAFFIC_CLASS = np.dtype(
    [
        ("shaping", U64),
        ("direction", U64),
        ("shapes", BUCKET_SHAPE, 2),
        *(
            (name, U64)
            for name in (
                "parent", "reserve", "htb", "rate_bps", "burst_bytes", "priority", "wanted",
                "set_ns", "queue_from", "lost_packets", "lost_bytes",
            )
        ),
        ("name", f"S{CLASS_NAME_BYTES}"),
    ]
)  # fmt: skip
BUCKET = np.dtype([("time", U64), ("unused", U64, 7)])
CLASS_STATS = np.dtype(
    [
        (name, U64)
        for name in (
            "packets", "bytes", "dropped_packets", "dropped_bytes", "marked_packets",
            "borrowed_bytes", "queued_bytes",
        )
    ]
)  # fmt: skip
STATS = np.dtype(
    [(name, COUNT, len(DIRECTIONS)) for name in ("classified", "unclassified", "exempt")]
)
SENT = np.dtype([(name, U64) for name in ("policy", "packets", "bytes", "first_ns")])
REQUEST = np.dtype([(name, U64) for name in ("slot", "shape", "factor", "shift")])
HOOK = np.dtype([("ifindex", U64), ("flags", U64)])

MAPS: Mapping[str, tuple[np.dtype[Any], np.dtype[Any]]] = {
    "shaper_config": (U32, CONFIG),
    "shaper_stats": (U32, STATS),
    "traffic_classes": (U32, TRAFFIC_CLASS),
    "buckets": (U32, BUCKET),
    "class_stats": (U32, CLASS_STATS),
    "ip_classification": (CLASSIFIED, U64),
    "sent_to": (ADDRESS, SENT),
    "ingress_cache": (ADDRESS, U64),
    "shaper_hooks": (U32, HOOK),
}
"""Key and value of each map by its name; of per-CPU maps, the value of one CPU."""

HOOKED = ("shape_ingress", "shape_egress")
"""Functions that are put on interfaces, in the order of the directions."""
CONTROL = "shape_control"
"""What has a bucket kept in another shape of its class; it takes a `REQUEST`."""
PROGRAMS = (*HOOKED, CONTROL)
"""Functions of the module."""

_FACTOR_BITS = 32


def byte_cost(rate_bps: int) -> int:
    """Return the line time of a byte at a rate, times 2 to `COST_SHIFT`, to the nearest whole."""
    second = 10**9 << TIME_SHIFT + COST_SHIFT
    return (second * 8 + rate_bps // 2) // rate_bps


def line_time(size_bytes: int, rate_bps: int) -> int:
    """Return the line time of that many bytes at a rate, as the programs reckon it."""
    return (size_bytes * byte_cost(rate_bps) + (1 << COST_SHIFT - 1)) >> COST_SHIFT


def shape_of(bucket_time: int) -> int:
    """Return which shape of its class a bucket is kept in."""
    return bucket_time & 1


def bucket_at(time: int, shape: int = 0) -> int:
    """Return the number of a bucket that is paid up to a line time."""
    return (time << 1 | shape) & WORD


def owed(bucket_time: int, now_ns: int) -> int:
    """Return the line time that a bucket owes; both clocks wrap."""
    ahead = ((bucket_time - (now_ns << TIME_SHIFT + 1)) & WORD) >> 1
    return 0 if ahead > MOST_OWED else ahead


def scale(numerator: int, denominator: int) -> tuple[int, int]:
    """Return a quotient as the factor of `REQUEST`, as exact as its bits allow, and the shift."""
    shift = _FACTOR_BITS + denominator.bit_length() - numerator.bit_length() - 1
    factor = (numerator << shift if shift >= 0 else numerator >> -shift) // denominator
    return factor, shift
