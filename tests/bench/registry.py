# SPDX-License-Identifier: Apache-2.0
"""The measurements there are. A module of this folder that declares one is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tests.bench
from tests.bench.figures import Row


@dataclass(frozen=True, slots=True)
class Effort:
    """How long measurements may take."""

    rounds: int
    """How often programs take their turns."""
    watch_s: float
    """How long a process is watched."""


QUICK = Effort(rounds=9, watch_s=4)
"""To try the measurements themselves."""
NORMAL = Effort(rounds=41, watch_s=60)
"""All of it in less than ten minutes."""
LONG = Effort(rounds=301, watch_s=3600)
"""Watches processes for an hour."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One table's worth of measuring."""

    name: str
    """For `--only`."""
    title: str
    """Of its table."""
    run: Callable[[Effort], Sequence[Row]]
    """Measures; runs in a process of its own, as root."""
    place: int
    """Its table's place on the page."""
    note: str
    """How it is measured, in sentences."""
    watches: bool
    """Whether `Effort.watch_s` makes it longer: what `make bench-long` runs."""


_declared: dict[str, Measurement] = {}


def measurement(
    name: str, title: str, *, place: int, note: str = "", watches: bool = False
) -> Callable[[Callable[[Effort], Sequence[Row]]], Callable[[Effort], Sequence[Row]]]:
    """Declare the function below as a measurement; see `Measurement`.

    Raises:
        ValueError: Another one has that name.
    """

    def declare(run: Callable[[Effort], Sequence[Row]]) -> Callable[[Effort], Sequence[Row]]:
        if name in _declared:
            raise ValueError(f"there are two measurements called {name}")
        _declared[name] = Measurement(name, title, run, place, note, watches)
        return run

    return declare


def measurements() -> list[Measurement]:
    """Import every module beside this one, and return what they declare, in the page's order."""
    for module in pkgutil.iter_modules(tests.bench.__path__):
        if module.name != "__main__":
            importlib.import_module(f"tests.bench.{module.name}")
    return sorted(_declared.values(), key=lambda each: (each.place, each.name))
