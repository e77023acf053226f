# SPDX-License-Identifier: Apache-2.0
"""Rings of backends have exact shares, and change no more than they must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from ebpftop.control import rings
from ebpftop.control.rings import LONGEST, MAGLEV_PLACES, Member

weights = st.dictionaries(st.integers(1, 1023), st.integers(1, 256), min_size=1, max_size=40)
slots = st.sets(st.integers(1, 1023), min_size=1, max_size=60)


def members(weights: Mapping[int, int]) -> list[Member]:
    return [Member(slot, weight, b"%d" % slot) for slot, weight in weights.items()]


def moved(before: Sequence[int], after: Sequence[int]) -> Counter[int]:
    """How many places of each slot changed hands."""
    return Counter(a for a, b in zip(before, after, strict=True) if a != b)


@given(weights)
def test_quotas_use_every_place_and_are_within_one_of_exact(held: Mapping[int, int]) -> None:
    given_weights = list(held.values())
    counts = rings.quotas(given_weights, 1000)
    assert sum(counts) == 1000
    for weight, count in zip(given_weights, counts, strict=True):
        assert abs(count - weight * 1000 / sum(given_weights)) < 1


@given(weights)
def test_a_smooth_ring_is_exact_where_it_can_be(held: Mapping[int, int]) -> None:
    ring = rings.smooth(members(held))
    counts, total = Counter(ring), sum(held.values())
    assert len(ring) <= LONGEST
    for slot, weight in held.items():
        exact = len(ring) * weight / total
        assert counts[slot] == exact if total <= LONGEST else abs(counts[slot] - exact) < 1


def test_a_smooth_ring_spreads_turns_as_nginx_does() -> None:
    assert rings.smooth(members({1: 5, 2: 1, 3: 1})) == [1, 1, 2, 1, 3, 1, 1]
    assert rings.smooth(members({1: 2, 2: 1, 3: 1})) == [1, 2, 3, 1]
    assert rings.smooth(members({1: 200, 2: 100})) == [1, 2, 1]


@given(weights)
def test_once_ignores_weights(held: Mapping[int, int]) -> None:
    assert rings.once(members(held)) == sorted(held)


@settings(deadline=None, max_examples=50)
@given(slots)
def test_equal_weights_get_equal_maglev_places(held: set[int]) -> None:
    counts = Counter(rings.maglev(members(dict.fromkeys(held, 7))))
    assert counts.keys() == held
    assert max(counts.values()) - min(counts.values()) <= 1


@settings(deadline=None, max_examples=50)
@given(weights)
def test_maglev_places_are_in_proportion(held: Mapping[int, int]) -> None:
    counts = Counter(rings.maglev(members(held)))
    assert counts.total() == MAGLEV_PLACES
    for slot, weight in held.items():
        assert abs(counts[slot] - MAGLEV_PLACES * weight / sum(held.values())) < 1


def test_maglev_weights_of_two_one_one() -> None:
    counts = Counter(rings.maglev(members({1: 2, 2: 1, 3: 1})))
    assert sorted(counts.values()) == [1023, 1023, 2047]


@settings(deadline=None, max_examples=30)
@given(slots, st.lists(st.integers(0, 1000), max_size=6))
def test_who_leaves_moves_its_own_places_alone(held: set[int], leaving: list[int]) -> None:
    here = dict.fromkeys(held, 1)
    ring = rings.maglev(members(here))
    for pick in leaving:
        if len(here) == 1:
            break
        gone = sorted(here)[pick % len(here)]
        del here[gone]
        after = rings.maglev(members(here), ring)
        assert moved(ring, after) == Counter({gone: ring.count(gone)})
        counts = Counter(after)
        assert max(counts.values()) - min(counts.values()) <= 1
        ring = after


@settings(deadline=None, max_examples=30)
@given(slots)
def test_who_comes_takes_its_own_share_alone(held: set[int]) -> None:
    ring = rings.maglev(members(dict.fromkeys(held, 1)))
    after = rings.maglev(members(dict.fromkeys([*held, 2000], 1)), ring)
    assert moved(ring, after).total() == after.count(2000)
    assert after.count(2000) in (
        MAGLEV_PLACES // (len(held) + 1),
        MAGLEV_PLACES // (len(held) + 1) + 1,
    )


@settings(deadline=None, max_examples=30)
@given(weights)
def test_the_order_of_members_does_not_matter(held: Mapping[int, int]) -> None:
    shuffled = members(held)[::-1]
    assert rings.maglev(shuffled) == rings.maglev(members(held))
    assert rings.smooth(shuffled) == rings.smooth(members(held))


def test_what_is_the_same_stays_the_same() -> None:
    held = members({1: 3, 2: 5, 9: 1})
    ring = rings.maglev(held)
    assert rings.maglev(held, ring) == ring


def test_nobody_makes_no_ring() -> None:
    assert rings.maglev([]) == rings.smooth([]) == rings.once([]) == []
    assert rings.maglev(members({1: 0})) == rings.smooth(members({1: 0})) == []


def test_shares_are_parts_of_new_flows() -> None:
    assert rings.shares([1, 2, 1, 3]) == {1: 0.5, 2: 0.25, 3: 0.25}
