# SPDX-License-Identifier: Apache-2.0
"""What the model of the pipeline keeps: prefixes, rows, limiters, blocks."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.kernel.parsing_model import IPV4_MAPPED

LIMITS = ("pps", "bps", "syn")


class Net(NamedTuple):
    """A prefix of 128-bit addresses."""

    first: int
    """Its first address."""
    length: int
    """Its bits."""

    @classmethod
    def parse(cls, text: str) -> Net:
        """Read a prefix or address of either version."""
        network = ipaddress.ip_network(text)
        if network.version == 4:
            return cls(IPV4_MAPPED | int(network.network_address), 96 + network.prefixlen)
        return cls(int(network.network_address), network.prefixlen)

    def holds(self, address: int) -> bool:
        """Whether an address lies in it."""
        return (address ^ self.first) >> (128 - self.length) == 0


@dataclass(slots=True)
class Limiter:
    """How far a source ran ahead of its limits."""

    times: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0))
    """When its next packet is due by each limit, in 1/16 ns."""
    over_since_ns: int | None = None
    """Since when it is over a limit."""


@dataclass(slots=True)
class Row:
    """What is counted for a source."""

    first_ns: int
    last_ns: int
    passed_packets: int = 0
    passed_bytes: int = 0
    dropped_packets: int = 0
    dropped_bytes: int = 0
    would_drop_packets: int = 0
    limited_ns: int = 0


@dataclass(slots=True)
class Rule:
    """A manual block."""

    net: Net
    until_ns: int
    slot: int
    told: bool = False


@dataclass(slots=True)
class AutoBlock:
    """An automatic block; the fields are those of the map."""

    until_ns: int
    set_ns: int
    strikes: int
    reason: str
    packets: int = 0
    bytes: int = 0
    ended: int = 0


@dataclass(slots=True)
class Processor:
    """What a processor keeps for itself."""

    tick_ns: int = 0
    flood_packets: int = 0
    flood_untracked: int = 0
    window_ns: int = 0
    window_sources: int = 0
