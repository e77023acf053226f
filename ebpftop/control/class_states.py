# SPDX-License-Identifier: Apache-2.0
"""The classes and who is in them, as the audit log has it: plain values that can be put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ebpftop.control.class_rules import check_class, check_together
from ebpftop.control.class_table import ClassTable
from ebpftop.errors import UsageError
from ebpftop.model import DIRECTIONS, ClassKey, Prefix, TrafficClass

_INGRESS = " (ingress)"


@dataclass(frozen=True, slots=True)
class ClassRequest:
    """A class as a policy wants it."""

    wanted: TrafficClass
    """What it is."""
    members: Sequence[Prefix]
    """Who is in it."""


def key_of(text: str) -> ClassKey:
    """Return the key that was written as `text`."""
    name = text.removesuffix(_INGRESS)
    return ClassKey(name, "egress" if name == text else "ingress")


def class_state(table: ClassTable, key: ClassKey) -> dict[str, Any] | None:
    """Return a class by the names of `TrafficClass`, and its members; None where there is none."""
    slot = table.slot_of(key)
    if slot is None:
        return None
    wanted = table.wanted(slot)
    return {
        "rate_bps": wanted.rate_bps,
        "burst_bytes": wanted.burst_bytes,
        "action": wanted.action,
        "priority": wanted.priority,
        "parent": wanted.parent,
        "members": sorted(str(p) for p, _, owner in table.members() if owner == slot),
    }


def member_state(table: ClassTable, prefix: Prefix) -> dict[str, str | None]:
    """Return the name of the class that exactly `prefix` is in, for each direction."""
    held: dict[str, str | None] = dict.fromkeys(DIRECTIONS)
    for member, direction, slot in table.members():
        if member == prefix:
            held[direction] = table.key(slot).name
    return held


def whole_state(table: ClassTable) -> dict[str, Any]:
    """Return all classes, by their keys as text."""
    keys = [table.key(slot) for slot in table.slots()]
    return {str(key): class_state(table, key) for key in keys}


def requests(whole: Mapping[str, Any]) -> Sequence[ClassRequest]:
    """Return what `whole_state` told, as a policy would ask for it."""
    found = []
    for text, state in whole.items():
        values = {name: value for name, value in state.items() if name != "members"}
        members = [Prefix.parse(member) for member in state["members"]]
        found.append(ClassRequest(TrafficClass(key_of(text), **values), members))
    return found


def check_requests(requests: Sequence[ClassRequest]) -> None:
    """Refuse classes that do not fit together.

    Raises:
        UsageError: Says which and why.
    """
    keys: set[ClassKey] = set()
    for request in requests:
        check_class(request.wanted)
        if request.wanted.key in keys:
            raise UsageError(f"there are two classes {request.wanted.key}", "name them apart")
        keys.add(request.wanted.key)
    check_together([request.wanted for request in requests])
    members: dict[tuple[Prefix, str], str] = {}
    for request in requests:
        key = request.wanted.key
        if request.members and any(r.wanted.parent == key.name for r in requests):
            raise UsageError(f"{key} is a ceiling over other classes", "assign to one of those")
        for prefix in request.members:
            other = members.setdefault((prefix, key.direction), key.name)
            if other != key.name:
                raise UsageError(f"{prefix} is in {other} and in {key.name}", "take one away")
