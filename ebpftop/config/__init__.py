# SPDX-License-Identifier: Apache-2.0
"""The policy file: limits, protection, access, capacities and address lists, as TOML.

A file is read whole or refused whole: `load` returns a complete `Policy` or raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ebpftop.config.balancing import BalancerPolicy, VipPolicy
from ebpftop.config.files import read
from ebpftop.config.values import (
    MAX_POLICY_DURATION_S,
    PerSecond,
    PositivePerSecond,
    PositiveSeconds,
    Prefixes,
    RateBps,
    Seconds,
    Section,
    SizeBytes,
    Verdict,
)
from ebpftop.model import ClassKey, Limits, TrafficClass

__all__ = [
    "MAX_POLICY_DURATION_S",
    "AccessPolicy",
    "AuditPolicy",
    "BalancerPolicy",
    "CapacityPolicy",
    "ClassPolicy",
    "LimitPolicy",
    "Policy",
    "PositiveSeconds",
    "Prefixes",
    "ProtectionPolicy",
    "RateBps",
    "RecordingPolicy",
    "Seconds",
    "Section",
    "ShapingPolicy",
    "SizeBytes",
    "VipPolicy",
    "load",
]

_MAX_ENTRIES = 16_777_216


class LimitPolicy(Section, kw_only=True, frozen=True):
    """`[limits]`: what one source may send before it is dropped. 0 switches a limit off."""

    pps: PerSecond = 0
    """Packets a second."""
    bps: Annotated[RateBps, Meta(examples=["50mbit"])] = RateBps(0)
    """Bits a second, over the whole frame, as a RATE."""
    syn: PerSecond = 0
    """TCP connection requests (SYN without ACK) a second."""
    burst_s: Annotated[PositiveSeconds, Meta(examples=["1s"])] = msgspec.field(
        default=PositiveSeconds(1.0), name="burst"
    )
    """How far ahead of its rate a source may run, as a DURATION."""
    grace_s: Annotated[Seconds, Meta(examples=["1s"])] = msgspec.field(
        default=Seconds(1.0), name="grace"
    )
    """How long a source may stay over a limit before it is blocked, as a DURATION."""
    block_for_s: Annotated[Seconds, Meta(examples=["60s"])] = msgspec.field(
        default=Seconds(60.0), name="block_for"
    )
    """How long the first automatic block lasts, as a DURATION; 0 never blocks."""
    dry_run: Annotated[bool, Meta(examples=[True])] = False
    """Count what would be dropped, and drop nothing."""

    def limits(self) -> Limits:
        """Return them as the model knows them."""
        return Limits(
            pps=self.pps,
            bps=int(self.bps),
            syn=self.syn,
            burst_s=float(self.burst_s),
            grace_s=float(self.grace_s),
            block_for_s=float(self.block_for_s),
            dry_run=self.dry_run,
        )


class ProtectionPolicy(Section, kw_only=True, frozen=True):
    """`[protection]`: what happens where limits by source cannot decide."""

    over_budget: Verdict = "pass"
    """What becomes of packets from new sources, once more of them came than are tracked."""
    new_sources_per_core_s: PerSecond = 0
    """New sources a second that each core begins to track; 0 takes what fills the table in 8 s."""
    unparsed: Verdict = "pass"
    """What becomes of packets that cannot be parsed."""
    flood_pps: PositivePerSecond = 1000
    """Drops a second at which a flood begins."""


class AccessPolicy(Section, kw_only=True, frozen=True):
    """`[access]`: who may watch without root."""

    group: Annotated[
        str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$", examples=["ebpftop"])
    ] = "ebpftop"
    """The group whose members may read what is attached, where there is such a group."""


class CapacityPolicy(Section, kw_only=True, frozen=True):
    """`[capacity]`: how many entries the kernel's tables hold; they cost memory at once."""

    sources: Annotated[int, Meta(ge=1024, le=_MAX_ENTRIES, examples=[131_072])] = 131_072
    """Sources that are tracked at one time."""
    blocks: Annotated[int, Meta(ge=16, le=_MAX_ENTRIES, examples=[100_000])] = 100_000
    """Single addresses that can be blocked at one time."""
    prefixes: Annotated[int, Meta(ge=16, le=_MAX_ENTRIES, examples=[16_384])] = 16_384
    """Entries that each list of prefixes can hold."""
    connections: Annotated[int, Meta(ge=1024, le=_MAX_ENTRIES, examples=[262_144])] = 262_144
    """Entries of balanced flows; a flow takes one for each direction."""


