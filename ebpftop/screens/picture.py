# SPDX-License-Identifier: Apache-2.0
"""All that panes draw from: the latest snapshot, and what is kept of those before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ebpftop.model import Event, Snapshot
from ebpftop.screens.backend_history import BackendHistory
from ebpftop.screens.class_history import ClassHistory
from ebpftop.screens.history import UNITS, History
from ebpftop.screens.source_history import SourceHistory

KEPT_EVENTS = 200
"""Events that a picture holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """All that a pane draws from: the latest snapshot and what came before it."""

    snapshot: Snapshot
    """The state of the instance."""
    history: History = field(default_factory=History)
    """Rates of the last minutes."""
    events: Sequence[Event] = ()
    """What happened lately, latest first."""
    missed_events: int = 0
    """Events since the dashboard opened that were overwritten before they were read."""
    classes: ClassHistory = field(default_factory=ClassHistory)
    """What came of each traffic class in the last minute."""
    sources: SourceHistory = field(default_factory=SourceHistory)
    """What those who send most sent in the last minute."""
    backends: BackendHistory = field(default_factory=BackendHistory)
    """What each backend carried in the last minute."""
    unit: str = UNITS[0]
    """What rates and graphs are shown in, a word of `history.UNITS`."""

    @classmethod
    def after(
        cls,
        before: Picture | None,
        snapshot: Snapshot,
        happened: Iterable[Event],
        missed_events: int,
    ) -> Picture:
        """Return the picture that a snapshot makes of the one before it.

        Args:
            before: The picture before; None for the first.
            snapshot: What is now.
            happened: What happened since, oldest first: more than the snapshot tells where
                others before it were passed over.
            missed_events: How many events since were overwritten before they were read.
        """
        if before is None:
            before = cls(snapshot)
        events = deque(before.events, KEPT_EVENTS)
        events.extendleft(happened)
        return cls(
            snapshot,
            before.history.extended(snapshot),
            tuple(events),
            before.missed_events + missed_events,
            before.classes.extended(snapshot),
            before.sources.extended(snapshot),
            before.backends.extended(snapshot),
            before.unit,
        )
