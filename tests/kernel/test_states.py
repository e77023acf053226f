# SPDX-License-Identifier: Apache-2.0
"""The state that is shown for a source is what becomes of its next packet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from ebpftop.model import Limits, Prefix, Snapshot, SourceState
from ebpftop.sources import states
from tests.kernel.stage import IFACE, Stage, ebpftop, staged, until

pytestmark = pytest.mark.kernel

ADDRESSES = (
    "10.6.0.1", "10.6.0.2", "10.6.1.1", "10.7.0.1", "2001:db8:6:1::1", "2001:db8:6:1::2",
    "2001:db8:6:2::1", "2001:db8:7::1",
)  # fmt: skip


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=0, quiet=True) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Stage:
    attached.clear()
    for address in ADDRESSES:
        attached.send(address)
    return attached


class Watched:
    """The states of all addresses, by a source that keeps watching and by one that just came."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._source = stage.source()

    def kept(self) -> dict[str, str]:
        """Return what the source says that keeps watching."""
        return _labels(self._source.snapshot())

    def states(self) -> dict[str, str]:
        """Return what both say; no block or limit may be about to end."""
        kept = self.kept()
        assert kept == _labels(self._stage.snapshot())
        return kept


def _labels(snapshot: Snapshot) -> dict[str, str]:
    found = {}
    for address in ADDRESSES:
        row = snapshot.sources.row_of(Prefix.parse(address))
        assert row is not None
        found[address] = SourceState(int(snapshot.sources.state[row])).label
    return found


def verdicts(stage: Stage) -> dict[str, str]:
    """Send a packet from each address; return what became of it."""
    found = {}
    for address in ADDRESSES:
        before = stage.row(address)["dropped_packets"]
        stage.send(address)
        dropped = stage.row(address)["dropped_packets"] > before
        found[address] = "dropped" if dropped else "passed"
    return found


def states_of(**changed: str) -> dict[str, str]:
    """Return `passed` for all but the addresses at these places."""
    found = dict.fromkeys(ADDRESSES, "passed")
    return found | {ADDRESSES[int(at[1:])]: state for at, state in changed.items()}


def verdicts_of(shown: dict[str, str]) -> dict[str, str]:
    return {a: "dropped" if state == "blocked" else "passed" for a, state in shown.items()}


CASES: list[tuple[list[list[str]], dict[str, Any]]] = [
    ([["block", "10.6.0.1"]], {"_0": "blocked"}),
    ([["block", "10.6.0.0/24"]], {"_0": "blocked", "_1": "blocked"}),
    ([["block", "10.6.0.0/16"]], {"_0": "blocked", "_1": "blocked", "_2": "blocked"}),
    ([["block", "0.0.0.0/0"]], dict.fromkeys(("_0", "_1", "_2", "_3"), "blocked")),
    ([["block", "2001:db8:6:1::1"]], {"_4": "blocked"}),
    ([["block", "2001:db8:6:1::/64"]], {"_4": "blocked", "_5": "blocked"}),
    ([["block", "2001:db8:6::/48"]], {"_4": "blocked", "_5": "blocked", "_6": "blocked"}),
    ([["block", "2001:db8:6::/48"], ["allow", "2001:db8:6:1::1"]],
     {"_4": "allowed", "_5": "blocked", "_6": "blocked"}),
    ([["block", "10.6.0.1"], ["allow", "10.0.0.0/8"]],
     {"_0": "allowed", "_1": "allowed", "_2": "allowed", "_3": "allowed"}),
    ([["allow", "10.6.0.0/24"], ["block", "10.0.0.0/8"]],
     {"_0": "allowed", "_1": "allowed", "_2": "blocked", "_3": "blocked"}),
]  # fmt: skip


@pytest.mark.parametrize(("acts", "shown"), CASES, ids=lambda value: str(value)[:50])
def test_a_list_shows_at_once_on_rows_that_did_not_send_since_and_as_it_works(
    stage: Stage, acts: list[list[str]], shown: dict[str, str]
) -> None:
    watched = Watched(stage)
    assert watched.states() == states_of()
    for verb, address in acts:
        assert ebpftop(verb, IFACE, address).status == 0

    assert watched.states() == states_of(**shown)
    assert verdicts(stage) == verdicts_of(states_of(**shown))
    assert watched.states() == states_of(**shown)

    for verb, address in reversed(acts):
        undo = {"block": "unblock", "allow": "disallow"}[verb]
        assert ebpftop(undo, IFACE, address).status == 0
    assert watched.states() == states_of()
    assert verdicts(stage) == verdicts_of(states_of())


