# SPDX-License-Identifier: Apache-2.0
"""What is happening to each source now, as the kernel would decide at its next packet.

A row holds the kernel's own answer, stamped with the generation of the lists. Rows that
have not sent since the lists changed are looked up here, once for each generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Rule
from ebpftop.model import U64, SourceState

LIMITED_FOR_NS = 2_000_000_000
"""How long a source counts as limited after a limit last dropped one of its packets."""

_V4_MAPPED = np.uint64(0xFFFF)
_ALL = (1 << 64) - 1


class States:
    """Keeps what was looked up, between snapshots."""

    def __init__(self) -> None:
        self._generation = -1
        self._found: NDArray[np.uint32] = np.zeros(0, np.uint32)

    def of(
        self,
        high: U64,
        low: U64,
        fields: Mapping[str, U64],
        matched: NDArray[np.intp],
        rules: NDArray[Any],
        automatic: tuple[NDArray[Any], NDArray[Any]],
        generation: int,
        now_ns: int,
    ) -> NDArray[np.uint8]:
        """Return a `SourceState` for each row.

        Args:
            high: Upper halves of the addresses.
            low: Lower halves.
            fields: From `decoding.source_columns`.
            matched: For each row its place in the snapshot before, or -1.
            rules: The used slots of `rules`.
            automatic: Keys and values of `auto_blocks`.
            generation: Of the lists, from `config`.
            now_ns: What the kernel's programs take for the time.
        """
        held = (rules["until_ns"] == 0) | (rules["until_ns"] > now_ns)
        policy = fields["policy"]
        found = policy.astype(np.uint32)
        unsure = (policy >> np.uint64(32)) != np.uint64(generation)
        unsure |= _ended(found, held)
        kept = np.flatnonzero(unsure & (matched >= 0))
        if generation == self._generation and len(kept):
            found[kept] = self._found[matched[kept]]
            unsure[kept] = _ended(found[kept], held)
        asked = np.flatnonzero(unsure)
        if len(asked):
            found[asked] = _look_up(high[asked], low[asked], rules, held)
        self._generation, self._found = generation, found

        state = np.full(len(policy), SourceState.PASSED, np.uint8)
        state[found & np.uint32(Rule.ALLOWED) != 0] = SourceState.ALLOWED
        limited_ns = fields["limited_ns"].view(np.int64)
        limited = (limited_ns > 0) & (now_ns - limited_ns < LIMITED_FOR_NS)
        state[limited & (state == SourceState.PASSED)] = SourceState.LIMITED
        exempt = found & np.uint32(Rule.ALLOWED | Rule.PROTECTED) != 0
        state[~exempt & _auto_blocked(high, low, fields, automatic, now_ns)] = SourceState.BLOCKED
        state[found & np.uint32(Rule.BLOCKED) != 0] = SourceState.BLOCKED
        return state


def _ended(found: NDArray[np.uint32], held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of these are blocks whose rule no longer holds."""
    blocked: NDArray[np.bool_] = found & np.uint32(Rule.BLOCKED) != 0
    if not blocked.any():
        return blocked
    slots = found & np.uint32(layout.RULE_SLOT_MASK)
    known = slots < len(held)
    blocked[known] &= ~held[slots[known]]
    return blocked


def _look_up(
    high: U64, low: U64, rules: NDArray[Any], held: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Find a rule for each address, the allow list before blocks; the slot only for blocks."""
    found = np.zeros(len(high), np.uint32)
    for kind in (Rule.BLOCKED, Rule.ALLOWED):
        slots = np.flatnonzero((rules["kind"] == kind) & held)
        for length in np.unique(rules["length"][slots]):
            same = slots[rules["length"][slots] == length]
            within, at = _within(high, low, rules["address"][same], int(length))
            found[within] = (same[at] | kind).astype(np.uint32)
    return found


def _within(
    high: U64, low: U64, prefixes: NDArray[Any], length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which addresses lie in one of these prefixes of one length, and in which."""
    high_mask = np.uint64(_ALL << max(0, 64 - length) & _ALL)
    low_mask = np.uint64(_ALL << min(64, 128 - length) & _ALL)
    wanted_high = prefixes["high"].astype(np.uint64)
    wanted_low = prefixes["low"].astype(np.uint64)
    by_low = np.lexsort((wanted_high, wanted_low))
    wanted_high, wanted_low = wanted_high[by_low], wanted_low[by_low]
    masked_high, masked_low = high & high_mask, low & low_mask
    place = np.searchsorted(wanted_low, masked_low)
    hit = np.zeros(len(high), np.bool_)
    # Prefixes that share their lower half lie side by side: step over them together.
    while True:
        inside = ~hit & (place < len(by_low))
        inside[inside] = wanted_low[place[inside]] == masked_low[inside]
        if not inside.any():
            break
        hit[inside] = wanted_high[place[inside]] == masked_high[inside]
        place[inside & ~hit] += 1
    rows = np.flatnonzero(hit)
    return rows, by_low[place[rows]]


def _auto_blocked(
    high: U64,
    low: U64,
    fields: Mapping[str, U64],
    automatic: tuple[NDArray[Any], NDArray[Any]],
    now_ns: int,
) -> NDArray[np.bool_]:
    """Which sources an automatic block holds for: the address for IPv4, its /64 for IPv6."""
    keys, values = automatic
    live = keys[values["until_ns"] > now_ns]
    blocked = np.zeros(len(high), np.bool_)
    if not len(live):
        return blocked
    ipv4 = (high == 0) & (low >> np.uint64(32) == _V4_MAPPED)
    live_high, live_low = live["high"].astype(np.uint64), live["low"].astype(np.uint64)
    by_net = (live_low == 0) & (live_high != 0)
    candidates = np.flatnonzero(ipv4 & (fields["blocked"] != 0))
    blocked[candidates] = np.isin(low[candidates], live_low[~by_net])
    blocked[~ipv4] = np.isin(high[~ipv4], live_high[by_net])
    return blocked
