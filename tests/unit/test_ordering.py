# SPDX-License-Identifier: Apache-2.0
"""An order that is worked out as far as somebody looks is the order of all rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpftop import ordering
from ebpftop.model import Column
from ebpftop.ordering import Ordered
from ebpftop.ranking import order


def table(rates: list[float]) -> dict[str, Column]:
    """Return rows with these rates, their addresses in another order."""
    count = len(rates)
    low = (np.arange(count, dtype=np.uint64) * np.uint64(7919)) % np.uint64(10_007)
    return {
        "address": Column("address", np.zeros(count, np.uint64), low),
        "pps": Column("number", np.array(rates, np.float64)),
        "other": Column("number", np.zeros(count)),
    }


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan")]), max_size=40),
    st.booleans(),
    st.sets(st.integers(0, 39)),
    st.data(),
)
def test_it_is_the_order_of_all_rows(
    rates: list[float], descending: bool, chosen: set[int], data: st.DataObject
) -> None:
    columns = table(rates)
    rows = data.draw(st.sampled_from([None, np.array(sorted(chosen), np.intp)]))
    if rows is not None:
        rows = rows[rows < len(rates)]
    whole = order(columns, "pps", descending=descending, rows=rows).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "FIRST_ROWS", 3)
        looked = Ordered.by(columns, "pps", descending=descending, rows=rows)
        places = [looked.position(row) for row in range(len(rates) + 1)]

        assert looked.first(2).tolist() == whole[:3]
        assert len(looked) == len(whole)
        assert places == [
            whole.index(row) if row in whole else None for row in range(len(rates) + 1)
        ]
        assert [looked[at] for at in range(len(whole))] == whole
        assert looked.first().tolist() == whole


def test_rows_that_nobody_looks_at_are_not_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    def sort(limit: int | None) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        asked.append(limit)
        return np.arange(2000 if limit is None else limit)

    looked = Ordered(2000, sort, lambda row: row)

    assert looked[ordering.FIRST_ROWS - 1] == ordering.FIRST_ROWS - 1
    assert looked.position(1999) == 1999
    assert asked == [ordering.FIRST_ROWS]
    assert looked[1999] == 1999
    assert asked == [ordering.FIRST_ROWS, None]
