# SPDX-License-Identifier: Apache-2.0
"""All that panes draw from: the latest snapshot, and what is kept of those before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ebpftop.model import Event, Snapshot
from ebpftop.screens.backend_history import BackendHistory
from ebpftop.screens.class_history import ClassHistory
from ebpftop.screens.history import UNITS, History
from ebpftop.screens.source_history import SourceHistory

KEPT_EVENTS = 200


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

    def followed_by(
        self, snapshot: Snapshot, arrived: Iterable[tuple[Sequence[Event], int]]
    ) -> Picture:
        """Return the picture that `snapshot` makes of this one.

        Args:
            snapshot: The next one; of a picture without a past, its own.
            arrived: Events and how many were missed, of every snapshot since this one.
        """
        events, missed = list(self.events), self.missed_events
        for happened, overwritten in arrived:
            events[:0] = reversed(happened)
            missed += overwritten
        return Picture(
            snapshot,
            self.history.extended(snapshot),
            tuple(events[:KEPT_EVENTS]),
            missed,
            self.classes.extended(snapshot),
            self.sources.extended(snapshot),
            self.backends.extended(snapshot),
            self.unit,
        )
