# SPDX-License-Identifier: Apache-2.0
"""Who sends, who is blocked, who is let through, and what each may send."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ebpftop.model.addresses import Prefix
from ebpftop.model.columns import F64, U64, Clock, Column


class SourceState(IntEnum):
    """What is happening to a source's packets now; the order is the order of severity."""

    PASSED = 0
    ALLOWED = 1
    LIMITED = 2
    BLOCKED = 3

    @property
    def label(self) -> str:
        """The word of the command line's JSON."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one source may send before it is dropped. 0 switches a limit off."""

    pps: int = 0
    """Packets a second."""
    bps: int = 0
    """Bits a second, over the whole frame."""
    syn: int = 0
    """TCP connection requests (SYN without ACK) a second."""
    burst_s: float = 1.0
    """How far ahead of its rate a source may run, in seconds of that rate."""
    grace_s: float = 1.0
    """How long a source may stay over a limit before it is blocked."""
    block_for_s: float = 60.0
    """How long the first automatic block lasts; each repeat doubles it. 0 never blocks."""
    dry_run: bool = False
    """Count what would be dropped, and drop nothing."""

    @property
    def any(self) -> bool:
        """Whether at least one limit is on."""
        return bool(self.pps or self.bps or self.syn)


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Every tracked source, a row each. All arrays have one length."""

    high: U64
    """Upper 64 bits of the address."""
    low: U64
    """Lower 64 bits of the address."""
    packets: U64
    """Packets received from it, whatever their verdict."""
    bytes: U64
    """Bytes received from it, whatever their verdict."""
    dropped: U64
    """Packets of it that were dropped, by limits and by blocks, those that have ended included."""
    dropped_bytes: U64
    """Bytes of it that were dropped."""
    would_drop: U64
    """Packets of it that the dry run would have dropped."""
    pps: F64
    """Packets received a second, over the last interval."""
    bps: F64
    """Bits received a second, over the last interval."""
    dropped_pps: F64
    """Packets dropped a second, over the last interval."""
    state: NDArray[np.uint8]
    """A `SourceState`."""
    first_ns: U64
    """When its first packet was seen."""
    last_ns: U64
    """When its latest packet was seen."""

    def __len__(self) -> int:
        return len(self.high)

    def address(self, row: int) -> Prefix:
        """Return the address in `row`."""
        return Prefix(int(self.high[row]), int(self.low[row]))

    def row_of(self, address: Prefix) -> int | None:
        """Return the row of `address`, None where it is not tracked."""
        hits = np.nonzero((self.low == address.low) & (self.high == address.high))[0]
        return int(hits[0]) if len(hits) else None

    @classmethod
    def empty(cls) -> Sources:
        """Return a table without rows."""
        u64, f64 = np.zeros(0, np.uint64), np.zeros(0, np.float64)
        return cls(
            u64, u64, u64, u64, u64, u64, u64, f64, f64, f64, np.zeros(0, np.uint8), u64, u64
        )

    def columns(self, clock: Clock) -> dict[str, Column]:
        """Return the fields that the command line and the panes call by name."""
        return {
            "address": Column("address", self.high, self.low),
            "packets": Column("number", self.packets),
            "bytes": Column("number", self.bytes),
            "pps": Column("number", self.pps),
            "bps": Column("number", self.bps),
            "dropped": Column("number", self.dropped),
            "state": Column("text", self.state, labels=tuple(s.label for s in SourceState)),
            "first_seen_s": Column("number", clock.unix_s(self.first_ns)),
            "last_seen_s": Column("number", clock.unix_s(self.last_ns)),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """What was sent to each source, a row each, in the order of `Sources`."""

    packets: U64
    """Packets sent to it since they are counted."""
    bytes: U64
    """Bytes sent to it since they are counted."""
    bps: F64
    """Bits sent to it a second, over the last interval."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Every block in force, manual ones first. All arrays have one length."""

    high: U64
    """Upper 64 bits of the address or prefix."""
    low: U64
    """Lower 64 bits of the address or prefix."""
    length: NDArray[np.uint8]
    """Prefix length over 128 bits; 128 for a single address."""
    automatic: NDArray[np.uint8]
    """1 where a limit set it, 0 where an operator did."""
    reason: NDArray[np.object_]
    """Printable text: the operator's, or which limit it was."""
    set_ns: U64
    """When it was set."""
    expires_ns: U64
    """When it ends by itself; 0 is never."""
    packets: U64
    """Packets it stopped."""
    bytes: U64
    """Bytes it stopped."""

    def __len__(self) -> int:
        return len(self.high)

    def prefix(self, row: int) -> Prefix:
        """Return the address or prefix in `row`."""
        return Prefix(int(self.high[row]), int(self.low[row]), int(self.length[row]))

    def row_of(self, prefix: Prefix) -> int | None:
        """Return the row that blocks exactly `prefix`, None where there is none."""
        hits = np.nonzero(
            (self.low == prefix.low) & (self.high == prefix.high) & (self.length == prefix.length)
        )[0]
        return int(hits[0]) if len(hits) else None

    @classmethod
    def empty(cls) -> Blocks:
        """Return a table without rows."""
        u64, u8 = np.zeros(0, np.uint64), np.zeros(0, np.uint8)
        return cls(u64, u64, u8, u8, np.zeros(0, np.object_), u64, u64, u64, u64)

    def columns(self, clock: Clock) -> dict[str, Column]:
        """Return the fields that the command line and the panes call by name."""
        left_s = (self.expires_ns.astype(np.float64) - clock.monotonic_ns) / 1e9
        return {
            "address": Column("address", self.high, self.low, length=self.length),
            "source": Column("text", self.automatic, labels=("manual", "auto")),
            "reason": Column("text", self.reason),
            "expires_in_s": Column("number", np.where(self.expires_ns == 0, np.inf, left_s)),
            "packets": Column("number", self.packets),
            "bytes": Column("number", self.bytes),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Allowed:
    """Every allowed address or prefix. All arrays have one length."""

    high: U64
    """Upper 64 bits."""
    low: U64
    """Lower 64 bits."""
    length: NDArray[np.uint8]
    """Prefix length over 128 bits."""
    packets: U64
    """Packets that the entry let through."""
    bytes: U64
    """Bytes that the entry let through."""

    def __len__(self) -> int:
        return len(self.high)

    def prefix(self, row: int) -> Prefix:
        """Return the address or prefix in `row`."""
        return Prefix(int(self.high[row]), int(self.low[row]), int(self.length[row]))

    @classmethod
    def empty(cls) -> Allowed:
        """Return a table without rows."""
        u64 = np.zeros(0, np.uint64)
        return cls(u64, u64, np.zeros(0, np.uint8), u64, u64)


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """One block to set."""

    prefix: Prefix
    """Whom."""
    for_s: float | None
    """How long, in seconds; None is for ever."""
    reason: str = ""
    """Why, in the operator's words."""
