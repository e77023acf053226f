# SPDX-License-Identifier: Apache-2.0
"""The load balancer: VIPs, the backends behind them, and the flows between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebpftop.model.addresses import Prefix, Service
from ebpftop.model.columns import F64, U64, Clock, Column

ALGORITHMS = ("rr", "wrr", "least", "maglev")
"""How new flows are placed: in turn, in turn by weight, where fewest are, by a hash."""

BALANCING_MODES = ("nat", "dsr")
"""Whether backends see their own address, or own the VIP and answer clients by themselves."""

BACKEND_STATES = ("up", "drain", "down")
"""What an operator wants of a backend: all, the flows that it has, nothing."""

CONNECTION_STATES = (
    "none", "syn-sent", "syn-received", "established", "fin-client", "fin-backend", "closed",
    "udp",
)  # fmt: skip
"""States of a flow, in the order of the kernel's."""

GONE = "gone"
"""Stands for a backend that was taken away while it had flows."""

NO_BACKEND_CHOICES = ("drop", "all")
"""What becomes of new flows where no backend lives: dropped, or given to all as if all lived."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the backends of a VIP are asked whether they live."""

    kind: str = "tcp"
    """`tcp`: a connection is accepted. `http`: a request is answered with `status`."""
    interval_s: float = 2.0
    """Time between the starts of two checks of one backend."""
    timeout_s: float = 1.0
    """How long one check may take before it has failed."""
    rise: int = 2
    """Checks in a row that must succeed before a backend is healthy."""
    fall: int = 3
    """Checks in a row that must fail before a backend is not."""
    port: int = 0
    """Port that is asked; 0 for the backend's own."""
    path: str = "/"
    """What an HTTP request asks for."""
    host: str = ""
    """What it names as its host; empty for the backend's address."""
    status: int = 200
    """The answer that is right."""


@dataclass(frozen=True, slots=True)
class Vip:
    """What a VIP is: how its operator wants it."""

    service: Service
    """Where clients come to."""
    algorithm: str = "wrr"
    """A word of `ALGORITHMS`."""
    mode: str = "nat"
    """A word of `BALANCING_MODES`."""
    no_backend: str = "drop"
    """A word of `NO_BACKEND_CHOICES`."""
    check: HealthCheck | None = None
    """How its backends are checked; None where they are not."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What a backend of one VIP is: how its operator wants it."""

    service: Service
    """Where it answers; of the VIP's protocol."""
    weight: int = 1
    """Its share of new flows, in relation to the others' weights; 0 takes none."""
    state: str = "up"
    """A word of `BACKEND_STATES`."""


@dataclass(frozen=True, slots=True, eq=False)
class Vips:
    """Every VIP, in the order of its kernel slots. All arrays have one length."""

    wanted: Sequence[Vip]
    """How their operators want them."""
    packets: U64
    """Packets to it."""
    bytes: U64
    """Bytes to it."""
    reply_packets: U64
    """Packets from it, back to clients; none are seen in mode dsr."""
    reply_bytes: U64
    """Bytes from it."""
    opened: U64
    """Flows that were placed."""
    dropped: U64
    """Packets to it and from its backends that were dropped by the balancer."""
    handed: U64
    """The same, of those left to the stack as they came (fragments, options)."""
    stranded: U64
    """Packets to it while none of its backends lived."""
    pps: F64
    """Packets a second, both directions."""
    bps: F64
    """Bits a second, both directions."""
    new_per_s: F64
    """Flows placed a second."""

    def __len__(self) -> int:
        return len(self.wanted)

    def row_of(self, service: Service) -> int | None:
        """Return the row of a VIP, None where there is none."""
        return next((i for i, vip in enumerate(self.wanted) if vip.service == service), None)

    @classmethod
    def empty(cls) -> Vips:
        """Return a table without rows."""
        u64, f64 = np.zeros(0, np.uint64), np.zeros(0, np.float64)
        return cls((), u64, u64, u64, u64, u64, u64, u64, u64, f64, f64, f64)


@dataclass(frozen=True, slots=True, eq=False)
class Backends:
    """Every backend of every VIP, VIPs in their order. All arrays have one length."""

    vip: Sequence[Service]
    """The VIP of each."""
    wanted: Sequence[Backend]
    """How their operators want them."""
    first_weight: U64
    """The weight each was added with."""
    healthy: Sequence[bool | None]
    """What the checks say; None where nothing checks."""
    reachable: Sequence[bool]
    """Whether the way to it is known without asking the kernel for each packet."""
    share: F64
    """Part of the VIP's new flows that the ring in force gives it, 0 to 1."""
    measured_share: F64
    """Part of the VIP's flows of the last ten seconds that it got; NaN where there were none."""
    connections: U64
    """Flows it has now."""
    opened: U64
    """Flows it was given since it was added."""
    packets: U64
    """Packets to it and from it."""
    bytes: U64
    """Bytes to it and from it."""
    pps: F64
    """Packets a second, both directions."""
    bps: F64
    """Bits a second, both directions."""
    new_per_s: F64
    """Flows given to it a second."""

    def __len__(self) -> int:
        return len(self.wanted)

    def rows_of(self, vip: Service) -> list[int]:
        """Return the rows of a VIP's backends."""
        return [row for row, service in enumerate(self.vip) if service == vip]

    def takes_flows(self, row: int) -> bool:
        """Whether new flows go to the backend in `row` because it lives.

        The ring in force says that also of what was found bad before the checks ended.
        """
        return self._is_wanted(row) and self.share[row] > 0 and self.healthy[row] is not False

    def is_left_out(self, row: int) -> bool:
        """Whether the checks, of now or before, keep flows from the backend in `row`."""
        unknown = self.healthy[row] is None
        return self.healthy[row] is False or (
            unknown and self._is_wanted(row) and not self.share[row]
        )

    def _is_wanted(self, row: int) -> bool:
        wanted = self.wanted[row]
        return wanted.state == "up" and wanted.weight > 0

    @classmethod
    def empty(cls) -> Backends:
        """Return a table without rows."""
        u64, f64 = np.zeros(0, np.uint64), np.zeros(0, np.float64)
        return cls((), (), u64, (), (), f64, f64, u64, u64, u64, u64, f64, f64, f64)

    def columns(self) -> dict[str, Column]:
        """Return the fields that the command line and the panes call by name."""
        texts = {
            "vip": [str(service) for service in self.vip],
            "backend": [wanted.service.endpoint for wanted in self.wanted],
            "state": [wanted.state for wanted in self.wanted],
            "healthy": [_HEALTH_WORDS[healthy] for healthy in self.healthy],
        }
        return {
            **{
                name: Column("text", np.array(column, np.object_)) for name, column in texts.items()
            },
            "weight": Column("number", np.array([w.weight for w in self.wanted], np.uint64)),
            "share": Column("number", self.share),
            "measured_share": Column("number", self.measured_share),
            "connections": Column("number", self.connections),
            "new": Column("number", self.opened),
            "packets": Column("number", self.packets),
            "bytes": Column("number", self.bytes),
            "pps": Column("number", self.pps),
            "bps": Column("number", self.bps),
        }


