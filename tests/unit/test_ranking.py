# SPDX-License-Identifier: Apache-2.0
"""Order, matching and rates against the same things said plainly in Python."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpftop import ranking
from ebpftop.model import F64, U64, Column
from ebpftop.ranking import RowKeys, match_rows, order, rates

Row = tuple[float, int, str, str, tuple[int, int]]
Key = tuple[int, int, int]

WORDS = ("passed", "Blocked", "allowed")
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf]), st.floats(-5, 5)
)
ADDRESSES = st.tuples(st.integers(0, 2), st.integers(0, 2**64 - 1) | st.integers(0, 3))
ROWS = st.lists(
    st.tuples(
        NUMBERS,
        st.integers(0, 2**64 - 1) | st.integers(0, 2),
        st.sampled_from(WORDS),
        st.sampled_from(["b", "B", "a", "ä", ""]),
        ADDRESSES,
    ),
    max_size=30,
)
FIELDS = ["rate", "count", "label", "text", "address"]
# Small numbers make keys that differ in one part only, and many that the hash must tell apart.
KEYS = st.lists(
    st.tuples(*[st.integers(0, 3) | st.integers(0, 2**64 - 1)] * 3), unique=True, max_size=40
)


@given(ROWS, st.sampled_from(FIELDS), st.booleans(), st.none() | st.integers(0, 35))
def test_order_is_the_order_of_plain_python(
    rows: list[Row], field: str, descending: bool, limit: int | None
) -> None:
    ordered = order(_columns(rows), field, descending=descending, limit=limit)
    assert ordered.tolist() == _plain_order(rows, field, descending, range(len(rows)))[:limit]


@given(ROWS, st.sampled_from(FIELDS), st.integers(0, 10), st.data())
def test_order_chooses_from_the_rows_it_is_given(
    rows: list[Row], field: str, limit: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), unique=True)) if rows else []
    ordered = order(_columns(rows), field, rows=np.array(sorted(chosen), np.intp), limit=limit)
    assert ordered.tolist() == _plain_order(rows, field, True, sorted(chosen))[:limit]


def test_equal_rows_keep_their_places_when_the_table_is_shuffled() -> None:
    # GIVEN sources that all send alike, in two orders
    addresses = np.arange(1000, dtype=np.uint64)
    shuffled = np.random.default_rng(7).permutation(addresses)

    # WHEN the first hundred are taken of each
    shown = [
        low[order(_table(low, np.ones(1000)), "pps", limit=100)] for low in (addresses, shuffled)
    ]

    # THEN they are the same hundred, in the same order
    assert shown[0].tolist() == shown[1].tolist() == list(range(100))


def test_zero_and_minus_zero_are_equal() -> None:
    columns = _table(np.array([3, 2, 1], np.uint64), np.array([0.0, -0.0, 0.0]))
    assert order(columns, "pps").tolist() == [2, 1, 0]


def test_ipv4_addresses_stay_together_and_sort_as_numbers() -> None:
    mapped = 0xFFFF << 32
    low = np.array([1, mapped | 10 << 24, 5, mapped | 9 << 24], np.uint64)
    high = np.array([0, 0, 0x20010DB8 << 32, 0], np.uint64)
    columns = {"address": Column("address", high, low)}
    assert order(columns, "address", descending=False).tolist() == [0, 3, 1, 2]
    assert order(columns, "address").tolist() == [2, 1, 3, 0]


def test_prefixes_of_one_address_sort_by_their_length() -> None:
    zeros = np.zeros(3, np.uint64)
    columns = {"address": Column("address", zeros, zeros, length=np.array([128, 8, 64], np.uint8))}
    assert order(columns, "address", descending=False).tolist() == [1, 2, 0]


@given(KEYS, st.data())
def test_rows_match_as_a_dictionary_matches_them(keys: list[Key], data: st.DataObject) -> None:
    previous = data.draw(st.permutations(keys)) if keys else []
    previous = previous[: data.draw(st.integers(0, len(keys)))]
    current = keys[data.draw(st.integers(0, len(keys))) :]
    rows = {key: row for row, key in enumerate(previous)}

    matched = match_rows(_row_keys(previous), _row_keys(current))
    assert matched.tolist() == [rows.get(key, -1) for key in current]


@pytest.mark.parametrize("change", ["nothing", "shuffled", "some gone, some new", "all new"])
def test_many_rows_match_whatever_became_of_their_places(change: str) -> None:
    rng = np.random.default_rng(3)
    previous = (_random(rng, 20_000), _random(rng, 20_000), _random(rng, 20_000))
    places = np.arange(20_000)
    if change != "nothing":
        places = rng.permutation(places)
    current = tuple(values[places] for values in previous)
    expected = places
    if change == "some gone, some new":
        current[2][::3] += np.uint64(1)
        expected = np.where(np.arange(20_000) % 3 == 0, -1, places)
    elif change == "all new":
        current[0][:] = ~current[0]
        expected = np.full(20_000, -1)

    matched = match_rows(previous, (current[0], current[1], current[2]))
    assert matched.tolist() == expected.tolist()


def test_keys_that_all_meet_in_one_slot_are_still_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # GIVEN a hash that sends every key to the first slot
    monkeypatch.setattr(ranking, "_ROUND_FACTORS", (np.uint64(0),) * 3)
    keys = [(row % 5, row % 7, row) for row in range(500)]

    # WHEN the rows come back in reverse, with one that is new
    current = [*reversed(keys), (0, 0, 1000)]

    # THEN each finds its own
    matched = match_rows(_row_keys(keys), _row_keys(current))
    assert matched.tolist() == [*reversed(range(500)), -1]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1),  # now
            st.integers(0, 2**64 - 1),  # before
            st.sampled_from([0, 99, 100, 101, 200]),  # began
            st.booleans(),  # was read before
        ),
        max_size=20,
    ),
    st.sampled_from([-1.0, 0.0, math.nan, 0.25, 1.0, 7.5]),
)
def test_rates_are_what_plain_python_makes_of_them(
    rows: list[tuple[int, int, int, bool]], interval_s: float
) -> None:
    # GIVEN rows that were read before, in reverse order, and rows that were not
    previous = [before for _, before, _, known in rows if known][::-1]
    numbers = iter(reversed(range(len(previous))))
    matched = [next(numbers) if known else -1 for *_, known in rows]

    def plain(now: int, before: int, began: int, known: bool) -> float:
        if not interval_s > 0 or not (known or began > 100):
            return math.nan
        grown = now - before if known and now >= before else now
        return grown / interval_s

    # WHEN they are turned into rates
    result = rates(
        np.array([now for now, *_ in rows], np.uint64),
        np.array(previous, np.uint64),
        np.array(matched, np.intp),
        np.array([began for _, _, began, _ in rows], np.uint64),
        100,
        interval_s,
    )

    # THEN they are what grew, what began, or unknown
    assert result.tolist() == pytest.approx([plain(*row) for row in rows], nan_ok=True)


def test_a_hundred_thousand_rows_take_milliseconds() -> None:
    rng = np.random.default_rng(5)
    keys = (_random(rng, 100_000), _random(rng, 100_000), _random(rng, 100_000))
    shuffled = rng.permutation(100_000)
    moved = (keys[0][shuffled], keys[1][shuffled], keys[2][shuffled])
    columns = _table(keys[1], rng.random(100_000))

    # Ten times what was measured, so that only a change of kind is caught.
    assert _quickest_s(lambda: order(columns, "pps", limit=100)) < 0.020
    assert _quickest_s(lambda: match_rows(keys, keys)) < 0.010
    assert _quickest_s(lambda: match_rows(keys, moved)) < 0.080


def _columns(rows: Sequence[Row]) -> dict[str, Column]:
    codes = np.array([WORDS.index(row[2]) for row in rows], np.uint8)
    return {
        "rate": Column("number", np.array([row[0] for row in rows], np.float64)),
        "count": Column("number", np.array([row[1] for row in rows], np.uint64)),
        "label": Column("text", codes, labels=WORDS),
        "text": Column("text", np.array([row[3] for row in rows], np.object_)),
        "address": Column(
            "address",
            np.array([row[4][0] for row in rows], np.uint64),
            np.array([row[4][1] for row in rows], np.uint64),
        ),
    }


def _plain_order(
    rows: Sequence[Row], field: str, descending: bool, chosen: Sequence[int]
) -> list[int]:
    def value(row: int) -> Any:
        found = rows[row][FIELDS.index(field)]
        return (found.casefold(), found) if isinstance(found, str) else found

    by_address = sorted(chosen, key=lambda row: rows[row][4])
    if field == "address" and descending:
        # Only whole rows are equal here, and those stay in their order.
        return sorted(chosen, key=lambda row: rows[row][4], reverse=True)
    unknown = [row for row in by_address if rows[row][0] != rows[row][0] and field == "rate"]
    known = [row for row in by_address if row not in unknown]
    return [*sorted(known, key=value, reverse=descending), *unknown]


def _row_keys(keys: Sequence[Key]) -> RowKeys:
    high, low, first_ns = (np.array([key[part] for key in keys], np.uint64) for part in range(3))
    return high, low, first_ns


def _table(low: U64, pps: F64) -> dict[str, Column]:
    return {
        "address": Column("address", np.zeros_like(low), low),
        "pps": Column("number", pps),
    }


def _random(rng: np.random.Generator, rows: int) -> U64:
    return rng.integers(0, 2**64, rows, dtype=np.uint64)


def _quickest_s(act: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        started_s = time.perf_counter()
        act()
        taken.append(time.perf_counter() - started_s)
    return min(taken)
