# SPDX-License-Identifier: Apache-2.0
"""What a `Snapshot` consists of, read from its dataclasses.

Whatever the model gains is recorded without a word here: a field of numbers becomes a column,
any other field is written as it is, and a dataclass with columns is a table.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from ebpftop.model import Snapshot

ALONG = {"sent": "sources"}
"""Tables without addresses whose rows are those of another."""


@dataclass(frozen=True)
class Table:
    """One table of a snapshot."""

    kind: type[Any]
    """Its dataclass."""
    optional: bool
    """Whether a snapshot may be without it."""
    columns: Mapping[str, np.dtype[Any]]
    """Its numbers, rates last."""
    texts: Sequence[str]
    """Its columns of text."""
    others: Mapping[str, Any]
    """What else it has, by name, and of what type."""
    by_row: frozenset[str]
    """Those of the others that have a value for each row."""
    written: msgspec.msgpack.Decoder[msgspec.Struct]
    """Reads what is written of its columns; what it does not know it passes over."""


@dataclass(frozen=True)
class Shape:
    """A snapshot."""

    tables: Mapping[str, Table]
    """Its tables, by the fields that hold them."""
    plain: Mapping[str, Any]
    """The types of its other fields."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """The types of all that is no column of numbers, by names with dots."""
        found = dict(self.plain)
        for name, table in self.tables.items():
            found |= {f"{name}.{text}": list[str] for text in table.texts}
            found |= {f"{name}.{other}": hint for other, hint in table.others.items()}
        return found


@cache
def shape() -> Shape:
    """Return what a snapshot consists of."""
    tables, plain = {}, {}
    for name, hint in get_type_hints(Snapshot).items():
        kind, optional = _without_none(hint)
        if isinstance(kind, type) and is_dataclass(kind) and _has_columns(kind):
            tables[name] = _table(name, kind, optional)
        else:
            plain[name] = hint
    return Shape(tables, plain)


def _table(name: str, kind: type[Any], optional: bool) -> Table:
    hints = get_type_hints(kind)
    dtypes = {field: dtype for field, hint in hints.items() if (dtype := _dtype(hint)) is not None}
    columns = {field: dtype for field, dtype in dtypes.items() if dtype != np.object_}
    others = {field: hint for field, hint in hints.items() if field not in dtypes}
    written = msgspec.defstruct(name, [(field, bytes, b"") for field in columns])
    return Table(
        kind, optional,
        dict(sorted(columns.items(), key=lambda column: column[1].kind == "f")),
        [field for field, dtype in dtypes.items() if dtype == np.object_],
        others,
        frozenset(f for f, hint in others.items() if get_origin(hint) is Sequence),
        msgspec.msgpack.Decoder(written),
    )  # fmt: skip


def _has_columns(kind: type[Any]) -> bool:
    return any(_dtype(hint) is not None for hint in get_type_hints(kind).values())


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not types.NoneType]
        if len(kinds) == 1:
            return kinds[0], True
    return hint, False


def _dtype(hint: Any) -> np.dtype[Any] | None:
    """Return what a column's numbers are; None for what is no column."""
    if get_origin(hint) is not np.ndarray:
        return None
    dtype: np.dtype[Any] = np.dtype(get_args(get_args(hint)[1])[0])
    return dtype
