# SPDX-License-Identifier: Apache-2.0
"""What the policy file says of the load balancer: VIPs, backends, checks."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ebpftop.config.values import (
    EndpointText,
    PerSecond,
    PositiveSeconds,
    Section,
    ServiceText,
    Verdict,
)
from ebpftop.model import Backend, HealthCheck, Vip


class BalancerPolicy(Section, kw_only=True, frozen=True):
    """`[balancer]`: what holds for all VIPs."""

    new_flows_per_core_s: PerSecond = 0
    """New flows a second that each core begins to track; 0 takes what fills the table in 8 s."""
    tcp_idle_s: Annotated[PositiveSeconds, Meta(examples=["2h"])] = msgspec.field(
        default=PositiveSeconds(7440.0), name="tcp_idle"
    )
    """Silence after which an established TCP flow is over, as a DURATION (RFC 5382, 5)."""
    tcp_opening_s: Annotated[PositiveSeconds, Meta(examples=["60s"])] = msgspec.field(
        default=PositiveSeconds(60.0), name="tcp_opening"
    )
    """The same of one that is not established yet, or closes, as a DURATION."""
    udp_idle_s: Annotated[PositiveSeconds, Meta(examples=["2m"])] = msgspec.field(
        default=PositiveSeconds(120.0), name="udp_idle"
    )
    """The same of a UDP flow, as a DURATION (RFC 4787, 4.3)."""
    fragments: Verdict = "pass"
    """What becomes of fragments of VIPs' traffic: left to this host's stack, or dropped."""
    options: Verdict = "pass"
    """What becomes of VIPs' traffic with options in its IP header."""


class CheckPolicy(Section, kw_only=True, frozen=True):
    """`check` of a VIP: how its backends are asked whether they live."""

    kind: Annotated[Literal["tcp", "http"], Meta(examples=["tcp"])] = "tcp"
    """A connection is accepted, or a request is answered."""
    interval_s: Annotated[PositiveSeconds, Meta(examples=["2s"])] = msgspec.field(
        default=PositiveSeconds(2.0), name="interval"
    )
    """Time between the starts of two checks of one backend, as a DURATION."""
    timeout_s: Annotated[PositiveSeconds, Meta(examples=["1s"])] = msgspec.field(
        default=PositiveSeconds(1.0), name="timeout"
    )
    """How long one check may take, as a DURATION."""
    rise: Annotated[int, Meta(ge=1, le=100, examples=[2])] = 2
    """Checks in a row that must succeed before a backend is healthy."""
    fall: Annotated[int, Meta(ge=1, le=100, examples=[3])] = 3
    """Checks in a row that must fail before a backend is not."""
    port: Annotated[int, Meta(ge=0, le=65_535, examples=[8080])] = 0
    """Port that is asked; 0 for the backend's own."""
    path: Annotated[str, Meta(examples=["/health"])] = "/"
    """What an HTTP request asks for."""
    host: Annotated[str, Meta(examples=["www.example.net"])] = ""
    """What it names as its host; empty for the backend's address."""
    status: Annotated[int, Meta(ge=100, le=599, examples=[200])] = 200
    """The answer that is right."""

    def health_check(self) -> HealthCheck:
        """Return it as the model knows it."""
        return HealthCheck(
            self.kind, float(self.interval_s), float(self.timeout_s), self.rise, self.fall,
            self.port, self.path, self.host, self.status,
        )  # fmt: skip


class BackendPolicy(Section, kw_only=True, frozen=True):
    """`[[vip.backend]]`: a server behind the VIP above it."""

    address: Annotated[EndpointText, Meta(examples=["198.51.100.1:8080"])]
    """Where it answers."""
    weight: Annotated[int, Meta(ge=0, le=65_535, examples=[1])] = 1
    """Its share of new flows, in relation to the others'; 0 takes none."""
    state: Annotated[Literal["up", "drain", "down"], Meta(examples=["up"])] = "up"
    """Whether it takes new flows, keeps those it has, or neither."""


class VipPolicy(Section, kw_only=True, frozen=True):
    """`[[vip]]`: an address that clients come to, with servers behind it."""

    address: Annotated[ServiceText, Meta(examples=["192.0.2.10:80/tcp"])]
    """Where clients come to."""
    algorithm: Annotated[Literal["rr", "wrr", "least", "maglev"], Meta(examples=["wrr"])] = "wrr"
    """How new flows are placed: in turn, by weight, where fewest are, by a hash."""
    mode: Annotated[Literal["nat", "dsr"], Meta(examples=["nat"])] = "nat"
    """Whether addresses are rewritten, or backends own the VIP and answer by themselves."""
    no_backend: Annotated[Literal["drop", "all"], Meta(examples=["drop"])] = "drop"
    """Where no backend lives: new flows are dropped, or placed as if all lived."""
    check: CheckPolicy | None = None
    """How its backends are checked; without it they are not."""
    backends: tuple[BackendPolicy, ...] = msgspec.field(default=(), name="backend")
    """Its servers."""

    def vip(self) -> Vip:
        """Return it as the model knows it."""
        check = self.check.health_check() if self.check else None
        return Vip(self.address.service, self.algorithm, self.mode, self.no_backend, check)

    def wanted_backends(self) -> list[Backend]:
        """Return its servers as the model knows them."""
        protocol = self.address.service.protocol
        return [Backend(b.address.service(protocol), b.weight, b.state) for b in self.backends]
