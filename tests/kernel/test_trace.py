# SPDX-License-Identifier: Apache-2.0
"""The trace: what it shows of real packets, what it leaves out, and how it always ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet as Layers
from scapy.packet import Raw

from ebpftop.bpf import trace_layout
from ebpftop.control.balancing import BalancingControl
from ebpftop.control.everything import InstanceControl
from ebpftop.control.trace_filter import TraceFilter
from ebpftop.control.tracing import Trace
from ebpftop.dissection import dissect
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel import bpffs, compiled_cache, libbpf, loading, variants
from ebpftop.kernel.attaching import program_name
from ebpftop.kernel.instance import PIPELINE, network_namespace
from ebpftop.kernel.maps import Map
from ebpftop.kernel.netlink.links import netlink
from ebpftop.lab import Lab, joined
from ebpftop.model import Backend, Limits, Prefix, Service, TracedPacket, Vip
from tests.kernel.attached import NOBODY
from tests.kernel.stage import IFACE, PROGRAM, Stage, child, ebpftop, staged, until

pytestmark = pytest.mark.kernel

SENDER, OTHER = "10.77.0.1", "10.88.0.1"
OURS = "source:10.77.0.0/16"
FAST = 10_000


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=1) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Stage:
    attached.clear()
    return attached


Send = Callable[[bytes], None]


@pytest.fixture
def send(stage: Stage) -> Iterator[Send]:
    """Sends frames from the client's end of the wire."""
    host = stage.lab.clients[0]
    with joined(host):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        opened.bind((host.interface, 0))

    def one(frame: bytes) -> None:
        opened.send(frame)

    with opened:
        yield one


def framed(stage: Stage, layers: Layers) -> bytes:
    return bytes(Ether(src=stage.lab.clients[0].mac, dst=stage.lab.server.mac) / layers)


def datagram(stage: Stage, source: str = SENDER, size: int = 10) -> bytes:
    return framed(stage, IP(src=source, dst=OTHER) / UDP(sport=7, dport=9) / Raw(bytes(size)))


@contextmanager
def tracing(stage: Stage) -> Iterator[Trace]:
    trace = InstanceControl(stage.instance).trace(OURS, FAST)  # as the dashboard does
    try:
        yield trace
    finally:
        trace.stop()


@pytest.fixture(scope="module")
def one_trace(attached: Stage) -> Iterator[Trace]:
    with tracing(attached) as trace:
        yield trace


@pytest.fixture
def trace(one_trace: Trace, stage: Stage) -> Trace:
    """A trace that is on, of all that the tests send."""
    one_trace.look_for(TraceFilter.parse(OURS), FAST)
    one_trace.take()
    return one_trace


def taken(trace: Trace, count: int) -> list[TracedPacket]:
    """Wait for so many packets."""
    found: list[TracedPacket] = []

    def complete() -> bool:
        found.extend(trace.take(0.05))
        return len(found) >= count

    until(complete)
    return found


def program_on() -> str:
    """Return the name of the program on the interface."""
    with netlink() as opened:
        return program_name(opened.link(IFACE).xdp_program)


def is_whole(stage: Stage) -> bool:
    """Whether the pipeline is on the interface, and nothing of a trace is left."""
    return program_on() == PIPELINE and not variants.room(stage.instance.folder).exists()


def test_the_trace_shows_the_packets_that_were_sent_as_they_came(
    stage: Stage, trace: Trace, send: Send
) -> None:
    sent = [
        framed(stage, layers)
        for layers in (
            IP(src=SENDER, dst=OTHER) / TCP(sport=1000, dport=80, flags="S"),
            IP(src=SENDER, dst=OTHER) / UDP(sport=53, dport=54) / Raw(bytes(range(256)) * 4),
            IP(src=SENDER, dst=OTHER) / ICMP(),
        )
    ]
    send(datagram(stage, "10.78.0.1"))  # another source, which does not match
    for frame in sent:
        send(frame)
    found = taken(trace, len(sent))
    assert [packet.data for packet in found] == [frame[:128] for frame in sent]
    assert [packet.length for packet in found] == [len(frame) for frame in sent]
    assert [packet.protocol for packet in found] == ["tcp", "udp", "icmp"]
    assert {packet.verdict for packet in found} == {"passed"}
    assert all(abs(packet.time_s - time.time()) < 60 for packet in found)


