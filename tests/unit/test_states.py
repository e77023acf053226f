# SPDX-License-Identifier: Apache-2.0
"""What is happening to a source, against the same rules said plainly in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Rule
from ebpftop.model import Prefix, SourceState
from ebpftop.sources.states import LIMITED_FOR_NS, States

NOW_NS = 10**15
BEFORE, AFTER, EVER = NOW_NS - 1, NOW_NS + 1, 0
PASSED, ALLOWED, LIMITED, BLOCKED = SourceState

ADDRESSES = (
    "192.0.2.1", "192.0.2.2", "192.0.3.1", "203.0.113.7", "2001:db8:0:1::1", "2001:db8:0:1::2",
    "2001:db8:0:2::1", "2001:db8:1::1",
)  # fmt: skip
PREFIXES = (
    *ADDRESSES, "192.0.2.0/24", "192.0.2.0/31", "192.0.0.0/16", "0.0.0.0/0", "2001:db8:0:1::/64",
    "2001:db8::/32", "2001:db8::/47", "::/0",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A source as the kernel keeps it."""

    address: str
    generation: int = 0
    found: int = 0
    limited_ns: int = 0
    blocked: int = 0


@dataclass(frozen=True)
class Listed:
    """An entry of the lists."""

    prefix: str
    kind: Rule = Rule.BLOCKED
    until_ns: int = EVER


class Reader:
    """Asks `States` with records made of plain rows, snapshot after snapshot."""

    def __init__(self) -> None:
        self._states = States()
        self._before: list[str] = []

    def states(
        self,
        rows: Sequence[Row],
        listed: Sequence[Listed] = (),
        *,
        automatic: Sequence[Listed] = (),
        generation: int = 7,
        now_ns: int = NOW_NS,
    ) -> list[SourceState]:
        prefixes = [Prefix.parse(row.address) for row in rows]
        matched = [self._before.index(r.address) if r.address in self._before else -1 for r in rows]
        self._before = [row.address for row in rows]
        fields = {
            "policy": [row.generation << 32 | row.found for row in rows],
            "limited_ns": [row.limited_ns for row in rows],
            "blocked": [row.blocked for row in rows],
        }
        found = self._states.of(
            np.array([prefix.high for prefix in prefixes], np.uint64),
            np.array([prefix.low for prefix in prefixes], np.uint64),
            {name: np.array(values, np.uint64) for name, values in fields.items()},
            np.array(matched, np.intp),
            _rules(listed),
            _automatic(automatic),
            generation,
            now_ns,
        )
        return [SourceState(code) for code in found]


def _rules(listed: Sequence[Listed]) -> np.ndarray:
    rules = np.zeros(len(listed), layout.RULE)
    for rule, entry in zip(rules, listed, strict=True):
        prefix = Prefix.parse(entry.prefix)
        rule["address"] = (prefix.high, prefix.low)
        rule["length"], rule["kind"], rule["until_ns"] = prefix.length, entry.kind, entry.until_ns
    return rules


def _automatic(blocks: Sequence[Listed]) -> tuple[np.ndarray, np.ndarray]:
    keys, values = np.zeros(len(blocks), layout.ADDRESS), np.zeros(len(blocks), layout.AUTO_BLOCK)
    for at, block in enumerate(blocks):
        prefix = Prefix.parse(block.prefix)
        keys[at] = (prefix.high, prefix.low)
        values[at]["until_ns"] = block.until_ns
    return keys, values


def holds(listed: Listed, address: str, now_ns: int = NOW_NS) -> bool:
    covers = Prefix.parse(listed.prefix).contains(Prefix.parse(address))
    return covers and (listed.until_ns == 0 or listed.until_ns > now_ns)


def plainly(address: str, listed: Sequence[Listed], now_ns: int = NOW_NS) -> SourceState:
    kinds = {entry.kind for entry in listed if holds(entry, address, now_ns)}
    if Rule.ALLOWED in kinds:
        return ALLOWED
    return BLOCKED if Rule.BLOCKED in kinds else PASSED


entries = st.lists(
    st.builds(
        Listed,
        st.sampled_from(PREFIXES),
        st.sampled_from([Rule.BLOCKED, Rule.ALLOWED]),
        st.sampled_from([EVER, BEFORE, AFTER]),
    ).filter(lambda entry: entry.kind == Rule.BLOCKED or entry.until_ns == EVER),
    max_size=6,
)


@given(entries, st.lists(st.sampled_from(ADDRESSES), unique=True))
def test_a_source_that_has_not_sent_since_is_looked_up_as_the_kernel_would(
    listed: list[Listed], addresses: list[str]
) -> None:
    states = Reader().states([Row(address) for address in addresses], listed)
    assert states == [plainly(address, listed) for address in addresses]


