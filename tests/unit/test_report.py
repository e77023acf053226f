# SPDX-License-Identifier: Apache-2.0
"""A snapshot as JSON: every promised field, its type, and null for what is unknown."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ebpftop import report
from ebpftop.filtering import Filter
from ebpftop.model import (
    Event,
    Interface,
    Limits,
    MapInfo,
    Prefix,
    Program,
    Snapshot,
    SourceState,
)
from tests.tui import fakes
from tests.tui.fakes import Block, Talker

NUMBER = (int, float)
OPTIONAL = (int, type(None))

TALKERS = [
    Talker("192.0.2.1", 10.5, SourceState.BLOCKED, 500, dropped=400, seen_s_ago=1),
    Talker("192.0.2.2", 30.0, SourceState.LIMITED, 100, dropped=50, seen_s_ago=9),
    Talker("2001:db8::1", math.nan, SourceState.ALLOWED, 900, seen_s_ago=0),
    Talker("192.0.3.3", 0.0, SourceState.PASSED, 900, dropped=7, seen_s_ago=5),
]


def json_of(value: Any) -> Any:
    """Return what a reader of the JSON gets; numpy's types and NaN would not pass."""
    return json.loads(json.dumps(value, allow_nan=False))


def check(row: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, kinds in fields.items():
        assert isinstance(row[name], kinds), name
        assert not (kinds in (int, NUMBER) and isinstance(row[name], bool)), name


@pytest.fixture
def snapshot() -> Snapshot:
    return fakes.snapshot(
        sources=fakes.sources(TALKERS),
        blocks=fakes.blocks(
            [Block("192.0.2.1", 60, "spam", packets=5), Block("10.0.0.0/8", None, automatic=True)]
        ),
        allowed=fakes.allowed(["2001:db8::/32"]),
        limits=Limits(pps=1000, burst_s=0.5, dry_run=True),
        interfaces=[Interface("eth0", "native"), Interface("eth1", "generic", up=False)],
        programs=[Program("xdp_pipeline", 7, "xdp", "c0ffee", None, None, 41_000)],
        maps=[MapInfo("stats", "percpu_array", None, 1, None)],
        protected=[(Prefix.parse("192.0.2.254"), "gateway")],
        invariants={"verdicts = received": np.bool_(True).item()},
        totals=fakes.totals(1000, 400, {"blocked": 400}),
    )


def test_status_has_every_promised_field(snapshot: Snapshot) -> None:
    answer = json_of(report.status(snapshot, "eth1"))

    check(answer, {"iface": str, "attached": bool, "uptime_s": NUMBER, "syn": int})
    assert (answer["iface"], answer["attached"]) == ("eth1", True)
    assert [(i["name"], i["mode"]) for i in answer["interfaces"]] == [
        ("eth0", "native"), ("eth1", "generic"),
    ]  # fmt: skip
    check(
        answer["programs"][0],
        {
            "name": str, "id": int, "hook": str, "tag": str, "run_count": OPTIONAL,
            "run_ns": OPTIONAL, "verified_insns": OPTIONAL,
        },
    )  # fmt: skip
    assert answer["programs"][0]["run_ns"] is None
    words = ("total", "passed", "dropped", "transmitted", "redirected", "aborted")
    assert [answer["packets"][word] for word in words] == [1000, 600, 400, 0, 0, 0]
    assert [answer["bytes"][word] for word in words] == [500_000, 300_000, 200_000, 0, 0, 0]
    assert answer["protocols"].keys() == {"tcp", "udp", "icmp", "icmpv6", "other"}
    assert answer["drops"] == {"blocked": 400}
    assert answer["limits"] == {
        "pps": 1000, "bps": 0, "syn": 0, "burst_s": 0.5, "grace_s": 1.0, "block_for_s": 60.0,
        "dry_run": True,
    }  # fmt: skip
    check(
        answer["maps"][0],
        {
            "name": str, "type": str, "entries": OPTIONAL, "max_entries": int,
            "memory_bytes": OPTIONAL,
        },
    )  # fmt: skip
    assert (answer["maps"][0]["entries"], answer["maps"][0]["memory_bytes"]) == (None, None)
    assert answer["invariants"] == {"verdicts = received": True}


def test_top_has_every_promised_field(snapshot: Snapshot) -> None:
    rows = json_of(report.top(snapshot, range(4)))

    for row in rows:
        check(
            row,
            {
                "address": str, "packets": int, "bytes": int, "pps": (*NUMBER, type(None)),
                "bps": (*NUMBER, type(None)), "dropped": int, "state": str,
                "first_seen_s": NUMBER, "last_seen_s": NUMBER,
            },
        )  # fmt: skip
    assert [row["address"] for row in rows] == [t.address for t in TALKERS]
    assert [row["state"] for row in rows] == ["blocked", "limited", "allowed", "passed"]
    assert [row["pps"] for row in rows] == [10.5, 30.0, None, 0.0]
    assert [row["dropped"] for row in rows] == [400, 50, 0, 7]
    assert [fakes.START_S - row["last_seen_s"] for row in rows] == [1, 9, 0, 5]


@pytest.mark.parametrize(
    ("sort", "rows"),
    [
        ("pps", [1, 0, 3, 2]),
        ("bps", [1, 0, 3, 2]),
        ("packets", [3, 2, 0, 1]),
        ("bytes", [3, 2, 0, 1]),
        ("dropped", [0, 1, 3, 2]),
        ("last", [2, 0, 3, 1]),
    ],
)
def test_top_is_sorted_by_each_word(snapshot: Snapshot, sort: str, rows: list[int]) -> None:
    def chosen(count: int | None) -> list[int]:
        everything = Filter.parse("", report.TOP_FIELDS)
        rows: list[int] = report.chosen_sources(
            snapshot, sort=sort, count=count, only=everything
        ).tolist()
        return rows

    assert chosen(None) == rows
    assert chosen(2) == rows[:2]
    assert chosen(0) == []
    assert sort in report.TOP_SORTS
    assert len(report.TOP_SORTS) == 6


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("", [1, 0, 3, 2]),
        ("address:192.0.2.0/24", [1, 0]),
        ("state:allowed", [2]),
        ("packets:=900 -state:passed", [2]),
        ("pps:>10 dropped:>100", [0]),
        ("last_seen_s:>1", [1, 0, 3, 2]),
        ("2001:db8", [2]),
    ],
)
def test_top_shows_what_passes_the_filter(
    snapshot: Snapshot, expression: str, rows: list[int]
) -> None:
    only = Filter.parse(expression, report.TOP_FIELDS)
    assert report.chosen_sources(snapshot, sort="pps", count=None, only=only).tolist() == rows


