# SPDX-License-Identifier: Apache-2.0
"""Entries of any map as text, by the layout of its keys and values."""

from __future__ import annotations

from typing import Any

import numpy as np

from ebpftop.bpf import layout
from ebpftop.format import printable
from ebpftop.kernel.maps import ARRAYS, Map
from ebpftop.model import Prefix

_MOST_ELEMENTS = 8


def entry_lines(opened: Map, most: int) -> tuple[list[str], int]:
    """Return a line for each entry, and how many more there are.

    Slots of an array that hold nothing but zeros are passed over. Values of one CPU each are
    added up, but for the fields that are times.

    Args:
        opened: The map.
        most: Lines at most.
    """
    keys, values = opened.read()
    rows = np.arange(len(keys))
    if opened.type in ARRAYS:
        octets = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        rows = np.flatnonzero(octets.any(axis=1))
    lines = [f"{_text(keys[row])}  {_value(values[row])}" for row in rows[:most]]
    return lines, max(0, len(rows) - most)


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):  # a value for each CPU
        return f"({len(value)} CPUs)  " + " | ".join(
            _text(each) for each in value if each.tobytes().strip(b"\0")
        )
    return _text(value)


def _text(value: Any) -> str:
    """Write a scalar, an address or a record; of a record, the fields that are not zero."""
    if isinstance(value, np.void) and value.dtype.names:
        if value.dtype == layout.ADDRESS:
            return str(Prefix(int(value["high"]), int(value["low"])))
        if value.dtype == layout.PREFIX:
            return str(Prefix.from_bytes(value["word"].tobytes(), int(value["length"])))
        fields = ((name, value[name]) for name in value.dtype.names)
        return " ".join(f"{name}={_text(field)}" for name, field in fields if _holds(field))
    if isinstance(value, bytes):
        return printable(value.rstrip(b"\0").decode(errors="replace"))
    if isinstance(value, np.void):
        return value.tobytes().rstrip(b"\0").hex(":") or "0"
    if isinstance(value, np.ndarray):
        texts = [_text(each) for each in value[:_MOST_ELEMENTS]]
        return "[" + " ".join(texts) + (" …" if len(value) > _MOST_ELEMENTS else "") + "]"
    return str(int(value))


def _holds(field: Any) -> bool:
    return bool(np.asarray(field).tobytes().strip(b"\0"))
