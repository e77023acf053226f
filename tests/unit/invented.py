# SPDX-License-Identifier: Apache-2.0
"""Snapshots with a value of its own in every field, made from the types of the fields."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from ebpftop import model
from ebpftop.model import Snapshot

WORDS = {
    "direction": model.DIRECTIONS,
    "action": model.SHAPINGS,
    "protocol": model.SERVICE_PROTOCOLS,
    "algorithm": model.ALGORITHMS,
    "mode": model.BALANCING_MODES,
    "no_backend": model.NO_BACKEND_CHOICES,
    "state": model.BACKEND_STATES,
}
SMALL = {"state": 4, "automatic": 2, "length": 129, "vip": 3, "backend": 3, "port": 65_536}


class Inventor:
    """Makes values up; the same seed makes the same ones.

    Args:
        seed: Of the random numbers.
        rows: Rows of each table.
    """

    def __init__(self, seed: int, rows: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        self._rows = rows

    def snapshot(self, sequence: int = 0) -> Snapshot:
        """Make a snapshot up, taken `sequence` seconds after the first."""
        made: Snapshot = self.value(Snapshot, "")
        clock = model.Clock(10**15 + sequence * 10**9, 1.7e9 + sequence)
        return type(made)(
            **{f.name: getattr(made, f.name) for f in fields(made)} | {"clock": clock}
        )

    def value(self, hint: Any, name: str) -> Any:
        """Make up a value of a type for the field called `name`."""
        origin, inner = get_origin(hint), get_args(hint)
        if is_dataclass(hint):
            hints = get_type_hints(hint)
            return hint(**{f.name: self.value(hints[f.name], f.name) for f in fields(hint)})  # type: ignore[operator]
        if origin is np.ndarray:
            return self._column(np.dtype(get_args(inner[1])[0]), name)
        if origin in (Union, types.UnionType):
            return self.value(inner[0], name)
        if origin is Literal:
            return inner[-1]
        if origin is tuple and inner[-1] is not Ellipsis:
            return tuple(self.value(each, name) for each in inner)
        if origin is tuple:
            return tuple(self.value(inner[0], name) for _ in range(3))
        if origin is Sequence:
            return [self.value(inner[0], name) for _ in range(self._rows)]
        if origin is Mapping:
            keys = (1, 2, 70_000) if inner[0] is int else (*model.VERDICTS, "another")
            return {key: self.value(inner[1], name) for key in keys}
        if hint is Any:  # as JSON has it
            numbers = [self.value(int, name), self.value(float, name), None, True]
            return [{"state": self.value(str, name), "targets": numbers}, {}]
        return self._plain(hint, name)

    def _plain(self, hint: type, name: str) -> Any:
        if hint is bool:
            return bool(self._random.integers(2))
        if hint is int:
            return int(self._random.integers(1, SMALL.get(name, 1 << 40)))
        if hint is float:
            return float(self._random.random() * 1e6) + 1
        assert hint is str, f"{name} is a {hint}: say here how to make one up"
        words = WORDS.get(name)
        return str(self._random.choice(words)) if words else f"{name} {self._random.integers(9999)}"

    def _column(self, kind: np.dtype[Any], name: str) -> Any:
        if kind == np.object_:
            texts = [f"{name} {self._random.integers(9999)}" for _ in range(self._rows)]
            return np.array(texts, np.object_)
        if kind.kind == "f":
            column = self._random.random(self._rows) * 1e6
            column[:1] = np.nan
            return column
        largest = min(SMALL.get(name, 1 << 64), np.iinfo(kind).max + 1)
        return self._random.integers(0, largest, self._rows, np.uint64).astype(kind)


def differences(one: Any, other: Any, path: str = "snapshot") -> list[str]:
    """Return where two values differ, by the names of their fields."""
    if is_dataclass(one) and type(one) is type(other):
        names = [field.name for field in fields(one)]
        found = [differences(getattr(one, n), getattr(other, n), f"{path}.{n}") for n in names]
        return [each for group in found for each in group]
    if isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and np.array_equal(
            one, other, equal_nan=one.dtype.kind == "f"
        )
        return [] if same else [path]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return [path]
        return [d for key in one for d in differences(one[key], other[key], f"{path}[{key}]")]
    if isinstance(one, Sequence) and not isinstance(one, str):
        if len(one) != len(other):
            return [path]
        pairs = zip(one, other, strict=True)
        return [d for i, pair in enumerate(pairs) for d in differences(*pair, f"{path}[{i}]")]
    return [] if one == other and type(one) is type(other) else [path]
