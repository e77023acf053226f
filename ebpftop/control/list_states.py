# SPDX-License-Identifier: Apache-2.0
"""Who is blocked and allowed, as the audit log has it: plain values that can be put back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Rule
from ebpftop.control.rules import RuleTable
from ebpftop.format import printable
from ebpftop.kernel.clock import coarse_ns
from ebpftop.kernel.maps import Map
from ebpftop.model import Prefix

States = Mapping[Prefix, Any]
"""By prefix: what holds for exactly it, None for nothing."""

_FEW = 16
_NS = 1_000_000_000


def block_states(table: RuleTable, automatic: Map, prefixes: Sequence[Prefix]) -> States:
    """Return the block of each prefix that has not ended: its reason, its end, who set it."""
    now_ns, offset_s = coarse_ns(), time.time() - time.monotonic()
    auto = _automatic(automatic, prefixes)
    states: dict[Prefix, Any] = {}
    for prefix, slot in zip(prefixes, table.slots_of(prefixes, Rule.BLOCKED), strict=True):
        state = None
        if slot is not None:
            rule = table.rules[slot]
            until_ns = int(rule["until_ns"])
            if until_ns == 0 or until_ns > now_ns:
                text = printable(bytes(rule["text"]).decode(errors="replace"))
                state = {"until_s": _unix_s(until_ns, offset_s), "reason": text, "by": "manual"}
        if state is None and (found := auto.get((prefix.high, prefix.low))) is not None:
            until_ns = int(found["until_ns"])
            if until_ns > now_ns and _can_be_automatic(prefix):
                ends_s = _unix_s(until_ns, offset_s)
                limit = layout.REASONS[int(found["reason"])].removeprefix("limit-")
                state = {"until_s": ends_s, "reason": f"{limit} limit", "by": "auto"}
        states[prefix] = state
    return states


def _can_be_automatic(prefix: Prefix) -> bool:
    return prefix.is_host if prefix.is_ipv4 else prefix.length == 64


def _automatic(held: Map, prefixes: Sequence[Prefix]) -> dict[tuple[int, int], Any]:
    if len(prefixes) > _FEW:
        keys, values = held.read()
        pairs = zip(keys["high"].tolist(), keys["low"].tolist(), strict=True)
        return dict(zip(pairs, values.copy(), strict=True))
    found = {(prefix.high, prefix.low): held.get((prefix.high, prefix.low)) for prefix in prefixes}
    return {key: value[0] for key, value in found.items() if value is not None}


def allow_states(table: RuleTable, prefixes: Sequence[Prefix]) -> States:
    """Return whether each prefix is on the allow list: True or None."""
    slots = table.slots_of(prefixes, Rule.ALLOWED)
    return {p: None if slot is None else True for p, slot in zip(prefixes, slots, strict=True)}


def until_ns(until_s: float | None) -> int:
    """Turn an end in seconds since 1970 into CLOCK_MONOTONIC; None (for ever) is 0."""
    if until_s is None:
        return 0
    return time.monotonic_ns() + int((until_s - time.time()) * _NS)


def unix_s(for_s: float | None) -> float | None:
    """Return when a block of so many seconds ends, in seconds since 1970; None is for ever."""
    return None if for_s is None else round(time.time() + for_s, 3)


def _unix_s(at_ns: int, offset_s: float) -> float | None:
    return round(at_ns / _NS + offset_s, 3) if at_ns else None


def packed(states: States) -> Any:
    """Return the states as JSON has them: one as it is, many in groups that share one."""
    if len(states) == 1:
        return next(iter(states.values()))
    groups: dict[Any, dict[str, Any]] = {}
    for prefix, state in states.items():
        key = tuple(state.values()) if isinstance(state, dict) else state
        group = groups.get(key)
        if group is None:
            group = groups[key] = {"state": state, "targets": []}
        group["targets"].append(str(prefix))
    return list(groups.values())


def unpacked(value: Any, target: str) -> States:
    """Return what `packed` was given; `target` names the one prefix of a single state."""
    if not isinstance(value, list):
        return {Prefix.parse(target): value}
    return {
        Prefix.parse(text): group["state"]
        for group in value
        for text in group["targets"]
    }  # fmt: skip
