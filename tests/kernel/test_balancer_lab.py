# SPDX-License-Identifier: Apache-2.0
"""The balancer under real load: real servers, hundreds of connections, one arm and two."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ebpftop.lab import joined
from ebpftop.lab.farm import DSR_VIP4, DSR_VIP6
from tests.kernel.farm import NAMES, VIP_ADDRESSES, Farm, farming, until

pytestmark = pytest.mark.kernel("bridge", "veth")

PARALLEL = 300
CONNECTIONS = 1200
REQUESTS = 2
PAUSE_S = 0.1
EVEN = dict.fromkeys(NAMES, 1 / 3)


@pytest.fixture(scope="module", params=[1, 2], ids=["one-armed", "two-armed"])
def farm(request: pytest.FixtureRequest) -> Iterator[Farm]:
    """The same three servers for all tests of a kind of network."""
    with farming(request.param) as farm:
        yield farm


ONE_ARMED = pytest.mark.parametrize("farm", [1], ids=["one-armed"], indirect=True)


@pytest.fixture(autouse=True)
def _no_vips_stay(farm: Farm) -> Iterator[None]:
    yield
    farm.remove(*(vip.service for vip in farm.snapshot().vips.wanted))


def assert_shares(answered: dict[str, int], wanted: dict[str, float]) -> None:
    """Each server answered its part, within 2 % of all."""
    total = sum(answered.values())
    for name, share in wanted.items():
        assert answered.get(name, 0) / total == pytest.approx(share, abs=0.02), answered


def assert_all_answered(result: dict[str, Any], connections: int, requests: int) -> None:
    """Nothing failed, and it was as much as was asked for."""
    assert result["failures"] == []
    assert (result["connections"], result["requests"]) == (connections, requests)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("algorithm", "weights", "wanted"),
    [
        ("rr", (5, 1, 1), EVEN),
        ("wrr", (2, 1, 1), {"backend1": 0.5, "backend2": 0.25, "backend3": 0.25}),
    ],
)
def test_hundreds_of_connections_lose_no_request_and_each_server_gets_its_share(
    farm: Farm, version: int, algorithm: str, weights: tuple[int, ...], wanted: dict[str, float]
) -> None:
    vip = farm.add(version, algorithm=algorithm, weights=weights)
    until(farm.knows_ways)
    before = farm.counted("drops"), farm.counted("handed")

    result = farm.loaded(
        vip, parallel=PARALLEL, count=CONNECTIONS, requests=REQUESTS, pause_s=PAUSE_S
    )

    assert_all_answered(result, CONNECTIONS, CONNECTIONS * REQUESTS)
    assert result["most_open"] == PARALLEL
    assert_shares(result["servers"], wanted)
    # The kernel says of each server what that said itself, and knows of each end.
    assert farm.of(vip, "opened") == result["servers"]
    until(lambda: farm.open_flows() == {})
    # Whatever the stack had to send on was slow, and no packet needed it.
    assert (farm.counted("drops"), farm.counted("handed")) == before
    # What came to the VIP and from it is what its backends got and sent.
    told = farm.snapshot()
    vips, row = told.vips, told.vips.row_of(vip)
    packets = told.backends.packets[told.backends.rows_of(vip)]
    assert vips.packets[row] + vips.reply_packets[row] == packets.sum()


@ONE_ARMED
def test_least_gives_new_connections_to_who_has_fewest(farm: Farm) -> None:
    vip = farm.add(algorithm="least")
    farm.change(vip, "backend1", state="drain")
    held = farm.load(vip, parallel=60, count=60, requests=2, pause_s=60)
    until(lambda: sum(farm.open_flows().values()) == 60)
    assert farm.of(vip, "connections") == {"backend1": 0, "backend2": 30, "backend3": 30}

    farm.change(vip, "backend1", state="up")
    more = farm.load(vip, parallel=30, count=30, requests=2, pause_s=60)

    until(lambda: sum(farm.open_flows().values()) == 90)
    assert farm.of(vip, "connections") == dict.fromkeys(NAMES, 30)
    assert [held.stop()["failed"], more.stop()["failed"]] == [0, 0]
    until(lambda: farm.open_flows() == {})


@ONE_ARMED
def test_a_drain_loses_no_request_and_brings_no_new_ones(farm: Farm) -> None:
    # GIVEN connections of several requests each, which come and go all the time
    vip = farm.add(algorithm="rr")
    load = farm.load(vip, parallel=90, requests=10, pause_s=0.05)
    until(lambda: sum(farm.of(vip, "opened").values()) > 270)

    # WHEN a server is drained
    farm.change(vip, "backend2", state="drain")
    given = farm.of(vip, "opened")
    assert given["backend2"] > 0

    # THEN its connections end in their time, nothing fails, and it gets no others
    until(lambda: farm.of(vip, "connections")["backend2"] == 0)
    until(lambda: sum(farm.of(vip, "opened").values()) > sum(given.values()) + 90)
    assert farm.of(vip, "opened")["backend2"] == given["backend2"]

    # AND back in, it gets its share again
    farm.change(vip, "backend2", state="up")
    until(lambda: farm.of(vip, "opened")["backend2"] > given["backend2"] + 30)
    result = load.stop()
    assert result["failures"] == []
    assert result["servers"] == farm.of(vip, "opened")
    until(lambda: farm.open_flows() == {})


@ONE_ARMED
@pytest.mark.parametrize("address", [DSR_VIP4, DSR_VIP6])
def test_in_mode_dsr_backends_that_own_the_vip_answer_clients_by_themselves(
    farm: Farm, address: str
) -> None:
    version = 6 if ":" in address else 4
    vip = farm.add(version, address=address, port=80, mode="dsr", algorithm="rr")
    until(farm.knows_ways)

    result = farm.loaded(vip, parallel=PARALLEL, count=CONNECTIONS)

    assert_all_answered(result, CONNECTIONS, CONNECTIONS)
    assert_shares(result["servers"], EVEN)
    snapshot = farm.snapshot()
    row = snapshot.vips.row_of(vip)
    assert snapshot.vips.reply_packets[row] == 0
    assert snapshot.vips.opened[row] == CONNECTIONS
    until(lambda: farm.open_flows() == {})


@pytest.mark.parametrize("version", [4, 6])
def test_without_a_process_of_ours_and_without_known_neighbours_no_request_is_lost(
    farm: Farm, version: int
) -> None:
    vip = farm.add(version, algorithm="rr")
    farm.rest()
    try:
        assert not any(farm.snapshot().backends.reachable)
        farm.lab.server.run(["ip", "neigh", "flush", "all"])
        before = farm.counted("handed").get("neighbour", 0)

        result = farm.loaded(vip, parallel=60, count=120)

        assert_all_answered(result, 120, 120)
        assert before < farm.counted("handed")["neighbour"] < before + 60
        # The kernel alone counts each connection's end.
        until(lambda: farm.open_flows() == {})
    finally:
        farm.sweep()


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_service_answers_in_the_name_of_the_vip_and_each_flow_keeps_its_server(
    farm: Farm, version: int
) -> None:
    vip = farm.add(version, algorithm="rr", protocol="udp", backend_port=7)
    answered: Counter[str] = Counter()
    with ExitStack() as opened:
        echoes = [opened.enter_context(echo(farm, name)) for name in NAMES]
        for _ in range(60):
            with joined(farm.lab.clients[0]):
                family = socket.AF_INET6 if version == 6 else socket.AF_INET
                # Open to the end, so that no port is used twice.
                peer = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            peer.settimeout(5)
            # Connected, it takes answers from the VIP alone.
            peer.connect((VIP_ADDRESSES[version], vip.port))
            (name,) = {exchange(peer, echoes) for _ in range(3)}
            answered[name] += 1
    assert_shares(dict(answered), EVEN)
    assert sum(farm.of(vip, "connections").values()) == 60


def echo(farm: Farm, name: str) -> socket.socket:
    """Open a server's datagram port."""
    with joined(farm.lab.backends[NAMES.index(name)]):
        server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", 7))
    server.setblocking(False)
    return server


def exchange(peer: socket.socket, servers: list[socket.socket]) -> str:
    """Send one datagram, let the server that got it answer; returns that server's name."""
    peer.send(b"hello")

    def got() -> tuple[str, tuple[Any, ...]] | None:
        for name, server in zip(NAMES, servers, strict=True):
            try:
                return name, (server, *server.recvfrom(100))
            except BlockingIOError:
                continue
        return None

    name, (server, data, client) = until(got)
    server.sendto(data + name.encode(), client)
    assert peer.recv(100) == b"hello" + name.encode()
    return str(name)
