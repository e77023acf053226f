# SPDX-License-Identifier: Apache-2.0
"""What the maps of a loaded pipeline hold, as plain dictionaries.

They use the words of `layout` and leave zeros out, so that a test can state them and the
model can build the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import layout
from ebpftop.bpf.layout import EventKind
from ebpftop.kernel.maps import Map
from ebpftop.model import VERDICTS, Prefix
from ebpftop.sources.decoding import source_columns, source_room

ROW_FIELDS = (
    "passed_packets", "passed_bytes", "dropped_packets", "dropped_bytes", "would_drop_packets",
    "first_ns", "last_ns", "limited_ns",
)  # fmt: skip
"""What of a row is observed; the rest is how the program gets there."""

Record = dict[str, Any]
Event = tuple[EventKind, int, int, int, tuple[int, int]]
"""Kind, address, length, time and values."""


def as_number(text: str) -> int:
    """Return an address, or the first one of a prefix, as 128 bits."""
    return int.from_bytes(Prefix.parse(text).to_bytes(), "big")


def words(counters: Iterable[int], names: Iterable[str]) -> dict[str, int]:
    """Name counters, and leave out zeros."""
    return {name: int(count) for name, count in zip(names, counters, strict=True) if count}


def columns_of(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the fields of `SOURCE` records as columns, counters of all processors added up."""
    keys = np.zeros(len(rows), layout.ADDRESS)
    columns = source_columns([(keys, rows)], source_room(len(rows)))
    return {name: column for name, column in columns.items() if name not in ("high", "low")}


class Observed:
    """The maps of one instance, to be read.

    Args:
        maps: By their names.
    """

    def __init__(self, maps: dict[str, Map]) -> None:
        self.maps = maps

    def totals(self) -> Record:
        """The counters of all processors together."""
        stored = self.maps["stats"].get(0)
        assert stored is not None

        def total(name: str, part: str | None = None) -> list[int]:
            field = stored.reshape(-1)[name] if part is None else stored.reshape(-1)[name][part]
            summed: list[int] = np.atleast_1d(field.sum(axis=0)).tolist()
            return summed

        return {
            "received": (*total("received", "packets"), *total("received", "bytes")),
            "passed": (total("verdicts", "packets")[0], total("verdicts", "bytes")[0]),
            "dropped": (total("verdicts", "packets")[1], total("verdicts", "bytes")[1]),
            "others": sum(total("verdicts", "packets")[2 : len(VERDICTS)]),
            "protocols": words(total("protocols"), layout.PROTOCOLS),
            "syn": total("syn")[0],
            "untracked": total("untracked")[0],
            "drops": words(total("drops"), layout.REASONS),
            "would_drop": words(total("would_drop"), layout.REASONS),
            "unparsed": words(total("unparsed"), layout.UNPARSED),
        }

    def rows(self) -> dict[int, Record]:
        """The rows of all sources, by address."""
        keys, rows = self.maps["ip_tracker"].read()
        return _table(keys, columns_of(rows), ROW_FIELDS)

    def row(self, text: str) -> Record:
        """The row of one source."""
        return self.rows()[as_number(text)]

    def auto_blocks(self) -> dict[int, Record]:
        """The automatic blocks, by the first address of each."""
        found = _table(*self.maps["auto_blocks"].read(), layout.AUTO_BLOCK.names or ())
        for block in found.values():
            block["reason"] = layout.REASONS[block["reason"]]
        return found

    def hits(self) -> dict[int, tuple[int, int]]:
        """Packets and bytes of each rule that was hit, by slot."""
        slots, counts = self.maps["rule_hits"].read()
        counts = counts.reshape(len(slots), -1)
        packets, octets = counts["packets"].sum(axis=1), counts["bytes"].sum(axis=1)
        return {int(slots[i]): (int(packets[i]), int(octets[i])) for i in np.flatnonzero(packets)}

    def shared(self) -> Record:
        """The state that all processors share, by field."""
        record: NDArray[Any] | None = self.maps["state"].get(0)
        assert record is not None
        return {name: int(record[name][0]) for name in layout.STATE.names or ()}

    def events(self) -> list[Event]:
        """All events as (kind, address, length, time, values), of which none may be missing."""
        newest = self.shared()["event_seq"]
        records = np.sort(self.maps["events"].read()[1][:, None].ravel(), order="seq")
        records = records[records["seq"] > 0]
        assert records["seq"].tolist() == list(
            range(max(1, newest - layout.EVENTS + 1), newest + 1)
        )
        return [
            (
                EventKind(int(record["kind"])), int.from_bytes(record["address"].tobytes(), "big"),
                int(record["length"]), int(record["time_ns"]),
                (int(record["value"][0]), int(record["value"][1])),
            )
            for record in records
        ]  # fmt: skip


def _table(
    keys: NDArray[Any], values: NDArray[Any] | dict[str, NDArray[Any]], fields: Iterable[str]
) -> dict[int, Record]:
    names = list(fields)
    columns = [values[name].tolist() for name in names]
    addresses = [int.from_bytes(key.tobytes(), "big") for key in keys]
    return {
        address: dict(zip(names, values, strict=True))
        for address, *values in zip(addresses, *columns, strict=True)
    }