def test_the_fields_of_the_filter_are_the_fields_of_the_table(snapshot: Snapshot) -> None:
    columns = snapshot.sources.columns(snapshot.clock)
    assert {name: column.kind for name, column in columns.items()} == report.TOP_FIELDS


def test_blocks_end_in_seconds_or_never(snapshot: Snapshot) -> None:
    assert json_of(report.blocks(snapshot)) == [
        {"address": "192.0.2.1", "source": "manual", "reason": "spam", "expires_in_s": 60.0,
         "packets": 5, "bytes": 300},
        {"address": "10.0.0.0/8", "source": "auto", "reason": "", "expires_in_s": None,
         "packets": 0, "bytes": 0},
    ]  # fmt: skip


def test_a_block_that_the_kernel_is_about_to_end_has_no_time_left() -> None:
    ending = fakes.snapshot(blocks=fakes.blocks([Block("192.0.2.1", -0.003)]))
    assert report.blocks(ending)[0]["expires_in_s"] == 0


def test_the_allow_list_says_what_it_let_through(snapshot: Snapshot) -> None:
    assert json_of(report.allowed(snapshot)) == [
        {"address": "2001:db8::/32", "packets": 1000, "bytes": 80_000}
    ]


def test_an_event_about_no_address_says_null() -> None:
    told = [
        Event(1, 1.5, "flood", "", "2k drops"),
        Event(2, 2.0, "block", "192.0.2.1", "for ever"),
    ]
    assert json_of(report.events(told)) == [
        {"seq": 1, "time": 1.5, "kind": "flood", "address": None, "detail": "2k drops"},
        {"seq": 2, "time": 2.0, "kind": "block", "address": "192.0.2.1", "detail": "for ever"},
    ]


def test_an_empty_snapshot_is_json_too() -> None:
    empty = replace(fakes.snapshot(), rates=None, interval_s=None)
    assert json_of(report.status(empty, "eth0"))["programs"] == []
    assert report.top(empty, []) == report.blocks(empty) == report.allowed(empty) == []
