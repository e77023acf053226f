# SPDX-License-Identifier: Apache-2.0
"""All that is known of an instance at one instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ebpftop.model.acts import Act
from ebpftop.model.addresses import Prefix
from ebpftop.model.balancing import Backends, Connections, Vips
from ebpftop.model.columns import Clock
from ebpftop.model.inspection import Inspection
from ebpftop.model.protection import Allowed, Blocks, Limits, Sent, Sources
from ebpftop.model.shaping import Classes


@dataclass(frozen=True, slots=True)
class Count:
    """Packets and their bytes."""

    packets: int = 0
    """Number of packets."""
    bytes: int = 0
    """Sum of their lengths on the wire, without the frame check sequence."""


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
    vips: Vips = field(default_factory=Vips.empty)
    """What is balanced."""
    backends: Backends = field(default_factory=Backends.empty)
    """Where it goes."""
    connections: Connections | None = None
    """The flows; None where they were not asked for."""
    acts: Sequence[Act] | None = ()
    """What operators did, oldest first; None where the audit log is closed to the reader."""
    inspection: Inspection | None = None
    """What a close look found; None where nobody asked for one."""
    faults: Sequence[str] = ()
    """Interfaces that the instance should be attached to and is not any more, and why."""
