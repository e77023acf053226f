# SPDX-License-Identifier: Apache-2.0
"""A field of a table, as sorting and filtering see it, and the clock of its times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One field of a table, as sorting and filtering see it."""

    kind: Literal["number", "address", "text"]
    """How values compare: as numbers, as 128-bit addresses or prefixes, or as text."""
    values: NDArray[Any]
    """The numbers; the upper 64 bits of the addresses; or, for text, codes into `labels`
    where there are labels and the strings themselves (an object array) where not."""
    low: U64 | None = None
    """The lower 64 bits of the addresses."""
    labels: tuple[str, ...] = ()
    """The words that text codes stand for."""
    length: NDArray[np.uint8] | None = None
    """Prefix lengths of the addresses over 128 bits; None where all are single addresses."""


@dataclass(frozen=True, slots=True)
class Clock:
    """One instant in both clocks, to turn kernel times into wall times."""

    monotonic_ns: int
    """CLOCK_MONOTONIC."""
    wall_s: float
    """Seconds since 1970 at the same instant."""

    def unix_s(self, at_ns: U64) -> F64:
        """Turn CLOCK_MONOTONIC nanoseconds into seconds since 1970."""
        return self.wall_s - (self.monotonic_ns - at_ns.astype(np.float64)) / 1e9
