# SPDX-License-Identifier: Apache-2.0
"""Whether anybody looks at the terminal, and so how often it is worth drawing."""

from __future__ import annotations

from time import monotonic

_UNSEEN_S = 5.0
"""Time between pictures on a terminal that somebody has turned away from."""


class Attention:
    """Says when to draw; a terminal that does not tell is always looked at."""

    def __init__(self) -> None:
        self._is_there = True
        self._drawn_s = 0.0

    def turn_away(self) -> None:
        """Note that nobody looks."""
        self._is_there = False

    def come_back(self) -> None:
        """Note that somebody looks."""
        self._is_there = True

    def is_due(self) -> bool:
        """Whether to draw now, which is then taken as done."""
        now_s = monotonic()
        if not self._is_there and now_s - self._drawn_s < _UNSEEN_S:
            return False
        self._drawn_s = now_s
        return True