def test_the_trace_says_what_became_of_a_packet_and_why(
    stage: Stage, trace: Trace, send: Send
) -> None:
    stage.control.block(Prefix.parse("10.77.1.0/24"), for_s=None)
    stage.control.block(Prefix.parse("10.77.2.2"), for_s=None)
    stage.control.set_limits(Limits(pps=1, burst_s=1.0))
    for source in (SENDER, "10.77.1.1", "10.77.2.2"):
        send(datagram(stage, source))
    for _ in range(50):
        send(datagram(stage, "10.77.3.3"))
    became = Counter(
        (str(dissect(packet.data).source), packet.verdict, packet.reason)
        for packet in taken(trace, 53)
    )
    assert became.pop(("10.77.3.3", "passed", "")) >= 1
    assert became.pop(("10.77.3.3", "dropped", "limit-pps")) > 1
    assert set(became) == {
        (SENDER, "passed", ""),
        ("10.77.1.1", "dropped", "blocked-prefix"),
        ("10.77.2.2", "dropped", "blocked"),
    }


def test_a_balanced_packet_shows_its_backend_and_its_address_before_it_is_rewritten(
    stage: Stage, trace: Trace, send: Send
) -> None:
    vip, backend = Service.parse("10.99.0.1:80/tcp"), Service.parse("10.99.0.2:8080/tcp")
    control = BalancingControl(stage.instance)
    control.add_vip(Vip(vip))
    control.add_backend(vip, Backend(backend))
    layers = IP(src=SENDER, dst="10.99.0.1") / TCP(sport=4000, dport=80, flags="S")
    try:
        send(framed(stage, layers))
        (packet,) = taken(trace, 1)
    finally:
        control.delete_vip(vip)
    assert packet.backend == backend
    assert str(dissect(packet.data).destination) == "10.99.0.1"


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("source:10.77.1.0/24", ["10.77.1.1"]),
        ("verdict:dropped address:10.77.0.0/16", ["10.77.1.1"]),
        ("reason:blocked-prefix", ["10.77.1.1"]),
        (f"{OURS} protocol:/tcp/", ["10.77.0.2"]),
        (f"{OURS} -verdict:dropped -protocol:tcp", [SENDER]),
        (f"{OURS} blocked-prefix", ["10.77.1.1"]),  # a bare word: asked in user space
        (f"{OURS} -source:10.77.0.0/24", ["10.77.1.1"]),
    ],
)
def test_only_what_the_filter_lets_through_is_shown(
    stage: Stage, trace: Trace, send: Send, expression: str, shown: list[str]
) -> None:
    stage.control.block(Prefix.parse("10.77.1.0/24"), for_s=None)
    trace.look_for(TraceFilter.parse(expression), FAST)
    tcp = IP(src="10.77.0.2", dst=OTHER) / TCP(sport=1, dport=2)
    for frame in (datagram(stage), datagram(stage, "10.77.1.1"), framed(stage, tcp)):
        send(frame)
    until(lambda: all(map(stage.received, (SENDER, "10.77.1.1", "10.77.0.2"))))
    found = taken(trace, len(shown))
    assert [str(dissect(packet.data).source) for packet in found] == shown