@given(entries, st.lists(st.permutations(ADDRESSES).map(lambda rows: rows[:5]), max_size=4))
def test_what_was_looked_up_stays_right_while_rows_come_and_go_and_blocks_end(
    listed: list[Listed], snapshots: list[list[str]]
) -> None:
    reader = Reader()
    for tick, addresses in enumerate(snapshots):
        now_ns = NOW_NS + tick
        states = reader.states([Row(address) for address in addresses], listed, now_ns=now_ns)
        assert states == [plainly(address, listed, now_ns) for address in addresses]


def test_the_kernels_own_answer_of_this_generation_is_taken() -> None:
    rows = [
        Row("192.0.2.1", 7, Rule.BLOCKED | 0),
        Row("192.0.2.2", 7, Rule.ALLOWED | 0),
        Row("192.0.3.1", 7, 0),
        Row("203.0.113.7", 7, Rule.PROTECTED),
    ]
    assert Reader().states(rows, [Listed("192.0.2.1")]) == [BLOCKED, ALLOWED, PASSED, PASSED]


@pytest.mark.parametrize("generation", [6, 8, 0])
def test_an_answer_of_another_generation_is_not_taken(generation: int) -> None:
    row = Row("192.0.2.1", generation, Rule.BLOCKED | 0)
    assert Reader().states([row]) == [PASSED]
    assert Reader().states([row], [Listed("192.0.2.0/24", Rule.ALLOWED)]) == [ALLOWED]


def test_a_block_that_ended_leaves_the_one_around_it_in_force() -> None:
    row = Row("192.0.2.1", 7, Rule.BLOCKED | 0)
    ended = Listed("192.0.2.1", until_ns=BEFORE)
    assert Reader().states([row], [ended]) == [PASSED]
    assert Reader().states([row], [ended, Listed("192.0.2.0/24")]) == [BLOCKED]


def test_a_slot_that_is_in_use_no_more_is_looked_up() -> None:
    row = Row("192.0.2.1", 7, Rule.BLOCKED | 9)
    assert Reader().states([row], [Listed("203.0.113.7")]) == [PASSED]
    gone = Row("192.0.2.1", 7, Rule.BLOCKED | 0)
    assert Reader().states([gone], [Listed("192.0.2.1", until_ns=layout.RULE_ENDED)]) == [PASSED]


def test_a_source_counts_as_limited_for_two_seconds_after_its_last_drop() -> None:
    rows = [
        Row("192.0.2.1", limited_ns=NOW_NS),
        Row("192.0.2.2", limited_ns=NOW_NS - LIMITED_FOR_NS + 1),
        Row("192.0.3.1", limited_ns=NOW_NS - LIMITED_FOR_NS),
        Row("203.0.113.7", limited_ns=0),
    ]
    assert Reader().states(rows) == [LIMITED, LIMITED, PASSED, PASSED]
    # A drop may be a little later than the reading's own clock.
    assert Reader().states([Row("192.0.2.1", limited_ns=NOW_NS + 4_000_000)]) == [LIMITED]


def test_a_block_or_an_allowance_outranks_the_limit() -> None:
    rows = [Row("192.0.2.1", limited_ns=NOW_NS), Row("203.0.113.7", limited_ns=NOW_NS)]
    listed = [Listed("192.0.2.1"), Listed("203.0.113.7", Rule.ALLOWED)]
    assert Reader().states(rows, listed) == [BLOCKED, ALLOWED]


def test_an_automatic_block_holds_for_an_ipv4_address_that_the_kernel_marked() -> None:
    rows = [Row("192.0.2.1", blocked=1), Row("192.0.2.2", blocked=1), Row("192.0.3.1", blocked=0)]
    automatic = [Listed("192.0.2.1", until_ns=AFTER), Listed("192.0.2.2", until_ns=BEFORE)]
    assert Reader().states(rows, automatic=automatic) == [BLOCKED, PASSED, PASSED]


def test_an_automatic_block_holds_for_the_whole_64_of_ipv6() -> None:
    rows = [Row(address) for address in ADDRESSES[4:]]
    automatic = [Listed("2001:db8:0:1::", until_ns=AFTER)]
    assert Reader().states(rows, automatic=automatic) == [BLOCKED, BLOCKED, PASSED, PASSED]


def test_neither_the_allowed_nor_the_protected_are_blocked_automatically() -> None:
    rows = [Row("192.0.2.1", blocked=1), Row("192.0.2.2", 7, Rule.PROTECTED, blocked=1)]
    automatic = [Listed("192.0.2.1", until_ns=AFTER), Listed("192.0.2.2", until_ns=AFTER)]
    listed = [Listed("192.0.2.1", Rule.ALLOWED)]
    assert Reader().states(rows, listed, automatic=automatic) == [ALLOWED, PASSED]
