# SPDX-License-Identifier: Apache-2.0
"""Records of the kernel's maps turned into the model's tables and words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import layout
from ebpftop.bpf.layout import EventKind, Rule
from ebpftop.format import count, duration, printable
from ebpftop.model import (
    BACKEND_STATES,
    U64,
    VERDICTS,
    Allowed,
    Blocks,
    Clock,
    Count,
    Event,
    Prefix,
    Rates,
    Sources,
    Totals,
)

Records = NDArray[Any]

ROWS_AT_ONCE = 4096
"""Rows of the sources' table that fit a processor's own cache."""

LIMIT_WORDS = {"limit-pps": "packets", "limit-bps": "bits", "limit-syn": "connection requests"}


def native(values: NDArray[Any]) -> U64:
    """Return a contiguous copy of a field in this machine's byte order."""
    return values.astype(np.uint64)


_PLAIN = ("policy", "last_ns", "would_drop_packets", "limited_ns", "first_ns")
_COUNTED = layout.TRAFFIC.names or ()


def source_room(most: int) -> dict[str, U64]:
    """Return room for the columns of `most` sources; memory that is not needed stays untouched."""
    names = ("high", "low", *_PLAIN, *_COUNTED, "blocked")
    return {name: np.empty(most, np.uint64) for name in names}


def source_columns(
    batches: Iterable[tuple[Records, Records]], room: Mapping[str, U64]
) -> dict[str, U64]:
    """Return keys and fields of `SOURCE` records as contiguous columns, `blocked` of the limiter.

    What a row's own processor and the others counted is added up.

    Args:
        batches: Keys and rows, each batch read over the one before it: small ones are decoded
            while they are in the processor's own cache.
        room: From `source_room`; the columns are views of it.
    """
    filled, most = 0, len(room["high"])
    for keys, rows in batches:
        # Rows that move while they are read may come twice.
        rows = rows[: most - filled]
        at = slice(filled, filled + len(rows))
        for name in ("high", "low"):
            room[name][at] = keys[name][: len(rows)]
        for name in _PLAIN:
            room[name][at] = rows[name]
        for name in _COUNTED:
            np.add(rows["counted"][name], rows["others"][name], out=room[name][at])
        room["blocked"][at] = rows["limiter"]["blocked"]
        filled += len(rows)
    return {name: column[:filled] for name, column in room.items()}


def keep(fields: dict[str, U64], before: Sources) -> None:
    """Put columns that last in the place of views of a room: earlier ones that say the same."""
    for name, column in (
        ("high", before.high),
        ("low", before.low),
        ("first_ns", before.first_ns),
        ("last_ns", before.last_ns),
        ("dropped_packets", before.dropped),
        ("dropped_bytes", before.dropped_bytes),
        ("would_drop_packets", before.would_drop),
    ):
        same = np.array_equal(fields[name], column)
        fields[name] = column if same else fields[name].copy()


def text(raw: bytes) -> str:
    """Return the printable text of a NUL-padded field."""
    return printable(bytes(raw).decode("utf-8", "replace"))


def totals(stats: Records) -> Totals:
    """Sum the counters of all CPUs (an array of `CPU_STATS`, one a CPU)."""

    def by_word(words: tuple[str, ...], name: str) -> dict[str, int]:
        sums = stats[name].sum(axis=0)
        return {word: int(value) for word, value in zip(words, sums, strict=True) if word}

    verdicts = stats["verdicts"]
    return Totals(
        received=Count(
            int(stats["received"]["packets"].sum()), int(stats["received"]["bytes"].sum())
        ),
        verdicts={
            word: Count(int(verdicts["packets"][:, at].sum()), int(verdicts["bytes"][:, at].sum()))
            for at, word in enumerate(VERDICTS)
        },
        protocols=by_word(layout.PROTOCOLS, "protocols"),
        syn=int(stats["syn"].sum()),
        drops=by_word(layout.REASONS, "drops"),
        would_drop=by_word(layout.REASONS, "would_drop"),
        untracked=int(stats["untracked"].sum()),
        unparsed=by_word(layout.UNPARSED, "unparsed"),
    )


def total_rates(now: Totals, before: Totals, interval_s: float) -> Rates:
    """Return what the totals grew a second; they are never reset while an instance lives."""

    def pairs() -> Mapping[str, tuple[Count, Count]]:
        both = {word: (now.verdicts[word], before.verdicts[word]) for word in VERDICTS}
        return {"received": (now.received, before.received), **both}

    grown = pairs()
    return Rates(
        pps={word: (b.packets - a.packets) / interval_s for word, (b, a) in grown.items()},
        bps={word: (b.bytes - a.bytes) * 8 / interval_s for word, (b, a) in grown.items()},
        protocols={
            word: (value - before.protocols[word]) / interval_s
            for word, value in now.protocols.items()
        },
        syn=(now.syn - before.syn) / interval_s,
        untracked=(now.untracked - before.untracked) / interval_s,
    )


def reasons(rules: Records) -> NDArray[np.object_]:
    """Return the printable text of each rule; of a long list, many have the same."""
    raw = rules["text"].tolist()
    printed = {word: text(word) for word in set(raw)}
    answer = np.empty(len(raw), np.object_)
    answer[:] = [printed[word] for word in raw]
    return answer


