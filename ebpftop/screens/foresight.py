# SPDX-License-Identifier: Apache-2.0
"""What the last minute's traffic would have met in a token bucket of other values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ebpftop import format as fmt
from ebpftop.model import Prefix
from ebpftop.screens.class_history import Samples
from ebpftop.screens.source_history import SourceHistory
from ebpftop.widgets.cells import Cell, Tone

QUEUE_S = 0.2
"""What a queue holds before it drops, in seconds of its rate."""
ESTIMATE = "an estimate: TCP would have slowed down in answer"
NOT_COUNTED = "unknown: what is sent is not counted (`ebpftop count-sent`)"
ROWS = 3
"""Lines that a foresight takes, so that a dialog does not change its size while one types."""


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


def traffic_of(history: SourceHistory, prefix: Prefix, direction: str) -> Samples | None:
    """Return what came from an address or prefix, or what was sent to it, since it was seen.

    Args:
        history: The last minute of all of them.
        prefix: Whose traffic.
        direction: A word of `DIRECTIONS`.

    Returns:
        None where that direction is not counted.
    """
    series = history.of(prefix) if direction == "ingress" else history.sent_to(prefix)
    if series is None:
        return None
    seen = np.flatnonzero(series.bps)
    first = int(seen[0]) if len(seen) else len(series.bps)
    brought = series.bps * series.lengths_s / 8
    return Samples(
        *(each[first:] for each in (series.times_s, series.lengths_s, brought, series.bps))
    )


def verdict(found: WhatIf, *, queued: bool) -> tuple[str, str]:
    """Say what the last minute's traffic was, and what it would have met."""
    if not found.seconds:
        return "nothing has been seen of it yet", ""
    span = f"its last {found.seconds:.0f} s"
    if not found.bytes:
        return f"nothing came in {span}", ""
    words = f"{fmt.percent(found.at_once)} goes at once"
    held = max(0.0, 1 - found.at_once - found.dropped)
    if queued and held > 0:
        words += f", {fmt.percent(held)} waits up to {fmt.duration(found.longest_wait_s)}"
    words += f", {fmt.percent(found.dropped)} dropped"
    return f"{span} brought {fmt.size(found.bytes)}:", words


def foresight(
    samples: Samples, rate_bps: int, burst_bytes: int, action: str, *, beside: str = ""
) -> list[list[Cell]]:
    """Return the lines that say what samples would have met.

    Args:
        samples: What came.
        rate_bps: Of the bucket.
        burst_bytes: Of the bucket.
        action: What holds the class to its rate.
        beside: What else is in the samples, in words.
    """
    queued = action != "police"
    found = what_if(samples, rate_bps, burst_bytes, queued=queued)
    brought, meets = verdict(found, queued=queued)
    if not meets:
        return unknown(brought)
    tone: Tone = "bad" if found.dropped > 0 else "good"
    if beside:
        brought = f"{brought.removesuffix(':')}{beside}:"
    return [
        [Cell("foresight", "muted"), Cell(brought)],
        [Cell(""), Cell(meets, tone)],
        [Cell(""), Cell(ESTIMATE, "muted")],
    ]


def unknown(why: str) -> list[list[Cell]]:
    """Return as many lines that say why nothing can be foreseen."""
    blank = [[Cell(""), Cell("")] for _ in range(ROWS - 1)]
    return [[Cell("foresight", "muted"), Cell(why, "muted")], *blank]
