# SPDX-License-Identifier: Apache-2.0
"""The order of a table that is held while its figures go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ebpftop.model import Column

MOST_HELD = 2000
"""Rows whose order is held; those behind them follow in the order of the moment."""


class HeldOrder:
    """Remembers rows by what they are about, and puts them first again, in their order.

    Args:
        fields: The columns of the table.
        names: The columns that tell rows apart.
        ordered: The rows in the order to hold.
    """

    def __init__(
        self, fields: Mapping[str, Column], names: Sequence[str], ordered: NDArray[np.intp]
    ) -> None:
        self._names = tuple(names)
        kept = ordered[:MOST_HELD]
        self._parts = [part[kept] for part in self._identity(fields)]
        keys = zip(*(part.tolist() for part in self._parts), strict=True)
        self._place = {key: place for place, key in enumerate(keys)}

    def apply(self, fields: Mapping[str, Column], ordered: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return `ordered` with the rows that are held first, in their order."""
        parts = self._identity(fields)
        # One part rules nearly all rows out before any of them becomes a Python object.
        may_be = ordered[np.isin(parts[-1][ordered], self._parts[-1])]
        keys = zip(*(part[may_be].tolist() for part in parts), strict=True)
        places = [(self._place[key], row) for key, row in zip(keys, may_be.tolist(), strict=True)
                  if key in self._place]  # fmt: skip
        held = np.array([row for _, row in sorted(places)], np.intp)
        return np.concatenate([held, ordered[~np.isin(ordered, held)]])

    def _identity(self, fields: Mapping[str, Column]) -> list[NDArray[np.generic]]:
        parts: list[NDArray[np.generic]] = []
        for name in self._names:
            column = fields[name]
            values = column.values
            if column.labels:
                # A word's code may be another one in the next snapshot.
                values = np.array(column.labels, np.object_)[values]
            parts += [each for each in (column.length, values, column.low) if each is not None]
        return parts
