# SPDX-License-Identifier: Apache-2.0
"""What each backend carried in the last minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ebpftop.model import F64, Service, Snapshot

KEPT_S = 60.0
_SHORTEST_S = 0.08


@dataclass(frozen=True, slots=True)
class BackendKey:
    """What a backend is known by: one that is behind two VIPs is two."""

    vip: Service
    """The VIP it is behind."""
    backend: Service
    """Where it answers."""

    def __str__(self) -> str:
        return f"{self.backend.endpoint} of {self.vip}"


@dataclass(frozen=True, slots=True, eq=False)
class BackendHistory:
    """The last minute of every backend; each snapshot makes a new one."""

    samples: Mapping[BackendKey, tuple[F64, F64]] = field(default_factory=dict)
    """Times in seconds of CLOCK_MONOTONIC, and bits a second then, by backend."""

    def of(self, key: BackendKey) -> tuple[F64, F64]:
        """Return the times and rates of a backend; none where nothing is known of it."""
        return self.samples.get(key, (np.zeros(0), np.zeros(0)))

    def extended(self, snapshot: Snapshot) -> BackendHistory:
        """Return this history with the rates of `snapshot`, if it has any worth keeping."""
        held = snapshot.backends
        if not snapshot.interval_s or snapshot.interval_s < _SHORTEST_S:
            return self
        now_s = snapshot.clock.monotonic_ns / 1e9
        extended = {}
        for vip, wanted, bps in zip(held.vip, held.wanted, held.bps.tolist(), strict=True):
            key = BackendKey(vip, wanted.service)
            times_s, rates = self.of(key)
            if not np.isnan(bps):
                kept = times_s > now_s - KEPT_S
                times_s, rates = np.append(times_s[kept], now_s), np.append(rates[kept], bps)
            extended[key] = times_s, rates
        return BackendHistory(extended)
