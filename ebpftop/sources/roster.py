# SPDX-License-Identifier: Apache-2.0
"""Which VIPs and backends there are, and which part of new flows the rings in force give each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import balancer_records as convert
from ebpftop.bpf.layout import RING_WORD
from ebpftop.kernel.maps import Map
from ebpftop.model import F64, U64, Backend, Service, Vip


@dataclass(frozen=True, slots=True, eq=False)
class Roster:
    """What the writers of the maps wrote; VIPs and backends in the order of their slots."""

    written: bytes
    """All that it was made of: as long as that is the same, so is the rest."""
    vips: Sequence[Vip]
    """How their operators want them."""
    vip_slots: Sequence[int]
    """Slot of each VIP."""
    vip_ids: Sequence[int]
    """What no other VIP ever has."""
    backends: Sequence[Backend]
    """How their operators want them; VIP by VIP."""
    backend_slots: Sequence[int]
    """Slot of each backend."""
    backend_ids: Sequence[tuple[int, int]]
    """Ids of its VIP and of where it answers: what no other backend ever has."""
    rows: Sequence[int]
    """Row of each backend's VIP."""
    first_weight: U64
    """Of each backend."""
    healthy: Sequence[bool | None]
    """Of each backend."""
    reachable: Sequence[bool]
    """Of each backend."""
    share: F64
    """Of each backend, in the ring of its VIP."""

    @classmethod
    def empty(cls) -> Roster:
        """Return one without VIPs."""
        return cls(b"", (), (), (), (), (), (), (), np.zeros(0, np.uint64), (), (), np.zeros(0))

    @property
    def backend_vips(self) -> list[Service]:
        """The VIP of each backend."""
        return [self.vips[row].service for row in self.rows]


def read(maps: Mapping[str, Map], before: Roster) -> Roster:
    """Read who is there; returns `before` where nothing was written since.

    Rings are read only then: whatever changes one changes its VIP's value or a backend too.

    Args:
        maps: Of the instance.
        before: What was read last, or an empty one.
    """
    slots = _up_to_last(maps["vip_slots"].read()[1])
    if not len(slots):
        return before if not before.written else Roster.empty()
    values = np.sort(maps["vips"].read()[1], order="slot")
    records = _up_to_last(maps["backends"].read()[1])
    checks = maps["checks"].read(len(slots))[1]
    written = b"".join(part.tobytes() for part in (slots, values, records, checks))
    if written == before.written:
        return before
    return _roster(maps["rings"], slots, values, records, checks, written)


def _up_to_last(records: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of the slots up to the last one in use."""
    used = np.flatnonzero(records["id"])
    return records[: int(used[-1]) + 1 if len(used) else 0].copy()


def _roster(
    rings: Map,
    slots: NDArray[Any],
    values: NDArray[Any],
    records: NDArray[Any],
    checks: NDArray[Any],
    written: bytes,
) -> Roster:
    # A slot without a value is of a VIP that is being made, or taken away.
    in_force = [v for v in values if v["slot"] < len(slots) and slots["id"][v["slot"]] == v["id"]]
    order, rows, shares = [], [], []
    for row, value in enumerate(in_force):
        ours = np.flatnonzero((records["id"] != 0) & (records["vip_id"] == value["id"]))
        share = _shares(rings, value)
        for slot in ours.tolist():
            order.append(slot)
            rows.append(row)
            shares.append(share.get(slot, 0.0))
    chosen = records[order]
    return Roster(
        written=written,
        vips=[convert.vip(slots[v["slot"]], v, checks[v["slot"]]) for v in in_force],
        vip_slots=[int(value["slot"]) for value in in_force],
        vip_ids=[int(value["id"]) for value in in_force],
        backends=[convert.backend(record) for record in chosen],
        backend_slots=order,
        backend_ids=[(int(record["vip_id"]), int(record["id"])) for record in chosen],
        rows=rows,
        first_weight=chosen["first_weight"].astype(np.uint64),
        healthy=[convert.healthy(record) for record in chosen],
        reachable=(chosen["hop"]["ifindex"] != 0).tolist(),
        share=np.array(shares, np.float64),
    )


def _shares(rings: Map, value: Any) -> Mapping[int, float]:
    """Return the part of the ring in force that each slot has."""
    start, length = int(value["ring_start"]), int(value["ring_length"])
    if not length:
        return {}
    words = rings.read_part(start // RING_WORD, -(-length // RING_WORD))
    places = words.view("<u2")[:length]
    found, counts = np.unique(places, return_counts=True)
    return dict(zip(found.tolist(), (counts / length).tolist(), strict=True))
