# SPDX-License-Identifier: Apache-2.0
"""What holds for the values of every snapshot, asked of those that a file claims to be one.

Types are checked before, by msgspec. What is asked here is what the panes rely on: that numbers
are finite, times are times, and words are words they know.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop import model
from ebpftop.sources.recording.numbers import DamagedError

LATEST_S = 253_402_300_799.0
"""The end of the year 9999, in seconds since 1970."""

MAX_NS = (1 << 63) - 1
"""The largest time of CLOCK_MONOTONIC."""

_LARGEST = 1e18
_ALL_BITS = (1 << 64) - 1
_WORDS: dict[tuple[type[Any], str], tuple[str, ...]] = {
    (model.ClassKey, "direction"): model.DIRECTIONS,
    (model.TrafficClass, "action"): model.SHAPINGS,
    (model.Service, "protocol"): model.SERVICE_PROTOCOLS,
    (model.Vip, "algorithm"): model.ALGORITHMS,
    (model.Vip, "mode"): model.BALANCING_MODES,
    (model.Vip, "no_backend"): model.NO_BACKEND_CHOICES,
    (model.Backend, "state"): model.BACKEND_STATES,
}
_RANGES: dict[tuple[type[Any], str], tuple[float, float]] = {
    (model.Prefix, "high"): (0, _ALL_BITS),
    (model.Prefix, "low"): (0, _ALL_BITS),
    (model.Prefix, "length"): (0, 128),
    (model.Service, "port"): (0, 65_535),
    (model.Clock, "monotonic_ns"): (0, MAX_NS),
    (model.Clock, "wall_s"): (0, LATEST_S),
    (model.Event, "time_s"): (0, LATEST_S),
    (model.Act, "time_s"): (0, LATEST_S),
    (model.Act, "reverts_at_s"): (0, LATEST_S),
    (model.Snapshot, "interval_s"): (1e-9, 1e9),
    (model.Snapshot, "uptime_s"): (0, 1e12),
}


def check(kind: type[Any], name: str, value: Any) -> None:
    """Look at a field of a dataclass and at everything in it.

    Raises:
        DamagedError: No snapshot holds such a value.
    """
    if value is None or isinstance(value, bool):
        return
    words, span = _WORDS.get((kind, name)), _RANGES.get((kind, name))
    if words is not None and value not in words:
        raise DamagedError(f"a {name} that means nothing")
    if span is not None and not span[0] <= value <= span[1]:
        raise DamagedError(f"a {name} out of its range")
    _check_within(value)
    if isinstance(value, model.Totals) and not value.verdicts.keys() >= set(model.VERDICTS):
        raise DamagedError("a verdict is not counted")


def _check_within(value: Any) -> None:
    if isinstance(value, float) and not abs(value) <= _LARGEST:
        raise DamagedError("a number that is none")
    if is_dataclass(value) and not isinstance(value, type):
        for name in _names(type(value)):
            check(type(value), name, getattr(value, name))
    elif isinstance(value, dict):
        for each in value.values():
            _check_within(each)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_within(each)


def known_rates(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column in which what is no number is unknown."""
    if column.dtype.kind != "f":
        return column
    beyond = np.abs(column) > _LARGEST
    return np.where(beyond, np.nan, column) if beyond.any() else column


def check_table(table: Any) -> None:
    """Look at the columns of a table.

    Raises:
        DamagedError: A column holds what means nothing, or points to nothing.
    """
    for name, limit in _limits(table):
        column = getattr(table, name)
        if len(column) and int(column.max()) >= limit:
            raise DamagedError(f"a {name} that means nothing")
    if isinstance(table, model.Classes) and not set(table.action) <= set(model.SHAPINGS):
        raise DamagedError("an action that means nothing")


def _limits(table: Any) -> list[tuple[str, int]]:
    if isinstance(table, model.Sources):
        return [("state", len(model.SourceState))]
    if isinstance(table, model.Blocks):
        return [("length", 129), ("automatic", 2)]
    if isinstance(table, model.Allowed):
        return [("length", 129)]
    if isinstance(table, model.Connections):
        return [
            ("state", len(model.CONNECTION_STATES)),
            ("vip", len(table.vips)),
            ("backend", len(table.backends)),
            ("port", 65_536),
        ]
    return []


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