def blocks(
    rules: Records,
    said: NDArray[np.object_],
    hits: Records,
    automatic: tuple[Records, Records],
    now_ns: int,
) -> Blocks:
    """Join manual blocks, their hits and automatic blocks into one table.

    Args:
        rules: The used slots of `rules`.
        said: Their `reasons`.
        hits: The same slots of `rule_hits`, summed over CPUs.
        automatic: Keys and values of `auto_blocks`.
        now_ns: What the kernel's programs take for the time; what ended before is left out.
    """
    until = rules["until_ns"]
    held = np.flatnonzero((rules["kind"] == Rule.BLOCKED) & ((until == 0) | (until > now_ns)))
    keys, values = automatic
    live = np.flatnonzero(values["until_ns"] > now_ns)
    auto = values[live]
    words = np.array([_limit_reason(code) for code in range(len(layout.REASONS))], np.object_)

    def joined(ours: NDArray[Any], theirs: NDArray[Any]) -> U64:
        return np.concatenate([native(ours), native(theirs)])

    low = native(keys["low"][live])
    return Blocks(
        high=joined(rules["address"]["high"][held], keys["high"][live]),
        low=joined(rules["address"]["low"][held], low),
        length=np.concatenate(
            [rules["length"][held].astype(np.uint8), np.where(low == 0, 64, 128).astype(np.uint8)]
        ),
        automatic=np.repeat(np.array([0, 1], np.uint8), [len(held), len(live)]),
        reason=np.concatenate([said[held], words[np.minimum(auto["reason"], len(words) - 1)]]),
        set_ns=joined(rules["set_ns"][held], auto["set_ns"]),
        expires_ns=joined(until[held], auto["until_ns"]),
        packets=joined(hits["packets"][held], auto["packets"]),
        bytes=joined(hits["bytes"][held], auto["bytes"]),
    )


def allowed(rules: Records, hits: Records) -> Allowed:
    """Return the allow list; arguments as of `blocks`."""
    held = np.flatnonzero(rules["kind"] == Rule.ALLOWED)
    entries = rules[held]
    return Allowed(
        high=native(entries["address"]["high"]),
        low=native(entries["address"]["low"]),
        length=entries["length"].astype(np.uint8),
        packets=native(hits["packets"][held]),
        bytes=native(hits["bytes"][held]),
    )


def _limit_reason(code: int) -> str:
    word = LIMIT_WORDS.get(layout.REASONS[code])
    return f"over the limit of {word}" if word else layout.REASONS[code]


def event(record: Any, clock: Clock) -> Event:
    """Turn one `EVENT` record into words."""
    address = record["address"]
    prefix = Prefix(int(address["high"]), int(address["low"]), min(int(record["length"]), 128))
    kind = int(record["kind"])
    words = text(record["text"])
    first, second = (int(value) for value in record["value"])
    name, detail = _EVENT_WORDS.get(kind, ("unknown", lambda _a, _b, said: said))
    return Event(
        seq=int(record["seq"]),
        time_s=clock.wall_s - (clock.monotonic_ns - int(record["time_ns"])) / 1e9,
        kind=name,
        address="" if kind in (EventKind.FLOOD, EventKind.FLOOD_END) else str(prefix),
        detail=detail(first, second, words),
    )


def _block_detail(duration_ns: int, _second: int, words: str) -> str:
    lasts = f"for {duration(duration_ns / 1e9)}" if duration_ns else "for ever"
    return f"{lasts}, {words}" if words else lasts


def _flood_detail(packets: int, untracked: int, _words: str) -> str:
    if 2 * untracked > packets:
        return f"{count(untracked)} packets in a second from ever new sources"
    return f"{count(packets)} automatic drops in a second"


_EVENT_WORDS: Mapping[int, tuple[str, Callable[[int, int, str], str]]] = {
    EventKind.BLOCK: ("block", _block_detail),
    EventKind.BLOCK_AUTO: (
        "auto-block",
        lambda code, ns, _: f"{_limit_reason(min(code, len(layout.REASONS) - 1))}, "
        f"for {duration(ns / 1e9)}",
    ),
    EventKind.BLOCK_END: (
        "block-end", lambda _until, auto, _: "automatic block over" if auto else "block over",
    ),
    EventKind.UNBLOCK: ("unblock", lambda _a, _b, words: words),
    EventKind.FLOOD: ("flood", _flood_detail),
    EventKind.FLOOD_END: ("flood-end", lambda ns, _b, _w: f"after {duration(ns / 1e9)}"),
    EventKind.TABLE_FULL: (
        "table-full", lambda _a, _b, words: words or "the oldest sources make room for new ones",
    ),
    EventKind.BACKEND_UP: ("backend-up", lambda port, _, vip: f"port {port} of {vip} is healthy"),
    EventKind.BACKEND_DOWN: (
        "backend-down", lambda port, _, vip: f"port {port} of {vip} fails its checks",
    ),
    EventKind.BACKEND_STATE: (
        "backend-state",
        lambda port, code, vip: f"port {port} of {vip} is set to "
        f"{BACKEND_STATES[min(code, len(BACKEND_STATES) - 1)]}",
    ),
}  # fmt: skip
