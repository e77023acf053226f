# SPDX-License-Identifier: Apache-2.0
"""Acts in words: what each changed, and what taking it back would do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ebpftop import format as fmt
from ebpftop.model import Act

_NONE = {
    "block": "not blocked", "allow": "not allowed", "class": "no class", "vip": "no VIP",
    "backends": "no backend",
}  # fmt: skip
_PARTS = {"class": "members", "vip": "backends"}
"""What of a state is changed by acts of its own."""
_MOST = 160


def change(act: Act) -> str:
    """Return what an act changed, or what it was meant to, in one line."""
    if act.facet == "limits":
        return _differences(act.old, act.new) or "no limit changed"
    if act.facet in _PARTS and isinstance(act.old, dict) and isinstance(act.new, dict):
        part = _PARTS[act.facet]
        return _differences(act.old, {**act.new, part: act.old.get(part)})
    if not act.facet:
        return ""
    before, after = state(act.facet, act.old, act.time_s), state(act.facet, act.new, act.time_s)
    return fmt.printable(after if before == after else f"{before} → {after}", _MOST)


def going_back(act: Act, now_s: float) -> str:
    """Return what holds once an act is taken back, in one line."""
    if act.facet == "limits":
        return _differences(act.new, act.old) or "the limits stay as they are"
    return state(act.facet, act.old, now_s)


def state(facet: str, value: Any, now_s: float) -> str:
    """Return one state of a facet in words.

    Args:
        facet: A word of `model.acts.FACETS`.
        value: The state, as the audit log has it.
        now_s: The time that durations are from, in seconds since 1970.
    """
    try:
        return fmt.printable(_state(facet, value, now_s), _MOST)
    except (AttributeError, KeyError, TypeError, ValueError):
        return fmt.printable(repr(value), 60)  # another version wrote it


def _state(facet: str, value: Any, now_s: float) -> str:
    if value is None or value is False:
        return _NONE.get(facet, "none")
    match facet:
        case "block" | "allow" if isinstance(value, list):
            return _groups(facet, value, now_s)
        case "block":
            ends = value.get("until_s")
            left = "for ever" if ends is None else f"for {fmt.duration(max(0.0, ends - now_s))}"
            why = f", {value['reason']}" if value.get("reason") else ""
            return f"blocked {left}{why}"
        case "allow":
            return "allowed"
        case "member":
            if isinstance(value, str):
                return f"in {value}"
            held = [f"{name} ({way})" for way, name in sorted(value.items()) if name]
            return f"in {', '.join(held)}" if held else "in no class"
        case "backends":
            return _backends(value)
        case "class" | "vip":
            return ", ".join(_value(name, each) for name, each in value.items() if each)
        case "classes":
            return f"{len(value)} classes" if len(value) != 1 else "1 class"
    return str(value)


def _groups(facet: str, groups: list[Any], now_s: float) -> str:
    parts = [f"{len(g['targets']):,} {state(facet, g['state'], now_s)}" for g in groups[:3]]
    return "; ".join(parts + (["..."] if len(groups) > 3 else []))


def _backends(states: Mapping[str, Any]) -> str:
    """Return backends in words; the endpoint of a single one is in the act's target."""
    told = {
        endpoint: f"weight {each['weight']}, {each['state']}" if each else _NONE["backends"]
        for endpoint, each in states.items()
    }
    if len(told) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{endpoint} {words}" for endpoint, words in told.items())


def _differences(old: Any, new: Any) -> str:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return ""
    changed = [name for name in new if old.get(name) != new[name]]
    parts = (f"{_label(n)} {_safe(n, old.get(n))} → {_safe(n, new[n])}" for n in changed)
    return fmt.printable(", ".join(parts), _MOST)


def _safe(name: str, value: Any) -> str:
    try:
        return _amount(name, value)
    except (TypeError, ValueError):
        return fmt.printable(repr(value), 40)


def _label(name: str) -> str:
    return name.removesuffix("_bps").removesuffix("_bytes").removesuffix("_s").replace("_", " ")


def _value(name: str, value: Any) -> str:
    if name == "members":
        return f"{len(value)} addresses" if len(value) != 1 else "1 address"
    if name == "backends":
        return f"{len(value)} backends" if len(value) != 1 else "1 backend"
    return f"{_label(name)} {_amount(name, value)}"


def _amount(name: str, value: Any) -> str:
    match name:
        case "pps" | "syn" | "bps" if not value:
            return "off"
        case "bps" | "rate_bps":
            return fmt.rate_text(int(value))
        case "dry_run":
            return "on" if value else "off"
        case "burst_bytes":
            return fmt.size(value)
        case "members" | "backends":
            return str(len(value or ()))
        case "check":
            return _check(value)
        case "of_policy":
            return "yes" if value else "no"
    if name.endswith("_s"):
        return fmt.duration_text(float(value))
    return str(value) if value != "" else "none"


def _check(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "off"
    rest = {name: each for name, each in value.items() if name not in ("kind", "interval_s")}
    more = "".join(f", {_value(name, each)}" for name, each in rest.items() if each)
    return f"{value['kind']} every {fmt.duration_text(float(value['interval_s']))}{more}"


def when(act: Act) -> str:
    """Return the local time of an act."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(act.time_s))
