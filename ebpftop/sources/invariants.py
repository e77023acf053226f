# SPDX-License-Identifier: Apache-2.0
"""Sums of counters that must hold: one that fails is a lie on the screen."""

from __future__ import annotations

from collections.abc import Callable

from ebpftop.kernel import libbpf
from ebpftop.model import VERDICTS, Totals

TICKS_BEFORE_ALARM = 3
"""How often in a row a sum must fail before it is called broken: counters move while read."""


class Invariants:
    """Compares sums of one instance, tick after tick."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def check(self, first: Totals, read: Callable[[], Totals]) -> dict[str, bool]:
        """Return, by name, whether each sum holds.

        They move while they are read: a whole before and after brackets its parts between.

        Args:
            first: A reading of the counters.
            read: Reads them again.
        """
        second, third = read(), read()
        # A packet is counted as received before its verdict is: one for each CPU is under way.
        slack = libbpf.possible_cpus()
        answer = {}
        for name, (whole, parts) in _SUMS.items():
            holds = whole(first) - slack <= parts(second) <= whole(third) + slack
            self._failures[name] = 0 if holds else self._failures.get(name, 0) + 1
            answer[name] = self._failures[name] < TICKS_BEFORE_ALARM
        return answer


def _received(totals: Totals) -> int:
    return totals.received.packets


def _verdicts(totals: Totals) -> int:
    return sum(totals.verdicts[word].packets for word in VERDICTS)


def _protocols(totals: Totals) -> int:
    return sum(totals.protocols.values())


def _dropped(totals: Totals) -> int:
    return totals.verdicts["dropped"].packets


def _drops(totals: Totals) -> int:
    return sum(totals.drops.values())


_SUMS = {
    "verdicts = received": (_received, _verdicts),
    "protocols = received": (_received, _protocols),
    "drop reasons = dropped": (_dropped, _drops),
}
