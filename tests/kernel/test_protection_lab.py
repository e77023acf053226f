# SPDX-License-Identifier: Apache-2.0
"""Protection at its work: real servers, real clients and floods over the lab's wire."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from ebpftop.lab import Job, Lab, flood, joined, request_http, send_udp, serve_http
from ebpftop.model import Event, Limits, Prefix, SourceState
from tests.kernel.stage import IFACE, Stage, child, ebpftop, staged, until

pytestmark = pytest.mark.kernel

PAGE_TIMEOUT_S = 0.4
SO_TIMESTAMPNS = 35
"""Of asm-generic/socket.h, which `socket` does not name."""


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged() as stage:
        serve_http(stage.lab.server).wait_ready()
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Stage:
    attached.clear()
    return attached


def failed(jobs: list[Job]) -> list[int]:
    """Wait for web clients to end; return how many requests of each failed."""
    return [job.wait(30)["failed"] for job in jobs]


def test_a_blocked_client_is_not_served_and_the_others_are(stage: Stage) -> None:
    server, (first, second, third) = stage.lab.server, stage.lab.clients

    def ask(count: int) -> list[int]:
        asked = [(first, server.ipv4), (second, server.ipv4), (third, server.ipv6)]
        return failed(
            [
                request_http(host, address, 50, timeout_s=PAGE_TIMEOUT_S, count=count)
                for host, address in asked
            ]
        )

    assert ask(10) == [0, 0, 0]
    assert ebpftop("block", IFACE, first.ipv4).status == 0
    assert ebpftop("block", IFACE, f"{third.ipv6}/128").status == 0
    assert ask(10) == [10, 0, 10]
    rows = {row["address"]: row for row in ebpftop("blocks", IFACE, "--json").json()}
    for host in (first.ipv4, third.ipv6):
        row = stage.row(host)
        assert rows[host]["packets"] == row["dropped_packets"] >= 10

    ebpftop("unblock", IFACE, first.ipv4)
    ebpftop("allow", IFACE, third.ipv6)
    assert ask(10) == [0, 0, 0]


@pytest.mark.parametrize("blocked", ["198.19.11.1", "198.19.11.0/24", "2001:db8:11::/48"])
def test_what_a_block_stopped_is_counted_on_it_and_on_the_source(
    stage: Stage, blocked: str
) -> None:
    client, server = stage.lab.clients[0], stage.lab.server
    source, target = "198.19.11.1", server.ipv4
    if ":" in blocked:
        source, target = "2001:db8:11::1", server.ipv6
    client.ip(f"address add {source}/{64 if ':' in source else 15} dev eth0 nodad")
    ebpftop("block", IFACE, blocked)
    stage.send(source)
    sent = send_udp(client, target, 5000, sources=[source], count=301).wait(10)
    client.ip(f"address del {source}/{64 if ':' in source else 15} dev eth0")

    until(lambda: stage.received(source) == 302)
    assert sent["sent_packets"] == 301
    (block,) = ebpftop("blocks", IFACE, "--json").json()
    row = stage.row(source)
    assert (block["packets"], block["bytes"]) == (302, row["dropped_bytes"])
    assert (row["dropped_packets"], row["passed_packets"]) == (302, 0)

    ebpftop("unblock", IFACE, blocked)
    stage.send(source, 5)
    (shown,) = ebpftop("top", IFACE, "--json", "--filter", f"address:{source}").json()
    assert (shown["dropped"], shown["packets"], shown["state"]) == (302, 307, "passed")


def arrived_s(sink: socket.socket) -> float:
    """Receive one datagram; return when the kernel got it, in seconds since 1970."""
    _, control, _, _ = sink.recvmsg(100, 64)
    seconds, nanoseconds = struct.unpack("qq", control[0][2])
    return float(seconds + nanoseconds / 1e9)


def test_a_block_ends_by_itself_with_no_process_of_ours_running() -> None:
    with Lab(clients=1) as lab, joined(lab.server):
        # GIVEN verbs that attached and blocked, and have exited
        client = lab.clients[0]
        assert child("attach", IFACE).communicate(timeout=20)[1] == ""
        try:
            stream = send_udp(client, lab.server.ipv4, 100)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
                sink.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                sink.bind((lab.server.ipv4, 9))
                sink.settimeout(10)
                latest_s, gap_s = arrived_s(sink), 0.0
                assert child("block", IFACE, client.ipv4, "--for", "2s").wait(20) == 0

                # WHEN the stream is silent, and comes again
                while gap_s < 1:
                    now_s = arrived_s(sink)
                    gap_s, latest_s = now_s - latest_s, now_s
            stream.stop()

            # THEN it was the length of the block, and the source still shows what it lost
            assert 1.98 < gap_s < 2.5
            assert ebpftop("blocks", IFACE, "--json").json() == []
            (row,) = ebpftop("top", IFACE, "--json", "--filter", client.ipv4).json()
            assert row["state"] == "passed"
            assert 2 * 100 * 0.8 < row["dropped"] < row["packets"]
        finally:
            assert child("detach", IFACE).wait(20) == 0
        assert ebpftop("status", IFACE).status == 5


def limit(stage: Stage, **limits: Any) -> None:
    stage.control.set_limits(Limits(**limits))


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_two_cores_that_hammer_one_source_get_one_limit(mode: str) -> None:
    pps, burst_s = 5000, 0.2
    with staged(mode=mode, clients=0) as stage:
        # GIVEN two floods from one address, each on a core of its own
        attacker = stage.lab.attacker
        limit(stage, pps=pps, burst_s=burst_s, block_for_s=0)
        jobs = [flood(attacker, stage.lab.server, "udp", seconds=30) for _ in range(2)]
        for process, cpu in zip(attacker.children, sorted(os.sched_getaffinity(0)), strict=False):
            os.sched_setaffinity(process.pid, {cpu})
        for job in jobs:
            job.wait_ready()
        until(lambda: stage.find_row(attacker.ipv4))

        # WHEN they run for a while
        time.sleep(1.5)
        row = stage.row(attacker.ipv4)
        for job in jobs:
            job.stop()

        # THEN what passed is what the limit lets pass in that time
        lasted_s = (row["last_ns"] - row["first_ns"]) / 1e9
        assert row["passed_packets"] == pytest.approx(pps * (lasted_s + burst_s), rel=0.05)
        assert row["dropped_packets"] > 5 * row["passed_packets"]
        if mode == "generic":  # a native veth gives all packets of a queue to one core
            per_core = stage.instance.maps["stats"].read()[1][0]["received"]["packets"]
            assert (per_core > 1000).sum() == 2


def test_a_source_over_its_limit_is_blocked_after_the_grace_and_longer_each_time(
    stage: Stage,
) -> None:
    attacker, source = stage.lab.attacker, stage.source()
    source.snapshot()
    limit(stage, pps=500, burst_s=0.05, grace_s=0.3, block_for_s=0.4)
    attack = flood(attacker, stage.lab.server, "udp", pps=20_000, seconds=30)
    told: list[Event] = []

    def twice_more() -> bool:
        told.extend(e for e in source.snapshot().events if e.kind == "auto-block")
        return len(told) == 3

    until(twice_more, 15)
    snapshot = source.snapshot()
    blocks = ebpftop("blocks", IFACE, "--json").json()
    attack.stop()

    assert [event.address for event in told] == [attacker.ipv4] * 3
    assert [event.detail for event in told] == [
        f"over the limit of packets, for {lasts}" for lasts in ("400ms", "800ms", "1s")
    ]
    # From one to the next: the block, and a grace with what the burst lets through before it.
    gaps_s = [later.time_s - sooner.time_s for sooner, later in pairwise(told)]
    assert 0.4 + 0.3 - 0.02 < gaps_s[0] < 1.2
    assert 0.8 + 0.3 - 0.02 < gaps_s[1] < 1.7
    assert [(row["address"], row["source"], row["reason"]) for row in blocks] == [
        (attacker.ipv4, "auto", "over the limit of packets")
    ]
    assert 0 < blocks[0]["expires_in_s"] <= 1.6
    row = snapshot.sources.row_of(Prefix.parse(attacker.ipv4))
    assert row is not None
    assert snapshot.sources.state[row] == SourceState.BLOCKED

    assert ebpftop("unblock", IFACE, attacker.ipv4).status == 0
    assert ebpftop("blocks", IFACE, "--json").json() == []


def test_a_dry_run_counts_and_drops_nothing(stage: Stage) -> None:
    attacker = stage.lab.attacker
    limit(stage, pps=500, burst_s=0.05, grace_s=0.1, block_for_s=10, dry_run=True)
    stage.control.block(Prefix.parse(stage.lab.clients[0].ipv4), for_s=None)
    before = stage.snapshot().totals
    sent = flood(attacker, stage.lab.server, "udp", pps=20_000, seconds=0.6).wait(20)
    asked = request_http(stage.lab.clients[0], stage.lab.server.ipv4, 50, count=10).wait(20)
    until(lambda: stage.received(attacker.ipv4) == sent["sent_packets"])

    row, after = stage.row(attacker.ipv4), stage.snapshot().totals
    assert (row["dropped_packets"], row["passed_packets"]) == (0, sent["sent_packets"])
    allowed = 500 * (sent["seconds"] + 0.05) * 1.05 + 1
    assert row["would_drop_packets"] >= sent["sent_packets"] - allowed
    assert asked["failed"] == 0
    assert after.verdicts["dropped"] == before.verdicts["dropped"]
    counted = {word: after.would_drop[word] - before.would_drop[word] for word in after.would_drop}
    assert counted["limit-pps"] == row["would_drop_packets"]
    assert counted["blocked"] >= 10
    listed = ebpftop("blocks", IFACE, "--json").json()
    assert [row["source"] for row in listed] == ["manual"]


def test_a_flood_over_ipv6_is_limited_and_blocked_by_its_64(stage: Stage) -> None:
    attacker, server = stage.lab.attacker, stage.lab.server
    net = f"fd00:198:18:{attacker.number}::"
    limit(stage, pps=500, burst_s=0.05, grace_s=0.2, block_for_s=20)
    attack = flood(attacker, server, "v6", pps=20_000, seconds=30)
    (block,) = until(lambda: ebpftop("blocks", IFACE, "--json").json())
    attack.stop()

    assert (block["address"], block["source"]) == (f"{net}/64", "auto")
    row = stage.row(attacker.ipv6)
    assert 0 < row["passed_packets"] < 1500
    # Its neighbour in the same network is stopped, and one in another is not.
    stage.send(f"{net}7", 3)
    assert stage.row(f"{net}7")["dropped_packets"] == 3
    assert failed([request_http(stage.lab.clients[2], server.ipv6, 50, count=5)]) == [0]


def test_clients_are_served_while_a_flood_is_dropped(stage: Stage) -> None:
    attacker, server = stage.lab.attacker, stage.lab.server
    limit(stage, pps=2000, syn=300, burst_s=1, grace_s=0.2, block_for_s=60)
    attacks = [flood(attacker, server, mode, pps=40_000, seconds=2) for mode in ("udp", "syn")]
    for attack in attacks:
        attack.wait_ready()
    clients = [
        request_http(host, address, 50, count=75)
        for host, address in zip(
            stage.lab.clients, (server.ipv4, server.ipv4, server.ipv6), strict=True
        )
    ]
    sent = sum(attack.wait(20)["sent_packets"] for attack in attacks)

    assert failed(clients) == [0, 0, 0]
    until(lambda: stage.received(attacker.ipv4) >= 0.98 * sent)
    row = stage.row(attacker.ipv4)
    assert row["dropped_packets"] > 0.9 * row["passed_packets"] + 0.9 * row["dropped_packets"]


def test_two_instances_do_not_disturb_each_other(stage: Stage) -> None:
    # GIVEN another instance on another interface of the server, and one on another server
    server = stage.lab.server
    server.ip("link add x0 type veth peer name x1", "link set x0 up", "link set x1 up")
    try:
        for words in (["attach", "x0"], ["block", "x0", "10.5.0.1"], ["limit", "x0", "--pps", "7"]):
            assert ebpftop(*words).status == 0
        with staged(clients=0) as elsewhere:
            ebpftop("block", IFACE, "10.5.0.2")

            # WHEN both others drop, this one does not, and sees nothing of them
            for address in ("10.5.0.1", "10.5.0.2"):
                elsewhere.send(address, 3)
                stage.send(address, 3)
            assert elsewhere.row("10.5.0.1")["passed_packets"] == 3
            assert elsewhere.row("10.5.0.2")["dropped_packets"] == 3
            assert elsewhere.listed() == {"10.5.0.2"}
        assert stage.row("10.5.0.1")["passed_packets"] == 3
        assert stage.row("10.5.0.2")["passed_packets"] == 3
        assert ebpftop("blocks", IFACE, "--json").json() == []
        assert ebpftop("limit", IFACE, "--json").json()["pps"] == 0

        # AND each verb reaches its own
        (row,) = ebpftop("blocks", "x0", "--json").json()
        assert (row["address"], row["packets"]) == ("10.5.0.1", 0)
        assert ebpftop("detach", "x0").status == 0
        assert ebpftop("status", "x0").status == 5
        assert ebpftop("status", IFACE).status == 0
    finally:
        server.ip("link delete x0")
