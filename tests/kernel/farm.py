# SPDX-License-Identifier: Apache-2.0
"""A lab with an instance on its director and web servers behind it: VIPs under real load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ebpftop.bpf import layout
from ebpftop.config import Policy
from ebpftop.control import policy as policies
from ebpftop.control.everything import InstanceControl
from ebpftop.control.sweeping import Sweeper
from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import Instance
from ebpftop.lab import Job, Lab, joined, load_http, serve_http
from ebpftop.lab.farm import SECOND_ARM, VIP4, VIP6
from ebpftop.model import Backend, Service, Snapshot, Vip
from ebpftop.sources import roster
from ebpftop.sources.live import LiveSource

HTTP_PORT = 80
LOAD_TIMEOUT_S = 60.0
NAMES = ("backend1", "backend2", "backend3")
VIP_ADDRESSES = {4: VIP4, 6: VIP6}


def service(address: str, port: int = HTTP_PORT, protocol: str = "tcp") -> Service:
    """Of an address of either family."""
    host = f"[{address}]" if ":" in address else address
    return Service.parse(f"{host}:{port}", protocol)


def until(met: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """Wait for a condition; returns what it was met with."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := met()):
        assert time.monotonic() < deadline_s, "this did not come about"
        time.sleep(0.02)
    return answer