def wished_shares(
    algorithm: str, backends: Sequence[Backend], healthy: Sequence[bool | None] = ()
) -> list[float]:
    """Return which part of new flows each backend of a VIP is to get.

    Args:
        algorithm: A word of `ALGORITHMS`; `rr` and `least` know no weights but 0.
        backends: As their operator wants them.
        healthy: What the checks say of each; empty where none is to be left out.
    """
    weighted = algorithm in ("wrr", "maglev")
    claims = [
        (backend.weight if weighted else min(1, backend.weight)) if backend.state == "up" else 0
        for backend in backends
    ]
    if healthy:
        claims = [0 if good is False else c for c, good in zip(claims, healthy, strict=True)]
    total = sum(claims)
    return [claim / total if total else 0.0 for claim in claims]


_HEALTH_WORDS = {True: "true", False: "false", None: "unknown"}


@dataclass(frozen=True, slots=True)
class Flow:
    """What a flow is known by."""

    client: Service
    """The client's end."""
    vip: Service
    """Whom it talks to."""

    def __str__(self) -> str:
        return f"{self.client.endpoint} to {self.vip}"


@dataclass(frozen=True, slots=True, eq=False)
class Connections:
    """Every flow through a VIP, a row each. All arrays have one length."""

    high: U64
    """Upper 64 bits of the client's address."""
    low: U64
    """Lower 64 bits of the client's address."""
    port: U64
    """The client's port."""
    vip: NDArray[np.uint16]
    """Index into `vips`."""
    backend: NDArray[np.uint16]
    """Index into `backends`."""
    state: NDArray[np.uint8]
    """Index into `CONNECTION_STATES`."""
    packets: U64
    """Packets, both directions."""
    bytes: U64
    """Bytes, both directions."""
    first_ns: U64
    """When its first packet was seen."""
    last_ns: U64
    """When its latest packet was seen, to within a second or so."""
    vips: tuple[Service, ...]
    """What `vip` points into."""
    backends: tuple[Service | None, ...]
    """What `backend` points into; None is one that was taken away."""

    def __len__(self) -> int:
        return len(self.high)

    def client(self, row: int) -> Prefix:
        """Return the address of the client in `row`."""
        return Prefix(int(self.high[row]), int(self.low[row]))

    def flow(self, row: int) -> Flow:
        """Return what the flow in `row` is known by."""
        vip = self.vips[self.vip[row]]
        return Flow(Service(self.client(row), int(self.port[row]), vip.protocol), vip)

    def row_of(self, flow: Flow) -> int | None:
        """Return the row of a flow, None where there is none."""
        client = flow.client
        hits = np.flatnonzero(
            (self.low == client.address.low)
            & (self.high == client.address.high)
            & (self.port == client.port)
        )
        return next((int(row) for row in hits if self.vips[self.vip[row]] == flow.vip), None)

    @classmethod
    def empty(cls) -> Connections:
        """Return a table without rows."""
        u64, u16 = np.zeros(0, np.uint64), np.zeros(0, np.uint16)
        return cls(u64, u64, u64, u16, u16, np.zeros(0, np.uint8), u64, u64, u64, u64, (), ())

    def columns(self, clock: Clock) -> dict[str, Column]:
        """Return the fields that the command line and the panes call by name."""
        age_s, idle_s = (
            np.maximum(0.0, clock.monotonic_ns - at_ns.astype(np.float64)) / 1e9
            for at_ns in (self.first_ns, self.last_ns)
        )
        backends = tuple(backend.endpoint if backend else GONE for backend in self.backends)
        return {
            "client": Column("address", self.high, self.low),
            "port": Column("number", self.port),
            "vip": Column("text", self.vip, labels=tuple(map(str, self.vips))),
            "backend": Column("text", self.backend, labels=backends),
            "protocol": Column("text", self.vip, labels=tuple(v.protocol for v in self.vips)),
            "state": Column("text", self.state, labels=CONNECTION_STATES),
            "packets": Column("number", self.packets),
            "bytes": Column("number", self.bytes),
            "age_s": Column("number", age_s),
            "idle_s": Column("number", idle_s),
        }
