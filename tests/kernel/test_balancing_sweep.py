# SPDX-License-Identifier: Apache-2.0
"""The sweep of flows: it ends what is over, and puts right what evictions left, and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ebpftop.bpf import layout
from ebpftop.bpf.layout import ControlOp
from ebpftop.control import balancing
from ebpftop.control.balancing import BalancingControl
from ebpftop.control.flows import Flows, FlowTable
from ebpftop.kernel import libbpf
from ebpftop.model import Service
from tests.kernel.balancer import End
from tests.kernel.balancing import DNS, VIP, Controlled, end, servers
from tests.kernel.frames import Shape
from tests.kernel.pipeline import SECOND_NS, Pipeline, loaded

pytestmark = pytest.mark.kernel

A, B = servers(2)
ONE, TWO = (str(service.address) for service in (A, B))
TCP_IDLE_S, OPENING_S, UDP_IDLE_S = 7440, 60, 120


@pytest.fixture
def lb(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Controlled:
    monkeypatch.setattr(balancing, "coarse_ns", lambda: pipeline.now_ns)
    controlled = Controlled(pipeline)
    pipeline.configure(
        tcp_idle_ns=TCP_IDLE_S * SECOND_NS, tcp_opening_ns=OPENING_S * SECOND_NS,
        udp_idle_ns=UDP_IDLE_S * SECOND_NS,
    )  # fmt: skip
    return controlled


def establish(lb: Controlled, port: int) -> None:
    """Take a flow through its handshake."""
    server = lb.send(port)
    reply = Shape(End(server, 8080), End("192.0.2.1", port), "SA")
    libbpf.run_program(lb.pipeline.program, reply.to_bytes())
    lb.send(port, flags="A")


@pytest.fixture
def control(lb: Controlled) -> BalancingControl:
    """Controls that sweep again and again."""
    return lb.control


def evict(lb: Controlled, count: int) -> None:
    """Take flows out of the table without a word, as the LRU does."""
    opened = lb.maps["connections"]
    keys, values = opened.read()
    forward = keys[(values["word"] & 0xFF) < 8][:count].copy()
    opened.delete_all(forward)


def test_a_flow_is_over_after_the_silence_of_its_state(
    lb: Controlled, control: BalancingControl
) -> None:
    lb.balance(VIP, A)
    lb.balance(DNS, *servers(1, "udp"))
    lb.open(range(1, 4))
    lb.open(range(1, 6), DNS)
    for port in (11, 12):
        establish(lb, port)
    lb.send(12, flags="F")
    counts = []
    passed_s = 0.0
    for until_s in (OPENING_S, UDP_IDLE_S, TCP_IDLE_S):
        for at_s in (until_s - 1, until_s + 1):
            lb.pipeline.advance(at_s - passed_s)
            passed_s = at_s
            control.sweep()
            counts.append((sum(lb.flows().values()), lb.entries()))
    assert counts == [(10, 10), (6, 6), (6, 6), (1, 1), (1, 1), (0, 0)]


def test_a_flow_with_packets_is_not_over(lb: Controlled, control: BalancingControl) -> None:
    lb.balance(DNS, *servers(1, "udp"))
    for _ in range(5):
        lb.open(range(1, 4), DNS)
        lb.pipeline.advance(UDP_IDLE_S - 1)
        control.sweep()
        assert lb.flows() == {ONE: 3}


def test_closed_flows_leave_the_table_too(lb: Controlled, control: BalancingControl) -> None:
    lb.balance(VIP, A)
    lb.open(range(1, 4))
    for port in range(1, 4):
        lb.send(port, flags="R")
    assert (lb.flows(), lb.entries()) == ({}, 3)
    lb.pipeline.advance(OPENING_S + 1)
    control.sweep()
    assert (lb.flows(), lb.entries()) == ({}, 0)


def test_many_flows_end_in_one_sweep(lb: Controlled, control: BalancingControl) -> None:
    lb.balance(DNS, *servers(2, "udp"))
    lb.open(range(1, 1000), DNS)
    lb.pipeline.advance(UDP_IDLE_S + 1)
    control.sweep()
    assert (lb.flows(), lb.entries()) == ({}, 0)


def test_flows_of_a_vip_that_is_gone_end(lb: Controlled, control: BalancingControl) -> None:
    lb.balance(VIP, A)
    lb.open(range(1, 4))
    slots = lb.maps["vip_slots"].read()[1]
    lb.maps["vips"].delete(slots["service"][0])
    control.sweep()
    assert (lb.flows(), lb.entries()) == ({}, 0)
    lb.check_consistent()


def test_what_an_eviction_left_in_a_count_is_taken_back_at_the_second_sweep(
    lb: Controlled, control: BalancingControl
) -> None:
    lb.balance(VIP, A, B, algorithm="rr")
    lb.open(range(1, 21))
    evict(lb, 7)
    left = lb.entries()
    assert (sum(lb.flows().values()), left) == (20, 13)
    control.sweep()
    assert sum(lb.flows().values()) == 20
    control.sweep()
    assert sum(lb.flows().values()) == 13
    for _ in range(3):
        control.sweep()
    open_flows = lb.flow_table.read().open_flows()
    assert lb.maps["backend_flows"].read()[1].tolist() == open_flows.tolist()
    opened, closed = (lb.maps["backend_stats"].read()[1][n].sum() for n in ("opened", "closed"))
    assert opened - closed == 13


def test_a_count_that_is_too_low_is_raised(lb: Controlled, control: BalancingControl) -> None:
    lb.balance(VIP, A)
    lb.open(range(1, 11))
    lb.maps["backend_flows"].put(1, np.array([2**64 - 4], layout.U64))
    for _ in range(2):
        control.sweep()
    assert lb.flows() == {ONE: 10}


def test_an_error_that_came_and_went_is_not_corrected(
    lb: Controlled, control: BalancingControl
) -> None:
    lb.balance(VIP, A)
    lb.open(range(1, 11))
    for wrong in (13, 10, 7, 10, 12):
        lb.maps["backend_flows"].put(1, np.array([wrong], layout.U64))
        control.sweep()
        assert lb.flows() == {ONE: wrong}


def test_flows_that_come_and_go_meanwhile_are_not_taken_for_errors(
    lb: Controlled, control: BalancingControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ControlOp] = []
    real = FlowTable._run

    def run(self: FlowTable, op: ControlOp, *arguments: Any) -> int:
        asked.append(op)
        return real(self, op, *arguments)

    monkeypatch.setattr(FlowTable, "_run", run)
    lb.balance(VIP, A, B, algorithm="rr")
    lb.open(range(1, 101))
    lb.pipeline.unpin()
    done = threading.Event()
    frames = {
        (port, flags): Shape(End("192.0.2.9", port), end(VIP), flags).to_bytes()
        for flags in ("S", "R")
        for port in range(1, 1000)
    }

    def traffic() -> None:
        while not done.is_set():
            for frame in frames.values():
                libbpf.run_program(lb.pipeline.program, frame)

    sender = threading.Thread(target=traffic)
    sender.start()
    try:
        for _ in range(60):
            control.sweep()
    finally:
        done.set()
        sender.join()
    assert ControlOp.CORRECT_FLOWS not in asked
    assert lb.flows() == {ONE: 50, TWO: 50}
    assert sum(lb.flow_table.read().open_flows()) == 100


@pytest.mark.parametrize("flags", ["S", "R"], ids=["begin", "end"])
def test_what_happens_between_the_counts_and_the_flows_is_no_error(
    lb: Controlled, control: BalancingControl, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    lb.balance(VIP, A)
    if flags == "R":
        lb.open(range(1, 41))
    ports = iter(range(1, 41))
    real = FlowTable.read

    def read(self: FlowTable) -> Flows:
        for _ in range(10):
            lb.send(next(ports), flags=flags)
        return real(self)

    monkeypatch.setattr(FlowTable, "read", read)
    left = []
    for _ in range(4):
        control.sweep()
        left.append(lb.flows().get(ONE, 0))
    assert left == ([10, 20, 30, 40] if flags == "S" else [30, 20, 10, 0])


@pytest.fixture(scope="module")
def small() -> Iterator[Controlled]:
    """A table that holds few flows."""
    with loaded(CONNECTIONS=1024) as pipeline:
        yield Controlled(pipeline)


def test_the_lrus_own_evictions_are_corrected(
    small: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balancing, "coarse_ns", lambda: small.pipeline.now_ns)
    small.balance(VIP, A, B, algorithm="rr")
    small.open(range(1, 3001))
    assert sum(small.flows().values()) == 3000
    assert small.entries() < 1100
    control = small.control
    for _ in range(2):
        control.sweep()
    assert sum(small.flows().values()) == small.entries()
    for port in range(1, 3001):
        small.send(port, flags="R")
    for _ in range(2):
        control.sweep()
    assert small.flows() == {}


def test_moved_flows_count_once(lb: Controlled, control: BalancingControl) -> None:
    lb.balance(VIP, A, B, algorithm="rr")
    lb.open(range(1, 11))
    lb.control.set_backends(VIP, {Service.parse("10.0.0.1:8080", "tcp"): {"state": "down"}})
    for port in range(1, 11):
        lb.send(port, flags="A")
        control.sweep()
    assert lb.flows() == {TWO: 10}
