# SPDX-License-Identifier: Apache-2.0
"""The acts of a snapshot as a recording holds them: the latest, without long lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from ebpftop.model import Act

MOST_ACTS = 200
"""A tick tells the latest."""
MOST_ACT_BYTES = 16 << 10
"""Of an act that changed more, only who did what to how many is told."""


class Brief:
    """Shortens acts; what was shortened once is not looked at again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Act, Act]] = {}

    def of(self, acts: Sequence[Act] | None) -> Sequence[Act] | None:
        """Return acts in short; None where they are not known.

        Args:
            acts: Oldest first.
        """
        if acts is None:
            return None
        known, self._known = self._known, {}
        for act in acts[-MOST_ACTS:]:
            before = known.get(act.id)
            same = before is not None and before[0] is act
            self._known[act.id] = before if before and same else (act, _short(act))
        return tuple(short for _, short in self._known.values())


def _short(act: Act) -> Act:
    if len(msgspec.msgpack.encode((act.old, act.new))) <= MOST_ACT_BYTES:
        return act
    return replace(act, facet="", old=None, new=None)
