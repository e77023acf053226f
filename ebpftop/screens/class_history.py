# SPDX-License-Identifier: Apache-2.0
"""What came of each traffic class in the last minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ebpftop.model import F64, ClassKey, Snapshot

KEPT_S = 60.0
_SHORTEST_S = 0.08


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One class, a value each tick. All arrays have one length."""

    times_s: F64
    """When the tick ended, in seconds of CLOCK_MONOTONIC."""
    lengths_s: F64
    """How long it was."""
    offered_bytes: F64
    """What came."""
    bps: F64
    """Bits a second that were let through."""

    @classmethod
    def none(cls) -> Samples:
        """Return no samples."""
        nothing = np.zeros(0, np.float64)
        return cls(nothing, nothing, nothing, nothing)

    def and_of(self, other: Samples) -> Samples:
        """Return these with what `other` brought in the same ticks."""
        at = np.searchsorted(other.times_s, self.times_s)
        at = np.minimum(at, max(0, len(other.times_s) - 1))
        if not len(other.times_s):
            return self
        same = other.times_s[at] == self.times_s
        both = self.offered_bytes + np.where(same, other.offered_bytes[at], 0.0)
        return Samples(self.times_s, self.lengths_s, both, self.bps)

    def with_one(self, at_s: float, length_s: float, offered: float, bps: float) -> Samples:
        """Return these with one more; what is older than `KEPT_S` goes."""
        kept = self.times_s > at_s - KEPT_S
        return Samples(
            np.append(self.times_s[kept], at_s),
            np.append(self.lengths_s[kept], length_s),
            np.append(self.offered_bytes[kept], offered),
            np.append(self.bps[kept], bps),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ClassHistory:
    """The last minute of every class; each snapshot makes a new one."""

    samples: Mapping[ClassKey, Samples] = field(default_factory=dict)
    """By class."""

    def of(self, key: ClassKey) -> Samples:
        """Return the samples of a class; none where nothing is known of it."""
        return self.samples.get(key) or Samples.none()

    def extended(self, snapshot: Snapshot) -> ClassHistory:
        """Return this history with the rates of `snapshot`, if it has any worth keeping."""
        length_s, classes = snapshot.interval_s, snapshot.classes
        if length_s is None or length_s < _SHORTEST_S:
            return self
        now_s = snapshot.clock.monotonic_ns / 1e9
        extended = {}
        for row, key in enumerate(classes.keys):
            offered_bps = float(classes.offered_bps[row])
            if not np.isnan(offered_bps):
                extended[key] = self.of(key).with_one(
                    now_s, length_s, offered_bps * length_s / 8, float(classes.bps[row])
                )
        return ClassHistory(extended)
