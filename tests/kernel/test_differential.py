# SPDX-License-Identifier: Apache-2.0
"""Random traffic and random policies: the pipeline against its model in plain Python."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpftop.bpf.layout import ControlOp, Flag
from tests.kernel import packets
from tests.kernel.model import Model
from tests.kernel.model_parts import Net, Rule
from tests.kernel.pipeline import SECOND_NS, START_NS, Pipeline

pytestmark = pytest.mark.kernel

SOURCES = (
    "192.0.2.1", "192.0.2.2", "192.0.2.129", "203.0.113.7", "10.1.2.3", "2001:db8:0:1::1",
    "2001:db8:0:1::2", "2001:db8:0:2::1", "2001:db8:ffff::1", "fe80::1", "::ffff:192.0.2.1",
)  # fmt: skip
NETS = (
    *SOURCES[:-1], "192.0.2.0/31", "192.0.2.0/30", "192.0.2.0/29", "192.0.2.0/25",
    "192.0.2.0/24", "192.0.0.0/8", "0.0.0.0/0", "2001:db8:0:1::/127", "2001:db8:0:1::/64",
    "2001:db8::/48", "2001:db8::/32", "2000::/3", "::/0",
)  # fmt: skip
PROTOCOLS = (
    packets.TCP, packets.UDP, packets.ICMP, packets.ICMPV6, packets.GRE, packets.NONE, 255,
)  # fmt: skip
GAPS_NS = (0, 1, 10**6, 9 * 10**6, 10**7, 10**8)
SPANS_NS = (
    *GAPS_NS,
    SECOND_NS // 8 - 1,
    SECOND_NS // 8,
    SECOND_NS,
    3 * SECOND_NS + 1,
    61 * SECOND_NS,
    24 * 3600 * SECOND_NS,
    31 * 24 * 3600 * SECOND_NS,
)


@dataclass
class Pair:
    """The pipeline and its model, told the same."""

    pipeline: Pipeline
    model: Model = field(default_factory=lambda: Model(START_NS))
    sent: int = 0

    def advance(self, span_ns: int) -> None:
        """Let time go by for both."""
        if span_ns:
            self.model.now_ns += span_ns
            self.pipeline.now_ns = self.model.now_ns

    def compare(self) -> None:
        """Compare all that both have counted."""
        assert self.pipeline.totals() == self.model.observed_totals()
        assert self.pipeline.rows() == self.model.observed_rows()
        assert self.pipeline.hits() == self.model.hits
        assert self.pipeline.auto_blocks() == self.model.observed_auto_blocks()
        assert self.pipeline.events() == self.model.events[-1024:]
        shared = self.pipeline.shared()
        assert shared["sources_added"] == self.model.sources_added
        assert shared["flood_since_ns"] == self.model.flood_since_ns


@dataclass(frozen=True)
class Send:
    """Send a frame, again and again."""

    frame: bytes
    times: int
    gap_ns: int

    def take(self, pair: Pair) -> None:
        for _ in range(self.times):
            pair.advance(self.gap_ns)
            assert pair.pipeline.passes(self.frame) == pair.model.passes(self.frame)
        pair.sent += self.times


@dataclass(frozen=True)
class Wait:
    """Let time go by, and go on elsewhere."""

    span_ns: int
    cpu: int

    def take(self, pair: Pair) -> None:
        pair.advance(self.span_ns)
        pair.pipeline.pin_to(self.cpu)
        pair.model.cpu = self.cpu


@dataclass(frozen=True)
class Configure:
    """Write another configuration."""

    flags: frozenset[Flag]
    fields: dict[str, int]

    def take(self, pair: Pair) -> None:
        pair.pipeline.configure(self.flags, **self.fields)
        pair.model.flags = set(self.flags)
        pair.model.config.update(self.fields)


@dataclass(frozen=True)
class Block:
    """Block a prefix, or take its block away."""

    text: str
    for_ns: int

    def take(self, pair: Pair) -> None:
        net = Net.parse(self.text)
        if pair.model.blocks.pop(net, None):
            pair.pipeline.remove("blocked_ips" if net.length == 128 else "blocked_nets", self.text)
            return
        until_ns = pair.model.now_ns + self.for_ns if self.for_ns else 0
        slot = pair.pipeline.block(self.text, until_ns)
        pair.model.blocks[net] = Rule(net, until_ns, slot)


@dataclass(frozen=True)
class Except:
    """Allow or protect a prefix, or stop that."""

    text: str
    allowed: bool

    def take(self, pair: Pair) -> None:
        net, model = Net.parse(self.text), pair.model
        if self.allowed and model.allowed.pop(net, None) is not None:
            pair.pipeline.remove("allowed", self.text)
        elif self.allowed:
            model.allowed[net] = pair.pipeline.allow(self.text)
        elif net in model.protected:
            model.protected.remove(net)
            pair.pipeline.remove("protected", self.text)
        else:
            model.protected.add(net)
            pair.pipeline.protect(self.text)


@dataclass(frozen=True)
class Operate:
    """End what is over of one source or prefix, or unblock it."""

    text: str
    unblock: bool

    def take(self, pair: Pair) -> None:
        pipeline, model, net = pair.pipeline, pair.model, Net.parse(self.text)
        rule = model.blocks.get(net)
        if rule:
            told = pipeline.control(ControlOp.END_RULE, rule.slot)
            assert told == model.end_rule(rule)
        is_ipv4 = net.first >> 32 == 0xFFFF
        net = Net(net.first, 128) if is_ipv4 else Net(net.first >> 64 << 64, 64)
        first = (net.first >> 64, net.first & (1 << 64) - 1)
        told = pipeline.control(ControlOp.END_AUTO, address=first, length=net.length)
        assert told == model.end_auto_block(net)
        if self.unblock and net.first in model.auto_blocks:
            del model.auto_blocks[net.first]
            assert pipeline.maps["auto_blocks"].delete(first)


Step = Send | Wait | Configure | Block | Except | Operate

segments = st.one_of(
    st.sampled_from([packets.SYN, packets.SYN, packets.ACK, packets.SYN | packets.ACK]).map(
        packets.tcp
    ),
    st.sampled_from([0, 30, 1000]).map(lambda size: packets.udp(bytes(size))),
    st.sampled_from([packets.icmp(), *map(packets.icmpv6, (128, 132, 133, 137, 138))]),
    st.builds(packets.tcp, data_offset=st.integers(0, 15)),
    st.builds(packets.Segment, st.sampled_from(PROTOCOLS), st.binary(max_size=24)),
)
extensions = st.builds(
    packets.Extension,
    st.sampled_from(packets.EXTENSIONS),
    st.sampled_from([0, 0, 0, 1, 4, 40]),
    st.sampled_from([0, 0, 0, 1, 185]),
)
vlans = st.lists(
    st.sampled_from([packets.VLAN, packets.QINQ, packets.QINQ_OLD]), min_size=1, max_size=3
)
plain = st.builds(packets.frame, st.sampled_from(SOURCES), segments)
ornate = st.builds(
    packets.frame,
    st.sampled_from(SOURCES),
    segments,
    vlans=st.just(()) | vlans,
    options=st.sampled_from([b"", b"", bytes(4), bytes(40)]),
    extensions=st.lists(extensions, max_size=7),
    offset=st.sampled_from([0, 0, 0x2000, 0x4000, 1, 0x2001]),
    hop_limit=st.sampled_from([64, 255]),
    padding=st.sampled_from([b"", b"", bytes(18)]),
)
edits = st.lists(
    st.tuples(st.sampled_from([12, 14, 16, 20]) | st.integers(12, 80), st.integers(0, 255)),
    max_size=3,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame with some bytes changed, or its end cut off."""
    frame = bytearray(draw(ornate))
    for at, value in draw(edits):
        frame[at % len(frame)] = value
    return bytes(frame[: max(14, len(frame) - draw(st.just(0) | st.integers(0, 80)))])


