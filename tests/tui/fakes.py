# SPDX-License-Identifier: Apache-2.0
"""Snapshots made by hand, a source that plays them, and controls that remember."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ebpftop.errors import EbpftopError
from ebpftop.model import (
    CONNECTION_STATES,
    VERDICTS,
    Allowed,
    Backend,
    Backends,
    BlockRequest,
    Blocks,
    Classes,
    ClassKey,
    Clock,
    Connections,
    Count,
    Event,
    Interface,
    Limits,
    MapInfo,
    Prefix,
    Rates,
    Service,
    Snapshot,
    Sources,
    SourceState,
    Totals,
    TrafficClass,
    Vip,
    Vips,
)

START_NS = 500_000_000_000_000
"""CLOCK_MONOTONIC at the first fake snapshot."""

START_S = 1_750_000_000.0
"""The wall clock at the same instant: 2025-06-15 15:06:40 UTC."""

HOSTILE = "\x1b]0;owned\x07[/b][red]\u202egnp.exe\x00\r\n\x9b31m"
"""Text that would set a title, change colours, turn round or break a line, if it were obeyed."""


@dataclass(frozen=True)
class Talker:
    """One source as a test describes it."""

    address: str
    pps: float = 100.0
    state: SourceState = SourceState.PASSED
    packets: int = 10_000
    dropped: int = 0
    dropped_pps: float = 0.0
    seen_s_ago: float = 0.0


@dataclass(frozen=True)
class Block:
    """One block as a test describes it."""

    address: str
    for_s: float | None = 600.0
    reason: str = ""
    automatic: bool = False
    packets: int = 0
    set_s_ago: float = 5.0


def sources(talkers: Sequence[Talker], now_ns: int = START_NS) -> Sources:
    """Build the columns of `talkers`."""
    prefixes = [Prefix.parse(talker.address) for talker in talkers]
    packets = np.array([talker.packets for talker in talkers], np.uint64)
    dropped = np.array([talker.dropped for talker in talkers], np.uint64)
    pps = np.array([talker.pps for talker in talkers], np.float64)
    seen_ns = [now_ns - int(talker.seen_s_ago * 1e9) for talker in talkers]
    return Sources(
        high=np.array([prefix.high for prefix in prefixes], np.uint64),
        low=np.array([prefix.low for prefix in prefixes], np.uint64),
        packets=packets,
        bytes=packets * np.uint64(500),
        dropped=dropped,
        dropped_bytes=dropped * np.uint64(500),
        would_drop=np.zeros(len(talkers), np.uint64),
        pps=pps,
        bps=pps * 4000,
        dropped_pps=np.array([talker.dropped_pps for talker in talkers], np.float64),
        state=np.array([talker.state for talker in talkers], np.uint8),
        first_ns=np.array([now_ns - 10**11 for _ in talkers], np.uint64),
        last_ns=np.array(seen_ns, np.uint64),
    )


def many_sources(count: int, seed: int = 1, now_ns: int = START_NS) -> Sources:
    """Build `count` sources, one in a thousand of them loud."""
    random = np.random.default_rng(seed)
    pps = random.exponential(20, count)
    pps[:: max(1, count // 1000)] *= 500
    packets = (pps * 100).astype(np.uint64)
    dropped = (packets // 3).astype(np.uint64)
    now = np.full(count, now_ns, np.uint64)
    low = (0xFFFF << 32 | 0x0A000000) + np.arange(count, dtype=np.uint64)
    return Sources(
        high=np.zeros(count, np.uint64),
        low=low.astype(np.uint64),
        packets=packets,
        bytes=packets * np.uint64(500),
        dropped=dropped,
        dropped_bytes=dropped * np.uint64(500),
        would_drop=np.zeros(count, np.uint64),
        pps=pps,
        bps=pps * 4000,
        dropped_pps=pps / 3,
        state=random.integers(0, 4, count).astype(np.uint8),
        first_ns=now - np.uint64(10**11),
        last_ns=now - random.integers(0, 10**10, count).astype(np.uint64),
    )


def blocks(entries: Sequence[Block], now_ns: int = START_NS) -> Blocks:
    """Build the columns of `entries`."""
    prefixes = [Prefix.parse(entry.address) for entry in entries]
    packets = np.array([entry.packets for entry in entries], np.uint64)
    ends_ns = [0 if e.for_s is None else now_ns + int(e.for_s * 1e9) for e in entries]
    return Blocks(
        high=np.array([prefix.high for prefix in prefixes], np.uint64),
        low=np.array([prefix.low for prefix in prefixes], np.uint64),
        length=np.array([prefix.length for prefix in prefixes], np.uint8),
        automatic=np.array([entry.automatic for entry in entries], np.uint8),
        reason=np.array([entry.reason for entry in entries], np.object_),
        set_ns=np.array([now_ns - int(e.set_s_ago * 1e9) for e in entries], np.uint64),
        expires_ns=np.array(ends_ns, np.uint64),
        packets=packets,
        bytes=packets * np.uint64(60),
    )


def allowed(addresses: Sequence[str]) -> Allowed:
    """Build the columns of an allow list."""
    prefixes = [Prefix.parse(address) for address in addresses]
    packets = np.arange(1000, 1000 + len(addresses), dtype=np.uint64)
    return Allowed(
        high=np.array([prefix.high for prefix in prefixes], np.uint64),
        low=np.array([prefix.low for prefix in prefixes], np.uint64),
        length=np.array([prefix.length for prefix in prefixes], np.uint8),
        packets=packets,
        bytes=packets * np.uint64(80),
    )


@dataclass(frozen=True)
class Shaped:
    """One traffic class as a test describes it."""

    name: str
    rate_bps: int = 20_000_000
    burst_bytes: int = 65_536
    tokens_bytes: float = 32_768
    offered_bps: float = 10_000_000
    bps: float = 10_000_000
    action: str = "htb"
    direction: str = "egress"
    parent: str = ""
    dropped: int = 0
    members: tuple[str, ...] = ("10.0.0.1",)


def classes(entries: Sequence[Shaped]) -> Classes:
    """Build the columns of traffic classes."""
    count = len(entries)
    ones = np.ones(count, np.uint64)
    dropped = np.array([entry.dropped for entry in entries], np.uint64)
    wanted = [
        TrafficClass(ClassKey(e.name, e.direction), e.rate_bps, e.burst_bytes, "auto", 0, e.parent)
        for e in entries
    ]
    return Classes(
        keys=[each.key for each in wanted],
        wanted=wanted,
        action=[entry.action for entry in entries],
        rate_bps=np.array([entry.rate_bps for entry in entries], np.uint64),
        burst_bytes=np.array([entry.burst_bytes for entry in entries], np.uint64),
        tokens_bytes=np.array([entry.tokens_bytes for entry in entries], np.float64),
        packets=ones * np.uint64(5000),
        bytes=ones * np.uint64(5_000_000),
        dropped_packets=dropped,
        dropped_bytes=dropped * np.uint64(1000),
        marked_packets=ones * np.uint64(12),
        backlog_bytes=np.zeros(count, np.uint64),
        bps=np.array([entry.bps for entry in entries], np.float64),
        offered_bps=np.array([entry.offered_bps for entry in entries], np.float64),
        pps=np.array([entry.offered_bps / 8000 for entry in entries], np.float64),
        dropped_pps=(dropped > 0).astype(np.float64) * 50,
        members=[[Prefix.parse(member) for member in entry.members] for entry in entries],
    )


@dataclass(frozen=True)
class Served:
    """One backend as a test describes it."""

    address: str
    weight: int = 1
    state: str = "up"
    healthy: bool | None = True
    share: float = 0.5
    got: float = 0.5
    flows: int = 10
    first_weight: int = 1
    bps: float = 1_000_000.0
    reachable: bool = True


def vips(entries: Sequence[Vip]) -> Vips:
    """Build the columns of VIPs."""
    ones, rates = np.ones(len(entries), np.uint64), np.ones(len(entries))
    return Vips(
        wanted=list(entries),
        packets=ones * np.uint64(50_000),
        bytes=ones * np.uint64(5_000_000),
        reply_packets=ones * np.uint64(40_000),
        reply_bytes=ones * np.uint64(50_000_000),
        opened=ones * np.uint64(400),
        dropped=np.zeros(len(entries), np.uint64),
        handed=np.zeros(len(entries), np.uint64),
        stranded=np.zeros(len(entries), np.uint64),
        pps=rates * 900,
        bps=rates * 8_000_000,
        new_per_s=rates * 40,
    )


def backends(entries: Mapping[str, Sequence[Served]]) -> Backends:
    """Build the columns of backends, by the VIPs that they are behind."""
    rows = [(Service.parse(vip), each) for vip, served in entries.items() for each in served]

    def column(name: str, dtype: Any) -> Any:
        return np.array([getattr(each, name) for _, each in rows], dtype)

    flows = column("flows", np.uint64)
    return Backends(
        vip=[vip for vip, _ in rows],
        wanted=[
            Backend(Service.parse(e.address, vip.protocol), e.weight, e.state) for vip, e in rows
        ],
        first_weight=column("first_weight", np.uint64),
        healthy=[each.healthy for _, each in rows],
        reachable=[each.reachable for _, each in rows],
        share=column("share", np.float64),
        measured_share=column("got", np.float64),
        connections=flows,
        opened=flows * np.uint64(7),
        packets=flows * np.uint64(90),
        bytes=flows * np.uint64(9000),
        pps=flows.astype(np.float64) * 3,
        bps=column("bps", np.float64),
        new_per_s=flows.astype(np.float64) / 5,
    )


def connections(
    entries: Sequence[tuple[str, str, str | None, str, int]], now_ns: int = START_NS
) -> Connections:
    """Build the columns of flows: client, VIP, backend, state and packets of each."""
    services = list(dict.fromkeys(Service.parse(vip) for _, vip, *_ in entries))
    ends = [Service.parse(client, "tcp") for client, *_ in entries]
    behind = [
        None if backend is None else Service.parse(backend, "tcp") for _, _, backend, *_ in entries
    ]
    known = list(dict.fromkeys(behind))
    packets = np.array([packets for *_, packets in entries], np.uint64)
    seconds = np.arange(len(entries), dtype=np.uint64) * np.uint64(10**9)
    return Connections(
        high=np.array([end.address.high for end in ends], np.uint64),
        low=np.array([end.address.low for end in ends], np.uint64),
        port=np.array([end.port for end in ends], np.uint64),
        vip=np.array([services.index(Service.parse(vip)) for _, vip, *_ in entries], np.uint16),
        backend=np.array([known.index(backend) for backend in behind], np.uint16),
        state=np.array([CONNECTION_STATES.index(state) for *_, state, _ in entries], np.uint8),
        packets=packets,
        bytes=packets * np.uint64(700),
        first_ns=np.uint64(now_ns - 90 * 10**9) + seconds,
        last_ns=np.uint64(now_ns) - seconds,
        vips=tuple(services),
        backends=tuple(known),
    )


def snapshot(sequence: int = 0, **changes: Any) -> Snapshot:
    """Build a quiet snapshot, `sequence` seconds after the start, with `changes` made to it."""
    base = Snapshot(
        sequence=sequence,
        clock=Clock(START_NS + sequence * 10**9, START_S + sequence),
        interval_s=1.0,
        interfaces=[Interface("eth0", "native")],
        uptime_s=273_840.0 + sequence,
        limits=Limits(),
        totals=totals(1_000_000, 0),
        rates=rates(1000.0, 0.0),
        sources=Sources.empty(),
        blocks=Blocks.empty(),
        allowed=Allowed.empty(),
        protected=[],
        events=[],
        missed_events=0,
        programs=[],
        maps=[MapInfo("ip_tracker", "lru_hash", 4_200, 131_072, 12_000_000)],
        invariants={"verdicts add up to received": True},
    )
    return replace(base, **changes)


def totals(received: int, dropped: int, drops: Mapping[str, int] | None = None) -> Totals:
    """Build counters of which all that is not dropped has passed."""
    counts = dict.fromkeys(VERDICTS, 0) | {"passed": received - dropped, "dropped": dropped}
    return Totals(
        received=Count(received, received * 500),
        verdicts={name: Count(packets, packets * 500) for name, packets in counts.items()},
        protocols={
            "tcp": received // 2,
            "udp": received // 3,
            "icmp": received // 100,
            "icmpv6": 0,
            "other": 42,
        },
        syn=received // 10,
        drops=drops or {},
        would_drop={},
        untracked=0,
        unparsed={},
    )


def rates(received_pps: float, dropped_pps: float) -> Rates:
    """Build rates of which all that is not dropped passes."""
    passed = received_pps - dropped_pps
    pps = dict.fromkeys(VERDICTS, 0.0) | {
        "received": received_pps,
        "passed": passed,
        "dropped": dropped_pps,
    }
    return Rates(
        pps=pps,
        bps={name: value * 4000 for name, value in pps.items()},
        protocols={
            "tcp": received_pps / 2,
            "udp": received_pps / 3,
            "icmp": 12.0,
            "icmpv6": 0.0,
            "other": 1.0,
        },
        syn=received_pps / 10,
        untracked=0.0,
    )


def attack(sequence: int = 0, **changes: Any) -> Snapshot:
    """Build a snapshot in the middle of a flood from a few loud sources."""
    now_ns = START_NS + sequence * 10**9
    loud = [
        Talker("203.0.113.77", 812_000, SourceState.BLOCKED, 48_000_000, 46_000_000, 812_000),
        Talker("198.51.100.23", 96_400, SourceState.LIMITED, 5_100_000, 3_900_000, 86_400),
        Talker("2001:db8:5:17::bad:1", 41_300, SourceState.LIMITED, 902_000, 611_000, 31_300),
        Talker("192.0.2.10", 8_200, SourceState.ALLOWED, 77_000_000),
    ]
    quiet = [
        Talker(f"10.20.{i // 200}.{1 + i % 200}", 900 / (1 + i), seen_s_ago=i * 1.7)
        for i in range(300)
    ]
    drops = {"blocked": 46_000_000, "pps limit": 3_900_000, "syn limit": 611_000}
    held = [
        Block("203.0.113.77", 480, "syn flood, ticket 4711", packets=46_000_000, set_s_ago=120),
        Block("198.51.100.0/24", None, "known botnet", packets=1_200, set_s_ago=86_000),
        Block("192.0.2.200", 42, "pps limit", automatic=True, packets=31_000, set_s_ago=18),
        Block("2001:db8:bad::/48", 3_600, "scanner", packets=77, set_s_ago=4_000),
    ]
    at = START_S + sequence
    happened = [
        Event(1, at - 130, "flood", "203.0.113.77", "812k packets a second, limit is 10k"),
        Event(2, at - 120, "block", "203.0.113.77", "by alice for 10m: syn flood, ticket 4711"),
        Event(3, at - 18, "block", "192.0.2.200", "automatic for 1m: pps limit"),
    ]
    base = {
        "sources": sources([*quiet[:150], *loud, *quiet[150:]], now_ns),
        "blocks": blocks(held, now_ns),
        "allowed": allowed(["192.0.2.10", "10.99.0.0/16"]),
        "limits": Limits(pps=10_000, bps=50_000_000, syn=500),
        "totals": totals(131_000_000, 50_511_000, drops),
        "rates": rates(961_000.0, 929_700.0),
        "events": happened if sequence == 0 else [],
    }
    return snapshot(sequence, **(base | changes))


class FakeSource:
    """Plays what it is given; closed once, and asked from one thread."""

    def __init__(self, first: Snapshot | None = None) -> None:
        self.current = first or snapshot()
        self.error: EbpftopError | None = None
        self.closed = threading.Event()
        self.wants: frozenset[str] = frozenset()
        self._given: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """Return the snapshot that is current, or raise; its events only once."""
        if self.error is not None:
            raise self.error
        current, before, self._given = self.current, self._given, self.current
        return replace(current, events=(), missed_events=0) if current is before else current

    def close(self) -> None:
        """Remember that it was closed."""
        assert not self.closed.is_set()
        self.closed.set()


class FakeShaping:
    """The shaper's part of `FakeControls`."""

    def __init__(self, controls: FakeControls) -> None:
        self._controls = controls

    def set_class(
        self, key: ClassKey, changes: Mapping[str, Any], members: Sequence[Prefix] = ()
    ) -> None:
        """Remember a class."""
        self._controls._act("set_class", key, dict(changes), *members)

    def delete_class(self, key: ClassKey) -> None:
        """Remember the end of a class."""
        self._controls._act("delete_class", key)

    def assign(self, prefix: Prefix, name: str, direction: str | None = None) -> None:
        """Remember an assignment."""
        self._controls._act("assign", prefix, name)

    def unassign(self, prefix: Prefix) -> None:
        """Remember the end of an assignment."""
        self._controls._act("unassign", prefix)


