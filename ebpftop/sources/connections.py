# SPDX-License-Identifier: Apache-2.0
"""The flows of VIPs: the entries of both their directions joined into one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf.layout import FLOW_ID_SHIFT
from ebpftop.model import CONNECTION_STATES, U64, Connections, Service
from ebpftop.ranking import RowKeys, Rows, match_rows

REPLY = len(CONNECTION_STATES)
"""State of an entry that is the other direction of a flow."""
_PORT = np.uint64((1 << FLOW_ID_SHIFT) - 1)
_ID_SHIFT = np.uint64(FLOW_ID_SHIFT)
_SLOT_SHIFT = np.uint64(FLOW_ID_SHIFT + 32)
_WORD_SLOT_SHIFT = np.uint64(8)
_WORD_SLOT, _WORD_STATE = np.uint64(0xFFFF), np.uint64(0xFF)


@dataclass(frozen=True, slots=True)
class Known:
    """What the numbers in the kernel's entries stand for."""

    vips: Mapping[int, int]
    """Row of each VIP by its id."""
    backends: Mapping[int, tuple[int, int]]
    """Id of its VIP and row of each backend, by its slot."""
    vip_services: Sequence[Service]
    """VIPs by row."""
    backend_services: Sequence[Service]
    """Backends by row."""


class ConnectionsReader:
    """Joins the directions of flows; most entries keep their places from read to read."""

    def __init__(self) -> None:
        self._keys: RowKeys | None = None
        self._was_reply = np.zeros(0, np.bool_)
        self._partners: Rows = np.zeros(0, np.intp)

    def read(self, keys: NDArray[Any], values: NDArray[Any], known: Known) -> Connections:
        """Return a row for each flow of a VIP that is known.

        Args:
            keys: Of the map `connections`.
            values: Of the map.
            known: What their numbers stand for.
        """
        word, port = values["word"].astype(np.uint64), keys["port"].astype(np.uint64)
        state = (word & _WORD_STATE).astype(np.uint8)
        high = keys["client"]["high"].astype(np.uint64)
        low = keys["client"]["low"].astype(np.uint64)
        is_reply = state == REPLY
        slot = np.where(is_reply, values["backend"], word >> _WORD_SLOT_SHIFT & _WORD_SLOT)
        to_vip = np.where(
            is_reply, values["vip"].astype(np.uint64) << _ID_SHIFT | port & _PORT, port
        )
        partners = self._joined((high, low, slot << _SLOT_SHIFT | to_vip), is_reply)

        count = len(known.vip_services)
        vip = _looked_up(port >> _ID_SHIFT, known.vips, count)
        rows = np.flatnonzero((state < REPLY) & (vip < count))
        first, replies = values[rows], partners[rows]
        answered = replies >= 0
        both = {}
        for name in ("packets", "bytes"):
            both[name] = first[name].astype(np.uint64)
            both[name][answered] += values[name][replies[answered]]
        return Connections(
            high=high[rows],
            low=low[rows],
            port=port[rows] & _PORT,
            vip=vip[rows].astype(np.uint16),
            backend=_backends(slot[rows], port[rows] >> _ID_SHIFT, known),
            state=state[rows],
            packets=both["packets"],
            bytes=both["bytes"],
            first_ns=first["first_ns"].astype(np.uint64),
            # Answers keep the entry of this direction young too.
            last_ns=first["last_ns"].astype(np.uint64),
            vips=tuple(known.vip_services),
            backends=(*known.backend_services, None),
        )

    def _joined(self, keys: RowKeys, is_reply: NDArray[np.bool_]) -> Rows:
        """Return for each entry the place of its flow's other direction, -1 where it has none.

        Pairs that kept their places are taken over; the others are looked for.

        Args:
            keys: Client and, the same for both directions, backend's slot, VIP and port.
            is_reply: Which direction each entry is.
        """
        count, before = len(is_reply), self._keys
        partners = np.full(count, -1, np.intp)
        if before is not None:
            shared = min(count, len(self._partners))
            stayed = np.zeros(max(count, len(self._partners)) + 1, np.bool_)
            stayed[:shared] = self._was_reply[:shared] == is_reply[:shared]
            for then, now in zip(before, keys, strict=True):
                stayed[:shared] &= then[:shared] == now[:shared]
            # The last place is never one that stayed: that is where -1 points.
            kept = np.flatnonzero(stayed[:shared] & stayed[self._partners[:shared]])
            partners[kept] = self._partners[kept]
        forth = np.flatnonzero((partners < 0) & ~is_reply)
        back = np.flatnonzero((partners < 0) & is_reply)
        found = match_rows(_at(keys, back), _at(keys, forth))
        met = np.flatnonzero(found >= 0)
        partners[forth[met]] = back[found[met]]
        partners[back[found[met]]] = forth[met]
        self._keys, self._partners, self._was_reply = keys, partners, is_reply
        return partners


def _at(keys: RowKeys, rows: Rows) -> RowKeys:
    high, low, port = keys
    return high[rows], low[rows], port[rows]


def _looked_up(numbers: U64, values: Mapping[int, int], missing: int) -> Rows:
    """Return the value of each number, `missing` for one that has none."""
    if not values:
        return np.full(len(numbers), missing, np.intp)
    held = np.array(sorted(values), np.uint64)
    found = np.array([values[int(number)] for number in held], np.intp)
    at = np.minimum(np.searchsorted(held, numbers), len(held) - 1)
    answer: Rows = np.where(held[at] == numbers, found[at], missing)
    return answer


def _backends(slots: U64, vip_ids: U64, known: Known) -> NDArray[np.uint16]:
    """Return the row of each flow's backend; one past the last for one that is gone."""
    gone = len(known.backend_services)
    # By slot, the last one for what no backend is in.
    rows, vips = np.full(1 << 16, gone, np.uint16), np.zeros(1 << 16, np.uint64)
    for slot, (vip_id, row) in known.backends.items():
        rows[slot], vips[slot] = row, vip_id
    found: NDArray[np.uint16] = np.where(vips[slots] == vip_ids, rows[slots], gone)
    return found.astype(np.uint16)
