# SPDX-License-Identifier: Apache-2.0
"""The fields by which panes filter and sort what has no such fields of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ebpftop.model import (
    Allowed,
    Backends,
    Classes,
    Column,
    Event,
    Inspection,
    MapInfo,
    Prefix,
    Program,
    ProgramFacts,
    Service,
    Vips,
)

_NO_ADDRESS = Prefix(0, 0, 0)

Fields = Mapping[str, Column]
"""A table, as sorting and filtering see it."""


def texts(words: Iterable[object]) -> Column:
    """Return a column of words."""
    return Column("text", np.array([str(word) for word in words], np.object_))


def numbers(values: Iterable[float | int | None]) -> Column:
    """Return a column of numbers; None is not known."""
    known = [np.nan if value is None else float(value) for value in values]
    return Column("number", np.array(known, np.float64))


def allowed_fields(allowed: Allowed) -> Fields:
    """Return the fields of the allow list, by the names of the command line."""
    return {
        "address": Column("address", allowed.high, allowed.low, length=allowed.length),
        "packets": Column("number", allowed.packets),
        "bytes": Column("number", allowed.bytes),
    }


def class_fields(classes: Classes) -> Fields:
    """Return the fields of traffic classes: the command line's, and what else a pane shows."""
    return {
        **classes.columns(),
        "dropped_pps": Column("number", classes.dropped_pps),
        "empty_in_s": numbers(classes.empty_in_s(row) for row in range(len(classes))),
        "parent": texts(wanted.parent for wanted in classes.wanted),
        "members": texts(" ".join(map(str, members)) for members in classes.members),
    }


def vip_fields(held: Vips, backends: Backends) -> Fields:
    """Return the fields of VIPs; their flows are those of their backends."""
    flows = [int(backends.connections[backends.rows_of(vip.service)].sum()) for vip in held.wanted]
    return {
        "vip": texts(vip.service for vip in held.wanted),
        "algorithm": texts(vip.algorithm for vip in held.wanted),
        "mode": texts(vip.mode for vip in held.wanted),
        "connections": numbers(flows),
        "new_per_s": Column("number", held.new_per_s),
        "pps": Column("number", held.pps),
        "bps": Column("number", held.bps),
        "dropped": Column("number", held.dropped),
    }


def backend_fields(held: Backends) -> Fields:
    """Return the fields of backends: the command line's, and what else a pane shows."""
    return {**held.columns(), "new_per_s": Column("number", held.new_per_s)}


def program_fields(programs: Sequence[Program], found: Inspection) -> Fields:
    """Return the fields of programs."""
    facts = [found.programs.get(program.id, ProgramFacts()) for program in programs]
    sizes = [each.translated_bytes for each in facts]
    return {
        "program": texts(program.name for program in programs),
        "hook": texts(program.hook for program in programs),
        "id": numbers(program.id for program in programs),
        "runs_per_s": numbers(each.runs_per_s for each in facts),
        "ns_per_run": numbers(each.ns_per_run for each in facts),
        "cpu_share": numbers(each.cpu_share for each in facts),
        "insns": numbers(None if size is None else size // 8 for size in sizes),
        "jited_bytes": numbers(each.jited_bytes for each in facts),
        "verified_insns": numbers(program.verified_insns for program in programs),
        "tag": texts(program.tag for program in programs),
    }


def map_fields(maps: Sequence[MapInfo]) -> Fields:
    """Return the fields of maps; `fill` is a part of 1."""
    parts = [
        None if info.entries is None or not info.max_entries else info.entries / info.max_entries
        for info in maps
    ]
    return {
        "map": texts(info.name for info in maps),
        "type": texts(info.type for info in maps),
        "entries": numbers(info.entries for info in maps),
        "max_entries": numbers(info.max_entries for info in maps),
        "fill": numbers(parts),
        "memory_bytes": numbers(info.memory_bytes for info in maps),
    }


def fixture_fields(found: Inspection) -> Fields:
    """Return the fields of what stands on the interfaces."""
    held = found.fixtures
    return {
        "interface": texts(fixture.interface for fixture in held),
        "place": texts(fixture.place for fixture in held),
        "what": texts(fixture.name for fixture in held),
        "id": texts(fixture.id for fixture in held),
        "whose": texts("ours" if fixture.ours else "other" for fixture in held),
        "packets": numbers(fixture.packets for fixture in held),
        "dropped": numbers(fixture.dropped for fixture in held),
    }


def listing_fields(lines: Sequence[str]) -> Fields:
    """Return the one field of a listing."""
    return {"line": texts(lines)}


def event_fields(events: Sequence[Event]) -> Fields:
    """Return the fields of events; `about` is what `address` is taken from, as it is shown."""
    found = [_address(event.address) for event in events]
    return {
        "kind": texts(event.kind for event in events),
        "about": texts(event.address for event in events),
        "address": Column(
            "address",
            np.array([prefix.high for prefix in found], np.uint64),
            np.array([prefix.low for prefix in found], np.uint64),
            length=np.array([prefix.length for prefix in found], np.uint8),
        ),
        "detail": texts(event.detail for event in events),
    }


def _address(text: str) -> Prefix:
    """Return the address of an event about a source, a VIP or a backend; else all of them."""
    for parse in (Prefix.parse, _service_address):
        try:
            return parse(text)
        except ValueError:
            continue
    return _NO_ADDRESS


def _service_address(text: str) -> Prefix:
    return Service.parse(text, None if "/" in text else "tcp").address
