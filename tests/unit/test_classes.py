# SPDX-License-Identifier: Apache-2.0
"""Traffic classes in the policy file, in the report, and what they may be."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from ebpftop import config, report
from ebpftop.bpf import shaper_layout
from ebpftop.control.class_rules import check_class, check_together
from ebpftop.errors import NotFoundError, UsageError
from ebpftop.model import ClassKey, Prefix, TrafficClass
from tests.tui.fakes import Shaped, classes, snapshot

MBIT = 1_000_000


def read(tmp_path: Path, text: str) -> config.Policy:
    """Load a policy file with this text."""
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return config.load(path)


def test_classes_of_a_policy(tmp_path: Path) -> None:
    policy = read(
        tmp_path,
        """
        [shaping]
        count_sent = "off"
        [[class]]
        name = "up"
        rate = "1gbit"
        [[class]]
        name = "video"
        rate = "20mbit"
        direction = "ingress"
        burst = "64kb"
        action = "police"
        priority = 3
        parent = "up"
        addresses = ["192.0.2.0/24", "2001:db8::1"]
        """,
    )

    assert policy.shaping.count_sent == "off"
    up, video = (each.traffic_class() for each in policy.classes)
    assert up == TrafficClass(ClassKey("up"), 1000 * MBIT)
    assert video == TrafficClass(ClassKey("video", "ingress"), 20 * MBIT, 65_536, "police", 3, "up")
    assert policy.classes[1].addresses == (
        Prefix.parse("192.0.2.0/24"),
        Prefix.parse("2001:db8::1"),
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('rate = "20"', ("class.rate", 'rate = "20mbit"')),
        ('rate = "20mbit"\nburst = "x"', ("class.burst", 'burst = "64kb"')),
        ('rate = "20mbit"\nrat = 1', ("class.rat", "did you mean class.rate")),
        ('rate = "20mbit"\naction = "shape"', ("class.action", "auto, pace, htb, police")),
        ('rate = "20mbit"\naddresses = ["x"]', ("class.addresses", "x")),
        ('rate = "20mbit"\npriority = 9', ("class.priority", "priority = 0")),
    ],
)
def test_a_mistake_in_a_class_is_named(tmp_path: Path, line: str, words: Sequence[str]) -> None:
    with pytest.raises(UsageError) as refusal:
        read(tmp_path, f'[[class]]\nname = "video"\n{line}\n')

    for word in words:
        assert word in str(refusal.value)


def test_a_class_without_a_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rate"):
        read(tmp_path, '[[class]]\nname = "video"\n')


def wanted(name: str, mbit: int = 10, parent: str = "", direction: str = "egress") -> TrafficClass:
    """Return a class."""
    return TrafficClass(ClassKey(name, direction), mbit * MBIT, parent=parent)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (TrafficClass(ClassKey("a b"), MBIT), "no name"),
        (TrafficClass(ClassKey(""), MBIT), "no name"),
        (TrafficClass(ClassKey("x" * 32), MBIT), "no name"),
        (TrafficClass(ClassKey("\x1b[31m"), MBIT), "no name"),
        (TrafficClass(ClassKey("a", "sideways"), MBIT), "no direction"),
        (TrafficClass(ClassKey("a"), 7_999), "out of range"),
        (TrafficClass(ClassKey("a"), 100_001 * MBIT), "out of range"),
        (TrafficClass(ClassKey("a"), MBIT, 100), "a burst is"),
        (TrafficClass(ClassKey("a"), 8000, 4_000_000), "an hour"),
        (TrafficClass(ClassKey("a"), MBIT, priority=8), "0 to 7"),
        (TrafficClass(ClassKey("a"), MBIT, action="best"), "no action"),
        (TrafficClass(ClassKey("a", "ingress"), MBIT, action="pace"), "comes in"),
    ],
)
def test_what_a_class_cannot_be(changed: TrafficClass, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as refusal:
        check_class(changed)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("rate_bps", [8_000, 100_000 * MBIT])
def test_the_slowest_and_the_fastest_class(rate_bps: int) -> None:
    check_class(TrafficClass(ClassKey("a"), rate_bps))


def test_classes_that_fit_together() -> None:
    check_together([wanted("up", 30), wanted("a", 10, "up"), wanted("b", 20, "up"), wanted("c")])


@pytest.mark.parametrize(
    ("classes_", "problem", "kind"),
    [
        ([wanted("a", 10, "up")], "no class, up", NotFoundError),
        ([wanted("up", 30), wanted("a", 10, "up", "ingress")], "no class, up", NotFoundError),
        ([wanted("a", 10, "a")], "own ceiling", UsageError),
        ([wanted("x"), wanted("up", 9, "x"), wanted("a", 8, "up")], "one level deep", UsageError),
        ([wanted("up", 30), wanted("a", 20, "up"), wanted("b", 11, "up")], "promised", UsageError),
    ],
)
def test_classes_that_do_not(
    classes_: Sequence[TrafficClass], problem: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=problem):
        check_together(classes_)


def test_the_report_has_what_the_command_line_promises() -> None:
    shown = snapshot(classes=classes([Shaped("video", tokens_bytes=-12.4), Shaped("x")]))

    rows = report.classes(shown)

    assert rows[0].keys() >= {
        "class", "direction", "action", "rate_bps", "burst_bytes", "tokens_bytes", "packets",
        "bytes", "dropped_packets", "dropped_bytes", "marked_packets", "bps",
    }  # fmt: skip
    assert (rows[0]["class"], rows[0]["tokens_bytes"], rows[0]["bps"]) == ("video", -12, 10 * MBIT)
    assert json.loads(json.dumps(rows)) == rows


def test_what_is_not_known_is_null() -> None:
    unknown = classes([Shaped("video", tokens_bytes=math.nan, bps=math.nan)])

    (row,) = report.classes(snapshot(classes=unknown))

    assert (row["tokens_bytes"], row["bps"]) == (None, None)


def test_the_time_a_bucket_lasts() -> None:
    held = classes(
        [
            Shaped("falling", 8 * MBIT, tokens_bytes=1000, offered_bps=16 * MBIT),
            Shaped("resting", 8 * MBIT, tokens_bytes=1000, offered_bps=8 * MBIT),
            Shaped("empty", 8 * MBIT, tokens_bytes=-5),
        ]
    )

    assert [held.empty_in_s(row) for row in range(3)] == [pytest.approx(0.001), math.inf, 0.0]


def test_line_time_is_exact_from_the_slowest_to_the_fastest_rate() -> None:
    assert shaper_layout.line_time(60, 100_000 * MBIT) == pytest.approx(4.8 * 256, abs=0.5)
    assert shaper_layout.line_time(1000, 8_000) == 10**9 * 256


@pytest.mark.parametrize("behind_ns", [0, 1, 10**9, 365 * 86_400 * 10**9])
def test_what_is_past_owes_nothing_even_when_the_clock_has_wrapped(behind_ns: int) -> None:
    now_ns = 1 << 55
    past = (now_ns - behind_ns) << shaper_layout.TIME_SHIFT
    for shape in (0, 1):
        assert shaper_layout.owed(shaper_layout.bucket_at(past, shape), now_ns) == 0
        later = shaper_layout.bucket_at(past + 77, shape)
        assert shaper_layout.owed(later, now_ns - behind_ns) == 77
        assert shaper_layout.shape_of(later) == shape
