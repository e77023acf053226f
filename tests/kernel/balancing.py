# SPDX-License-Identifier: Apache-2.0
"""The balancer's controls on a loaded pipeline that is attached to nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from ebpftop.bpf import layout
from ebpftop.control.balancing import BalancingControl
from ebpftop.control.flows import REPLY, FlowTable
from ebpftop.control.vip_table import VipTable, backend_addresses
from ebpftop.control.vip_writing import VipWriter
from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import Instance
from ebpftop.kernel.maps import Map
from ebpftop.model import Backend, Prefix, Service, Vip
from tests.kernel.balancer import DROP, End, destination
from tests.kernel.frames import Shape
from tests.kernel.packets import TCP, UDP
from tests.kernel.pipeline import Pipeline

VIP = Service.parse("198.51.100.10:80/tcp")
DNS = Service.parse("198.51.100.10:53/udp")
VIP6 = Service.parse("[2001:db8::10]:80/tcp")
WRITTEN = (
    "vips", "vip_slots", "checks", "backends", "endpoints", "balanced", "ports", "protected",
)  # fmt: skip
"""Maps that user space alone writes, but for rings and `config`."""


def servers(count: int, protocol: str = "tcp") -> list[Service]:
    """Return services in a row, from 10.0.0.1:8080 on."""
    return [
        Service.parse(f"10.0.{number >> 8}.{number & 255}:8080", protocol)
        for number in range(1, count + 1)
    ]


def end(service: Service) -> End:
    """Return a service as the frames have it."""
    return End(str(service.address), service.port, TCP if service.protocol == "tcp" else UDP)


class Controlled:
    """A pipeline, its controls, and packets through it.

    Args:
        pipeline: Emptied.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.maps = pipeline.maps
        programs = {"control": pipeline.control_program, "explain": pipeline.explain_program}
        instance = SimpleNamespace(maps=self.maps, programs=programs, name="none")
        self.instance = cast(Instance, instance)
        pipeline.configure(new_flows=1 << 20)

    @property
    def control(self) -> BalancingControl:
        """Controls that remember nothing, as a verb has them."""
        return BalancingControl(self.instance, part_of_act=True)

    @property
    def flow_table(self) -> FlowTable:
        """The flows from outside."""
        return FlowTable(self.maps, self.pipeline.control_program)

    def balance(self, vip: Service, *backends: Backend | Service, **wanted: Any) -> None:
        """Make a VIP with backends."""
        self.control.add_vip(Vip(vip, **wanted))
        for backend in backends:
            made = backend if isinstance(backend, Backend) else Backend(backend)
            self.control.add_backend(vip, made)

    # Packets

    def send(self, port: int, vip: Service = VIP, flags: str = "S") -> str:
        """Send a packet of a client to a VIP; returns where it went, or what became of it."""
        client = End(
            "192.0.2.1" if vip.address.is_ipv4 else "2001:db8:1::1", port, end(vip).protocol
        )
        frame = Shape(client, end(vip), flags).to_bytes()
        action, after, _ = libbpf.run_program(self.pipeline.program, frame)
        return "dropped" if action == DROP else destination(after)

    def open(self, ports: range, vip: Service = VIP) -> dict[int, str]:
        """Begin a flow from each port; returns where each went."""
        return {port: self.send(port, vip) for port in ports}

    # What is observed

    def flows(self) -> dict[str, int]:
        """Open flows of each backend's address that has any, as the programs count them."""
        counts = self.maps["backend_flows"].read()[1].astype("<i8")
        backends = self.maps["backends"].read()[1]
        named: dict[str, int] = {}
        for slot in np.flatnonzero(counts).tolist():
            address = backends["service"]["address"][slot]
            name = str(Prefix(int(address["high"]), int(address["low"])))
            named[name] = named.get(name, 0) + int(counts[slot])
        return named

    def entries(self) -> int:
        """Flows in the table, without their ways back."""
        return int(((self.maps["connections"].read()[1]["word"] & 0xFF) != REPLY).sum())

    def flags(self) -> int:
        """The flags in `config`."""
        return int(self.maps["config"].read()[1]["flags"][0])

    def ring(self, vip: Service = VIP) -> list[int]:
        """The ring in force."""
        table = VipTable(self.maps)
        return VipWriter(self.maps).ring(table.in_force[table.require(vip)])

    def written(self) -> dict[str, Any]:
        """All that user space has written, rings as they are in force."""
        table = VipTable(self.maps)
        return {
            **{name: contents(self.maps[name]) for name in WRITTEN},
            "flags": self.flags(),
            "rings": {slot: self.ring(table.service(slot)) for slot in table.used()},
        }

    def check_consistent(self) -> None:
        """Expect that what follows from VIPs and backends is so, and nothing else is there."""
        table = VipTable(self.maps)
        services = {table.slots["service"][slot].tobytes() for slot in table.used()}
        assert {key.tobytes() for key in self.maps["vips"].read()[0]} == services
        backends = self.maps["backends"].read()[1]
        named = backends["service"][backends["id"] != 0]
        assert {key.tobytes() for key in self.maps["endpoints"].read()[0]} == {
            service.tobytes() for service in named
        }
        addresses = backend_addresses(backends)
        keys, codes = self.maps["protected"].read()
        held = {Prefix.from_bytes(bytes(k["word"]), int(k["length"])) for k in keys}
        assert held == addresses
        assert set(codes.tolist()) <= {layout.PROTECTED_WHY.index("backend")}
        assert len(self.maps["balanced"].read()[0]) == len(addresses) + len(
            {table.service(slot).address for slot in table.used()}
        )
        assert bool(self.flags() & layout.Flag.VIPS) == bool(services)
        for slot in table.used():
            assert set(self.ring(table.service(slot))) == {m.slot for m in table.members(slot)[0]}


def contents(opened: Map) -> dict[bytes, bytes]:
    """Return what a map holds; of an array, what is not zero."""
    keys, values = opened.read()
    return {
        key.tobytes(): value.tobytes()
        for key, value in zip(keys, values, strict=True)
        if opened.type == "hash" or any(value.tobytes())
    }