class FakeBalancing:
    """The balancer's part of `FakeControls`."""

    def __init__(self, controls: FakeControls) -> None:
        self._controls = controls

    def add_vip(self, wanted: Vip) -> None:
        """Remember a VIP."""
        self._controls._act("add_vip", wanted)

    def set_vip(self, service: Service, changes: Mapping[str, Any]) -> None:
        """Remember a change of a VIP."""
        self._controls._act("set_vip", service, dict(changes))

    def delete_vip(self, service: Service) -> None:
        """Remember the end of a VIP."""
        self._controls._act("delete_vip", service)

    def add_backend(self, vip: Service, wanted: Backend) -> None:
        """Remember a backend."""
        self._controls._act("add_backend", vip, wanted)

    def set_backends(self, vip: Service, changes: Mapping[Service, Mapping[str, Any]]) -> None:
        """Remember a change of backends."""
        self._controls._act("set_backends", vip, {s: dict(c) for s, c in changes.items()})

    def delete_backend(self, vip: Service, backend: Service) -> None:
        """Remember the end of a backend."""
        self._controls._act("delete_backend", vip, backend)


class FakeControls:
    """Remembers what it was asked to do, in words and values."""

    @property
    def shaping(self) -> FakeShaping:
        """The acts on traffic classes."""
        return FakeShaping(self)

    @property
    def balancing(self) -> FakeBalancing:
        """The acts on VIPs and their backends."""
        return FakeBalancing(self)

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.guards: dict[Prefix, str] = {}
        self.refusal: Exception | None = None
        self.threads: set[int] = set()
        self.may_act = threading.Event()
        self.may_act.set()

    def guarded(self, prefix: Prefix) -> str | None:
        """Return the reason that the test set for `prefix`."""
        self.threads.add(threading.get_ident())
        return self.guards.get(prefix)

    def block(
        self, prefix: Prefix, *, for_s: float | None, reason: str = "", override: bool = False
    ) -> None:
        """Remember a block."""
        self._act("block", prefix, for_s, reason, override)

    def block_all(self, requests: Sequence[BlockRequest], *, override: bool = False) -> None:
        """Remember many blocks."""
        self._act("block_all", list(requests), override)

    def allow_all(self, prefixes: Iterable[Prefix]) -> None:
        """Remember many allowances."""
        self._act("allow_all", list(prefixes))

    def unblock(self, prefix: Prefix) -> None:
        """Remember the end of a block."""
        self._act("unblock", prefix)

    def allow(self, prefix: Prefix) -> None:
        """Remember an allowance."""
        self._act("allow", prefix)

    def disallow(self, prefix: Prefix) -> None:
        """Remember the end of an allowance."""
        self._act("disallow", prefix)

    def set_limits(self, limits: Limits) -> None:
        """Remember limits."""
        self._act("set_limits", limits)

    def _act(self, *call: Any) -> None:
        self.threads.add(threading.get_ident())
        assert self.may_act.wait(10)
        if self.refusal is not None:
            raise self.refusal
        self.calls.append(call)
