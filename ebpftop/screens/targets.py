# SPDX-License-Identifier: Apache-2.0
"""What a snapshot knows of one address or prefix: what it sends, what blocks or allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebpftop.model import Allowed, Blocks, Prefix, Snapshot, Sources


@dataclass(frozen=True, slots=True)
class Sending:
    """What the tracked sources within a prefix send together."""

    sources: int
    """How many there are."""
    pps: float
    """Packets a second."""
    bps: float
    """Bits a second."""
    dropped_pps: float
    """Packets a second that are dropped."""
    share: float
    """Their part of all packets received, from 0 to 1; NaN where it is not known."""


def sending(snapshot: Snapshot, prefix: Prefix) -> Sending:
    """Add up what the sources within `prefix` send."""
    return _sum(snapshot, _within(snapshot.sources, prefix))


def sending_together(snapshot: Snapshot, prefixes: Sequence[Prefix]) -> Sending:
    """Add up what the sources within any of `prefixes` send, each of them once."""
    sources = snapshot.sources
    hosts = {(each.high, each.low) for each in prefixes if each.is_host}
    # Many addresses may be marked: one half of them rules nearly all sources out at once.
    lows = np.array([low for _, low in hosts], np.uint64)
    rows = np.isin(sources.low, lows)
    for row in np.flatnonzero(rows).tolist():
        rows[row] = (int(sources.high[row]), int(sources.low[row])) in hosts
    for prefix in prefixes:
        if not prefix.is_host:
            rows |= _within(sources, prefix)
    return _sum(snapshot, rows)


def _sum(snapshot: Snapshot, rows: NDArray[np.bool_]) -> Sending:
    sources = snapshot.sources
    pps = float(np.sum(sources.pps[rows]))
    received = snapshot.rates.pps.get("received", 0.0) if snapshot.rates else 0.0
    return Sending(
        int(np.count_nonzero(rows)),
        pps,
        float(np.sum(sources.bps[rows])),
        float(np.sum(sources.dropped_pps[rows])),
        min(1.0, pps / received) if received > 0 else float("nan"),
    )


def covering(entries: Blocks | Allowed, prefix: Prefix, *, below: int = 129) -> Prefix | None:
    """Return the longest entry that all of `prefix` lies in, None where there is none.

    Args:
        entries: Blocks or allowances.
        prefix: What lies in it.
        below: Look only at entries with a prefix length (of 128) under this.
    """
    for length in sorted(set(entries.length.tolist()), reverse=True):
        if length > prefix.length or length >= below:
            continue
        wider = prefix.truncated(length)
        hits = (
            (entries.low == wider.low) & (entries.high == wider.high) & (entries.length == length)
        )
        if hits.any():
            return wider
    return None


def _within(sources: Sources, prefix: Prefix) -> NDArray[np.bool_]:
    mask = ((1 << prefix.length) - 1) << (128 - prefix.length)
    high, low = np.uint64(mask >> 64), np.uint64(mask & ((1 << 64) - 1))
    hits: NDArray[np.bool_] = ((sources.high & high) == prefix.high) & (
        (sources.low & low) == prefix.low
    )
    return hits
