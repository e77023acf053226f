# SPDX-License-Identifier: Apache-2.0
"""A `Snapshot` as the command line's JSON: plain dicts and lists, no I/O.

Rates are per second, times in seconds (`first_seen_s` and `last_seen_s` since 1970),
addresses are text, and what is unknown is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ebpftop.filtering import Kind
from ebpftop.model import (
    CONNECTION_STATES,
    VERDICTS,
    Act,
    Clock,
    Connections,
    Event,
    Limits,
    Snapshot,
    SourceState,
)
from ebpftop.ranking import Filter, Rows, order

TOP_SORTS = {
    "pps": "pps",
    "bps": "bps",
    "packets": "packets",
    "bytes": "bytes",
    "dropped": "dropped",
    "last": "last_seen_s",
}
"""Fields of `top` by the words of its `--sort`."""

TOP_FIELDS: Mapping[str, Kind] = {
    "address": "address",
    "packets": "number",
    "bytes": "number",
    "pps": "number",
    "bps": "number",
    "dropped": "number",
    "state": "text",
    "first_seen_s": "number",
    "last_seen_s": "number",
}
"""Fields that a filter of sources may name, and their kinds."""

CONNECTION_FIELDS: Mapping[str, Kind] = {
    name: column.kind for name, column in Connections.empty().columns(Clock(0, 0.0)).items()
}
"""Fields that a filter of flows may name, and their kinds."""


def limits(held: Limits) -> dict[str, Any]:
    """Return the limits in force; 0 is off."""
    return {name: _plain(value) for name, value in asdict(held).items()}


def status(snapshot: Snapshot, iface: str) -> dict[str, Any]:
    """Return what `status` prints for the instance on `iface`."""
    totals = snapshot.totals
    counts = {"total": totals.received} | {word: totals.verdicts[word] for word in VERDICTS}
    return {
        "iface": iface,
        "interfaces": [{"name": i.name, "mode": i.mode, "up": i.up} for i in snapshot.interfaces],
        "attached": True,
        "uptime_s": _plain(snapshot.uptime_s),
        "programs": [asdict(program) for program in snapshot.programs],
        "packets": {word: count.packets for word, count in counts.items()},
        "bytes": {word: count.bytes for word, count in counts.items()},
        "protocols": dict(totals.protocols),
        "syn": totals.syn,
        "drops": dict(totals.drops),
        "would_drop": dict(totals.would_drop),
        "untracked": totals.untracked,
        "unparsed": dict(totals.unparsed),
        "limits": limits(snapshot.limits),
        "unclassified": {
            way: {"packets": count.packets, "bytes": count.bytes}
            for way, count in snapshot.unclassified.items()
        },
        "protected": [{"address": str(p), "why": why} for p, why in snapshot.protected],
        "maps": [asdict(info) for info in snapshot.maps],
        "invariants": dict(snapshot.invariants),
    }


def chosen_sources(snapshot: Snapshot, *, sort: str, count: int | None, only: Filter) -> Rows:
    """Return the rows of the sources that pass a filter, sorted by a word of `TOP_SORTS`."""
    columns = snapshot.sources.columns(snapshot.clock)
    rows = np.flatnonzero(only.mask(columns))
    return order(columns, TOP_SORTS[sort], rows=rows, limit=count)


def top(snapshot: Snapshot, rows: Iterable[int]) -> list[dict[str, Any]]:
    """Return these rows of the sources."""
    sources = snapshot.sources
    first_s = snapshot.clock.unix_s(sources.first_ns)
    last_s = snapshot.clock.unix_s(sources.last_ns)
    sent = snapshot.sent
    return [
        {
            "address": str(sources.address(row)),
            "packets": int(sources.packets[row]),
            "bytes": int(sources.bytes[row]),
            "pps": _plain(sources.pps[row]),
            "bps": _plain(sources.bps[row]),
            "dropped": int(sources.dropped[row]),
            "would_drop": int(sources.would_drop[row]),
            "sent_packets": int(sent.packets[row]) if sent else None,
            "sent_bytes": int(sent.bytes[row]) if sent else None,
            "sent_bps": _plain(sent.bps[row]) if sent else None,
            "state": SourceState(int(sources.state[row])).label,
            "first_seen_s": _plain(first_s[row]),
            "last_seen_s": _plain(last_s[row]),
        }
        for row in rows
    ]


def blocks(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return every block in force."""
    held = snapshot.blocks
    # The kernel ends a block by a clock that is a little behind.
    left_s = np.maximum(0, held.expires_ns.astype(np.float64) - snapshot.clock.monotonic_ns) / 1e9
    return [
        {
            "address": str(held.prefix(row)),
            "source": "auto" if held.automatic[row] else "manual",
            "reason": held.reason[row],
            "expires_in_s": _plain(left_s[row]) if held.expires_ns[row] else None,
            "packets": int(held.packets[row]),
            "bytes": int(held.bytes[row]),
        }
        for row in range(len(held))
    ]


