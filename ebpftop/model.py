# SPDX-License-Identifier: Apache-2.0
"""What the dashboard knows: a `Snapshot` and its parts. No I/O.

Tables are columns (numpy arrays of one length), so that a hundred thousand sources are
sorted and filtered without a Python object a row. Everything here is immutable by
convention: a snapshot crosses threads and is never written after it was built.

Units: `_ns` are nanoseconds of CLOCK_MONOTONIC, `_s` seconds, `bps` bits a second, `pps`
packets a second. A rate that is not known yet is NaN in a column and None elsewhere.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]

_MASK64 = (1 << 64) - 1
_V4_MAPPED = 0xFFFF << 32


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """An address or prefix as 128 bits; IPv4 is mapped into ::ffff:0:0/96 (RFC 4291, 2.5.5.2)."""

    high: int
    """The upper 64 bits, as a number."""
    low: int
    """The lower 64 bits, as a number."""
    length: int = 128
    """Prefix length over all 128 bits; 128 is a single address."""

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read `192.0.2.1`, `192.0.2.0/24`, `2001:db8::1` or `2001:db8::/32`.

        Raises:
            ValueError: It is no address or prefix, or host bits are set under the prefix.
        """
        network = ipaddress.ip_network(text.strip(), strict=True)
        value = int(network.network_address)
        if network.version == 4:
            return cls(0, _V4_MAPPED | value, 96 + network.prefixlen)
        return cls(value >> 64, value & _MASK64, network.prefixlen)

    @classmethod
    def from_bytes(cls, packed: bytes, length: int = 128) -> Prefix:
        """Build one from 16 bytes in network order."""
        return cls(int.from_bytes(packed[:8], "big"), int.from_bytes(packed[8:16], "big"), length)

    def to_bytes(self) -> bytes:
        """Return the 16 bytes in network order, as the kernel's maps hold them."""
        return self.high.to_bytes(8, "big") + self.low.to_bytes(8, "big")

    @property
    def is_host(self) -> bool:
        """Whether this is a single address."""
        return self.length == 128

    @property
    def is_ipv4(self) -> bool:
        """Whether every address in it is a mapped IPv4 address."""
        return self.high == 0 and self.low >> 32 == 0xFFFF and self.length >= 96

    def contains(self, other: Prefix) -> bool:
        """Return whether all of `other` lies within this prefix."""
        return other.length >= self.length and other.truncated(self.length) == self

    def truncated(self, length: int) -> Prefix:
        """Return the prefix of `length` bits (of 128) that this one lies in."""
        value = (self.high << 64 | self.low) >> (128 - length) << (128 - length)
        return Prefix(value >> 64, value & _MASK64, length)

    def __str__(self) -> str:
        if self.is_ipv4:
            text = str(ipaddress.IPv4Address(self.low & 0xFFFFFFFF))
            return text if self.is_host else f"{text}/{self.length - 96}"
        text = str(ipaddress.IPv6Address(self.high << 64 | self.low))
        return text if self.is_host else f"{text}/{self.length}"


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


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One field of a table, as sorting and filtering see it."""

    kind: Literal["number", "address", "text"]
    """How values compare: as numbers, as 128-bit addresses or prefixes, or as text."""
    values: NDArray[Any]
    """The numbers; the upper 64 bits of the addresses; or, for text, codes into `labels`
    where there are labels and the strings themselves (an object array) where not."""
    low: U64 | None = None
    """The lower 64 bits of the addresses."""
    labels: tuple[str, ...] = ()
    """The words that text codes stand for."""
    length: NDArray[np.uint8] | None = None
    """Prefix lengths of the addresses over 128 bits; None where all are single addresses."""


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


SHAPINGS = ("auto", "pace", "htb", "police")
"""Ways to hold a class to its rate; `auto` stands for the first of the others that works."""


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


@dataclass(frozen=True, slots=True)
class Count:
    """Packets and their bytes."""

    packets: int = 0
    """Number of packets."""
    bytes: int = 0
    """Sum of their lengths on the wire, without the frame check sequence."""


DIRECTIONS = ("ingress", "egress")
"""Ways through an interface: what comes in, and what goes out."""

VERDICTS = ("passed", "dropped", "transmitted", "redirected", "aborted")
"""What can become of a packet, in the order of the pane and of the JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """Counters of the whole instance since it was attached."""

    received: Count
    """Counted at entry, apart from the verdicts."""
    verdicts: Mapping[str, Count]
    """By the words of `VERDICTS`."""
    protocols: Mapping[str, int]
    """Packets by tcp, udp, icmp, icmpv6, other."""
    syn: int
    """TCP connection requests."""
    drops: Mapping[str, int]
    """Packets dropped, by reason."""
    would_drop: Mapping[str, int]
    """Packets the dry run would have dropped, by reason."""
    untracked: int
    """Packets of sources without a row, as more new ones came than the budget allows."""
    unparsed: Mapping[str, int]
    """Packets that could not be parsed, by reason, whatever their verdict."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Totals a second, over the last interval."""

    pps: Mapping[str, float]
    """Packets a second by verdict, and `received`."""
    bps: Mapping[str, float]
    """Bits a second by verdict, and `received`."""
    protocols: Mapping[str, float]
    """Packets a second by protocol."""
    syn: float
    """TCP connection requests a second."""
    untracked: float
    """Packets a second of sources without a row."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something changed: a state, never a single packet."""

    seq: int
    """Number of the event since the instance was attached, without gaps."""
    time_s: float
    """Seconds since 1970."""
    kind: str
    """`block`, `unblock`, `flood`, `flood-end`, `table-full`, ..."""
    address: str
    """The address or prefix it is about; empty where it is about none."""
    detail: str
    """More, in words."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of an instance."""

    name: str
    """As the kernel calls it."""
    mode: Literal["native", "generic"]
    """How the XDP program runs on it."""
    up: bool = True
    """Whether it is administratively up."""


