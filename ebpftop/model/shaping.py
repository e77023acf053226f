# SPDX-License-Identifier: Apache-2.0
"""Traffic classes: what is held to a rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ebpftop.model.addresses import Prefix
from ebpftop.model.columns import F64, U64, Column

SHAPINGS = ("auto", "pace", "htb", "police")
"""Ways to hold a class to its rate; `auto` stands for the first of the others that works."""


DIRECTIONS = ("ingress", "egress")
"""Ways through an interface: what comes in, and what goes out."""


_BURSTS: Mapping[str, tuple[int, float]] = {
    "police": (128 << 10, 0.1),
    "htb": (16 << 10, 0.001),
    "pace": (16 << 10, 0.001),
}


def default_burst(rate_bps: int, action: str) -> int:
    """Return the bytes that a class may send at once if it does not say.

    At least so many, or so many seconds of its rate: a class without a queue has to let pass at
    once what TCP sends at once.

    Args:
        rate_bps: Bits a second.
        action: What holds it to them: a word of `SHAPINGS`, not `auto`.
    """
    least, seconds = _BURSTS[action]
    return max(least, round(rate_bps / 8 * seconds))


@dataclass(frozen=True, slots=True, order=True)
class ClassKey:
    """What a traffic class is known by."""

    name: str
    """Its name."""
    direction: str = "egress"
    """A word of `DIRECTIONS`."""

    def __str__(self) -> str:
        return self.name if self.direction == "egress" else f"{self.name} ({self.direction})"


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """What a class is: how its operator wants it."""

    key: ClassKey
    """Its name and direction."""
    rate_bps: int
    """Bits a second, of whole frames."""
    burst_bytes: int = 0
    """What it may send at once; 0 for what suits the rate."""
    action: str = "auto"
    """A word of `SHAPINGS`."""
    priority: int = 0
    """0 to 7; 0 is the first to get what a parent has left over."""
    parent: str = ""
    """Name of the class whose rate is a ceiling over this one; empty for none."""


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """Every traffic class, in the order they were made. All arrays have one length."""

    keys: Sequence[ClassKey]
    """Names and directions."""
    wanted: Sequence[TrafficClass]
    """How their operators want them."""
    action: Sequence[str]
    """The action at work: a word of `SHAPINGS`, never `auto`."""
    rate_bps: U64
    """Bits a second."""
    burst_bytes: U64
    """What the full bucket holds."""
    tokens_bytes: F64
    """What is in the bucket; below 0 it is owed, NaN where it is not known."""
    packets: U64
    """Packets of the class, dropped ones included."""
    bytes: U64
    """Their bytes on the wire."""
    dropped_packets: U64
    """Packets of it that were dropped."""
    dropped_bytes: U64
    """Bytes of it that were dropped."""
    marked_packets: U64
    """Packets that were marked as having met congestion (ECN)."""
    backlog_bytes: U64
    """Bytes that wait in its queue."""
    bps: F64
    """Bits a second that were let through, over the last interval."""
    offered_bps: F64
    """Bits a second that came, dropped ones included."""
    pps: F64
    """Packets a second that came."""
    dropped_pps: F64
    """Packets a second that were dropped."""
    members: Sequence[Sequence[Prefix]]
    """The addresses and prefixes of each."""

    def __len__(self) -> int:
        return len(self.keys)

    def row_of(self, key: ClassKey) -> int | None:
        """Return the row of a class, None where there is none."""
        return self.keys.index(key) if key in self.keys else None

    def empty_in_s(self, row: int) -> float:
        """Return how long the bucket lasts at the present rates; infinite where it does not end."""
        tokens = float(self.tokens_bytes[row])
        drain_bps = float(self.offered_bps[row]) - float(self.rate_bps[row])
        if tokens <= 0:
            return 0.0
        return tokens * 8 / drain_bps if drain_bps > 0 else math.inf

    @classmethod
    def empty(cls) -> Classes:
        """Return a table without rows."""
        u64, f64 = np.zeros(0, np.uint64), np.zeros(0, np.float64)
        return cls((), (), (), u64, u64, f64, u64, u64, u64, u64, u64, u64, f64, f64, f64, f64, ())

    def columns(self) -> dict[str, Column]:
        """Return the fields that the command line and the panes call by name."""
        return {
            "class": Column("text", np.array([key.name for key in self.keys], np.object_)),
            "direction": Column("text", np.array([key.direction for key in self.keys], np.object_)),
            "action": Column("text", np.array(self.action, np.object_)),
            "rate_bps": Column("number", self.rate_bps),
            "burst_bytes": Column("number", self.burst_bytes),
            "tokens_bytes": Column("number", self.tokens_bytes),
            "packets": Column("number", self.packets),
            "bytes": Column("number", self.bytes),
            "dropped_packets": Column("number", self.dropped_packets),
            "dropped_bytes": Column("number", self.dropped_bytes),
            "marked_packets": Column("number", self.marked_packets),
            "bps": Column("number", self.bps),
        }
