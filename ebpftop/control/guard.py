# SPDX-License-Identifier: Apache-2.0
"""Whom the operator cannot do without: gateways, management prefixes, backends, himself.

They live in the `protected` map, where limits and automatic blocks leave them alone, and
blocking one by hand needs an override.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Flag
from ebpftop.control import operator
from ebpftop.control.rules import RuleTable, trie_key
from ebpftop.control.vip_table import backend_addresses
from ebpftop.errors import NotPermittedError
from ebpftop.kernel.maps import Map
from ebpftop.kernel.netlink.links import netlink
from ebpftop.model import Prefix

GATEWAY, MANAGEMENT, OPERATOR, BACKEND = (
    layout.PROTECTED_WHY.index(word) for word in ("gateway", "management", "operator", "backend")
)
_WORDS = {
    GATEWAY: "the default gateway",
    MANAGEMENT: "a management prefix",
    OPERATOR: "where your own connection comes from",
    BACKEND: "a backend of a VIP",
}


class Guard:
    """Everything protected at this moment: what the map holds, and what was found just now."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
        keys, codes = maps["protected"].read()
        self._held = {
            Prefix.from_bytes(bytes(key["word"]), int(key["length"])): int(code)
            for key, code in zip(keys, codes, strict=True)
        }
        with netlink() as socket:
            found = dict.fromkeys(socket.default_gateways(), GATEWAY)
        self._found = found | dict.fromkeys(operator.peers(), OPERATOR)

    def why(self, prefix: Prefix) -> str | None:
        """Say why `prefix` must not be dropped; None where it may be."""
        for other, code in (self._held | self._found).items():
            mine = code != OPERATOR or other in self._found
            who = _WORDS[code] if mine else "where another operator's connection comes from"
            if prefix == other:
                return f"{prefix} is {who}"
            if prefix.contains(other):
                return f"{prefix} holds {other}, {who}"
            if other.contains(prefix):
                return f"{prefix} is in {other}, {who}"
        return None

    def check(self, prefixes: Iterable[Prefix]) -> None:
        """Refuse a list with anything protected in it.

        Raises:
            NotPermittedError: Names the first.
        """
        for prefix in prefixes:
            why = self.why(prefix)
            if why:
                raise NotPermittedError(
                    f"refused: {why}", "nothing was blocked; --override blocks it"
                )

    def write(self, table: RuleTable, management: Iterable[Prefix]) -> None:
        """Bring the map up to date: what is found now, and `management`; the rest leaves.

        Another operator stays for as long as he is connected. The caller commits `table`.
        """
        backends = backend_addresses(self._maps["backends"].read()[1])
        wanted = dict.fromkeys(backends, BACKEND) | self._other_operators()
        wanted |= dict.fromkeys(management, MANAGEMENT) | self._found
        protected = self._maps["protected"]
        for prefix in self._held.keys() - wanted.keys():
            protected.delete(trie_key(prefix))
        for prefix, code in wanted.items():
            protected.put(trie_key(prefix), np.array([code], layout.U64))
        flags = int(table.config["flags"][0]) & ~Flag.PROTECTED
        table.config["flags"] = flags | (Flag.PROTECTED if wanted else 0)

    def _other_operators(self) -> dict[Prefix, int]:
        others = {prefix for prefix, code in self._held.items() if code == OPERATOR}
        others -= self._found.keys()
        return dict.fromkeys(others & operator.connected(), OPERATOR) if others else {}

    def management(self) -> list[Prefix]:
        """Return the management prefixes that the map holds."""
        return [prefix for prefix, code in self._held.items() if code == MANAGEMENT]

    def is_complete(self) -> bool:
        """Whether the map holds all that was found just now."""
        return self._found.keys() <= self._held.keys()