@dataclass
class Farm:
    """A director with an instance, and three servers that answer on port 80."""

    lab: Lab
    instance: Instance
    servers: dict[str, Job] = field(default_factory=dict)
    """By the name of their host."""
    _ports: Iterator[int] = field(default_factory=lambda: iter(range(8001, 9000)))
    _sources: list[LiveSource] = field(default_factory=list)
    _sweeper: Sweeper | None = None

    @property
    def control(self) -> InstanceControl:
        """Its controls."""
        return InstanceControl(self.instance)

    def add(
        self,
        version: int = 4,
        *,
        weights: Sequence[int] = (1, 1, 1),
        port: int = 0,
        address: str = "",
        backend_port: int = HTTP_PORT,
        protocol: str = "tcp",
        **wanted: Any,
    ) -> Service:
        """Add a VIP on a port of its own, with all servers behind it."""
        vip = service(address or VIP_ADDRESSES[version], port or next(self._ports), protocol)
        self.control.balancing.add_vip(Vip(vip, **wanted))
        for host, weight in zip(self.lab.backends, weights, strict=True):
            at = service(host.ipv6 if version == 6 else host.ipv4, backend_port, protocol)
            self.control.balancing.add_backend(vip, Backend(at, weight))
        return vip

    def remove(self, *vips: Service) -> None:
        """Take VIPs away."""
        for vip in vips:
            self.control.balancing.delete_vip(vip)

    def backend(self, vip: Service, name: str) -> Service:
        """The backend of a VIP that is on the host of this name."""
        host = self.lab.backends[NAMES.index(name)]
        (found,) = (
            wanted.service
            for of, wanted in zip(*self._backends(), strict=True)
            if of == vip and str(wanted.service.address) in (host.ipv4, host.ipv6)
        )
        return found

    def _backends(self) -> tuple[Sequence[Service], Sequence[Backend]]:
        known = roster.read(self.instance.maps, roster.Roster.empty())
        return known.backend_vips, known.backends

    def change(self, vip: Service, name: str, **changes: Any) -> None:
        """Change one backend."""
        self.control.balancing.set_backends(vip, {self.backend(vip, name): changes})

    def load(self, vip: Service, client: int = 0, **options: Any) -> Job:
        """Start a load of a VIP."""
        return load_http(self.lab.clients[client], str(vip.address), port=vip.port, **options)

    def loaded(self, vip: Service, **options: Any) -> dict[str, Any]:
        """Load a VIP to the end."""
        return self.load(vip, **options).wait(LOAD_TIMEOUT_S)

    # What is observed

    def sweep(self) -> None:
        """Begin to sweep and to keep the ways to backends, as who holds an instance does."""
        self._sweeper = Sweeper(self.control)
        self._sweeper.start()

    def rest(self) -> None:
        """Leave the kernel alone with it."""
        if self._sweeper:
            self._sweeper.stop()
            assert self._sweeper.error is None
        self._sweeper = None

    def knows_ways(self) -> bool:
        """Whether the way to every backend is known."""
        return all(self.snapshot().backends.reachable)

    def source(self) -> LiveSource:
        """A source, closed with the farm."""
        self._sources.append(LiveSource(Instance(self.instance.folder, read_only=False)))
        return self._sources[-1]

    def close(self) -> None:
        """End what it runs."""
        self.rest()
        while self._sources:
            self._sources.pop().close()

    def snapshot(self) -> Snapshot:
        """One snapshot of a new source."""
        source = LiveSource(Instance(self.instance.folder, read_only=False))
        try:
            return source.snapshot()
        finally:
            source.close()

    def of(self, vip: Service, field_name: str) -> dict[str, Any]:
        """A field of each backend of a VIP, by the name of its host."""
        rows = self.snapshot().backends
        column = getattr(rows, field_name)
        return dict(zip(NAMES, (column[row] for row in rows.rows_of(vip)), strict=True))

    def open_flows(self) -> dict[int, int]:
        """What the kernel counts of each backend that it says has flows, by slot; exact."""
        slots, counts = self.instance.maps["backend_flows"].read()
        return {int(s): int(c) for s, c in zip(slots, counts.astype("<i8"), strict=True) if c}

    def slots(self, vip: Service) -> dict[str, int]:
        """The kernel's slot of each backend of a VIP, by the name of its host."""
        known = roster.read(self.instance.maps, roster.Roster.empty())
        rows = [row for row, of in enumerate(known.backend_vips) if of == vip]
        at = {known.backends[row].service.address: known.backend_slots[row] for row in rows}
        return {name: at[self.backend(vip, name).address] for name in NAMES}

    def placed(self, vip: Service) -> dict[int, str]:
        """Whom each flow of a VIP that the kernel remembers was given to, by the client's port."""
        known = roster.read(self.instance.maps, roster.Roster.empty())
        number = known.vip_ids[[each.service for each in known.vips].index(vip)]
        names = {slot: name for name, slot in self.slots(vip).items()}
        keys, values = self.instance.maps["connections"].read()
        ports, slots = keys["port"], values["word"] >> 8 & 0xFFFF
        ours = ports >> layout.FLOW_ID_SHIFT == number
        return {
            int(port) & 0xFFFF: names[int(slot)]
            for port, slot in zip(ports[ours], slots[ours], strict=True)
        }

    def counted(self, name: str) -> Mapping[str, int]:
        """Packets that were dropped (`drops`) or left to the stack (`handed`), by reason."""
        words = {"drops": layout.REASONS, "handed": layout.HANDED}[name]
        totals = self.instance.maps["stats"].read()[1][0][name].sum(axis=0)
        return {word: int(n) for word, n in zip(words, totals, strict=True) if n}


@contextmanager
def farming(arms: int = 1, policy: Policy | None = None) -> Iterator[Farm]:
    """Build one; the thread stays on the director until it is gone."""
    with Lab(clients=3, backends=len(NAMES), arms=arms) as lab, joined(lab.server):
        interfaces = [lab.server.interface, *([SECOND_ARM] if arms == 2 else [])]
        instance = policies.attach(
            interfaces, policy or Policy(), mode="native", path=None, pinned=False
        )
        try:
            servers = {host.name: serve_http(host) for host in lab.backends}
            for server in servers.values():
                server.wait_ready()
            farm = Farm(lab, instance, servers)
            farm.sweep()
            try:
                yield farm
            finally:
                farm.close()
        finally:
            with bpffs.locked(instance.name):
                instance.remove()