noise = st.one_of(
    st.binary(min_size=14, max_size=100),
    st.builds(
        packets.ethernet,
        st.binary(max_size=80),
        st.sampled_from([packets.ETHERTYPE_IPV4, packets.ETHERTYPE_IPV6, packets.ETHERTYPE_ARP]),
        st.just(()) | vlans,
    ),
)
frames = st.one_of(plain, plain, ornate, damaged(), noise)
costs = st.sampled_from([0, 10**7, 10**8]).map(lambda ns: ns << 4)
spans = st.sampled_from([0, 10**7, 5 * 10**7, 10**8])
configurations = st.fixed_dictionaries(
    {
        "pps_cost": costs,
        "byte_cost": costs.map(lambda cost: (cost << 20) // 100),
        "syn_cost": costs.map(lambda cost: cost * 5),
        "burst": spans.map(lambda ns: ns << 4),
        "grace_ns": spans,
        "block_for_ns": st.sampled_from([0, 10**7, 10**8, SECOND_NS, 10**15]),
        "new_sources": st.sampled_from([1 << 20, 0, 1, 3]),
        "flood_pps": st.sampled_from([1, 3, 10]),
    }
)
limiting = frozenset({Flag.LIMITS, Flag.AUTO})
flags = st.one_of(
    st.just(limiting),
    st.just(limiting | {Flag.DROP_NEW}),
    st.just(limiting | {Flag.DRY_RUN}),
    st.frozensets(st.sampled_from([*limiting, Flag.DRY_RUN, Flag.DROP_NEW, Flag.DROP_UNPARSED])),
)
configures = st.builds(Configure, flags, configurations)
acts: st.SearchStrategy[Step] = st.one_of(
    configures,
    st.builds(Wait, st.sampled_from(SPANS_NS), st.sampled_from([0, 1])),
    st.builds(Wait, st.sampled_from(SPANS_NS), st.sampled_from([0, 1])),
    st.builds(Block, st.sampled_from(NETS), st.sampled_from([0, *SPANS_NS[2:-1]])),
    st.builds(Except, st.sampled_from(NETS), st.booleans()),
    st.builds(Operate, st.sampled_from(NETS), st.booleans()),
)


@st.composite
def scenarios(draw: st.DrawFn) -> list[Step]:
    """Traffic of a few kinds of packets, and what else happens meanwhile."""
    pool = st.sampled_from(draw(st.lists(frames, min_size=1, max_size=4)))
    times, gaps = st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from(GAPS_NS)
    steps: list[Step] = [draw(configures)]
    for _ in range(draw(st.integers(1, 40))):
        steps.append(Send(draw(pool), draw(times), draw(gaps)))
        if draw(st.booleans()):
            steps.append(draw(acts))
    return steps


def test_the_pipeline_agrees_with_its_model(pipeline: Pipeline) -> None:
    sent = 0

    @settings(
        max_examples=500,
        deadline=None,
        derandomize=os.environ.get("CI") == "true",
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(scenarios())
    def agree(scenario: list[Step]) -> None:
        nonlocal sent
        pipeline.reset()
        pipeline.pin_to(0)
        pair = Pair(pipeline)
        for step in scenario:
            step.take(pair)
        pair.compare()
        sent += pair.sent

    agree()
    assert sent >= 10_000
