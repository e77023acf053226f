# SPDX-License-Identifier: Apache-2.0
"""The ways to the backends, kept in the kernel's maps by the process that holds the instance.

Without one, `bpf_fib_lookup` finds the way of each packet anew: at once where the process ended
as it should, and `KEPT_FOR_S` after the last word of one that was killed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ebpftop.bpf import layout
from ebpftop.control.vip_table import backend_addresses
from ebpftop.control.writing import InstanceWriter
from ebpftop.kernel.clock import coarse_ns
from ebpftop.kernel.instance import Instance, linked_interfaces
from ebpftop.kernel.netlink.neighbours import Changes, Neighbour, neighbours, probe
from ebpftop.kernel.netlink.routes import Exit, NextHop, Routes
from ebpftop.model import Prefix

PROBE_EVERY_S = 5.0
"""How often a neighbour is asked whether it still has its address."""
PROBE_AGAIN_S = 1.0
"""How often one that is not known is asked for."""
KEPT_FOR_S = 10.0
"""How long ways are good for when nobody sees to them any more; a few sweeps."""
_MAC_BYTES = 6


def write_ports(instance: Instance, exits: Mapping[int, Exit]) -> None:
    """Let packets leave by these interfaces and no others; the writer's lock is held."""
    ports = instance.maps["ports"]
    keys, values = ports.read()
    held = {int(key): (int(value["ifindex"]), int(value["vlan"]))
            for key, value in zip(keys, values, strict=True)}  # fmt: skip
    wanted = {index: (way.ifindex, vlan_word(way.vlan)) for index, way in exits.items()}
    for index in held.keys() - wanted.keys():
        ports.delete(index)
    for index, value in list(wanted.items())[: ports.max_entries]:
        if held.get(index) != value:
            ports.put(index, np.array([value], layout.PORT))


def vlan_word(vlan: int | None) -> int:
    """Return a VLAN as hops and ports have it."""
    return 0 if vlan is None else 1 << layout.VLAN_TAGS_SHIFT | vlan


@dataclass(eq=False)
class _View:
    """What is known of this namespace's ways; routes for as long as none changes."""

    attached: set[int] = field(default_factory=set)
    exits: dict[int, Exit] = field(default_factory=dict)
    hops: dict[Prefix, NextHop | None] = field(default_factory=dict)
    neighbours: dict[tuple[int, Prefix], Neighbour] = field(default_factory=dict)


class WayKeeper(InstanceWriter):
    """Keeps the ways to backends fresh, from `open` to `close`, in one thread.

    Args:
        instance: Open for writing; who opened it closes it.
    """

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self._changes = Changes()
        self._routes = Routes()
        self._view = _View()
        self._probed: dict[tuple[int, Prefix], float] = {}

    def fileno(self) -> int:
        """Return the descriptor that can be read once a way may have changed."""
        return self._changes.fileno()

    def close(self) -> None:
        """Let the kernel look for the ways itself, and close the sockets."""
        try:
            with self._locked():
                self._write({})
                self._keep_until(0)
        finally:
            self._changes.close()
            self._routes.close()

    def refresh(self, *, only_changes: bool = False) -> None:
        """Bring ways up to date, and ask neighbours that have not been asked for a while.

        Args:
            only_changes: Only where something was heard that concerns a backend.
        """
        moved, changed = self._changes.read()
        if moved:
            self._view = _View()
        addresses = backend_addresses(self._maps["backends"].read()[1])
        if only_changes and not moved and not changed & self._next_hops(addresses):
            return
        attached = self._attached()
        if attached != self._view.attached:
            self._view.exits, self._view.attached = self._routes.exits(attached), attached
        self._view.hops = {a: self._next_hop(a) for a in addresses}
        if addresses:
            self._view.neighbours = neighbours()
        with self._locked():
            write_ports(self._instance, self._view.exits)
            self._write({address: self._way(address) for address in addresses})
            if addresses:
                self._keep_until(coarse_ns() + round(KEPT_FOR_S * 1e9))
        self._probe()

    def _attached(self) -> set[int]:
        """Return the interfaces that the program is still on: netlink does not tell of its end."""
        return linked_interfaces(self._instance.folder)

    def _next_hop(self, address: Prefix) -> NextHop | None:
        known = self._view.hops.get(address)
        return known or self._routes.next_hop(address)

    def _next_hops(self, addresses: set[Prefix]) -> set[Prefix]:
        hops = (self._view.hops.get(address) for address in addresses)
        return {hop.address for hop in hops if hop}

    def _way(self, address: Prefix) -> dict[str, Any]:
        """Return the fields of a backend's record that say how it is reached."""
        hop = self._view.hops.get(address)
        way = self._view.exits.get(hop.ifindex) if hop else None
        known = self._view.neighbours.get((hop.ifindex, hop.address)) if hop else None
        if not hop or not way or not known or not known.is_valid or len(way.mac) != _MAC_BYTES:
            return {}
        return {
            "hop": (way.ifindex, known.mac, way.mac),
            "vlan": vlan_word(way.vlan),
            "mtu": min(hop.mtu or way.mtu, way.mtu),
        }

    def _write(self, ways: Mapping[Prefix, Mapping[str, Any]]) -> None:
        backends = self._maps["backends"]
        held = backends.read()[1].copy()
        wanted = held.copy()
        for number in np.flatnonzero(held["id"]).tolist():
            address = held["service"]["address"][number]
            way = ways.get(Prefix(int(address["high"]), int(address["low"])), {})
            for name in ("hop", "vlan", "mtu"):
                wanted[name][number] = way.get(name, np.zeros((), wanted[name].dtype))
        for number in np.flatnonzero(held != wanted).tolist():
            backends.put(number, wanted[number : number + 1])

    def _keep_until(self, until_ns: int) -> None:
        """Let the programs trust the ways until then."""
        config = self._maps["config"].read()[1].copy()
        config["hops_until_ns"] = until_ns
        self._maps["config"].put(0, config)

    def _probe(self) -> None:
        now_s = time.monotonic()
        asked = {}
        for hop in {hop for hop in self._view.hops.values() if hop}:
            if hop.ifindex not in self._view.exits:
                continue
            at = hop.ifindex, hop.address
            known = self._view.neighbours.get(at)
            fresh = known is not None and known.is_valid
            if known is not None and fresh and not known.may_change:
                continue
            asked[at] = self._probed.get(at, now_s if fresh else 0.0)
            if now_s - asked[at] >= (PROBE_EVERY_S if fresh else PROBE_AGAIN_S):
                probe(*at, known)
                asked[at] = now_s
        self._probed = asked
