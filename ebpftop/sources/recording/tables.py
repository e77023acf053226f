# SPDX-License-Identifier: Apache-2.0
"""One table of one tick, as what it adds to the same table of the tick before.

Each row is matched with the row before that it continues. A value is written as its difference
from a guess (counters go on from where they were, rates follow from counters), and only rows
where some guess was wrong are written at all: who was silent costs nothing. A wrong guess costs
bytes and never a wrong value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ebpftop.model import F64, U64
from ebpftop.ranking import Rows, match_rows
from ebpftop.sources.recording.numbers import (
    DamagedError,
    folded,
    pack,
    pack_places,
    unfolded,
    unpack,
    unpack_places,
)

MAX_ROWS = 1 << 21
"""The most rows that a table of a recording can have."""

Columns = Mapping[str, NDArray[Any]]
"""The columns of a table by their names, all of one length."""

_RATES = {"pps": ("packets", 1), "bps": ("bytes", 8), "dropped_pps": ("dropped", 1)}
"""Which counter a rate follows from, and by what factor."""

_FROM_GUESS, _FROM_CLOCK = b"\0", b"\1"

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_ROWS)]


class TableTick(msgspec.Struct, array_like=True, frozen=True):
    """What is written of a table in one tick."""

    rows: _Count
    """How many rows it has."""
    leaps: _Count
    """Rows that are new, or do not follow the row above as they did in the tick before."""
    leap_places: bytes
    """Which they are."""
    leap_sizes: bytes
    """For each of them 1 where it is new, otherwise how far it leaps."""
    touched: _Count
    """Rows where a guess was wrong."""
    touched_places: bytes
    """Which they are."""
    columns: msgspec.Raw
    """By name what the guesses lacked in those rows; columns that lacked nothing are left out."""


def lineage(before: Columns, now: Columns) -> Rows:
    """Return for each row of a table its row in the tick before, -1 for new ones."""
    earlier, count = _length(before), _length(now)
    if all("high" in table and "low" in table for table in (before, now)):
        third = "first_ns" if "first_ns" in now else "length" if "length" in now else "low"
        if third in before:
            keys = [
                tuple(table[name].astype(np.uint64, copy=False) for name in ("high", "low", third))
                for table in (before, now)
            ]
            return match_rows(*keys)  # type: ignore[arg-type]
    places = np.arange(count, dtype=np.intp)
    return np.where(places < earlier, places, -1)


def encode(
    before: Columns, now: Columns, matched: Rows, interval_s: float | None, clock_ns: int
) -> TableTick:
    """Write a table.

    Args:
        before: The table of the tick before; no columns where there is none.
        now: The table.
        matched: From `lineage`.
        interval_s: Time between the two.
        clock_ns: CLOCK_MONOTONIC of the tick.
    """
    leaps = np.zeros(len(matched), np.uint64)
    fresh = matched < 0
    steps = (np.diff(matched[~fresh], prepend=-1) - 1).astype(np.int64)
    leaps[fresh] = 1
    leaps[~fresh] = np.where(steps == 0, 0, folded(steps.view(np.uint64)) + np.uint64(1))
    leap_places = np.flatnonzero(leaps)
    lacking = {
        name: _lacking(values, _guess(name, before, now, matched, interval_s))
        for name, values in now.items()
    }
    wrong = np.zeros(len(matched), np.bool_)
    for numbers in lacking.values():
        wrong |= numbers != 0
    touched = np.flatnonzero(wrong)
    columns = {
        name: _shortest(name, numbers[touched], now[name][touched], clock_ns)
        for name, numbers in lacking.items()
        if not before or numbers.any()
    }
    return TableTick(
        len(matched), len(leap_places), pack_places(leap_places), pack(leaps[leap_places]),
        len(touched), pack_places(touched), msgspec.Raw(msgspec.msgpack.encode(columns)),
    )  # fmt: skip


def decode_lineage(tick: TableTick, before: Columns) -> Rows:
    """Read for each row its row in the tick before, -1 for new ones.

    Raises:
        DamagedError: It names rows that are not there.
    """
    leaps = np.zeros(tick.rows, np.uint64)
    leaps[unpack_places(tick.leap_places, tick.leaps, tick.rows)] = unpack(
        tick.leap_sizes, tick.leaps
    )
    fresh = leaps == 1
    sizes = np.where(leaps > 1, unfolded(leaps - np.uint64(1)), np.uint64(0))[~fresh]
    places = np.cumsum(sizes.view(np.int64) + 1) - 1
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < _length(before):
        raise DamagedError("a row that continues none")
    matched = np.full(tick.rows, -1, np.intp)
    matched[~fresh] = places
    return matched


def decode(
    tick: TableTick,
    columns: Mapping[str, bytes],
    before: Columns,
    kinds: Mapping[str, np.dtype[Any]],
    matched: Rows,
    interval_s: float | None,
    clock_ns: int,
) -> dict[str, NDArray[Any]]:
    """Read a table; a column that the writer did not know is 0, or NaN where it is a rate.

    Args:
        tick: What was written.
        columns: Its columns, those of them that are known.
        before: The table of the tick before; no columns where there is none.
        kinds: The columns it must have, whole numbers before the rates that follow from them.
        matched: From `decode_lineage`.
        interval_s: Time between the two.
        clock_ns: CLOCK_MONOTONIC of the tick.

    Raises:
        DamagedError: It is nothing that is ever written.
    """
    touched = unpack_places(tick.touched_places, tick.touched, tick.rows)
    now: dict[str, NDArray[Any]] = {}
    for name, kind in kinds.items():
        packed = columns.get(name)
        if packed is None and name not in before:
            now[name] = np.full(tick.rows, np.nan if kind.kind == "f" else 0, kind)
            continue
        numbers = _bits(_guess(name, before, now, matched, interval_s, kind))
        if packed is not None:
            lacking = unpack(packed[1:], tick.touched)
            if packed[:1] == _FROM_CLOCK:
                numbers[touched] = np.uint64(clock_ns) - unfolded(lacking)
            elif kind.kind == "f":
                numbers[touched] ^= lacking
            else:
                numbers[touched] += unfolded(lacking)
        now[name] = _typed(numbers, kind)
    return now


def _typed(numbers: U64, kind: np.dtype[Any]) -> NDArray[Any]:
    if kind.kind == "f":
        return numbers.view(np.float64)
    if len(numbers) and int(numbers.max()) > np.iinfo(kind).max:
        raise DamagedError("a number beyond what its column holds")
    return numbers.astype(kind, copy=False)


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values()))) if columns else 0


def _bits(values: NDArray[Any]) -> U64:
    """Return a copy as numbers of 64 bits that take part in arithmetic modulo 2^64."""
    if values.dtype.kind == "f":
        return values.astype(np.float64).view(np.uint64)
    return values.astype(np.uint64)


def _lacking(values: NDArray[Any], guess: NDArray[Any]) -> U64:
    if values.dtype.kind == "f":
        return _bits(values) ^ _bits(guess)
    return folded(_bits(values) - _bits(guess))


def _guess(
    name: str,
    before: Columns,
    now: Columns,
    matched: Rows,
    interval_s: float | None,
    kind: np.dtype[Any] | None = None,
) -> NDArray[Any]:
    """Return what a column should be, from the tick before and the columns read already."""
    kind = now[name].dtype if kind is None else kind
    counter, factor = _RATES.get(name, ("", 1))
    if kind.kind == "f" and counter in now and counter in before and interval_s:
        return _rates(before[counter], now[counter], matched, interval_s) * factor
    return _carried(before.get(name), matched, kind)


def _carried(values: NDArray[Any] | None, matched: Rows, kind: np.dtype[Any]) -> NDArray[Any]:
    if values is None or not len(values):
        return np.zeros(len(matched), kind)
    carried = values[matched]
    carried[matched < 0] = 0
    return carried


def _rates(before: U64, now: U64, matched: Rows, interval_s: float) -> F64:
    """Return how much a counter grew a second, as for the rows of a live instance."""
    earlier = _carried(before, matched, now.dtype)
    grown = np.where(earlier > now, now, now - earlier)
    with np.errstate(all="ignore"):
        rates: F64 = grown / interval_s
    return rates


def _shortest(name: str, numbers: U64, values: NDArray[Any], clock_ns: int) -> bytes:
    """Write what a guess lacked; times that changed are told shorter from the tick's own."""
    packed = _FROM_GUESS + pack(numbers)
    if not name.endswith("_ns") or values.dtype.kind == "f" or not numbers.any():
        return packed
    ages = folded(np.uint64(clock_ns) - _bits(values))
    return min(packed, _FROM_CLOCK + pack(ages), key=len)