def test_a_flood_is_bounded_to_the_rate_and_what_is_left_out_is_counted(
    stage: Stage, trace: Trace, send: Send
) -> None:
    before, sent, rate = trace.left_out, 0, 10
    trace.look_for(TraceFilter.parse(OURS), rate)
    frame, began_s = datagram(stage), time.monotonic()
    found: list[TracedPacket] = []
    cpus = sorted(os.sched_getaffinity(0))
    try:
        while len(found) < 4 * rate:
            # Each of the kernel's CPUs has a bound of its own; that of all together is ours.
            for cpu in cpus[:2]:
                os.sched_setaffinity(0, {cpu})
                for _ in range(100):
                    send(frame)
                sent += 100
            found += trace.take()
            assert time.monotonic() < began_s + 30
    finally:
        os.sched_setaffinity(0, cpus)
    most = rate * (time.monotonic() - began_s + 2)
    until(lambda: stage.received(SENDER) == sent)
    until(lambda: len(found) + len(trace.take()) + trace.left_out - before >= sent)
    assert len(found) <= most
    counters = Map(libbpf.open_pin(variants.room(stage.instance.folder) / "tracing"),
                   *trace_layout.MAPS["tracing"])  # fmt: skip
    with closing(counters):
        left_out_there = int(counters.read()[1]["left_out"].sum())
    assert sent - left_out_there <= most * len(cpus)


def test_the_variant_costs_the_verifier_less_than_its_budget(stage: Stage, trace: Trace) -> None:
    variant = libbpf.open_pin(variants.pin(stage.instance.folder))
    try:
        assert 0 < libbpf.program_info(variant).verified_insns < 250_000
    finally:
        os.close(variant)


def test_watchers_and_status_take_the_variant_for_ours(stage: Stage, trace: Trace) -> None:
    assert program_on() == variants.PROGRAM
    assert ebpftop("status", IFACE, "--json").json()["attached"] is True
    assert stage.snapshot().interfaces[0].name == IFACE
    looked = subprocess.run(
        [*NOBODY, PROGRAM, "status", IFACE, "--json"], capture_output=True, text=True
    )
    assert looked.returncode in (0, 4), looked  # closed to nobody, or open by its group


def test_one_trace_at_a_time_and_the_second_one_says_who_traces(stage: Stage, trace: Trace) -> None:
    with pytest.raises(
        KernelRefusedError, match=r"a trace of eth0 is on already: .* traces its packets"
    ):
        Trace(stage.instance, TraceFilter.parse(""), rate=1)
    assert program_on() == variants.PROGRAM


# The tests from here on end the trace that the others share, and begin their own.


@pytest.fixture
def untraced(one_trace: Trace, stage: Stage) -> Stage:
    one_trace.stop()
    assert is_whole(stage)
    return stage


def test_a_second_trace_needs_no_compiler_and_makes_no_map_of_the_instance_anew(
    untraced: Stage, send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_cache, "FOLDER", tmp_path / "cache")
    with tracing(untraced):
        pass
    monkeypatch.setattr(loading, "COMPILER", Path("/nonexistent/compile.py"))
    untraced.control.block(Prefix.parse(SENDER), for_s=None)
    with tracing(untraced) as trace:
        pinned = {path.name for path in variants.room(untraced.instance.folder).iterdir()}
        send(datagram(untraced))
        (packet,) = taken(trace, 1)
    assert pinned == {"prog_xdp_trace", trace_layout.RING, *trace_layout.MAPS}
    assert packet.reason == "blocked"
    assert is_whole(untraced)


def test_a_watcher_from_before_goes_on_while_a_trace_begins_and_ends_and_no_packet_is_lost(
    untraced: Stage, send: Send
) -> None:
    source = untraced.source()
    source.snapshot()
    frame, sent, ended = datagram(untraced), [0], threading.Event()

    def traffic() -> None:
        while not ended.is_set():
            send(frame)
            sent[0] += 1
            time.sleep(0.0002)

    sender = threading.Thread(target=traffic)
    sender.start()
    try:
        with tracing(untraced):
            assert source.snapshot().faults == []
            for _ in range(20):  # there and back, under traffic
                with bpffs.locked(untraced.instance.name):
                    swap_back(untraced)
                    variants.put_in_place(untraced.instance.folder)
        assert source.snapshot().faults == []
    finally:
        ended.set()
        sender.join()
    assert sent[0] > 100
    until(lambda: untraced.received(SENDER) >= sent[0])
    assert untraced.received(SENDER) == sent[0]
    assert is_whole(untraced)


