# SPDX-License-Identifier: Apache-2.0
"""A snapshot as bytes, in terms of the one before it, and back.

A tick is MessagePack: fields by name, where a field that is as it was is left out, and tables
as `tables` writes them. A key tick stands by itself, so that reading can begin there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ebpftop.errors import KernelRefusedError
from ebpftop.format import printable
from ebpftop.model import Clock, Snapshot
from ebpftop.ranking import Rows
from ebpftop.sources.recording import tables
from ebpftop.sources.recording.checks import check, check_table, known_rates
from ebpftop.sources.recording.numbers import DamagedError
from ebpftop.sources.recording.shapes import ALONG, Table, shape

MAX_FIELD_BYTES = 8 << 20
"""The longest that a field may be which is no column of numbers."""

_MAX_CHARACTERS = 1000


class Tick(msgspec.Struct, array_like=True, frozen=True):
    """What is written of one snapshot."""

    fields: msgspec.Raw
    """Fields that are not as in the tick before, by their names."""
    tables: msgspec.Raw
    """Every table there is, by its field."""


_ABSENT = msgspec.Raw()
_FIELD_NAMES = {name: name.replace(".", "__") for name in shape().fields}
_FIELDS = msgspec.defstruct(
    "Fields",
    [(attribute, msgspec.Raw, _ABSENT) for attribute in _FIELD_NAMES.values()],
    rename={attribute: name for name, attribute in _FIELD_NAMES.items()},
)
_TABLES = msgspec.defstruct(
    "Tables", [(name, tables.TableTick | None, None) for name in shape().tables]
)
_tick_decoder = msgspec.msgpack.Decoder(Tick)
_fields_decoder = msgspec.msgpack.Decoder(_FIELDS)
_tables_decoder = msgspec.msgpack.Decoder(_TABLES)


class TickEncoder:
    """Writes snapshots one after another."""

    def __init__(self) -> None:
        self._fields: dict[str, bytes] = {}
        self._columns: dict[str, dict[str, NDArray[Any]]] = {}
        self._texts: dict[str, NDArray[Any]] = {}

    def encode(self, snapshot: Snapshot, *, key: bool) -> bytes:
        """Write a snapshot.

        Args:
            snapshot: The next one.
            key: So that it can be read without those before it.

        Raises:
            KernelRefusedError: It is larger than a recording can hold.
        """
        if key:
            self._fields, self._columns, self._texts = {}, {}, {}
        written: dict[str, tables.TableTick] = {}
        lineages: dict[str, Rows] = {}
        columns: dict[str, dict[str, NDArray[Any]]] = {}
        changed = self._changed({name: getattr(snapshot, name) for name in shape().plain})
        for name, table in shape().tables.items():
            value = getattr(snapshot, name)
            if value is None:
                continue
            changed |= self._changed({f"{name}.{f}": getattr(value, f) for f in table.others})
            changed |= self._changed_texts(name, table, value)
            now = columns[name] = {f: getattr(value, f) for f in table.columns}
            before = self._columns.get(name, {})
            lineages[name] = _along(name, lineages, before, now)
            clock_ns = snapshot.clock.monotonic_ns
            written[name] = tables.encode(
                before, now, lineages[name], snapshot.interval_s, clock_ns
            )
            if written[name].rows > tables.MAX_ROWS:
                raise _too_large(f"{name} has {written[name].rows:,} rows")
        self._columns = columns
        packed = msgspec.msgpack.encode(changed), msgspec.msgpack.encode(written)
        return msgspec.msgpack.encode(Tick(*map(msgspec.Raw, packed)))

    def _changed(self, values: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
        found = {}
        for name, value in values.items():
            packed = msgspec.msgpack.encode(value, enc_hook=_plain)
            if len(packed) > MAX_FIELD_BYTES:
                raise _too_large(f"{name} is {len(packed):,} bytes long")
            if self._fields.get(name) != packed:
                self._fields[name] = packed
                found[name] = msgspec.Raw(packed)
        return found

    def _changed_texts(self, name: str, table: Table, value: Any) -> dict[str, msgspec.Raw]:
        found: dict[str, msgspec.Raw] = {}
        for text in table.texts:
            full, now = f"{name}.{text}", getattr(value, text)
            before = self._texts.get(full)
            # Comparing a hundred thousand texts takes a tenth of the time of writing them.
            if before is None or (now is not before and not np.array_equal(now, before)):
                found |= self._changed({full: now.tolist()})
            self._texts[full] = now
        return found


class TickDecoder:
    """Reads what a `TickEncoder` wrote, in the same order from any key tick on.

    Args:
        only: The tables that are wanted; the others are read as empty. None is all.
    """

    def __init__(self, only: frozenset[str] | None = None) -> None:
        self._only = only
        self._values: dict[str, Any] = {}
        self._columns: dict[str, dict[str, NDArray[Any]]] = {}

    def decode(self, packed: bytes, *, key: bool) -> Snapshot:
        """Read the next snapshot.

        Args:
            packed: What was written.
            key: Whether it was written as a key tick.

        Raises:
            DamagedError: It is nothing that is ever written.
        """
        if key:
            self._values, self._columns = {}, {}
        try:
            tick = _tick_decoder.decode(packed)
            self._read_fields(_fields_decoder.decode(tick.fields))
            values = {name: v for name, v in self._values.items() if "." not in name}
            return Snapshot(**values, **self._read_tables(_tables_decoder.decode(tick.tables)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise DamagedError(printable(str(error))) from None
        except TypeError:  # a field without a default is missing
            raise DamagedError("a field is missing") from None

    def _read_fields(self, fields: msgspec.Struct) -> None:
        for name, hint in shape().fields.items():
            packed = getattr(fields, _FIELD_NAMES[name])
            if packed is _ABSENT or not len(memoryview(packed)):
                continue
            if len(memoryview(packed)) > MAX_FIELD_BYTES:
                raise DamagedError(f"{name} is too long")
            value = msgspec.convert(_printable(msgspec.msgpack.decode(packed)), hint)
            check(Snapshot, name, value)
            self._values[name] = value

    def _read_tables(self, written: msgspec.Struct) -> dict[str, Any]:
        clock = self._values.get("clock")
        if not isinstance(clock, Clock):
            raise DamagedError("a tick without its time")
        found: dict[str, Any] = {}
        lineages: dict[str, Rows] = {}
        columns: dict[str, dict[str, NDArray[Any]]] = {}
        for name, table in shape().tables.items():
            tick = getattr(written, name)
            if tick is None or (self._only is not None and name not in self._only):
                found[name] = None if table.optional else table.kind.empty()
                continue
            before = self._columns.get(name, {})
            lineages[name] = tables.decode_lineage(tick, before)
            now = columns[name] = tables.decode(
                tick, _columns(table, tick), before, table.columns, lineages[name],
                self._values.get("interval_s"), clock.monotonic_ns,
            )  # fmt: skip
            found[name] = self._table(name, table, now, tick.rows)
        if found["sent"] is not None and len(found["sent"].bps) != len(found["sources"]):
            raise DamagedError("what was sent is not told for each source")
        self._columns = columns
        return found

    def _table(self, name: str, table: Table, columns: dict[str, NDArray[Any]], rows: int) -> Any:
        others = {
            other: self._values[full]
            for other in (*table.others, *table.texts)
            if (full := f"{name}.{other}") in self._values
        }
        for other, value in others.items():
            if (other in table.by_row or other in table.texts) and len(value) != rows:
                raise DamagedError(f"{name} has a row without {other}")
        for text in table.texts:
            texts = np.empty(rows, np.object_)
            texts[:] = others.get(text, [""] * rows)
            others[text] = texts
        known = {column: known_rates(values) for column, values in columns.items()}
        built = table.kind(**known, **others)
        check_table(built)
        return built


def _along(
    name: str,
    lineages: Mapping[str, Rows],
    before: Mapping[str, NDArray[Any]],
    now: Mapping[str, NDArray[Any]],
) -> Rows:
    """Return the lineage of a table's rows: its own, or that of the table it goes along with."""
    other = lineages.get(ALONG.get(name, ""))
    earlier = len(next(iter(before.values()))) if before else 0
    length = len(next(iter(now.values())))
    if other is not None and len(other) == length and int(other.max(initial=-1)) < earlier:
        return other
    return tables.lineage(before, now)


def _columns(table: Table, tick: tables.TableTick) -> dict[str, bytes]:
    written = msgspec.structs.asdict(table.written.decode(tick.columns))
    return {name: packed for name, packed in written.items() if packed}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a snapshot holds a {type(value).__name__}, which cannot be recorded")


def _printable(value: Any) -> Any:
    """Return what was read with nothing in its texts that steers a terminal."""
    if isinstance(value, str):
        return printable(value, _MAX_CHARACTERS)
    if isinstance(value, list):
        return [_printable(each) for each in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(each) for name, each in value.items()}
    return value


def _too_large(what: str) -> KernelRefusedError:
    return KernelRefusedError(f"this cannot be recorded, {what}")
