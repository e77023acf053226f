# SPDX-License-Identifier: Apache-2.0
"""The verb that limits: partial changes, zero for off, and what is out of range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.stage import IFACE, Stage, ebpftop, staged

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=0, quiet=True) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Stage:
    attached.clear()
    return attached


def limits() -> dict[str, Any]:
    answer: dict[str, Any] = ebpftop("limit", IFACE, "--json").json()
    return answer


def test_limits_change_one_by_one_and_keep_the_rest(stage: Stage) -> None:
    off = limits()
    assert (off["pps"], off["bps"], off["syn"], off["dry_run"]) == (0, 0, 0, False)
    changes: list[tuple[list[str], dict[str, Any]]] = [
        (["--pps", "2k"], {"pps": 2000}),
        (["--bps", "50mbit"], {"bps": 50_000_000}),
        (["--syn", "100", "--burst", "500ms"], {"syn": 100, "burst_s": 0.5}),
        (["--grace", "0", "--block-for", "10m"], {"grace_s": 0.0, "block_for_s": 600.0}),
        (["--dry-run", "on"], {"dry_run": True}),
        (["--pps", "0"], {"pps": 0}),
        (["--dry-run", "off", "--bps", "0", "--syn", "0"],
         {"dry_run": False, "bps": 0, "syn": 0}),
    ]  # fmt: skip
    expected = off
    for words, changed in changes:
        assert ebpftop("limit", IFACE, *words).status == 0
        expected = expected | changed
        assert limits() == expected
    assert ebpftop("status", IFACE, "--json").json()["limits"] == expected
    shown = ebpftop("limit", IFACE).out
    assert "packets a second              off" in shown
    assert "automatic block               10m" in shown


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--bps", "7kbit"], "a limit below 8kbit would stop single frames"),
        (["--pps", "2g"], "that limit is above any link's rate"),
        (["--bps", "2tbit"], "that limit is above any link's rate"),
        (["--burst", "0"], "a burst is above 0 and at most 1h"),
        (["--burst", "2h"], "a burst is above 0 and at most 1h"),
        (["--grace", "40d"], "that is longer than 30 days"),
        (["--block-for", "40d"], "that is longer than 30 days"),
        (["--pps", "100", "--burst", "forever"], "--burst cannot be for ever"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_limit_out_of_range_changes_nothing(stage: Stage, words: list[str], problem: str) -> None:
    before = stage.instance.maps["config"].read()[1].copy()
    done = ebpftop("limit", IFACE, *words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"ebpftop: {problem}")
    assert (stage.instance.maps["config"].read()[1] == before).all()


def test_a_limit_holds_for_sources_that_sent_before_it_too(stage: Stage) -> None:
    stage.send("10.3.0.1", 100)
    assert stage.row("10.3.0.1")["dropped_packets"] == 0
    ebpftop("limit", IFACE, "--pps", "10", "--burst", "100ms", "--block-for", "0")
    stage.send("10.3.0.1", 100)
    assert stage.row("10.3.0.1")["dropped_packets"] > 90
    ebpftop("limit", IFACE, "--pps", "0")
    dropped = stage.row("10.3.0.1")["dropped_packets"]
    stage.send("10.3.0.1", 100)
    assert stage.row("10.3.0.1")["dropped_packets"] == dropped
