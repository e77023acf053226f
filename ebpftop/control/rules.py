# SPDX-License-Identifier: Apache-2.0
"""The lists of the kernel: entries of `rules`, and the maps that find them by address.

An entry's slot holds its end, its reason and its hits; `blocked_ips`, `blocked_nets` and
`allowed` hold the slot. The generation in `config` is raised last.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Flag, Rule
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel.maps import Map
from ebpftop.model import Prefix

LIST_FLAGS = {
    "blocked_ips": Flag.BLOCKS,
    "blocked_nets": Flag.PREFIXES,
    "allowed": Flag.ALLOWED,
}
"""The flag in `config` that tells the program to search a list at all."""

_FEW = 16
"""Prefixes that are looked for one by one; for more the whole list is gone through."""

_TITLES = {
    "blocked_ips": "the table of blocked addresses",
    "blocked_nets": "the table of blocked prefixes",
    "allowed": "the allow list",
}


def entries(
    prefixes: Sequence[Prefix], kind: Rule, until_ns: Sequence[int], texts: Sequence[str]
) -> NDArray[Any]:
    """Return a `RULE` record for each prefix; all begin now."""
    records = np.zeros(len(prefixes), layout.RULE)
    records["until_ns"], records["set_ns"], records["kind"] = until_ns, time.monotonic_ns(), kind
    records["address"]["high"] = [prefix.high for prefix in prefixes]
    records["address"]["low"] = [prefix.low for prefix in prefixes]
    records["length"] = [prefix.length for prefix in prefixes]
    # A cut through a character leaves bytes that are no text.
    records["text"] = [
        text.encode()[: layout.RULE_TEXT_BYTES].decode(errors="ignore").encode() for text in texts
    ]
    return records


def trie_key(prefix: Prefix) -> NDArray[Any]:
    """Return the key of a prefix in the tries."""
    key = np.zeros((), layout.PREFIX)
    key["length"], key["word"] = prefix.length, np.void(prefix.to_bytes())
    return key


class RuleTable:
    """The lists as they are now; changed in place, and put in force by `commit`.

    Use it under the writer's lock, and anew for each act.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
        self.config = maps["config"].read()[1].copy()
        """The one `CONFIG` record; written by `commit`."""
        self.rules = maps["rules"].read(int(self.config["rules_used"][0]))[1].copy()
        """The used slots."""

    def slot_of(self, prefix: Prefix, kind: Rule) -> int | None:
        """Return the slot of exactly `prefix`, None where it is not listed."""
        rules = self.rules
        hits = np.flatnonzero(
            (rules["kind"] == kind)
            & (rules["length"] == prefix.length)
            & (rules["address"]["low"] == prefix.low)
            & (rules["address"]["high"] == prefix.high)
        )
        return int(hits[0]) if len(hits) else None

    def slots_of(self, prefixes: Sequence[Prefix], kind: Rule) -> Sequence[int | None]:
        """Return the slot of each prefix, None where it is not listed."""
        if len(prefixes) < _FEW:
            return [self.slot_of(prefix, kind) for prefix in prefixes]
        known = {key: slot for slot, key in enumerate(_keys(self.rules))}
        return [known.get((kind, p.length, p.high, p.low)) for p in prefixes]

    def prefix(self, slot: int) -> Prefix:
        """Return the address or prefix of a slot."""
        rule = self.rules[slot]
        address = rule["address"]
        return Prefix(int(address["high"]), int(address["low"]), int(rule["length"]))

    def covered(self, prefixes: Iterable[Prefix], kind: Rule) -> Iterator[tuple[Prefix, Prefix]]:
        """Yield each prefix that a listed one holds, and the longest that does."""
        slots = np.flatnonzero(self.rules["kind"] == kind)
        listed = {self.prefix(slot) for slot in slots.tolist()}
        lengths = sorted({prefix.length for prefix in listed}, reverse=True)
        for prefix in prefixes:
            for length in lengths:
                if length <= prefix.length and prefix.truncated(length) in listed:
                    yield prefix, prefix.truncated(length)
                    break

    def ended(self, now_ns: int) -> list[int]:
        """Return the slots of blocks whose time is over."""
        until = self.rules["until_ns"]
        over = (self.rules["kind"] == Rule.BLOCKED) & (until != 0) & (until <= now_ns)
        slots: list[int] = np.flatnonzero(over).tolist()
        return slots

    def write(self, wanted: NDArray[Any]) -> None:
        """Add entries or, where one is listed already, change it; its hits stay.

        Args:
            wanted: `RULE` records, no prefix twice.

        Raises:
            KernelRefusedError: A table is full; nothing has changed.
            OSError: The kernel refused; nothing has changed.
        """
        known = {key: slot for slot, key in enumerate(_keys(self.rules)) if key[0]}
        slots = np.array([known.get(key, -1) for key in _keys(wanted)], np.int64)
        fresh = slots < 0
        self._check_room(wanted[fresh])
        slots[fresh] = self._free_slots(int(fresh.sum()))
        before = self.rules[slots]
        # A packet may find a new entry before it is taken back: what it found there is over.
        before["until_ns"][fresh] = layout.RULE_ENDED
        keys = slots.astype(np.uint32)
        hits = self._maps["rule_hits"]
        hits.put_all(keys[fresh], np.zeros(int(fresh.sum()), hits.value))
        self._maps["rules"].put_all(keys, wanted)
        try:
            self._list(wanted[fresh], slots[fresh])
        except (OSError, KernelRefusedError):
            self._maps["rules"].put_all(keys, before)
            raise
        self.rules[slots] = wanted

    def _check_room(self, entries: NDArray[Any]) -> None:
        for name, wanted in _by_list(entries).items():
            room = self._maps[name].max_entries - len(_by_list(self.rules).get(name, ()))
            if len(wanted) > room:
                raise KernelRefusedError(
                    f"{_TITLES[name]} is full ({self._maps[name].max_entries:,})",
                    "unblock some, block a prefix instead, or attach with a larger [capacity]",
                )

    def _free_slots(self, count: int) -> NDArray[np.int64]:
        """Return free slots, the lowest first, and make room for them in `rules`."""
        free = np.flatnonzero(self.rules["kind"] == 0)[:count]
        used = len(self.rules)
        more = np.arange(used, used + count - len(free))
        room = np.zeros(len(more), layout.RULE)
        # Without the dtype numpy would turn the addresses into this machine's byte order.
        self.rules = np.concatenate([self.rules, room], dtype=layout.RULE)
        return np.concatenate([free, more]).astype(np.int64)

    def _list(self, entries: NDArray[Any], slots: NDArray[np.int64]) -> None:
        """Let the lists find these entries, of which they have none; all or nothing."""
        begun: list[tuple[str, NDArray[Any]]] = []
        try:
            for name, rows in _by_list(entries).items():
                begun.append((name, _list_keys(name, entries[rows])))
                self._maps[name].put_all(begun[-1][1], slots[rows].astype(np.uint64))
        except OSError as error:
            for name, keys in begun:
                self._maps[name].delete_all(keys)
            if error.errno in (errno.E2BIG, errno.ENOSPC, errno.ENOMEM):
                raise KernelRefusedError(
                    f"{_TITLES[begun[-1][0]]} is full",
                    "unblock some, or attach with more [capacity]",
                ) from error
            raise

    def remove(self, slots: Sequence[int]) -> None:
        """Take entries out of their lists and free their slots."""
        if not slots:
            return
        chosen = self.rules[slots]
        for name, rows in _by_list(chosen).items():
            self._maps[name].delete_all(_list_keys(name, chosen[rows]))
        gone = np.zeros(len(slots), layout.RULE)
        # A packet under way may still hold the slot: what it finds there is over.
        gone["until_ns"] = layout.RULE_ENDED
        self._maps["rules"].put_all(np.array(slots, np.uint32), gone)
        self.rules[slots] = gone

    def commit(self) -> None:
        """Put the lists in force: rows look again at their next packet."""
        flags = int(self.config["flags"][0]) & ~sum(LIST_FLAGS.values())
        for name in _by_list(self.rules):
            flags |= LIST_FLAGS[name]
        used = np.flatnonzero(self.rules["kind"])
        self.config["flags"] = flags
        self.config["rules_used"] = used[-1] + 1 if len(used) else 0
        self.config["generation"] = (int(self.config["generation"][0]) + 1) & 0xFFFFFFFF
        self._maps["config"].put(0, self.config)


def _keys(rules: NDArray[Any]) -> list[tuple[int, int, int, int]]:
    address = rules["address"]
    return list(
        zip(
            rules["kind"].tolist(), rules["length"].tolist(), address["high"].tolist(),
            address["low"].tolist(), strict=True,
        )
    )  # fmt: skip


def _by_list(rules: NDArray[Any]) -> dict[str, NDArray[np.intp]]:
    """Return the rows of each list that has any."""
    host = rules["length"] == 128
    blocked = rules["kind"] == Rule.BLOCKED
    rows = {
        "blocked_ips": np.flatnonzero(blocked & host),
        "blocked_nets": np.flatnonzero(blocked & ~host),
        "allowed": np.flatnonzero(rules["kind"] == Rule.ALLOWED),
    }
    return {name: found for name, found in rows.items() if len(found)}


def _list_keys(name: str, rules: NDArray[Any]) -> NDArray[Any]:
    if name == "blocked_ips":
        return np.ascontiguousarray(rules["address"])
    keys = np.zeros(len(rules), layout.PREFIX)
    keys["length"] = rules["length"]
    keys["word"] = np.ascontiguousarray(rules["address"]).view("V16")
    return keys
