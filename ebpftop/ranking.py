# SPDX-License-Identifier: Apache-2.0
"""Rates, sort and top-N over columns; with the filter, what makes a pane of a table. No I/O.

Everything here works on whole numpy columns: a hundred thousand rows take milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ebpftop.filtering import Filter, FilterError
from ebpftop.model import F64, U64, Column

__all__ = ["Filter", "FilterError", "RowKeys", "Rows", "match_rows", "order", "place_of", "rates"]

Rows = NDArray[np.intp]
"""Row numbers."""

RowKeys = tuple[U64, U64, U64]
"""What tells rows apart: upper and lower half of the address, and when it was first seen."""

_SIGN_BIT = np.uint64(1 << 63)
_LAST = np.uint64((1 << 64) - 1)

# Odd numbers from the decimals of pi and e: multiply-shift hashing asks for nothing more.
_HIGH_FACTOR = np.uint64(0x243F6A8885A308D3)
_LOW_FACTOR = np.uint64(0x13198A2E03707345)
_ROUND_FACTORS = tuple(
    np.uint64(factor) for factor in (0xB7E151628AED2A6B, 0xBF7158809CF4F3C7, 0x62E7160F38B4DA57)
)


def order(
    columns: Mapping[str, Column],
    key: str,
    *,
    descending: bool = True,
    rows: Rows | None = None,
    limit: int | None = None,
) -> Rows:
    """Return the rows in the order of a field.

    Numbers that are not known come last either way. Equal rows are in ascending order of
    their `address`, where there is such a field, so that they keep their places from one
    snapshot to the next.

    Args:
        columns: The table.
        key: The field to sort by.
        descending: Whether the greatest comes first.
        rows: Rows to choose from; None is all.
        limit: How many to return at most, from 0; None is all. Few of many cost little.
    """
    keys = _all_keys(columns, key, rows, descending)
    count = len(keys[0]) if limit is None else min(limit, len(keys[0]))
    first = _smallest(keys, np.arange(len(keys[0])), count)
    ordered = first[_sorted([values[first] for values in keys])]
    return ordered if rows is None else rows[ordered]


def place_of(
    row: int,
    columns: Mapping[str, Column],
    key: str,
    *,
    descending: bool = True,
    rows: Rows | None = None,
) -> int | None:
    """Return the place of a row in what `order` returns, without sorting; None for nowhere."""
    keys = _all_keys(columns, key, rows, descending)
    found = np.flatnonzero(rows == row) if rows is not None else np.array([row])
    if not len(found) or found[0] >= len(keys[0]):
        return None
    at, before = int(found[0]), 0
    level = np.ones(len(keys[0]), np.bool_)
    for values in keys:
        before += int(np.count_nonzero(level & (values < values[at])))
        level &= values == values[at]
    return before + int(np.count_nonzero(level[:at]))


def match_rows(previous: RowKeys, current: RowKeys) -> Rows:
    """Return, for every current row, the previous row with the same key; -1 where there is none.

    Most rows keep their place from one read to the next, so places are compared first. The
    others are looked up in hash tables (multiply-shift, Dietzfelbinger et al. 1997) without
    chains: a row that another pushes out of its slot goes on to the next, smaller table.
    Equality is always checked, so a poor hash costs time and never a wrong match.

    Args:
        previous: Keys of the earlier read, no two alike.
        current: Keys of the later read, no two alike.
    """
    shared = min(len(previous[0]), len(current[0]))
    stayed = np.ones(shared, np.bool_)
    for before, now in zip(previous, current, strict=True):
        stayed &= before[:shared] == now[:shared]
    if shared == len(previous[0]) == len(current[0]) and stayed.all():
        return np.arange(shared)
    matched = np.full(len(current[0]), -1, np.intp)
    matched[:shared][stayed] = np.flatnonzero(stayed)
    offered = np.concatenate([np.flatnonzero(~stayed), np.arange(shared, len(previous[0]))])
    wanted = np.flatnonzero(matched < 0)
    for factor in _ROUND_FACTORS:
        if not len(offered) or not len(wanted):
            return matched
        offered, wanted = _match_round(previous, current, offered, wanted, factor, matched)
    rest = dict(zip(_python_keys(previous, offered), offered.tolist(), strict=True))
    matched[wanted] = [rest.get(key, -1) for key in _python_keys(current, wanted)]
    return matched


def rates(
    current: U64,
    previous: U64,
    matched: Rows,
    first_ns: U64,
    previous_ns: int,
    interval_s: float,
) -> F64:
    """Return how much a counter grew a second, for every current row; NaN where unknown.

    A counter that is smaller than before has started again from 0. A row without an earlier
    reading has grown by its whole count if it began after that reading; if it is older, its
    growth is unknown.

    Args:
        current: The counter now.
        previous: The counter at the earlier reading.
        matched: For every current row its previous row or -1, from `match_rows`.
        first_ns: When each current row began, CLOCK_MONOTONIC.
        previous_ns: When the earlier reading was taken, CLOCK_MONOTONIC.
        interval_s: Time between the two readings; nothing is known unless it is above 0.
    """
    if interval_s <= 0:
        return np.full(len(current), np.nan)
    if not len(previous):
        return np.where(first_ns > previous_ns, current / interval_s, np.nan)
    # A row without a match takes the last one's here, and is put right below.
    before = previous[matched]
    grown = current - before
    restarted = before > current
    if restarted.any():
        grown[restarted] = current[restarted]
    answer: F64 = grown / interval_s
    fresh = np.flatnonzero(matched < 0)
    if len(fresh):
        began = first_ns[fresh] > previous_ns
        answer[fresh] = np.where(began, current[fresh] / interval_s, np.nan)
    return answer


def _all_keys(
    columns: Mapping[str, Column], key: str, rows: Rows | None, descending: bool
) -> list[U64]:
    chosen = slice(None) if rows is None else rows
    keys = _sort_keys(columns[key], chosen, descending)
    if key != "address" and "address" in columns:
        keys += _sort_keys(columns["address"], chosen, descending=False)
    return keys


def _sorted(keys: Sequence[U64]) -> Rows:
    """Return the rows in ascending order of their keys; wholly equal ones stay in their order.

    numpy sorts one column several times faster than lexsort goes over many: rows are sorted by
    the first key, and those that are level in it by the others, as one number where they fit.
    """
    if len(keys) == 1:
        return np.argsort(keys[0], kind="stable")
    ordered = np.argsort(keys[0])
    values = keys[0][ordered]
    rises = values[1:] != values[:-1]
    level = np.append(False, ~rises) | np.append(~rises, False)
    if not level.any():
        return ordered
    tied = ordered[level]
    groups = np.append(np.uint64(0), np.cumsum(rises, dtype=np.uint64))[level]
    columns = [groups, *(column[tied] for column in keys[1:])]
    packed = _packed(columns)
    again = None if packed is None else np.argsort(packed)
    if packed is None or again is None or not (np.diff(packed[again]) != 0).all():
        # It takes the most significant key last.
        again = np.lexsort([tied, *reversed(columns)])
    ordered[level] = tied[again]
    return ordered


def _packed(columns: Sequence[U64]) -> U64 | None:
    """Return one number a row that sorts as the columns do; None where 64 bits are too few."""
    lowest = [column.min() for column in columns]
    bits = [
        int(column.max() - low).bit_length() for column, low in zip(columns, lowest, strict=True)
    ]
    if sum(bits) > 64:
        return None
    packed = np.zeros(len(columns[0]), np.uint64)
    for column, low, width in zip(columns, lowest, bits, strict=True):
        if width:
            packed <<= np.uint64(width % 64)
            packed |= column - low
    return packed


def _sort_keys(column: Column, rows: Rows | slice, descending: bool) -> list[U64]:
    """Return columns of unsigned numbers that sort ascending, the most significant first."""
    unknown = None
    if column.kind == "address":
        keys = [column.values[rows], *([] if column.low is None else [column.low[rows]])]
        if column.length is not None:
            keys.append(column.length[rows].astype(np.uint64))
    elif column.kind == "text":
        keys = [_text_ranks(column, rows)]
    elif column.values.dtype.kind == "u":
        keys = [column.values[rows].astype(np.uint64)]
    else:
        # IEEE 754 numbers sort as their bits do, once negative ones are inverted and positive
        # ones put above them. Adding 0 makes -0 the same as 0.
        numbers = column.values[rows].astype(np.float64) + 0.0
        bits = numbers.view(np.uint64)
        keys = [np.where(bits & _SIGN_BIT, ~bits, bits | _SIGN_BIT)]
        unknown = np.isnan(numbers)
    if descending:
        keys = [~values for values in keys]
    if unknown is not None:
        keys[0][unknown] = _LAST
    return keys


def _text_ranks(column: Column, rows: Rows | slice) -> U64:
    codes = column.values[rows]
    words = set(column.labels) if column.labels else set(codes.tolist())
    ranks = {word: rank for rank, word in enumerate(sorted(words, key=_alphabetical))}
    if column.labels:
        return np.array([ranks[label] for label in column.labels], np.uint64).take(codes)
    return np.fromiter(map(ranks.__getitem__, codes.tolist()), np.uint64, len(codes))


def _alphabetical(text: str) -> tuple[str, str]:
    return text.casefold(), text


def _smallest(keys: Sequence[U64], rows: Rows, count: int) -> Rows:
    """Return the `count` rows with the smallest keys; wholly equal ones stay in their order."""
    if count >= len(rows) or not keys or not count:
        return rows[:count]
    values = keys[0][rows]
    threshold = np.partition(values, count - 1)[count - 1]
    below = rows[values < threshold]
    level = rows[values == threshold]
    return np.concatenate([below, _smallest(keys[1:], level, count - len(below))])


def _match_round(
    previous: RowKeys,
    current: RowKeys,
    offered: Rows,
    wanted: Rows,
    factor: np.uint64,
    matched: Rows,
) -> tuple[Rows, Rows]:
    """Match by one hash table into `matched`; return the rows on either side it left open."""
    slot_bits = (2 * len(offered)).bit_length()
    places = _slots(previous, offered, factor, slot_bits)
    table = np.full(1 << slot_bits, -1, np.intp)
    table[places] = offered
    candidates = table[_slots(current, wanted, factor, slot_bits)]
    taken = candidates >= 0
    wanted, candidates = wanted[taken], candidates[taken]
    same = np.ones(len(wanted), np.bool_)
    for before, now in zip(previous, current, strict=True):
        same &= before[candidates] == now[wanted]
    matched[wanted[same]] = candidates[same]
    return offered[table[places] != offered], wanted[~same]


def _slots(keys: RowKeys, rows: Rows, factor: np.uint64, slot_bits: int) -> Rows:
    high, low, first_ns = (values[rows] for values in keys)
    mixed = ((high * _HIGH_FACTOR + low) * _LOW_FACTOR + first_ns) * factor
    return (mixed >> np.uint64(64 - slot_bits)).astype(np.intp)


def _python_keys(keys: RowKeys, rows: Rows) -> zip[tuple[int, int, int]]:
    high, low, first_ns = (values[rows].tolist() for values in keys)
    return zip(high, low, first_ns, strict=True)
