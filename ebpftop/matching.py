# SPDX-License-Identifier: Apache-2.0
"""Tests of a whole column: which of its rows hold a text, an address or a run of digits."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ebpftop.errors import UsageError
from ebpftop.format import parse_address
from ebpftop.model import U64, Column, Prefix

Mask = NDArray[np.bool_]
"""True for the rows that match."""

Test = Callable[[Column], Mask]
"""Asks a column which of its rows match."""

_ADDRESS_PART = re.compile(r"[0-9a-f.:/]+")
_MAX_DIGITS = 19


def in_texts(holds: Callable[[str], bool]) -> Test:
    """Return a test of text columns that asks once for every different text."""

    def test(column: Column) -> Mask:
        if column.labels:
            held = np.array([holds(label) for label in column.labels], np.bool_)
            found: Mask = held[column.values]
            return found
        texts = column.values.tolist()
        answers = {text: holds(text) for text in set(texts)}
        return np.fromiter(map(answers.__getitem__, texts), np.bool_, len(texts))

    return test


def within(prefix: Prefix) -> Test:
    """Return a test of address columns: which rows lie wholly within `prefix`."""
    bits = (1 << 128) - (1 << 128 - prefix.length)
    high_mask, low_mask = np.uint64(bits >> 64), np.uint64(bits & (1 << 64) - 1)

    def test(column: Column) -> Mask:
        assert column.low is not None
        inside: Mask = (column.values & high_mask == np.uint64(prefix.high)) & (
            column.low & low_mask == np.uint64(prefix.low)
        )
        return inside if column.length is None else inside & (column.length >= prefix.length)

    return test


def in_addresses(word: str) -> Test:
    """Return a test of address columns for `word`: an address, a prefix, or part of its text.

    A whole address or prefix finds what lies within it, and not what merely begins alike. A
    row that is a prefix is found by any part of its text besides.

    Args:
        word: In lower case.
    """
    try:
        single_test = within(parse_address(word))
    except UsageError:
        if not _ADDRESS_PART.fullmatch(word):
            return lambda column: np.zeros(len(column.values), np.bool_)
        single_test = _in_single_addresses(word)

    def test(column: Column) -> Mask:
        found = single_test(column)
        if column.length is not None:
            for row in np.flatnonzero(column.length < 128):
                found[row] |= word in _text(column, row)
        return found

    return test


def _in_single_addresses(word: str) -> Test:
    in_quads = _in_dotted_quads(word)

    def test(column: Column) -> Mask:
        assert column.low is not None
        high, low = column.values, column.low
        quads = (high == 0) & (low >> np.uint64(32) == 0xFFFF)
        found: Mask = quads & in_quads(low)
        # inet_ntop is ten times as fast as ipaddress, and writes only ::192.0.2.1 otherwise.
        groups = np.flatnonzero(high != 0)
        packed = np.stack((high[groups], low[groups]), axis=1).astype(">u8").tobytes()
        found[groups] = [
            word in socket.inet_ntop(socket.AF_INET6, packed[at : at + 16])
            for at in range(0, len(packed), 16)
        ]
        for row in np.flatnonzero((high == 0) & ~quads):
            found[row] = word in _text(column, row)
        return found

    return test


def _text(column: Column, row: np.intp) -> str:
    assert column.low is not None
    length = 128 if column.length is None else int(column.length[row])
    return str(Prefix(int(column.values[row]), int(column.low[row]), length))


def _in_dotted_quads(word: str) -> Callable[[U64], Mask]:
    """Return a search for part of an IPv4 address that writes out none of them.

    Cut at its dots, the word has a piece that ends an octet, whole octets, and a piece that
    begins one; they are tried wherever they can stand.
    """
    pieces = word.split(".")
    fits: list[Callable[[str, str], bool]] = [str.__eq__] * len(pieces)
    fits[0], fits[-1] = str.endswith, str.startswith
    if len(pieces) == 1:
        fits = [str.__contains__]
    tables = [
        np.array([fit(str(octet), piece) for octet in range(256)], np.bool_)
        for piece, fit in zip(pieces, fits, strict=True)
    ]

    def search(low: U64) -> Mask:
        shifts = np.array([24, 16, 8, 0], np.uint64)
        octets = (low >> shifts[:, np.newaxis] & np.uint64(0xFF)).astype(np.intp)
        found = np.zeros(len(low), np.bool_)
        for start in range(5 - len(pieces)):
            columns = octets[start : start + len(pieces)]
            found |= np.logical_and.reduce(
                [table[column] for table, column in zip(tables, columns, strict=True)]
            )
        return found

    return search


def has_digits(word: str) -> Test:
    """Return a test of number columns: `word` is among the digits before the decimal point."""
    if not (word.isascii() and word.isdigit() and len(word) <= _MAX_DIGITS):
        return lambda column: np.zeros(len(column.values), np.bool_)
    wanted, scale = np.uint64(int(word)), np.uint64(10 ** len(word))

    def test(column: Column) -> Mask:
        known, digits = _whole_part(column.values)
        found: Mask = (digits == 0) & (word == "0")
        while digits.any():
            above = digits // scale
            here = digits - above * scale == wanted
            # No digit stands above a number's first: neither 7 nor 0.7 is found by "07".
            found |= here & (above > 0) if word[0] == "0" else here
            digits = digits // np.uint64(10)
        return found & known

    return test


def _whole_part(values: NDArray[np.number]) -> tuple[Mask, U64]:
    """Return which numbers are known and finite, and their digits before the decimal point."""
    if values.dtype.kind == "u":
        return np.ones(len(values), np.bool_), values.astype(np.uint64)
    sizes = np.abs(values.astype(np.float64))
    known = sizes < 2.0**63
    return known, np.where(known, sizes, 0).astype(np.uint64)
