# SPDX-License-Identifier: Apache-2.0
"""What is sent to each address, beside what is received from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ebpftop.kernel.maps import Map
from ebpftop.model import U64, Sent, Sources
from ebpftop.sources.decoding import native

_MIX = np.uint64(0x9E3779B97F4A7C15)


class SentReader:
    """Reads the table of the addresses that are sent to.

    Args:
        table: The `sent_to` map.
    """

    def __init__(self, table: Map) -> None:
        self._table = table
        self._before: tuple[U64, U64] | None = None

    def read(self, sources: Sources, interval_s: float | None) -> Sent:
        """Return what was sent to each of `sources`, and how fast since the read before."""
        keys, rows = self._table.read()
        mixed = _mixed(native(keys["high"]), native(keys["low"]))
        octets, packets = native(rows["bytes"]), native(rows["packets"])
        bps = np.full(len(mixed), np.nan)
        if self._before is not None and interval_s:
            at = _places(self._before[0], mixed)
            known = at >= 0
            grown = octets[known].astype(np.float64) - self._before[1][at[known]]
            bps[known] = np.where(grown >= 0, grown * 8 / interval_s, np.nan)
            bps[~known] = octets[~known] * 8 / interval_s
        self._before = mixed, octets
        at = _places(mixed, _mixed(sources.high, sources.low))
        there = at >= 0
        found = (
            np.zeros(len(at), np.uint64),
            np.zeros(len(at), np.uint64),
            np.zeros(len(at), np.float64),
        )
        for column, values in zip(found, (packets, octets, bps), strict=True):
            column[there] = values[at[there]]
        return Sent(*found)


def _mixed(high: U64, low: U64) -> U64:
    """Return a number for each address; two of a hundred thousand share one in 1 of 10^9 tables."""
    with np.errstate(over="ignore"):
        mixed: U64 = low ^ ((high ^ (high >> np.uint64(29))) * _MIX)
    return mixed


def _places(held: U64, wanted: U64) -> NDArray[np.intp]:
    """Return where each of `wanted` is in `held`, -1 where it is not."""
    if not len(held):
        return np.full(len(wanted), -1, np.intp)
    order = np.argsort(held)
    at = np.minimum(np.searchsorted(held, wanted, sorter=order), len(held) - 1)
    places: NDArray[np.intp] = order[at]
    return np.where(held[places] == wanted, places, -1)