class ShapingPolicy(Section, kw_only=True, frozen=True):
    """`[shaping]`: what the shaper does besides its classes."""

    count_sent: Annotated[Literal["auto", "on", "off"], Meta(examples=["auto"])] = "auto"
    """Count what is sent to each address; `auto` does while something is shaped."""


class AuditPolicy(Section, kw_only=True, frozen=True):
    """`[audit]`: where every act of an operator is written down before it is done."""

    path: Annotated[
        str, Meta(pattern=r"^(/.{1,500})?$", examples=["/var/log/ebpftop/acts.jsonl"])
    ] = ""
    """The file, with its whole path; empty for /var/log/ebpftop/acts.jsonl."""


class RecordingPolicy(Section, kw_only=True, frozen=True):
    """`[recording]`: what the dashboard's key records."""

    folder: Annotated[str, Meta(min_length=1, max_length=4000, examples=["/var/log"])] = "."
    """Where the files go; `.` is where the dashboard was started."""
    max_bytes: Annotated[SizeBytes, Meta(examples=["100mb"])] = SizeBytes(100 << 20)
    """How large one may become, as a SIZE."""


class ClassPolicy(Section, kw_only=True, frozen=True):
    """`[[class]]`: addresses that share a rate."""

    name: Annotated[str, Meta(examples=["video"])]
    """What it is called."""
    rate_bps: Annotated[RateBps, Meta(examples=["20mbit"])] = msgspec.field(name="rate")
    """Bits a second, as a RATE."""
    direction: Annotated[Literal["ingress", "egress"], Meta(examples=["egress"])] = "egress"
    """Whether it holds what comes in, or what goes out."""
    burst_bytes: Annotated[SizeBytes, Meta(examples=["64kb"])] = msgspec.field(
        default=SizeBytes(0), name="burst"
    )
    """What it may send at once, as a SIZE; 0 for what suits the rate."""
    action: Annotated[Literal["auto", "pace", "htb", "police"], Meta(examples=["auto"])] = "auto"
    """How it is held to its rate."""
    priority: Annotated[int, Meta(ge=0, le=7, examples=[0])] = 0
    """0 is the first to get what its parent has left over."""
    parent: Annotated[str, Meta(examples=["uplink"])] = ""
    """Name of the class whose rate is a ceiling over this one."""
    addresses: Annotated[Prefixes, Meta(examples=[["192.0.2.0/24"]])] = Prefixes()
    """Who is in it."""

    def traffic_class(self) -> TrafficClass:
        """Return it as the model knows it."""
        return TrafficClass(
            ClassKey(self.name, self.direction), int(self.rate_bps), int(self.burst_bytes),
            self.action, self.priority, self.parent,
        )  # fmt: skip


class Policy(Section, kw_only=True, frozen=True):
    """A whole policy file. The default has every limit off."""

    allow: Annotated[Prefixes, Meta(examples=[["192.0.2.0/24"]])] = Prefixes()
    """Addresses and prefixes that are never limited or blocked."""
    management: Annotated[Prefixes, Meta(examples=[["198.51.100.7"]])] = Prefixes()
    """Where operators come from: never blocked, unless an operator overrides it."""
    limits: LimitPolicy = LimitPolicy()
    """What one source may send."""
    protection: ProtectionPolicy = ProtectionPolicy()
    """What happens where limits by source cannot decide."""
    access: AccessPolicy = AccessPolicy()
    """Who may watch."""
    capacity: CapacityPolicy = CapacityPolicy()
    """How large the tables are."""
    shaping: ShapingPolicy = ShapingPolicy()
    """What the shaper does besides its classes."""
    audit: AuditPolicy = AuditPolicy()
    """Where acts are written down."""
    recording: RecordingPolicy = RecordingPolicy()
    """Where recordings go."""
    classes: tuple[ClassPolicy, ...] = msgspec.field(default=(), name="class")
    """What is held to a rate."""
    balancer: BalancerPolicy = BalancerPolicy()
    """What holds for all VIPs."""
    vips: tuple[VipPolicy, ...] = msgspec.field(default=(), name="vip")
    """What is balanced."""


def load(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        KernelRefusedError: The file cannot be read.
        UsageError: It is no TOML, or has a wrong key or value; names the key and what is right.
    """
    return read(path, Policy)
