# SPDX-License-Identifier: Apache-2.0
"""An order that is worked out as far as somebody looks: few of many rows cost little."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ebpftop.model import Column
from ebpftop.ranking import Rows, order, place_of

FIRST_ROWS = 512
"""Rows that are sorted in any case: more than a screen shows."""


class Ordered:
    """Row numbers in an order.

    Args:
        length: How many there are.
        sort: Returns as many of them as it is asked for, or all for None.
        place: Returns the position of a row that is not among the first, None for nowhere.
    """

    def __init__(
        self, length: int, sort: Callable[[int | None], Rows], place: Callable[[int], int | None]
    ) -> None:
        self._length = length
        self._sort = sort
        self._place = place
        self._rows = sort(FIRST_ROWS)

    @classmethod
    def of(cls, rows: Rows) -> Ordered:
        """Return an order that is known already."""
        return cls(len(rows), lambda _: rows, lambda _: None)

    @classmethod
    def by(
        cls, columns: Mapping[str, Column], key: str, *, descending: bool, rows: Rows | None = None
    ) -> Ordered:
        """Return the order of a field; arguments as of `ranking.order`."""
        # Nothing else of the table is kept for as long as the order is.
        needed = {name: columns[name] for name in {key, "address"} & columns.keys()}
        length = len(columns[key].values) if rows is None else len(rows)
        return cls(
            length,
            lambda limit: order(needed, key, descending=descending, rows=rows, limit=limit),
            lambda row: place_of(row, needed, key, descending=descending, rows=rows),
        )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> int:
        return int(self.first(position + 1)[position])

    def first(self, count: int | None = None) -> Rows:
        """Return at least that many rows, or all for None, as far as there are so many."""
        wanted = self._length if count is None else min(count, self._length)
        if wanted > len(self._rows):
            self._rows = self._sort(None)
        return self._rows

    def position(self, row: int) -> int | None:
        """Return the position of a row, None where it is not among them."""
        found = np.flatnonzero(self._rows == row)
        if len(found):
            return int(found[0])
        return self._place(row) if len(self._rows) < self._length else None
