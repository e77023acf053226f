# SPDX-License-Identifier: Apache-2.0
"""Records of the kernel's maps as the model's tables and words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ebpftop.bpf import layout
from ebpftop.bpf.layout import EventKind, Rule
from ebpftop.model import VERDICTS, Blocks, Clock, Count, Prefix, Sources
from ebpftop.sources import decoding

COUNTED = layout.TRAFFIC.names or ()
NOW_NS = 5_000_000_000
CLOCK = Clock(NOW_NS, 1_700_000_000.0)
REASON = {word: code for code, word in enumerate(layout.REASONS)}


def in_batches(keys: np.ndarray, rows: np.ndarray, size: int) -> Iterator[tuple[Any, Any]]:
    """Yield keys and rows as a map does: each batch in the memory of the one before it."""
    room = keys[:size].copy(), rows[:size].copy()
    for start in range(0, len(rows), size):
        count = min(size, len(rows) - start)
        for buffer, whole in zip(room, (keys, rows), strict=True):
            buffer[:count] = whole[start : start + count]
        yield room[0][:count], room[1][:count]


WORDS = (layout.ADDRESS.itemsize + layout.SOURCE.itemsize) // 8


@given(
    arrays.arrays(np.uint64, st.tuples(st.integers(0, 300), st.just(WORDS))), st.integers(1, 400)
)
def test_columns_are_the_fields_of_the_records(numbers: np.ndarray, size: int) -> None:
    keys = np.ascontiguousarray(numbers[:, :2]).view(layout.ADDRESS).reshape(len(numbers))
    rows = np.ascontiguousarray(numbers[:, 2:]).view(layout.SOURCE).reshape(len(numbers))
    columns = decoding.source_columns(in_batches(keys, rows, size), decoding.source_room(300))
    for name, column in columns.items():
        fields = keys if name in ("high", "low") else rows
        if name in COUNTED:
            expected = rows["counted"][name] + rows["others"][name]
        else:
            expected = rows["limiter"]["blocked"] if name == "blocked" else fields[name]
        assert np.array_equal(column, expected)
        assert column.dtype.isnative
        assert column.flags.c_contiguous
    parts = {"limiter", "counted", "others", "owner"}
    named = {"high", "low", *(layout.SOURCE.names or ()), "blocked", *COUNTED}
    assert columns.keys() == named - parts


def test_rows_beyond_what_a_table_holds_are_left_out() -> None:
    # Rows that move while a table is read may be read twice.
    keys, rows = np.zeros(7, layout.ADDRESS), np.zeros(7, layout.SOURCE)
    keys["low"] = np.arange(7)
    columns = decoding.source_columns(in_batches(keys, rows, 3), decoding.source_room(5))
    assert columns["low"].tolist() == [0, 1, 2, 3, 4]


def test_a_column_that_stands_still_is_held_once_and_others_outlive_their_room() -> None:
    keys, rows = np.zeros(2, layout.ADDRESS), np.zeros(2, layout.SOURCE)
    keys["low"], rows["last_ns"], rows["counted"]["dropped_packets"] = [7, 8], [1, 2], [0, 5]
    room = decoding.source_room(4)
    first = decoding.source_columns([(keys, rows)], room)
    decoding.keep(first, Sources.empty())
    before = replace(
        Sources.empty(), high=first["high"], low=first["low"], last_ns=first["last_ns"],
        dropped=first["dropped_packets"],
    )  # fmt: skip
    rows["last_ns"] = [1, 9]
    second = decoding.source_columns([(keys, rows)], room)
    decoding.keep(second, before)
    assert second["low"] is before.low
    assert second["dropped_packets"] is before.dropped
    assert before.last_ns.tolist() == [1, 2]
    room["last_ns"][:] = 0
    assert second["last_ns"].tolist() == [1, 9]


def test_addresses_are_turned_into_this_machines_byte_order() -> None:
    keys = np.zeros(1, layout.ADDRESS)
    keys[0] = (0x20010DB8 << 32, 7)
    low = decoding.native(keys["high"])
    assert low.dtype == np.dtype(np.uint64)
    assert low.dtype.isnative
    assert low.tolist() == [0x20010DB8 << 32]


def test_totals_are_summed_over_all_cpus() -> None:
    stats = np.zeros(3, layout.CPU_STATS)
    stats["received"]["packets"], stats["received"]["bytes"] = [1, 2, 4], [10, 20, 40]
    stats["verdicts"]["packets"][:, 1] = [1, 0, 1]
    stats["verdicts"]["bytes"][:, 1] = [10, 0, 5]
    stats["protocols"][:, layout.PROTOCOLS.index("icmpv6")] = [0, 1, 2]
    stats["syn"] = [3, 0, 3]
    stats["drops"][:, REASON["limit-syn"]] = [0, 7, 1]
    stats["would_drop"][:, REASON["blocked"]] = [1, 0, 0]
    stats["unparsed"][:, layout.UNPARSED.index("ip-header")] = [0, 0, 9]

    totals = decoding.totals(stats)

    assert totals.received == Count(7, 70)
    assert totals.verdicts == dict.fromkeys(VERDICTS, Count()) | {"dropped": Count(2, 15)}
    assert totals.protocols == dict.fromkeys(layout.PROTOCOLS, 0) | {"icmpv6": 3}
    assert totals.syn == 6
    assert {word: n for word, n in totals.drops.items() if n} == {"limit-syn": 8}
    assert {word: n for word, n in totals.would_drop.items() if n} == {"blocked": 1}
    assert {word: n for word, n in totals.unparsed.items() if n} == {"ip-header": 9}
    assert "" not in {*totals.drops, *totals.would_drop, *totals.unparsed}


def test_rates_of_totals_are_their_growth_over_the_interval() -> None:
    before, now = np.zeros(1, layout.CPU_STATS), np.zeros(1, layout.CPU_STATS)
    before["received"][:] = (100, 6000)
    now["received"][:] = (350, 21_000)
    now["verdicts"][0, 0] = (250, 15_000)
    now["protocols"][0, 1] = 250
    now["syn"] = 5

    rates = decoding.total_rates(decoding.totals(now), decoding.totals(before), 0.5)

    assert rates.pps == dict.fromkeys(VERDICTS, 0) | {"received": 500, "passed": 500}
    assert rates.bps["received"] == 30_000 * 8
    assert (rates.protocols["udp"], rates.syn) == (500, 10)


def rule(prefix: str, kind: Rule, until_ns: int = 0, text: bytes = b"") -> np.ndarray:
    record, parsed = np.zeros(1, layout.RULE), Prefix.parse(prefix)
    record["address"][:] = (parsed.high, parsed.low)
    record["length"], record["kind"], record["text"] = parsed.length, kind, text
    record["until_ns"], record["set_ns"] = until_ns, 17
    return record


def joined(*records: np.ndarray) -> np.ndarray:
    return np.concatenate(records, dtype=layout.RULE) if records else np.zeros(0, layout.RULE)


def blocks(rules: np.ndarray, hits: np.ndarray, automatic: tuple[np.ndarray, np.ndarray]) -> Blocks:
    return decoding.blocks(rules, decoding.reasons(rules), hits, automatic, NOW_NS)


def test_blocks_are_manual_ones_and_automatic_ones_that_hold() -> None:
    rules = joined(
        rule("192.0.2.1", Rule.BLOCKED, 0, b"spam"),
        rule("192.0.2.9", Rule.ALLOWED),
        rule("2001:db8::/32", Rule.BLOCKED, NOW_NS + 1),
        rule("192.0.2.2", Rule.BLOCKED, NOW_NS),
        rule("192.0.2.3", Rule.BLOCKED, layout.RULE_ENDED),
        np.zeros(1, layout.RULE),
    )
    hits = np.zeros(len(rules), layout.COUNT)
    hits["packets"], hits["bytes"] = range(6), range(0, 60, 10)
    keys, values = np.zeros(3, layout.ADDRESS), np.zeros(3, layout.AUTO_BLOCK)
    for at, (address, until_ns, reason) in enumerate(
        [
            ("203.0.113.7", NOW_NS + 5, "limit-syn"),
            ("2001:db8:0:1::", NOW_NS + 6, "limit-pps"),
            ("203.0.113.8", NOW_NS, "limit-pps"),
        ]
    ):
        parsed = Prefix.parse(address)
        keys[at] = (parsed.high, parsed.low)
        values[at]["until_ns"], values[at]["reason"] = until_ns, REASON[reason]
        values[at]["packets"], values[at]["bytes"], values[at]["set_ns"] = 7 + at, 70, 18

    held = blocks(rules, hits, (keys, values))

    assert [str(held.prefix(row)) for row in range(len(held))] == [
        "192.0.2.1", "2001:db8::/32", "203.0.113.7", "2001:db8:0:1::/64",
    ]  # fmt: skip
    assert held.automatic.tolist() == [0, 0, 1, 1]
    assert held.reason.tolist() == [
        "spam", "", "over the limit of connection requests", "over the limit of packets",
    ]  # fmt: skip
    assert held.packets.tolist() == [0, 2, 7, 8]
    assert held.bytes.tolist() == [0, 20, 70, 70]
    assert held.set_ns.tolist() == [17, 17, 18, 18]
    assert held.expires_ns.tolist() == [0, NOW_NS + 1, NOW_NS + 5, NOW_NS + 6]
    assert held.low.dtype.isnative


def test_tables_without_rows_are_tables() -> None:
    none = np.zeros(0, layout.RULE), np.zeros(0, layout.COUNT)
    nobody = np.zeros(0, layout.ADDRESS), np.zeros(0, layout.AUTO_BLOCK)
    assert len(blocks(*none, nobody)) == 0
    assert len(decoding.allowed(*none)) == 0
    assert decoding.source_columns([], decoding.source_room(10))["last_ns"].tolist() == []


def test_the_allow_list_leaves_blocks_out() -> None:
    rules = joined(rule("192.0.2.1", Rule.BLOCKED), rule("192.0.2.0/24", Rule.ALLOWED))
    hits = np.zeros(2, layout.COUNT)
    hits["packets"], hits["bytes"] = [3, 5], [30, 50]

    listed = decoding.allowed(rules, hits)

    assert [str(listed.prefix(row)) for row in range(len(listed))] == ["192.0.2.0/24"]
    assert (listed.packets.tolist(), listed.bytes.tolist()) == ([5], [50])


@pytest.mark.parametrize("raw", [b"\x1b[31mred", b"a\nb", "\u202eabc".encode(), b"\xff\xfe"])
def test_text_of_a_map_reaches_nobody_as_control(raw: bytes) -> None:
    assert decoding.text(raw).isprintable()
    held = blocks(
        rule("192.0.2.1", Rule.BLOCKED, text=raw),
        np.zeros(1, layout.COUNT),
        (np.zeros(0, layout.ADDRESS), np.zeros(0, layout.AUTO_BLOCK)),
    )
    assert held.reason[0].isprintable()


@pytest.mark.parametrize(
    ("kind", "values", "text", "told"),
    [
        (EventKind.BLOCK, (0, 0), b"", ("block", "192.0.2.1", "for ever")),
        (EventKind.BLOCK, (9 * 10**9, 0), b"spam", ("block", "192.0.2.1", "for 9s, spam")),
        (EventKind.BLOCK_AUTO, (REASON["limit-bps"], 60 * 10**9), b"",
         ("auto-block", "192.0.2.1", "over the limit of bits, for 1m00s")),
        (EventKind.BLOCK_AUTO, (99, 10**9), b"",
         ("auto-block", "192.0.2.1", f"{layout.REASONS[-1]}, for 1s")),
        (EventKind.BLOCK_END, (0, 1), b"", ("block-end", "192.0.2.1", "automatic block over")),
        (EventKind.BLOCK_END, (0, 0), b"", ("block-end", "192.0.2.1", "block over")),
        (EventKind.UNBLOCK, (0, 0), b"by me", ("unblock", "192.0.2.1", "by me")),
        (EventKind.FLOOD, (1500, 0), b"", ("flood", "", "1.50k automatic drops in a second")),
        (EventKind.FLOOD_END, (3 * 10**9, 0), b"", ("flood-end", "", "after 3s")),
        (EventKind.TABLE_FULL, (0, 0), b"",
         ("table-full", "192.0.2.1", "the oldest sources make room for new ones")),
        (77, (0, 0), b"what", ("unknown", "192.0.2.1", "what")),
    ],
)  # fmt: skip
def test_an_event_is_told_in_words(
    kind: int, values: tuple[int, int], text: bytes, told: tuple[str, str, str]
) -> None:
    record, prefix = np.zeros(1, layout.EVENT), Prefix.parse("192.0.2.1")
    record["seq"], record["time_ns"], record["kind"] = 5, NOW_NS - 2 * 10**9, kind
    record["address"][:] = (prefix.high, prefix.low)
    record["length"], record["value"], record["text"] = 128, values, text

    event = decoding.event(record[0], CLOCK)

    assert (event.kind, event.address, event.detail) == told
    assert (event.seq, event.time_s) == (5, CLOCK.wall_s - 2)
