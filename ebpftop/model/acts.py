# SPDX-License-Identifier: Apache-2.0
"""What was done to an instance, by whom, and what it changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FACETS = ("block", "allow", "limits", "class", "member", "count-sent", "classes", "vip", "backends")
"""The parts of the state that acts change; what has none of these cannot be undone."""

DONE, UNKNOWN_RESULT = "done", "unknown"
"""Results: it was done; it was begun, and nothing says how it ended. Others say why not."""

FOLLOW_UPS = ("undo", "revert", "confirm")
"""Acts about other acts: `undo` without a name looks past them."""


@dataclass(frozen=True, slots=True)
class Act:
    """One act, from the dashboard or a verb."""

    id: str
    """What it is called by: eight hexadecimal digits."""
    time_s: float
    """When it began, in seconds since 1970."""
    user: str
    """Who did it; the one behind sudo where there is one."""
    terminal: str | None
    """The terminal it came from; None for none."""
    what: str
    """`block`, `unblock`, `limit`, `class set`, `undo`, ..."""
    target: str
    """The address, prefix or class it was about, or how many there were; empty for none."""
    facet: str
    """A word of `FACETS`, or empty where it cannot be undone."""
    old: Any
    """The state before, as JSON has it; None where there was nothing."""
    new: Any
    """The state after, or the one that was intended where it was not done."""
    result: str
    """`done`, `unknown`, or why it was not done."""
    undone: bool = False
    """Whether a later act took it back."""
    undoes: str = ""
    """The act that it took back; empty for none."""
    reverts_at_s: float | None = None
    """When it takes itself back unless it is confirmed, in seconds since 1970; None for never."""

    @property
    def can_be_undone(self) -> bool:
        """Whether it did something that can be taken back, and was not."""
        done = self.result in (DONE, UNKNOWN_RESULT)
        return done and not self.undone and self.facet in FACETS and self.old != self.new


def last_to_undo(acts: list[Act] | tuple[Act, ...]) -> Act | None:
    """Return the last act that can be undone, acts about other acts left out; None for none.

    Args:
        acts: Oldest first.
    """
    own = (act for act in reversed(acts) if act.can_be_undone and act.what not in FOLLOW_UPS)
    return next(own, None)
