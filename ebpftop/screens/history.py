# SPDX-License-Identifier: Apache-2.0
"""The last minutes of the totals, for the graphs, and the peaks since the dashboard opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ebpftop.model import F64, Snapshot

KEPT_S = 300.0
"""How far back the graphs can go."""

GRAPHED = ("received", "passed", "dropped")
"""The rates that are kept."""

UNITS = ("packets", "bits", "bytes")
"""What rates are shown in."""

_SHORTEST_S = 0.08
_SPANS_S = (60.0, 120.0, KEPT_S)


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Rates over the last `KEPT_S` seconds; each snapshot makes a new one."""

    times_s: F64 = field(default_factory=lambda: np.zeros(0, np.float64))
    """When, in seconds of CLOCK_MONOTONIC."""
    pps: Mapping[str, F64] = field(
        default_factory=lambda: dict.fromkeys(GRAPHED, np.zeros(0, np.float64))
    )
    """Packets a second at each time, by the words of `GRAPHED`."""
    bps: Mapping[str, F64] = field(
        default_factory=lambda: dict.fromkeys(GRAPHED, np.zeros(0, np.float64))
    )
    """Bits a second at each time, by the words of `GRAPHED`."""
    peak_pps: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(GRAPHED, 0.0))
    """The most packets a second that were ever seen."""
    peak_bps: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(GRAPHED, 0.0))
    """The most bits a second that were ever seen."""
    opened_s: float | None = None
    """The time of the first rates, which may be older than what is kept."""

    def extended(self, snapshot: Snapshot) -> History:
        """Return this history with the rates of `snapshot`, if it has any worth keeping.

        A snapshot that was asked for right after another has rates over so short a time that
        one batch of packets looks like a peak: it is left out.
        """
        rates, interval_s = snapshot.rates, snapshot.interval_s
        if rates is None or interval_s is None or interval_s < _SHORTEST_S:
            return self
        now_s = snapshot.clock.monotonic_ns / 1e9
        kept = self.times_s > now_s - KEPT_S
        pps = {name: rates.pps.get(name, 0.0) for name in GRAPHED}
        bps = {name: rates.bps.get(name, 0.0) for name in GRAPHED}
        return History(
            np.append(self.times_s[kept], now_s),
            {name: np.append(self.pps[name][kept], pps[name]) for name in GRAPHED},
            {name: np.append(self.bps[name][kept], bps[name]) for name in GRAPHED},
            {name: max(self.peak_pps[name], pps[name]) for name in GRAPHED},
            {name: max(self.peak_bps[name], bps[name]) for name in GRAPHED},
            now_s if self.opened_s is None else self.opened_s,
        )

    def graph(self, name: str, unit: str) -> tuple[F64, float]:
        """Return the rates of a word of `GRAPHED` in a unit, and their peak.

        Args:
            name: Which rate.
            unit: A word of `UNITS`.
        """
        if unit == "packets":
            return self.pps[name], self.peak_pps[name]
        divisor = 8.0 if unit == "bytes" else 1.0
        return self.bps[name] / divisor, self.peak_bps[name] / divisor

    def span_s(self, now_s: float) -> float:
        """Return how many seconds a graph shows: the least of a few spans that shows all."""
        age_s = 0.0 if self.opened_s is None else now_s - self.opened_s
        return next((span for span in _SPANS_S if age_s <= span), KEPT_S)
