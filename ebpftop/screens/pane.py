# SPDX-License-Identifier: Apache-2.0
"""What every pane of the dashboard is and is handed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.containers import Vertical
from textual.message import Message

from ebpftop.control import Controls
from ebpftop.screens.picture import Picture
from ebpftop.sources.names import Names
from ebpftop.widgets.cells import Cell

__all__ = ["Pane", "Picture"]


class Pane(Vertical):
    """One of the numbered views. A new one is a subclass, an entry in `app.PANES`, and an action.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    class Changed(Message):
        """The operator changed its selection, order or filter: what is offered may differ now."""

    @dataclass
    class GoTo(Message):
        """Asks the app to open another pane on something."""

        name: str
        """The pane."""
        filter: str = ""
        """What to filter its rows by; empty shows all."""
        target: Any = None
        """What to select; None leaves the selection where it is."""

    NAME: ClassVar[str]
    """Its name in the actions."""
    picture: Picture | None = None
    """What it drew last."""
    names: Names | None = None
    """Where names of addresses are looked up; None while nobody wants them."""

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

    @property
    def holds_order(self) -> bool:
        """Whether its rows stay in the order that they had."""
        return False

    def badges(self) -> Iterator[Cell]:
        """Yield what the header says of it besides."""
        if self.holds_order:
            yield Cell("ORDER HELD", "badge")
        if self.filter_text:
            yield Cell(f"FILTER {self.filter_text}", "badge")

    def look_for(self, expression: str, target: Any) -> None:
        """Show what another pane sent the operator here for.

        Args:
            expression: What to filter by; empty shows all rows.
            target: What to select; None leaves the selection where it is.
        """

    def enter(self) -> None:
        """Take the focus: the pane was chosen."""