@pytest.mark.parametrize("sending", [False, True])
def test_a_block_that_ends_by_itself_leaves_the_state_at_the_same_moment(
    stage: Stage, sending: bool
) -> None:
    watched = Watched(stage)
    stage.control.block(Prefix.parse("10.6.0.0/24"), for_s=0.8)
    stage.control.block(Prefix.parse("2001:db8:6:1::1"), for_s=0.8)
    stage.control.block(Prefix.parse("10.6.0.1"), for_s=None)
    ends_s = time.monotonic() + 0.8
    shown = states_of(_0="blocked", _1="blocked", _4="blocked")
    assert watched.kept() == shown
    if sending:
        assert verdicts(stage) == verdicts_of(shown)

    until(lambda: watched.kept() == states_of(_0="blocked"), 5)
    assert ends_s - 0.1 < time.monotonic() < ends_s + 1
    assert watched.states() == states_of(_0="blocked")
    assert verdicts(stage) == verdicts_of(states_of(_0="blocked"))


def test_a_source_over_its_limit_shows_so_for_a_while(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "LIMITED_FOR_NS", 600_000_000)
    watched = Watched(stage)
    stage.control.set_limits(Limits(pps=10, burst_s=0.1, block_for_s=0))
    stage.send("10.6.0.1", 50)
    stage.send("2001:db8:6:1::1", 50)
    assert watched.kept() == states_of(_0="limited", _4="limited")
    until(lambda: watched.kept() == states_of(), 5)


def test_an_automatic_block_shows_on_the_address_or_on_all_of_its_64(stage: Stage) -> None:
    watched = Watched(stage)
    stage.control.set_limits(Limits(pps=10, burst_s=0.1, grace_s=0, block_for_s=1))
    for address in ("10.6.0.1", "2001:db8:6:1::1"):
        stage.send(address, 50)
    shown = states_of(_0="blocked", _4="blocked", _5="blocked")
    assert watched.kept() == shown

    stage.control.allow(Prefix.parse("2001:db8:6:1::2"))
    assert watched.kept() == shown | {"2001:db8:6:1::2": "allowed"}
    stage.control.set_limits(Limits())
    until(lambda: "blocked" not in watched.kept().values(), 5)
    assert set(verdicts(stage).values()) == {"passed"}


def test_unblocking_ends_an_automatic_block(stage: Stage) -> None:
    watched = Watched(stage)
    stage.control.set_limits(Limits(pps=10, burst_s=0.1, grace_s=0, block_for_s=600))
    for address in ("10.6.0.1", "2001:db8:6:1::1"):
        stage.send(address, 50)
    stage.control.set_limits(Limits())
    listed = {row["address"]: row for row in ebpftop("blocks", IFACE, "--json").json()}
    assert {(a, row["source"]) for a, row in listed.items()} == {
        ("10.6.0.1", "auto"), ("2001:db8:6:1::/64", "auto"),
    }  # fmt: skip

    # One address of the network cannot be unblocked by itself: the answer names the network.
    done = ebpftop("unblock", IFACE, "2001:db8:6:1::1")
    assert done.status == 3
    assert "the block of 2001:db8:6:1::/64 holds it" in done.err
    for address in listed:
        assert ebpftop("unblock", IFACE, address).status == 0
    assert "blocked" not in watched.states().values()
    assert set(verdicts(stage).values()) == {"passed"}


def test_an_automatic_block_that_is_over_cannot_be_unblocked_and_is_remembered(
    stage: Stage,
) -> None:
    source = stage.source()
    source.snapshot()
    stage.control.set_limits(Limits(pps=10, burst_s=0.1, grace_s=0, block_for_s=0.1))
    stage.send("10.6.0.1", 50)
    until(lambda: ebpftop("blocks", IFACE, "--json").json() == [])
    done = ebpftop("unblock", IFACE, "10.6.0.1")
    assert (done.status, done.out) == (3, "")

    # The next one is twice as long.
    stage.send("10.6.0.1", 50)
    told = [event for event in source.snapshot().events if event.kind == "auto-block"]
    assert [event.detail.rpartition(" ")[2] for event in told] == ["100ms", "200ms"]
