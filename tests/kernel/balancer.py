# SPDX-License-Identifier: Apache-2.0
"""The balancer under test: VIPs written straight into the maps, frames in, frames out."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Flag
from ebpftop.control import rings
from ebpftop.kernel import libbpf
from ebpftop.model import Prefix
from tests.kernel.observing import words
from tests.kernel.packets import TCP
from tests.kernel.pipeline import Pipeline

ABORTED, DROP, PASS, TX, REDIRECT = range(5)
RR, WRR, LEAST, MAGLEV = range(4)
LOOPBACK = 1
"""Where a test run's packet comes in, unless its context says otherwise."""
ELSEWHERE = 4711
STATES = (
    "none", "syn-sent", "syn-received", "established", "fin-client", "fin-backend", "closed",
    "udp", "reply", "ended",
)  # fmt: skip
BACKEND_MAC = bytes.fromhex("02000000b000")
OWN_MAC = bytes.fromhex("02000000d000")
ALWAYS_NS = 2**64 - 1
"""For `hops_until_ns`: the ways that a test writes are good until it says otherwise."""


@dataclass(frozen=True)
class End:
    """An address and port of a protocol."""

    address: str
    port: int
    protocol: int = TCP

    def record(self) -> np.ndarray[Any, Any]:
        """As a `SERVICE`."""
        service = np.zeros(1, layout.SERVICE)
        prefix = Prefix.parse(self.address)
        service["address"]["high"], service["address"]["low"] = prefix.high, prefix.low
        service["port"] = self.port | (self.protocol != TCP) << 16
        return service

    @property
    def version(self) -> int:
        """Of IP."""
        return ipaddress.ip_address(self.address).version


@dataclass
class Vip:
    """A VIP as it was written."""

    end: End
    slot: int
    id: int
    algorithm: int
    dsr: bool
    backends: dict[int, End] = field(default_factory=dict)
    """By slot."""
    weights: dict[int, int] = field(default_factory=dict)
    ids: dict[int, int] = field(default_factory=dict)
    half: int = 0
    built: list[int] = field(default_factory=list)