@dataclass(frozen=True, slots=True)
class Program:
    """One loaded program. What a reader without root cannot know is None."""

    name: str
    """Its name in the kernel."""
    id: int
    """Its number in the kernel."""
    hook: str
    """Where it runs: `xdp`, `tc ingress`, `tc egress`."""
    tag: str
    """Hash of its instructions, in hex."""
    run_count: int | None = None
    """Runs while run-time statistics were on."""
    run_ns: int | None = None
    """Time of those runs."""
    verified_insns: int | None = None
    """Instructions the verifier walked."""


@dataclass(frozen=True, slots=True)
class MapInfo:
    """One map. What a reader cannot know is None."""

    name: str
    """Its name in the kernel."""
    type: str
    """`hash`, `lru_hash`, `lpm_trie`, ..."""
    entries: int | None
    """Entries in it now; None for arrays, which are always full."""
    max_entries: int
    """Entries it can hold."""
    memory_bytes: int | None
    """Memory it costs, as the kernel accounts it."""


@dataclass(frozen=True, slots=True)
class Clock:
    """One instant in both clocks, to turn kernel times into wall times."""

    monotonic_ns: int
    """CLOCK_MONOTONIC."""
    wall_s: float
    """Seconds since 1970 at the same instant."""

    def unix_s(self, at_ns: U64) -> F64:
        """Turn CLOCK_MONOTONIC nanoseconds into seconds since 1970."""
        return self.wall_s - (self.monotonic_ns - at_ns.astype(np.float64)) / 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All that is known of an instance at one instant."""

    sequence: int
    """Number of the snapshot since its source was opened, from 0."""
    clock: Clock
    """When the counters were read."""
    interval_s: float | None
    """Time since the snapshot before it; None for the first."""
    interfaces: Sequence[Interface]
    """What the instance is attached to."""
    uptime_s: float
    """Time since it was attached."""
    limits: Limits
    """The limits in force."""
    totals: Totals
    """Counters since it was attached."""
    rates: Rates | None
    """None for the first snapshot."""
    sources: Sources
    """Who sends."""
    blocks: Blocks
    """Who is blocked."""
    allowed: Allowed
    """Who is never limited or blocked by address."""
    protected: Sequence[tuple[Prefix, str]]
    """Prefixes never limited or blocked automatically, and why."""
    events: Sequence[Event]
    """What happened since the snapshot before it, oldest first."""
    missed_events: int
    """Events since the snapshot before it that were overwritten before they were read."""
    programs: Sequence[Program]
    """What runs in the kernel for it."""
    maps: Sequence[MapInfo]
    """Where it keeps its state."""
    invariants: Mapping[str, bool] = field(default_factory=dict)
    """Sums that must hold, by name; False is a lie on the screen."""
    classes: Classes = field(default_factory=Classes.empty)
    """What is held to a rate."""
    unclassified: Mapping[str, Count] = field(default_factory=dict)
    """What matched no class, by the words of `DIRECTIONS`; empty where nothing is shaped."""
    sent: Sent | None = None
    """What was sent to each source; None where it is not counted."""
