# SPDX-License-Identifier: Apache-2.0
"""What every pane of the dashboard is and is handed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from textual.containers import Vertical
from textual.message import Message

from ebpftop.control import Controls
from ebpftop.model import Event, Snapshot
from ebpftop.screens.class_history import ClassHistory
from ebpftop.screens.history import History
from ebpftop.screens.source_history import SourceHistory
from ebpftop.widgets.cells import Cell


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """All that a pane draws from: the latest snapshot and what came before it."""

    snapshot: Snapshot
    """The state of the instance."""
    history: History
    """Rates of the last minutes."""
    events: Sequence[Event]
    """What happened lately, latest first."""
    missed_events: int
    """Events since the dashboard opened that were overwritten before they were read."""
    classes: ClassHistory = field(default_factory=ClassHistory)
    """What came of each traffic class in the last minute."""
    sources: SourceHistory = field(default_factory=SourceHistory)
    """What those who send most sent in the last minute."""


class Pane(Vertical):
    """One of the numbered views. A new one is a subclass, an entry in `app.PANES`, and an action.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    class Changed(Message):
        """The operator changed its selection, order or filter: what is offered may differ now."""

    NAME: ClassVar[str]
    """Its name in the actions."""
    picture: Picture | None = None
    """What it drew last."""

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(id=self.NAME)
        self.controls = controls

    @abstractmethod
    def show(self, picture: Picture) -> None:
        """Draw `picture`. Called once a tick while the pane is in sight, and when it comes to."""

    @abstractmethod
    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return what it does for each action that is its own, by the action's id."""

    def can(self, action_id: str) -> bool:
        """Whether one of its actions makes sense now."""
        return action_id in self.acts()

    def summary(self) -> Sequence[Cell]:
        """Return what it says beside the tabs."""
        return ()

    def typing_keys(self) -> Sequence[Cell]:
        """Return the keys that work while it takes text; empty while it does not."""
        return ()

    @property
    def wants(self) -> frozenset[str]:
        """What the source must read for it while it is in sight, as `Source.wants` says."""
        return frozenset()

    @property
    def filter_text(self) -> str:
        """The filter in force; empty where all rows are shown."""
        return ""

    def enter(self) -> None:
        """Take the focus: the pane was chosen."""
