# SPDX-License-Identifier: Apache-2.0
"""What is looked at only when somebody asks: run times, hooks, counters, code and entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """What a program costs. What a reader without root cannot know is None."""

    translated_bytes: int | None = None
    """Size after the verifier, 8 bytes an instruction."""
    jited_bytes: int | None = None
    """Size as machine code."""
    runs_per_s: float | None = None
    """Runs a second while they were measured, over the last interval."""
    ns_per_run: float | None = None
    """Mean time of a run over the last interval; None where it did not run."""
    cpu_share: float | None = None
    """Part of one core that it took over the last interval, 0 to 1 and above."""


@dataclass(frozen=True, slots=True)
class Fixture:
    """Something on an interface's way: a program, a filter, a queueing discipline."""

    interface: str
    """Whose."""
    place: str
    """`xdp`, `tcx ingress`, `tcx egress`, `tc ingress`, `tc egress` or `qdisc`."""
    name: str
    """As the kernel calls it; may come from a stranger."""
    id: str
    """Number of the program, or handle of the filter or qdisc."""
    ours: bool
    """Whether ebpftop put it there."""
    packets: int | None = None
    """Packets that a qdisc sent."""
    dropped: int | None = None
    """Packets that a qdisc dropped."""


@dataclass(frozen=True, slots=True)
class InterfaceCounters:
    """What an interface itself counts (rtnl_link_stats64)."""

    interface: str
    """Whose."""
    received_packets: int
    """Packets that the driver took in."""
    received_bytes: int
    """Their bytes."""
    sent_packets: int
    """Packets that left."""
    sent_bytes: int
    """Their bytes."""
    dropped_before: int
    """Packets lost before XDP: no room in the ring, overruns, errors on the wire."""
    dropped_after: int
    """Packets that the stack dropped after XDP, or for which nobody was there."""
    dropped_sending: int
    """Packets that were to leave and did not."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The instructions of a program, or the entries of a map."""

    of: str
    """What was asked for, as in `Source.wants`."""
    lines: Sequence[str]
    """A line each."""
    left_out: int = 0
    """How many more there are."""
    note: str = ""
    """Why there is nothing, or not all."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is found on a close look at an instance."""

    measured: bool = False
    """Whether the kernel measures run times now."""
    programs: Mapping[int, ProgramFacts] = field(default_factory=dict)
    """What each program costs, by its number."""
    fixtures: Sequence[Fixture] = ()
    """What is on the interfaces, ours and others'."""
    counters: Sequence[InterfaceCounters] = ()
    """What the interfaces count."""
    listing: Listing | None = None
    """What was asked for in particular."""