def swap_back(stage: Stage) -> None:
    folder = stage.instance.folder
    old, new = libbpf.open_pin(variants.pin(folder)), libbpf.open_pin(folder / "prog_xdp_pipeline")
    try:
        libbpf.swap_xdp(old, new)
    finally:
        os.close(old)
        os.close(new)


@pytest.mark.parametrize("who", ["a reader's look", "a writer's act"])
def test_a_tracer_that_is_killed_leaves_no_trace_behind(untraced: Stage, who: str) -> None:
    tracer = child("trace", IFACE)
    until(lambda: program_on() == variants.PROGRAM, 30)
    if who == "a reader's look":  # which leaves a trace that is on alone
        ebpftop("status", IFACE)
        assert program_on() == variants.PROGRAM
    tracer.kill()
    tracer.communicate()
    assert program_on() == variants.PROGRAM
    if who == "a reader's look":
        ebpftop("status", IFACE)
    else:
        untraced.control.set_limits(Limits())
    assert is_whole(untraced)


def test_the_verb_prints_one_object_a_packet_and_ends_on_a_signal(
    untraced: Stage, send: Send
) -> None:
    words = ("trace", IFACE, "--json", "--filter", f"{OURS} protocol:udp", "--rate", "100")
    tracer = child(*words)
    try:
        until(lambda: program_on() == variants.PROGRAM, 30)
        for _ in range(3):
            send(datagram(untraced))
        assert tracer.stdout is not None
        rows: list[dict[str, Any]] = [json.loads(tracer.stdout.readline()) for _ in range(3)]
    finally:
        tracer.send_signal(signal.SIGTERM)
        _, complaint = tracer.communicate(timeout=30)
    assert (tracer.returncode, complaint) == (0, "")
    assert is_whole(untraced)
    for row in rows:
        assert row | {"time": 0} == {
            "time": 0, "interface": IFACE, "source": SENDER, "destination": OTHER,
            "source_port": 7, "destination_port": 9, "protocol": "udp", "length": 52,
            "verdict": "passed", "reason": None, "backend": None, "flags": [], "detail": None,
            "left_out": 0,
        }  # fmt: skip


def test_the_verb_prints_lines_and_ends_after_its_time(untraced: Stage) -> None:
    done = ebpftop("trace", IFACE, "--filter", "source:10.99.99.99", "--for", "0.1")
    assert (done.status, done.out) == (0, "")
    assert done.err == "0 packets that matched were left out\n"
    assert is_whole(untraced)


def test_the_verb_refuses_in_the_words_of_the_contract(untraced: Stage) -> None:
    refused = {
        ("trace", "lo"): (5, "ebpftop is not attached to lo"),
        ("trace", "nope"): (3, "nope"),
        ("trace", IFACE, "--filter", "protocol:udp verdict:drop"): (2, "character 22"),
        ("trace", IFACE, "--filter", "port:80"): (2, "the fields are source, address"),
    }
    for words, (status, said) in refused.items():
        done = ebpftop(*words)
        assert done.status == status, done
        assert said in done.err
        assert done.err.count("\n") == 1
    by_nobody = subprocess.run([*NOBODY, PROGRAM, "trace", IFACE], capture_output=True, text=True)
    assert by_nobody.returncode == 4, by_nobody
    assert is_whole(untraced)


def test_a_trace_of_pinned_links_is_ended_by_a_detach_and_nothing_is_left() -> None:
    with Lab(0) as lab, joined(lab.server):
        assert ebpftop("attach", IFACE).status == 0
        try:
            tracer = child("trace", IFACE)
            until(lambda: program_on() == variants.PROGRAM, 30)
        finally:
            done = ebpftop("detach", IFACE)
        assert done.status == 0, done
        _, complaint = tracer.communicate(timeout=30)
        assert tracer.returncode == 1
        assert "the trace was ended" in complaint
        with netlink() as opened:
            assert opened.link(IFACE).xdp_program == 0
        ours = f"{network_namespace()}-*"
        assert [*bpffs.RUN.glob(ours), *bpffs.BPFFS.glob(ours)] == []
