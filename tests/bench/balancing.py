# SPDX-License-Identifier: Apache-2.0
"""Packets through the balancer: flows that are known, in both directions, and new ones."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from ebpftop.model import ALGORITHMS
from tests.bench.figures import Row
from tests.bench.paths import XDP, XDP_PASS, XDP_TX, Path, empty_program, measure, rows
from tests.bench.registry import Effort, measurement
from tests.kernel.balancer import Balancer, End, Vip
from tests.kernel.frames import Shape
from tests.kernel.pipeline import loaded

CLIENT = End("192.0.2.1", 4000)
CLIENT6 = End("2001:db8::1", 4000)
BACKENDS = [End(f"10.0.0.{number}", 8080) for number in range(1, 5)]
BACKENDS6 = [End(f"2001:db8:b::{number}", 8080) for number in range(1, 5)]
ESTABLISHED = "established, to the backend"
CLIENTS = 3


def open_flow(balancer: Balancer, vip: Vip, client: End) -> End:
    """Shake hands; returns the backend that took the flow."""
    to = balancer.placed(Shape(client, vip.end, "S").to_bytes())
    (backend,) = (end for end in vip.backends.values() if end.address == to)
    balancer.run(Shape(backend, client, "SA").to_bytes())
    balancer.run(Shape(client, vip.end, "A").to_bytes())
    return backend


def from_ports(frame: bytes, clients: int = CLIENTS) -> list[bytes]:
    """Return an IPv4 TCP frame as it comes from every port of some clients."""
    last = frame[29]
    return [
        frame[:29] + bytes([last + client]) + frame[30:34] + struct.pack("!H", port) + frame[36:]
        for client in range(clients)
        for port in range(1024, 65536)
    ]


def _flow_paths(balancer: Balancer) -> list[Path]:
    program = balancer.pipeline.program

    def path(name: str, *frames: bytes) -> Path:
        return Path(name, program, frames, XDP_TX, single=True)

    found = []
    for suffix, client, backends in (("", CLIENT, BACKENDS), (", IPv6", CLIENT6, BACKENDS6)):
        address = "2001:db8:a::1" if suffix else "198.51.100.10"
        vip = balancer.vip(End(address, 80), backends)
        backend = open_flow(balancer, vip, client)
        found += [
            path(ESTABLISHED + suffix, Shape(client, vip.end).to_bytes()),
            path(f"established, to the client{suffix}", Shape(backend, client).to_bytes()),
        ]
    direct = balancer.vip(End("198.51.100.11", 80), BACKENDS, dsr=True)
    balancer.placed(Shape(CLIENT, direct.end, "S").to_bytes())
    found.append(path("established, direct return", Shape(CLIENT, direct.end).to_bytes()))
    for number, algorithm in enumerate(ALGORITHMS):
        ours = [replace(end, port=9000 + number) for end in BACKENDS]
        vip = balancer.vip(End(f"198.51.100.{20 + number}", 80), ours, algorithm=number)
        opening = Shape(replace(CLIENT, address="192.0.2.10"), vip.end, "S").to_bytes()
        found.append(path(f"new flow, {algorithm}, 4 backends", *from_ports(opening)))
    return found


@measurement(
    "balancing",
    "Packets through the balancer",
    place=20,
    note="Nanoseconds over an empty program. MAC addresses, IP address, port and checksums are"
    " rewritten, so that each packet is a run of its own, and the empty program's was too.",
)
def balancing(effort: Effort) -> Sequence[Row]:
    """Measure known flows and new ones."""
    with loaded(test_clock=False, CONNECTIONS=1 << 19) as pipeline:
        paths = _flow_paths(Balancer(pipeline))
        frame = Shape(CLIENT, BACKENDS[0]).to_bytes()
        empty = Path("empty XDP program", empty_program(XDP), [frame], XDP_PASS, single=True)
        measure([empty, *paths], effort.rounds)
        return rows(empty, paths, budgets={ESTABLISHED: "balance"})
