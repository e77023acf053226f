# SPDX-License-Identifier: Apache-2.0
"""Rings of backends: in which order, or by which hash, new flows are placed. Pure functions.

A ring is a list of backends' slots, one a place. Turns walk through it (`smooth`), hashes
point into it (`maglev`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

LONGEST = 4096
"""Places that the kernel's table has for one ring."""
MAGLEV_PLACES = 4093
"""The largest prime in `LONGEST`: a step of any size visits every place."""


@dataclass(frozen=True, slots=True)
class Member:
    """A backend that takes new flows."""

    slot: int
    """Its slot in the kernel's table of backends; what the ring holds."""
    weight: int
    """Its share, in relation to the others'; above 0."""
    identity: bytes
    """What it is known by wherever it runs: its address and port."""


def quotas(weights: Sequence[int], places: int, favoured: Sequence[int] | None = None) -> list[int]:
    """Divide `places` in proportion to `weights`, within one place of exact.

    Largest remainders get what rounding down leaves over; among equal ones those that are
    favoured more, then the first.

    Args:
        weights: Above 0.
        places: How many there are to divide.
        favoured: As long as `weights`; 0 for each by default.
    """
    total = sum(weights)
    shares = [divmod(weight * places, total) for weight in weights]
    likes = favoured or [0] * len(weights)
    left = places - sum(whole for whole, _ in shares)
    by_claim = sorted(range(len(weights)), key=lambda i: (-shares[i][1], -likes[i], i))
    chosen = set(by_claim[:left])
    return [whole + (i in chosen) for i, (whole, _) in enumerate(shares)]


def smooth(members: Iterable[Member]) -> list[int]:
    """Return a ring that spreads each member's turns evenly: smooth weighted round robin.

    Each turn every member gains its weight, and who has most takes the turn and pays the sum
    (the algorithm of nginx's upstream module). The ring is one period of it: exact in
    proportion, or within one place where the weights' sum is above `LONGEST`.
    """
    chosen = sorted((m for m in members if m.weight > 0), key=lambda m: m.slot)
    if not chosen:
        return []
    divisor = math.gcd(*(m.weight for m in chosen))
    weights = [m.weight // divisor for m in chosen]
    if sum(weights) > LONGEST:
        weights = quotas(weights, LONGEST)
    total, gained = sum(weights), [0] * len(chosen)
    ring = []
    for _ in range(total):
        gained = [have + weight for have, weight in zip(gained, weights, strict=True)]
        best = max(range(len(chosen)), key=gained.__getitem__)
        gained[best] -= total
        ring.append(chosen[best].slot)
    return ring


def once(members: Iterable[Member]) -> list[int]:
    """Return a ring with each member once, whatever its weight."""
    return sorted(m.slot for m in members if m.weight > 0)


def maglev(members: Iterable[Member], previous: Sequence[int] = ()) -> list[int]:
    """Return a ring for hashes, in which few places change hands when members change.

    Places are filled as in Maglev (Eisenbud et al., NSDI 2016, 3.4): each member walks its own
    permutation of all places, and takes the next free one in turn, up to its quota. Unlike
    there, a place of `previous` stays with its member while that is within its quota, so that
    a member that leaves moves its own places and no other.

    Args:
        members: Who may be in it.
        previous: The ring in force, of slots; empty for none.
    """
    chosen = sorted((m for m in members if m.weight > 0), key=lambda m: m.identity)
    if not chosen:
        return []
    before = previous if len(previous) == MAGLEV_PLACES else [0] * MAGLEV_PLACES
    held = {m.slot: 0 for m in chosen}
    for slot in before:
        if slot in held:
            held[slot] += 1
    counts = quotas([m.weight for m in chosen], MAGLEV_PLACES, [held[m.slot] for m in chosen])
    wanted = {m.slot: count for m, count in zip(chosen, counts, strict=True)}
    ring = [0] * MAGLEV_PLACES
    for place, slot in enumerate(before):
        if wanted.get(slot, 0):
            ring[place] = slot
            wanted[slot] -= 1
    _fill(ring, chosen, wanted)
    return ring


def _fill(ring: list[int], members: Sequence[Member], wanted: Mapping[int, int]) -> None:
    """Let members take free places (those that hold 0) in turn, as many as each wants."""
    walks = {m.slot: _permutation(m.identity) for m in members}
    left = {slot: count for slot, count in wanted.items() if count}
    while left:
        for slot in list(left):
            ring[next(place for place in walks[slot] if not ring[place])] = slot
            left[slot] -= 1
            if not left[slot]:
                del left[slot]


def _permutation(identity: bytes) -> Iterator[int]:
    digest = hashlib.blake2b(identity, digest_size=16).digest()
    offset = int.from_bytes(digest[:8], "big") % MAGLEV_PLACES
    step = int.from_bytes(digest[8:], "big") % (MAGLEV_PLACES - 1) + 1
    for turn in range(MAGLEV_PLACES):
        yield (offset + turn * step) % MAGLEV_PLACES


def shares(ring: Sequence[int]) -> Mapping[int, float]:
    """Return which part of new flows each slot gets."""
    counts: dict[int, int] = {}
    for slot in ring:
        counts[slot] = counts.get(slot, 0) + 1
    return {slot: count / len(ring) for slot, count in counts.items()}
