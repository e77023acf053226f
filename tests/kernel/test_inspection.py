# SPDX-License-Identifier: Apache-2.0
"""A close look at an attached instance: costs, code, entries, hooks and counters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ebpftop.control.shaping import ShapingControl
from ebpftop.kernel import bpffs, libbpf
from ebpftop.kernel.instance import Instance
from ebpftop.kernel.netlink.links import netlink
from ebpftop.kernel.netlink.traffic_control import traffic_control
from ebpftop.lab import send_udp
from ebpftop.model import ClassKey, Inspection, Prefix, Snapshot
from ebpftop.sources.live import LiveSource
from tests.kernel.stage import IFACE, Stage, staged, until

pytestmark = pytest.mark.kernel

CLIENT = "198.19.11.1"
TYPE_SCHED_CLS = 3
RUN_STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=1) as stage:
        stage.lab.clients[0].add_addresses(1)
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Stage:
    attached.clear()
    return attached


@pytest.fixture
def source(stage: Stage) -> LiveSource:
    return stage.source()


def look(source: LiveSource, *asked: str) -> tuple[Snapshot, Inspection]:
    source.wants = frozenset({"inspection", *asked})
    snapshot = source.snapshot()
    assert snapshot.inspection is not None
    return snapshot, snapshot.inspection


def listed(source: LiveSource, asked: str) -> list[str]:
    listing = look(source, asked)[1].listing
    assert listing is not None
    assert listing.of == asked
    return list(listing.lines)


def pipeline_id(snapshot: Snapshot) -> int:
    return next(p.id for p in snapshot.programs if p.name == "xdp_pipeline")


def test_nobody_looks_closely_unless_it_is_wanted(source: LiveSource) -> None:
    assert source.snapshot().inspection is None


def test_run_times_are_measured_while_they_are_wanted_and_no_longer(
    stage: Stage, source: LiveSource
) -> None:
    stage.send(CLIENT)
    snapshot, first = look(source)
    number = pipeline_id(snapshot)
    assert first.measured
    assert first.programs[number].ns_per_run is None
    begin = stage.received(CLIENT)
    send_udp(stage.lab.clients[0], stage.lab.server.ipv4, 5000, sources=[CLIENT], count=200).wait(
        10
    )
    until(lambda: stage.received(CLIENT) >= begin + 200)
    facts = look(source)[1].programs[number]
    assert facts.ns_per_run is not None
    assert 0 < facts.ns_per_run < 1e6
    assert facts.runs_per_s is not None
    assert facts.runs_per_s > 0
    assert facts.cpu_share is not None
    assert facts.cpu_share > 0

    source.wants = frozenset()
    source.snapshot()
    counted = next(p.run_count for p in source.snapshot().programs if p.id == number)
    if RUN_STATISTICS.read_text().strip() == "0":
        send_udp(
            stage.lab.clients[0], stage.lab.server.ipv4, 5000, sources=[CLIENT], count=50
        ).wait(10)
        until(lambda: stage.received(CLIENT) >= begin + 250)
        later = next(p.run_count for p in source.snapshot().programs if p.id == number)
        assert later == counted


def test_sizes_are_those_that_bpftool_would_print(stage: Stage, source: LiveSource) -> None:
    snapshot, found = look(source)
    facts = found.programs[pipeline_id(snapshot)]
    lines = listed(source, "instructions:xdp_pipeline")
    assert facts.translated_bytes is not None
    assert lines[-1].partition(": ")[2] == "exit" or any(": exit" in line for line in lines)
    last = int(lines[-1].partition(":")[0])
    assert last + 1 == facts.translated_bytes // 8
    assert facts.jited_bytes is not None
    assert facts.jited_bytes > facts.translated_bytes / 4
    assert not any("unknown" in line for line in lines)


def test_entries_of_a_map_are_shown_decoded(stage: Stage, source: LiveSource) -> None:
    stage.control.block(Prefix.parse("203.0.113.0/24"), for_s=None, reason="a [red]reason[/]")
    stage.send("203.0.113.9", times=3)
    rows = listed(source, "entries:ip_tracker")
    assert any(line.startswith("203.0.113.9  ") and "dropped_packets=3" in line for line in rows)
    nets = listed(source, "entries:blocked_nets")
    assert [line.split()[0] for line in nets] == ["203.0.113.0/24"]
    rules = listed(source, "entries:rules")
    assert any("a [red]reason[/]" in line for line in rules)
    assert any("packets=3" in line for line in listed(source, "entries:rule_hits"))


def test_what_does_not_exist_is_said_to_be_so(source: LiveSource) -> None:
    listing = look(source, "entries:nothing")[1].listing
    assert listing is not None
    assert listing.note == "there is no such map"


def test_hooks_show_what_is_ours_and_what_is_others(stage: Stage, source: LiveSource) -> None:
    with somebody_elses(stage):
        found = look(source)[1].fixtures
    told = {(each.place, each.name): each.ours for each in found}
    assert told["xdp", "xdp_pipeline"] is True
    assert told["tc ingress", "theirs"] is False
    assert told["tcx egress", "theirs"] is False
    assert told["qdisc", "clsact"] is False
    assert {each.interface for each in found} == {IFACE}


def test_our_own_queues_and_programs_are_told_from_others(stage: Stage, source: LiveSource) -> None:
    control = ShapingControl(stage.instance)
    key = ClassKey("slow")
    control.set_class(key, {"rate_bps": 1_000_000, "action": "htb"})
    try:
        told = {(each.place, each.name): each.ours for each in look(source)[1].fixtures}
    finally:
        control.delete_class(key)
    assert told["qdisc", "htb"] is True
    assert told["tcx egress", "shape_egress"] is True
    after = {(each.place, each.name) for each in look(source)[1].fixtures}
    assert ("qdisc", "htb") not in after


@contextmanager
def somebody_elses(stage: Stage) -> Iterator[None]:
    """Put another's filter and TCX program on the interface, and take them away again."""
    code = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = TC_ACT_OK; exit
    fd = libbpf.call("bpf_prog_load", TYPE_SCHED_CLS, b"theirs", b"GPL", code, 2, None)
    with netlink() as socket:
        index = socket.link(IFACE).index
    link = libbpf.attach_tcx(fd, index, egress=True)
    try:
        with traffic_control(index) as tc:
            tc.add_clsact()
            tc.add_filter(0, fd, "theirs")
            yield
            tc.delete_filters(0, "theirs")
            tc.delete_clsact()
    finally:
        os.close(link)
        os.close(fd)


def test_the_interface_counts_for_itself(stage: Stage, source: LiveSource) -> None:
    (before,) = look(source)[1].counters
    begin = stage.received(CLIENT)
    send_udp(stage.lab.clients[0], stage.lab.server.ipv4, 5000, sources=[CLIENT], count=100).wait(
        10
    )
    until(lambda: stage.received(CLIENT) >= begin + 100)
    (after,) = look(source)[1].counters
    assert after.interface == IFACE
    assert after.received_packets - before.received_packets >= 100
    assert after.received_bytes > before.received_bytes


def test_a_reader_without_programs_sees_the_maps_and_no_costs(stage: Stage) -> None:
    reader = LiveSource(Instance(bpffs.BPFFS / stage.instance.name, read_only=True))
    try:
        stage.send("203.0.113.9")
        assert any("203.0.113.9" in line for line in listed(reader, "entries:ip_tracker"))
        snapshot, found = look(reader, "instructions:xdp_pipeline")
        assert found.programs[pipeline_id(snapshot)].ns_per_run is None
        assert found.listing is not None
        assert not found.listing.lines
        assert "root" in found.listing.note
    finally:
        reader.close()
