# SPDX-License-Identifier: Apache-2.0
"""Large transfers through a VIP, byte for byte, also where a link on the way is narrow."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ebpftop.lab import Host, Namespace, joined
from ebpftop.lab.farm import SECOND_ARM
from ebpftop.model import Service
from tests.kernel.farm import Farm, farming, until

pytestmark = pytest.mark.kernel("bridge", "veth")

BULK_PORT = 9000
BLOCK = os.urandom(1 << 20)
BLOCKS = 48
PATIENCE_S = 30.0
NARROW = 1280


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """The same network for all tests."""
    with farming(2) as farm:
        yield farm


class Bulk:
    """A server on every backend that sends `blocks`, or takes what comes and sends its hash."""

    def __init__(self, farm: Farm, blocks: int) -> None:
        self._blocks = blocks
        self._listeners = [listener_on(host) for host in farm.lab.backends]
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            if peer.recv(1) == b"d":
                for number in range(self._blocks):
                    peer.sendall(block(number))
            else:
                peer.sendall(hash_of(peer).encode())

    def close(self) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def listener_on(host: Host) -> socket.socket:
    with joined(host):
        return socket.create_server(
            ("::", BULK_PORT), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True
        )


def block(number: int) -> bytes:
    """No two are alike, so that their order shows in the hash."""
    return number.to_bytes(8, "big") + BLOCK


def expected(blocks: int) -> str:
    whole = hashlib.sha256()
    for number in range(blocks):
        whole.update(block(number))
    return whole.hexdigest()


def hash_of(peer: socket.socket) -> str:
    """Of all that comes until the other side has no more."""
    whole = hashlib.sha256()
    while data := peer.recv(1 << 18):
        whole.update(data)
    return whole.hexdigest()


def connected(client: Namespace, vip: Service) -> socket.socket:
    with joined(client):
        return socket.create_connection((str(vip.address), vip.port), timeout=PATIENCE_S)


def downloaded(client: Namespace, vip: Service) -> str:
    """The hash of what a client got."""
    with connected(client, vip) as peer:
        peer.sendall(b"d")
        return hash_of(peer)


def uploaded(client: Namespace, vip: Service, blocks: int) -> str:
    """The hash of what the server says it got."""
    with connected(client, vip) as peer:
        peer.sendall(b"u")
        for number in range(blocks):
            peer.sendall(block(number))
        peer.shutdown(socket.SHUT_WR)
        return peer.recv(100).decode()


@pytest.mark.parametrize("version", [4, 6])
def test_a_large_transfer_arrives_byte_for_byte_both_ways(farm: Farm, version: int) -> None:
    vip = farm.add(version, backend_port=BULK_PORT)
    servers = Bulk(farm, BLOCKS)
    try:
        client = farm.lab.clients[0]
        assert downloaded(client, vip) == expected(BLOCKS)
        assert uploaded(client, vip, BLOCKS) == expected(BLOCKS)
    finally:
        servers.close()
    until(lambda: farm.open_flows() == {})
    farm.remove(vip)


@pytest.fixture(scope="module")
def far_client(farm: Farm) -> Host:
    """A client behind a router, whose link to it is narrow, which neither end knows."""
    router, client = farm.lab.clients[1:3]
    client.ip("link set eth0 down")
    router.ip(
        f"link add narrow type veth peer name wide netns {client.netns}",
        f"link set narrow mtu {NARROW} up",
        "address add 203.0.113.1/24 dev narrow",
        "address add 2001:db8:1::1/64 dev narrow nodad",
    )
    router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
    client.ip(
        "link set wide up",
        "address add 203.0.113.2/24 dev wide",
        "address add 2001:db8:1::2/64 dev wide nodad",
        "route add default via 203.0.113.1",
        "route add default via 2001:db8:1::1",
    )
    farm.lab.server.ip(
        f"route add 203.0.113.0/24 via {router.ipv4}",
        f"route add 2001:db8:1::/64 via {router.ipv6}",
    )
    return client


@pytest.mark.parametrize("version", [4, 6])
def test_a_narrow_link_before_the_client_is_found_out_by_the_server(
    farm: Farm, far_client: Host, version: int
) -> None:
    vip = farm.add(version, backend_port=BULK_PORT)
    servers = Bulk(farm, 4)
    try:
        assert downloaded(far_client, vip) == expected(4)
    finally:
        servers.close()
    # It was the server that learnt of it, by an error that quoted the VIP.
    address = "203.0.113.2" if version == 4 else "2001:db8:1::2"
    routes = [h.run(["ip", "route", "get", address]).stdout for h in farm.lab.backends]
    assert sum(f"mtu {NARROW}" in route for route in routes) == 1
    farm.remove(vip)


@pytest.mark.parametrize("version", [4, 6])
def test_a_narrow_link_before_the_servers_is_found_out_by_the_client(
    farm: Farm, version: int
) -> None:
    # The servers do not know of it, and so announce segments that are too large.
    farm.lab.server.ip(f"link set {SECOND_ARM} mtu {NARROW}")
    vip = farm.add(version, backend_port=BULK_PORT)
    servers = Bulk(farm, 4)
    client = farm.lab.clients[0]
    try:
        assert uploaded(client, vip, 4) == expected(4)
    finally:
        servers.close()
        farm.lab.server.ip(f"link set {SECOND_ARM} mtu 1500")
    # It was the director that told it, in the VIP's name.
    route = client.run(["ip", "route", "get", str(vip.address)]).stdout
    assert f"mtu {NARROW}" in route
    client.run(["ip", "-4" if version == 4 else "-6", "route", "flush", "cache"])
    farm.remove(vip)
