# SPDX-License-Identifier: Apache-2.0
"""Path MTU discovery through a VIP whose backend is behind a narrower link than the client's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from ebpftop.kernel.instance import PIPELINE
from ebpftop.kernel.netlink.links import netlink
from ebpftop.lab import Host, joined
from tests.kernel.balancer import Balancer, End
from tests.kernel.pipeline import Pipeline
from tests.kernel.stage import IFACE, Stage, staged

pytestmark = pytest.mark.kernel("bridge", "veth")

ADDRESSES = {4: "198.18.200.10", 6: "fd00:198:18:200::10"}
PORT, NARROW = 9000, 1280
SENT = os.urandom(1 << 20)
PATIENCE_S = 30.0


def attached_balancer(stage: Stage) -> Balancer:
    """The balancer of what is attached to the stage's server."""

    def configure(flags: list[int], **fields: int) -> None:
        config = stage.instance.maps["config"].read()[1]
        config["flags"] |= sum(flags)
        for name, value in fields.items():
            config[name] = value
        stage.instance.maps["config"].put(0, config)

    pipeline = SimpleNamespace(
        maps=stage.instance.maps, program=stage.instance.programs[PIPELINE], configure=configure
    )
    return Balancer(cast(Pipeline, pipeline))


def address_of(version: int, host: Host) -> str:
    return host.ipv4 if version == 4 else host.ipv6


def add_narrow_vip(stage: Stage, balancer: Balancer, version: int) -> str:
    """Balance to the second client, as if the link to it were narrow; returns the VIP's address."""
    client, backend = stage.lab.clients[:2]
    vip, server = ADDRESSES[version], stage.lab.server
    client.ip(f"route add {vip} via {address_of(version, server)}")
    backend.ip(f"route add {address_of(version, client)} via {address_of(version, server)}")
    made = balancer.vip(End(vip, PORT), [End(address_of(version, backend), PORT)])
    with netlink() as links:
        index = links.link(IFACE).index
    slot = max(made.backends)
    balancer.write_backend(made, slot, ifindex=index, mtu=NARROW)
    record = balancer.maps["backends"].get(slot)
    assert record is not None
    for name, host in (("destination", backend), ("source", server)):
        record["hop"][name] = np.void(bytes.fromhex(host.mac.replace(":", "")))
    balancer.maps["backends"].put(slot, record)
    return vip


def serve_hashes(host: Host, version: int) -> socket.socket:
    """Answer everything that comes to a host's port with its hash."""
    with joined(host):
        listener = socket.create_server(
            ("", PORT), family=socket.AF_INET if version == 4 else socket.AF_INET6
        )

    def work() -> None:
        with contextlib.suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                whole = hashlib.sha256()
                while data := peer.recv(1 << 16):
                    whole.update(data)
                peer.sendall(whole.digest())

    threading.Thread(target=work, daemon=True).start()
    return listener


def upload(client: Host, vip: str) -> bytes:
    """Send everything to a VIP; returns what it answers."""
    with joined(client):
        peer = socket.create_connection((vip, PORT), timeout=PATIENCE_S)
    with peer:
        peer.sendall(SENT)
        peer.shutdown(socket.SHUT_WR)
        return peer.recv(64)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One for both versions; in generic mode, where any link sends back what came by it."""
    with staged(mode="generic") as stage:
        yield stage


@pytest.fixture(scope="module")
def balancer(stage: Stage) -> Balancer:
    return attached_balancer(stage)


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_learns_of_a_narrow_link_to_the_backend(
    stage: Stage, balancer: Balancer, version: int
) -> None:
    vip = add_narrow_vip(stage, balancer, version)
    client, before = stage.lab.clients[0], balancer.answered().get("too-big", 0)
    with serve_hashes(stage.lab.clients[1], version):
        assert upload(client, vip) == hashlib.sha256(SENT).digest()
    assert f"mtu {NARROW}" in client.run(["ip", "route", "get", vip]).stdout
    assert balancer.answered().get("too-big", 0) > before
    row = stage.row(address_of(version, client))
    assert row["dropped_packets"] == 0
