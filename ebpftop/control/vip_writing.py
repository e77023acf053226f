# SPDX-License-Identifier: Apache-2.0
"""Put changed VIPs in force, in an order in which every packet on the way finds its backend."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import numpy as np

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Flag
from ebpftop.control import rings
from ebpftop.control.journal import Journal
from ebpftop.control.rules import trie_key
from ebpftop.control.vip_table import VipTable, backend_addresses
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel.grace import wait_for_packets
from ebpftop.kernel.maps import Map
from ebpftop.model import ALGORITHMS, Prefix

BACKEND_CODE = layout.PROTECTED_WHY.index("backend")
_MAGLEV, _WEIGHTED = ALGORITHMS.index("maglev"), ALGORITHMS.index("wrr")


class VipWriter:
    """Writes what differs between a table and what the kernel holds.

    What is needed comes first, what is not goes last, and between them each VIP's value is
    replaced and, with it, its ring.

    Args:
        maps: Of the instance; the writer's lock is held.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
        self._journal = Journal(maps)

    def commit(self, table: VipTable) -> None:
        """Put a table in force.

        Raises:
            OSError: The kernel refused; all is as it was.
            KernelRefusedError: There is no room; all is as it was.
        """
        # An id that was given once is used up, even where all else is taken back.
        config = self._maps["config"].read()[1].copy()
        if config["ids_used"] != table.config["ids_used"]:
            config["ids_used"] = table.config["ids_used"]
            self._maps["config"].put(0, config)
        try:
            self._commit(table)
        except BaseException:
            self._journal.undo()
            raise

    def _commit(self, table: VipTable) -> None:
        in_force = _in_force(table)
        endpoints, balanced = _endpoints(table), _balanced(table)
        self._begin_counts(table)
        self._put_slots(table, freed=False)
        self._settle("endpoints", endpoints)
        self._settle("balanced", balanced)
        protects = self._protect(table, prune=False)
        self._put_backends(table, settled=False)
        self._swap_rings(table, in_force)
        self._put_backends(table, settled=True)
        self._settle("endpoints", endpoints, prune=True)
        self._settle("balanced", balanced, prune=True)
        protects |= self._protect(table, prune=True)
        self._put_slots(table, freed=True)
        self._put_config(table, looks_again=protects)

    def _begin_counts(self, table: VipTable) -> None:
        """Let the counters of slots that nobody had begin at nothing."""
        for name, records, counters in (
            ("vip_slots", table.slots, ("vip_stats", "vip_turns")),
            ("backends", table.backends, ("backend_stats", "backend_flows")),
        ):
            held = self._maps[name].read()[1]
            for slot in np.flatnonzero((records["id"] != 0) & (held["id"] == 0)).tolist():
                for counter in counters:
                    opened = self._maps[counter]
                    opened.put(slot, np.zeros(1, opened.value))

    def _put_slots(self, table: VipTable, *, freed: bool) -> None:
        """Write what VIPs are called by their slots: those in use, or those that are free."""
        for name, records in (("vip_slots", table.slots), ("checks", table.checks)):
            held = self._maps[name].read()[1].copy()
            differ = (held != records) & ((table.slots["id"] == 0) == freed)
            for slot in np.flatnonzero(differ).tolist():
                self._journal.put(name, slot, records[slot])

    def _settle(self, name: str, wanted: Mapping[bytes, Any], *, prune: bool = False) -> None:
        """Let a hash hold what is wanted, and with `prune` nothing else."""
        opened = self._maps[name]
        keys, values = opened.read()
        held = {k.tobytes(): v.tobytes() for k, v in zip(keys, values, strict=True)}
        for key, value in wanted.items():
            if held.get(key) != value.tobytes():
                self._journal.put(name, _key(opened, key), value)
        for key in held.keys() - wanted.keys() if prune else ():
            self._journal.delete(name, _key(opened, key))

    def _protect(self, table: VipTable, *, prune: bool) -> bool:
        """Let no limit and no automatic block hit a backend; says whether anything changed."""
        keys, codes = self._maps["protected"].read()
        held = {
            Prefix.from_bytes(bytes(key["word"]), int(key["length"])): int(code)
            for key, code in zip(keys, codes, strict=True)
        }
        wanted = backend_addresses(table.backends)
        fresh = wanted - held.keys()
        old = {prefix for prefix, code in held.items() if code == BACKEND_CODE} - wanted
        try:
            for prefix in fresh:
                self._journal.put("protected", trie_key(prefix), BACKEND_CODE)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.E2BIG, errno.ENOMEM):
                raise
            raise KernelRefusedError(
                "the table of protected prefixes is full", "attach with more [capacity] prefixes"
            ) from error
        for prefix in old if prune else ():
            self._journal.delete("protected", trie_key(prefix))
        return bool(fresh or (old and prune))

    def _put_backends(self, table: VipTable, *, settled: bool) -> None:
        """Write the backends; until it is `settled`, none of them loses flows or goes."""
        held = self._maps["backends"].read()[1].copy()
        wanted = table.backends.copy()
        if not settled:
            same = held["id"] == wanted["id"]
            wanted["flags"] |= np.where(same, held["flags"] & layout.BACKEND_SERVES, 0)
            gone = wanted["id"] == 0
            wanted[gone] = held[gone]
        for number in np.flatnonzero(held != wanted).tolist():
            self._journal.put("backends", number, wanted[number])

    def _swap_rings(self, table: VipTable, in_force: Mapping[int, tuple[Any, list[int]]]) -> None:
        """Write each ring where no packet looks, and then where it is."""
        waited = False
        for record, ring in in_force.values():
            if len(ring) == record["ring_length"] and (ring or [0]) == self._places(record):
                continue
            # A packet may still read the half that was in force before the last change.
            if not waited:
                wait_for_packets()
                waited = True
            half = int(record["ring_start"]) // layout.RING_SLOTS & 1 ^ 1
            start = (int(record["slot"]) * 2 + half) * layout.RING_SLOTS
            record["ring_start"], record["ring_length"] = start, len(ring)
            # The first place is looked at of an empty ring too: there is nobody.
            words = np.zeros(_words(len(ring) or 1) * layout.RING_WORD, "<u2")
            words[: len(ring)] = ring
            first = start // layout.RING_WORD
            keys = np.arange(first, first + len(words) // layout.RING_WORD, dtype=layout.U32)
            self._maps["rings"].put_all(keys, words.view(layout.U64))
        wanted = {
            table.slots["service"][slot].tobytes(): record for slot, (record, _) in in_force.items()
        }
        for slot in table.used():
            wanted.setdefault(table.slots["service"][slot].tobytes(), table.in_force[slot])
        self._settle("vips", wanted, prune=True)

    def ring(self, record: Any) -> list[int]:
        """Return the ring that a `VIP` record names."""
        return self._places(record)[: int(record["ring_length"])]

    def _places(self, record: Any) -> list[int]:
        """Return what is at the places of a ring, of an empty one at its first."""
        start, length = int(record["ring_start"]), int(record["ring_length"]) or 1
        held = self._maps["rings"].read_part(start // layout.RING_WORD, _words(length))
        places: list[int] = held.view("<u2")[:length].tolist()
        return places

    def _put_config(self, table: VipTable, *, looks_again: bool) -> None:
        config = self._maps["config"].read()[1].copy()
        flags = int(config["flags"][0]) & ~(Flag.VIPS | Flag.PROTECTED)
        flags |= Flag.VIPS if table.used() else 0
        flags |= Flag.PROTECTED if len(self._maps["protected"].read()[0]) else 0
        if looks_again or int(config["flags"][0]) != flags:
            config["flags"] = flags
            config["generation"] = (int(config["generation"][0]) + looks_again) & 0xFFFFFFFF
            self._journal.put("config", 0, config[0])


def _words(places: int) -> int:
    """Return how many entries of `rings` hold so many places."""
    return -(-places // layout.RING_WORD)


def _key(opened: Map, key: bytes) -> Any:
    return np.frombuffer(key, opened.key)[0]


def _in_force(table: VipTable) -> dict[int, tuple[Any, list[int]]]:
    """Return the new value and ring of each VIP that was touched; sets who keeps its flows."""
    found = {}
    for slot in table.touched:
        members, reset = table.members(slot)
        for number in table.backends_of(slot):
            flags = int(table.backends["flags"][number]) & ~layout.BACKEND_SERVES
            serves = table.serves(number, reset=reset)
            table.backends["flags"][number] = flags | (layout.BACKEND_SERVES if serves else 0)
        record = table.in_force[slot : slot + 1].copy()[0]
        dsr = int(table.slots["flags"][slot]) & layout.VIP_DSR
        record["flags"] = dsr | (layout.VIP_RESET if reset else 0)
        found[slot] = (record, _ring(table, record, members))
    return found


def _ring(table: VipTable, record: Any, members: list[rings.Member]) -> list[int]:
    algorithm = int(record["algorithm"])
    if algorithm == _MAGLEV:
        return rings.maglev(members, VipWriter(table.maps).ring(record))
    return rings.smooth(members) if algorithm == _WEIGHTED else rings.once(members)


def _endpoints(table: VipTable) -> dict[bytes, Any]:
    """Return the endpoints that answer in a VIP's name, by their keys."""
    found: dict[bytes, Any] = {}
    for slot in table.used():
        if int(table.slots["flags"][slot]) & layout.VIP_DSR:
            continue
        for number in table.backends_of(slot):
            backend = table.backends[number]
            record = found.setdefault(backend["service"].tobytes(), np.zeros(1, layout.ENDPOINT)[0])
            record["id"], record["users"] = backend["id"], record["users"] + 1
            record["vip_slot"], record["vip_id"] = backend["vip_slot"], backend["vip_id"]
    return found


def _balanced(table: VipTable) -> dict[bytes, Any]:
    """Return the addresses of VIPs and of their backends, by their keys."""
    found: dict[bytes, Any] = {}
    for slot in table.used():
        address = table.slots["service"]["address"][slot]
        found[address.tobytes()] = np.uint64(layout.BALANCED_VIP)
        if int(table.slots["flags"][slot]) & layout.VIP_DSR:
            continue
        for number in table.backends_of(slot):
            address = table.backends["service"]["address"][number]
            found.setdefault(address.tobytes(), np.uint64(layout.BALANCED_BACKEND))
    return found