def allowed(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return the allow list."""
    held = snapshot.allowed
    return [
        {
            "address": str(held.prefix(row)),
            "packets": int(held.packets[row]),
            "bytes": int(held.bytes[row]),
        }
        for row in range(len(held))
    ]


def classes(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return every traffic class."""
    held = snapshot.classes
    return [
        {
            "class": key.name,
            "direction": key.direction,
            "action": held.action[row],
            "rate_bps": int(held.rate_bps[row]),
            "burst_bytes": int(held.burst_bytes[row]),
            "tokens_bytes": _whole(held.tokens_bytes[row]),
            "packets": int(held.packets[row]),
            "bytes": int(held.bytes[row]),
            "dropped_packets": int(held.dropped_packets[row]),
            "dropped_bytes": int(held.dropped_bytes[row]),
            "marked_packets": int(held.marked_packets[row]),
            "bps": _plain(held.bps[row]),
            "backlog_bytes": int(held.backlog_bytes[row]),
            "priority": held.wanted[row].priority,
            "parent": held.wanted[row].parent or None,
            "addresses": [str(prefix) for prefix in held.members[row]],
        }
        for row, key in enumerate(held.keys)
    ]


def backends(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return every backend of every VIP."""
    held = snapshot.backends
    vips = {vip.service: vip for vip in snapshot.vips.wanted}
    return [
        {
            "vip": str(held.vip[row]),
            "backend": wanted.service.endpoint,
            "protocol": wanted.service.protocol,
            "algorithm": vips[held.vip[row]].algorithm,
            "mode": vips[held.vip[row]].mode,
            "weight": wanted.weight,
            "state": wanted.state,
            "healthy": held.healthy[row],
            "reachable": held.reachable[row],
            "share": _plain(held.share[row]),
            "measured_share": _plain(held.measured_share[row]),
            "connections": int(held.connections[row]),
            "new": int(held.opened[row]),
            "new_per_s": _plain(held.new_per_s[row]),
            "packets": int(held.packets[row]),
            "bytes": int(held.bytes[row]),
            "pps": _plain(held.pps[row]),
            "bps": _plain(held.bps[row]),
        }
        for row, wanted in enumerate(held.wanted)
    ]


def chosen_connections(held: Connections, clock: Clock, *, count: int | None, only: Filter) -> Rows:
    """Return the rows of the flows that pass a filter, those of the most packets first."""
    columns = held.columns(clock)
    return order(columns, "packets", rows=np.flatnonzero(only.mask(columns)), limit=count)


def connections(held: Connections, clock: Clock, rows: Iterable[int]) -> list[dict[str, Any]]:
    """Return these rows of the flows."""
    columns = held.columns(clock)
    age_s, idle_s = columns["age_s"].values, columns["idle_s"].values
    answer = []
    for row in rows:
        flow, backend = held.flow(row), held.backends[held.backend[row]]
        answer.append(
            {
                "client": flow.client.endpoint,
                "vip": str(flow.vip),
                "backend": backend.endpoint if backend else None,
                "protocol": flow.vip.protocol,
                "state": CONNECTION_STATES[held.state[row]],
                "packets": int(held.packets[row]),
                "bytes": int(held.bytes[row]),
                "age_s": _plain(age_s[row]),
                "idle_s": _plain(idle_s[row]),
            }
        )
    return answer


def events(told: Sequence[Event]) -> list[dict[str, Any]]:
    """Return events, oldest first."""
    return [
        {
            "seq": event.seq,
            "time": _plain(event.time_s),
            "kind": event.kind,
            "address": event.address or None,
            "detail": event.detail,
        }
        for event in told
    ]


def acts(done: Iterable[Act]) -> list[dict[str, Any]]:
    """Return what was done, in the order that it is given."""
    return [
        {
            "id": act.id,
            "time": _plain(act.time_s),
            "user": act.user,
            "terminal": act.terminal,
            "what": act.what,
            "target": act.target,
            "old": act.old,
            "new": act.new,
            "result": act.result,
            "undone": act.undone,
            "undoes": act.undoes or None,
            "reverts_at": act.reverts_at_s,
        }
        for act in done
    ]


def everything(snapshot: Snapshot, told: Sequence[Event]) -> dict[str, Any]:
    """Return each list there is; of the demo, and of a recording.

    Args:
        snapshot: The latest.
        told: What happened up to it.
    """
    rows = chosen_sources(snapshot, sort="packets", count=None, only=Filter.parse("", TOP_FIELDS))
    iface = next((interface.name for interface in snapshot.interfaces), "")
    flows = snapshot.connections or Connections.empty()
    every_flow = Filter.parse("", CONNECTION_FIELDS)
    flow_rows = chosen_connections(flows, snapshot.clock, count=None, only=every_flow)
    return {
        "status": status(snapshot, iface),
        "top": top(snapshot, rows.tolist()),
        "blocks": blocks(snapshot),
        "allowed": allowed(snapshot),
        "events": events(told),
        "classes": classes(snapshot),
        "backends": backends(snapshot),
        "connections": connections(flows, snapshot.clock, flow_rows.tolist()),
    }


def _whole(value: Any) -> int | None:
    return round(float(value)) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Return a number that JSON has: no NaN, no numpy type, microseconds at the most."""
    if isinstance(value, bool | int):
        return value
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None
