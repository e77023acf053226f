# SPDX-License-Identifier: Apache-2.0
"""What a traffic class may be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ebpftop.control.class_table import ClassTable
from ebpftop.errors import NotFoundError, UsageError
from ebpftop.format import bits_rate_unit, printable, rate_text
from ebpftop.model import DIRECTIONS, SHAPINGS, ClassKey, TrafficClass

LOWEST_BPS, HIGHEST_BPS = 8_000, 100_000_000_000
LOWEST_BURST_BYTES = 1600
"""A frame of the usual size: with less, nothing of that size passes but from a full bucket."""
LONGEST_BURST_S = 3600.0
PRIORITIES = 8
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}")


def check_key(key: ClassKey) -> None:
    """Refuse a name or a direction that no class can have.

    Raises:
        UsageError: Says what is right.
    """
    if not NAME.fullmatch(key.name):
        raise UsageError(
            f"'{printable(key.name, 40)}' is no name of a class",
            "use up to 31 letters, digits, dots, dashes and underscores",
        )
    if key.direction not in DIRECTIONS:
        raise UsageError(f"'{printable(key.direction, 40)}' is no direction", "ingress or egress")


def check_class(wanted: TrafficClass) -> None:
    """Refuse values that make no sense by themselves.

    Raises:
        UsageError: Names the value and what is right.
    """
    check_key(wanted.key)
    if not LOWEST_BPS <= wanted.rate_bps <= HIGHEST_BPS:
        raise UsageError(
            f"a rate of {rate_text(wanted.rate_bps)} is out of range", "from 8kbit to 100gbit"
        )
    if wanted.burst_bytes and wanted.burst_bytes < LOWEST_BURST_BYTES:
        raise UsageError(f"a burst is {LOWEST_BURST_BYTES} bytes or more", "0 chooses one")
    if wanted.burst_bytes * 8 / wanted.rate_bps > LONGEST_BURST_S:
        raise UsageError(
            "that burst lasts longer than an hour at this rate", "choose a smaller one"
        )
    if not 0 <= wanted.priority < PRIORITIES:
        raise UsageError("a priority is from 0 to 7", "0 is served first")
    if wanted.action not in SHAPINGS:
        raise UsageError(
            f"'{printable(wanted.action, 40)}' is no action", "one of " + ", ".join(SHAPINGS)
        )
    if wanted.key.direction == "ingress" and wanted.action in ("pace", "htb"):
        raise UsageError(
            f"{wanted.action} holds packets back, and what comes in cannot be held back",
            "use --action police",
        )


def check_family(table: ClassTable, wanted: TrafficClass) -> None:
    """Refuse a class that does not fit over or under the others there are.

    Raises:
        UsageError: Says why.
        NotFoundError: There is no such parent.
    """
    others = [table.wanted(slot) for slot in table.slots() if table.key(slot) != wanted.key]
    if wanted.parent:
        above = table.require(replace(wanted.key, name=wanted.parent))
        at_work = table.action(above).name.lower()
        if wanted.action not in ("auto", at_work):
            raise UsageError(f"{wanted.parent} is held by {at_work}, and so is all under it")
        if any(owner == above for _, _, owner in table.members()):
            raise UsageError(
                f"{wanted.parent} has addresses of its own",
                "unassign them: a ceiling has classes only",
            )
    check_together([*others, wanted])


def check_together(classes: Sequence[TrafficClass]) -> None:
    """Refuse classes that do not fit over or under each other.

    Raises:
        UsageError: Says which and why.
        NotFoundError: A parent is missing.
    """
    by_key = {each.key: each for each in classes}
    promised: Counter[ClassKey] = Counter()
    for each in classes:
        if not each.parent:
            continue
        above = by_key.get(replace(each.key, name=each.parent))
        if above is None:
            raise NotFoundError(f"{each.key} has a parent that is no class, {each.parent}")
        if above.key == each.key:
            raise UsageError(f"{each.key} cannot be its own ceiling")
        if above.parent:
            raise UsageError(f"{above.key} is under {above.parent}", "ceilings are one level deep")
        promised[above.key] += each.rate_bps
    for key, promised_bps in promised.items():
        if promised_bps > by_key[key].rate_bps:
            raise UsageError(
                f"the classes under {key} would be promised {bits_rate_unit(promised_bps)}, "
                f"more than its {bits_rate_unit(by_key[key].rate_bps)}",
                f"raise {key} or lower theirs",
            )
