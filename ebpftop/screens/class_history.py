# SPDX-License-Identifier: Apache-2.0
"""What came of each traffic class in the last minute, and what other values would do to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ebpftop.model import F64, ClassKey, Snapshot

KEPT_S = 60.0
QUEUE_S = 0.2
"""What a queue holds before it drops, in seconds of its rate."""
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


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What traffic meets in a token bucket."""

    seconds: float
    """How long the traffic was; 0 where there is none to judge by."""
    bytes: float
    """How much it was."""
    at_once: float
    """The part of 1 that passes without waiting."""
    dropped: float
    """The part of 1 that is dropped."""
    longest_wait_s: float
    """The longest that anything waits; 0 where nothing can wait."""


def what_if(samples: Samples, rate_bps: int, burst_bytes: int, *, queued: bool) -> WhatIf:
    """Send the samples through a bucket that is full at first.

    Within a tick what came is taken as evenly spread. It cannot tell how a sender would have
    answered: TCP slows down where it meets drops.

    Args:
        samples: What came.
        rate_bps: Of the bucket.
        burst_bytes: Of the bucket.
        queued: What is over the rate waits (pace, htb) and is not dropped at once (police).
    """
    rate = rate_bps / 8
    room = rate * QUEUE_S if queued else 0.0
    tokens, waiting = float(burst_bytes), 0.0
    came = at_once = dropped = most_waiting = 0.0
    ticks = zip(samples.lengths_s.tolist(), samples.offered_bytes.tolist(), strict=True)
    for length_s, offered in ticks:
        came += offered
        available = tokens + rate * length_s
        served_first = min(waiting, available)
        passed = min(offered, available - served_first)
        at_once += passed if not waiting else 0.0
        waiting += offered - passed - served_first
        lost = max(0.0, waiting - room)
        dropped += lost
        waiting -= lost
        most_waiting = max(most_waiting, waiting)
        tokens = min(float(burst_bytes), available - served_first - passed)
    seconds = float(samples.lengths_s.sum())
    if not came:
        return WhatIf(seconds, 0.0, 1.0, 0.0, 0.0)
    return WhatIf(seconds, came, at_once / came, dropped / came, most_waiting / rate)
