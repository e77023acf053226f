# SPDX-License-Identifier: Apache-2.0
"""Columns of whole numbers in few bytes, and back.

Numbers are split into planes (all lowest bytes, then all second ones, ...) or, where they
repeat, into the different ones and an index; both leave little for zlib to do. What is read is
never trusted: nothing is allocated before its length was compared with what there is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.model import U64

_DICTIONARY = 9
_HEAD_BYTES = 6
_FEWEST_INDEXED = 16
_ONE = np.uint64(1)


class DamagedError(Exception):
    """What was read is nothing that is ever written; says why."""


def pack(values: U64) -> bytes:
    """Write numbers, as planes of their width or as the different ones and an index."""
    width = _width(values)
    plain = bytes([width]) + _planes(values, width)
    if width < 2 or len(values) < _FEWEST_INDEXED:
        return plain
    different, index = np.unique(values, return_inverse=True)
    steps = np.diff(different, prepend=np.uint64(0))
    step_width = _width(steps)
    head = bytes([_DICTIONARY]) + len(different).to_bytes(4, "little") + bytes([step_width])
    indexed = head + _planes(steps, step_width) + _planes(index, _width(index))
    return min(plain, indexed, key=len)


def unpack(packed: bytes, count: int) -> U64:
    """Read `count` numbers.

    Raises:
        DamagedError: They are something else.
    """
    form = packed[0] if packed else -1
    if 0 <= form <= 8:
        return _from_planes(packed[1:], count, form)
    if form != _DICTIONARY or len(packed) < _HEAD_BYTES:
        raise DamagedError("a column in no known form")
    number, step_width = int.from_bytes(packed[1:5], "little"), packed[5]
    if not 0 < number <= count or step_width > 8:
        raise DamagedError("a column with more different numbers than numbers")
    end = _HEAD_BYTES + number * step_width
    steps = _from_planes(packed[_HEAD_BYTES:end], number, step_width)
    different = np.cumsum(steps, dtype=np.uint64)
    index_width = max(0, len(packed) - end) // count
    if index_width > 4:
        raise DamagedError("a column of a wrong length")
    index = _from_planes(packed[end:], count, index_width)
    if int(index.max()) >= number:
        raise DamagedError("a column that points beyond its numbers")
    return different[index.astype(np.intp)]


def _width(values: NDArray[Any]) -> int:
    largest = int(values.max()) if len(values) else 0
    return (largest.bit_length() + 7) // 8


def _planes(values: NDArray[Any], width: int) -> bytes:
    octets = values.astype("<u8").view(np.uint8).reshape(len(values), 8)
    return octets[:, :width].T.tobytes()


def _from_planes(packed: bytes, count: int, width: int) -> U64:
    if len(packed) != count * width:
        raise DamagedError("a column of a wrong length")
    octets = np.zeros((count, 8), np.uint8)
    octets[:, :width] = np.frombuffer(packed, np.uint8).reshape(width, count).T
    return octets.view("<u8").reshape(count).astype(np.uint64)


def folded(differences: U64) -> U64:
    """Return differences modulo 2^64 in such a way that small ones of either sign are small."""
    return (differences << _ONE) ^ (differences.view(np.int64) >> 63).view(np.uint64)


def unfolded(numbers: U64) -> U64:
    """Undo `folded`."""
    return (numbers >> _ONE) ^ (np.uint64(0) - (numbers & _ONE))


def pack_places(places: NDArray[np.intp]) -> bytes:
    """Write ascending row numbers."""
    return pack((np.diff(places, prepend=-1) - 1).astype(np.uint64))


def unpack_places(packed: bytes, count: int, rows: int) -> NDArray[np.intp]:
    """Read `count` ascending row numbers below `rows`.

    Raises:
        DamagedError: They are something else.
    """
    if count > rows:
        raise DamagedError("more changes than rows")
    gaps = unpack(packed, count)
    if count and (int(gaps.max()) >= rows or int(gaps.sum()) + count > rows):
        raise DamagedError("a change in a row that is not there")
    return np.cumsum(gaps.astype(np.intp) + 1) - 1