class Balancer:
    """VIPs on a loaded pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.maps = pipeline.maps
        self.vips: list[Vip] = []
        self._ids = 0
        self._slots = 0
        self._endpoints: dict[End, tuple[int, int]] = {}
        pipeline.configure([Flag.VIPS], new_flows=1 << 20, hops_until_ns=ALWAYS_NS)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def vip(
        self,
        end: End,
        backends: Sequence[End],
        *,
        weights: Sequence[int] = (),
        algorithm: int = RR,
        dsr: bool = False,
        ifindex: int = LOOPBACK,
    ) -> Vip:
        """Add a VIP with its backends, each with a hop on `ifindex`; 0 leaves that to routes."""
        made = Vip(end, len(self.vips), self._next_id(), algorithm, dsr)
        self.vips.append(made)
        slot = np.zeros(1, layout.VIP_SLOT)
        slot["service"], slot["id"] = end.record(), made.id
        slot["flags"] = layout.VIP_DSR if dsr else 0
        self.maps["vip_slots"].put(made.slot, slot)
        self._list(end.address, 1)
        for at, backend in enumerate(backends):
            self._add_backend(made, backend, weights[at] if weights else 1, ifindex)
        self.ring(made, list(made.backends))
        return made

    def _list(self, address: str, bit: int) -> None:
        prefix = Prefix.parse(address)
        self.maps["balanced"].put((prefix.high, prefix.low), np.array([bit], layout.U64))

    def _add_backend(self, vip: Vip, end: End, weight: int, ifindex: int) -> None:
        self._slots += 1
        slot = self._slots
        number, users = self._endpoints.get(end, (0, 0))
        number = number or self._next_id()
        self._endpoints[end] = number, users + 1
        vip.backends[slot], vip.weights[slot], vip.ids[slot] = end, weight, number
        self.write_backend(vip, slot, ifindex=ifindex)
        if not vip.dsr:
            endpoint = np.zeros(1, layout.ENDPOINT)
            endpoint["id"], endpoint["users"] = number, users + 1
            endpoint["vip_slot"], endpoint["vip_id"] = vip.slot, vip.id
            self.maps["endpoints"].put(end.record()[0], endpoint)
            self._list(end.address, 2)

    def write_backend(self, vip: Vip, slot: int, *, serves: bool = True, ifindex: int = LOOPBACK,
                      vlan: int = 0, mtu: int = 0) -> None:  # fmt: skip
        """Write a backend's record."""
        record = np.zeros(1, layout.BACKEND)
        record["service"], record["id"] = vip.backends[slot].record(), vip.ids[slot]
        record["flags"] = int(serves)
        record["vip_slot"], record["vip_id"] = vip.slot, vip.id
        record["weight"] = vip.weights[slot]
        record["hop"]["ifindex"] = ifindex
        record["hop"]["destination"] = np.void(backend_mac(slot))
        record["hop"]["source"] = np.void(OWN_MAC)
        record["vlan"], record["mtu"] = vlan, mtu
        self.maps["backends"].put(slot, record)

    def ring(
        self, vip: Vip, slots: Sequence[int], *, reset: bool = False, previous: bool = False
    ) -> list[int]:
        """Put a ring of these slots in force; `previous` changes the one that is."""
        members = [rings.Member(s, vip.weights[s], repr(vip.backends[s]).encode()) for s in slots]
        if vip.algorithm == MAGLEV:
            built = rings.maglev(members, vip.built if previous else ())
        else:
            built = rings.smooth(members) if vip.algorithm == WRR else rings.once(members)
        vip.built = built
        vip.half ^= 1
        start = (vip.slot * 2 + vip.half) * 4096
        padded = np.zeros(4096, "<u2")
        padded[: len(built)] = built
        keys = np.arange(start // 4, start // 4 + 1024, dtype=layout.U32)
        self.maps["rings"].put_all(keys, padded.view(layout.U64).copy())
        record = np.zeros(1, layout.VIP)
        record["id"], record["slot"], record["algorithm"] = vip.id, vip.slot, vip.algorithm
        record["flags"] = vip.dsr | reset << 1
        record["ring_start"], record["ring_length"] = start, len(built)
        self.maps["vips"].put(vip.end.record()[0], record)
        return built

    # Packets

    def run(self, frame: bytes, ifindex: int = 0) -> tuple[int, bytes]:
        """Give it one packet; returns the action and the packet after it."""
        context = None
        if ifindex:
            context = struct.pack("=IIIIII", 0, len(frame), 0, ifindex, 0, 0)
        action, after, _ = libbpf.run_program(self.pipeline.program, frame, context=context)
        return action, after

    def placed(self, frame: bytes) -> str:
        """The address of the backend that a packet was sent to."""
        action, after = self.run(frame)
        assert action in (TX, REDIRECT), action
        return destination(after)

    def explain(self, frame: bytes) -> tuple[int, int, str, int]:
        """What `explain` says: action, placement, reason, backend."""
        told = libbpf.run_program(self.pipeline.explain_program, frame)[0]
        return told & 15, told >> 4 & 15, layout.REASONS[told >> 8 & 255], told >> 16

    # What is observed

    def flows(self) -> dict[int, int]:
        """Open flows of each backend that has or had any, by slot."""
        slots, counts = self.maps["backend_flows"].read()
        return {int(s): int(c) for s, c in zip(slots, counts.astype("<i8"), strict=True) if c}

    def counts(self, name: str, slot: int) -> Mapping[str, int]:
        """`backend_stats` or `vip_stats` of a slot, zeros left out."""
        stored = self.maps[name].get(slot)
        assert stored is not None
        names = layout.BALANCE_COUNT.names or ()
        return words((stored.reshape(-1)[n].sum() for n in names), names)

    def handed(self) -> dict[str, int]:
        """Packets left to the stack, by reason."""
        stored = self.maps["stats"].get(0)
        assert stored is not None
        return words(stored.reshape(-1)["handed"].sum(axis=0), layout.HANDED)

    def answered(self) -> dict[str, int]:
        """Packets that were answered with an ICMP error, by reason."""
        stored = self.maps["stats"].get(0)
        assert stored is not None
        return words(stored.reshape(-1)["answered"].sum(axis=0), layout.ANSWERED)

    def connections(self) -> list[tuple[str, int, str, int]]:
        """Every entry as (client, port, state, slot of the word)."""
        keys, values = self.maps["connections"].read()
        return sorted(
            (
                str(Prefix(int(key["client"]["high"]), int(key["client"]["low"]))),
                int(key["port"]) & 0xFFFF, STATES[int(value["word"]) & 255],
                int(value["word"]) >> 8 & 0xFFFF,
            )
            for key, value in zip(keys, values, strict=True)
        )  # fmt: skip

    def state(self, port: int) -> str:
        """The state of the one flow from a client's port."""
        (found,) = {
            state for _, own, state, _ in self.connections() if own == port and state != "reply"
        }
        return found

    def end_flows(self, before_ns: int, ids: Sequence[tuple[str, int, int]]) -> int:
        """Have the control program end flows, given as (client, port, id of the VIP)."""
        request = np.zeros(1, layout.FLOWS_REQUEST)
        request["op"] = layout.ControlOp.END_FLOWS
        request["number"], request["value"] = len(ids), before_ns
        for at, (client, port, number) in enumerate(ids):
            prefix = Prefix.parse(client)
            flow = request["flows"][0][at]
            flow["client"]["high"], flow["client"]["low"] = prefix.high, prefix.low
            flow["port"] = port | number << 16
        return libbpf.run_program(self.pipeline.control_program, request.tobytes())[0]

    def correct(self, slot: int, by: int) -> int:
        """Have the control program lower the count of a backend's flows."""
        request = np.zeros(1, layout.FLOWS_REQUEST)
        request["op"] = layout.ControlOp.CORRECT_FLOWS
        request["number"], request["value"] = slot, by
        return libbpf.run_program(self.pipeline.control_program, request.tobytes())[0]


def backend_mac(slot: int) -> bytes:
    """The MAC address of a backend's hop."""
    return (int.from_bytes(BACKEND_MAC, "big") + slot).to_bytes(6, "big")


def l3_offset(frame: bytes) -> int:
    """Where the IP header begins."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8", b"\x91\x00"):
        at += 4
    return at + 2


def destination(frame: bytes) -> str:
    """Where a frame goes."""
    at = l3_offset(frame)
    if frame[at] >> 4 == 4:
        return str(ipaddress.IPv4Address(frame[at + 16 : at + 20]))
    return str(ipaddress.IPv6Address(frame[at + 24 : at + 40]))
