# SPDX-License-Identifier: Apache-2.0
"""What an act on the balancer is told as: changes of the states and the health of backends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ebpftop.bpf import balancer_records
from ebpftop.bpf.layout import EventKind
from ebpftop.control.vip_table import VipTable
from ebpftop.model import Service

MOST_EVENTS_AT_ONCE = 16
"""Backends of one act whose changes are told."""


def changes(table: VipTable) -> Iterator[tuple[EventKind, Service, Service, *tuple[int, ...]]]:
    """Yield the kind, the backend, its VIP and the values of each change of a table."""
    held, now = table.before[1], table.backends
    differs = (held["state"] != now["state"]) | (held["health"] != now["health"])
    same = (held["id"] == now["id"]) & (now["id"] != 0)
    for number in np.flatnonzero(same & differs).tolist()[:MOST_EVENTS_AT_ONCE]:
        for kind, *values in _changes(held[number], now[number]):
            service = balancer_records.service(now["service"][number])
            yield kind, service, table.service(int(now["vip_slot"][number])), *values


def _changes(held: Any, now: Any) -> Iterator[tuple[EventKind, *tuple[int, ...]]]:
    """Yield the events of one backend between two `BACKEND` records, with their values."""
    if held["state"] != now["state"]:
        yield EventKind.BACKEND_STATE, int(now["state"])
    before, healthy = balancer_records.healthy(held), balancer_records.healthy(now)
    if healthy is False and before is not False:
        yield (EventKind.BACKEND_DOWN,)
    # That a new one is well is no news.
    if healthy is True and before is False:
        yield (EventKind.BACKEND_UP,)
