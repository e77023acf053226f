# SPDX-License-Identifier: Apache-2.0
"""The dashboard: one thread brings snapshots, the panes draw them, actions change the kernel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import BindingType
from textual.containers import Container
from textual.message import Message
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Static

from ebpftop import actions
from ebpftop.actions import ACTIONS, Action
from ebpftop.control import Controls
from ebpftop.errors import EbpftopError
from ebpftop.format import printable
from ebpftop.model import Event, Snapshot
from ebpftop.screens import chrome
from ebpftop.screens.blocks import BlocksPane
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.help import HelpScreen
from ebpftop.screens.history import History
from ebpftop.screens.limits_dialog import LimitsDialog
from ebpftop.screens.overview import OverviewPane
from ebpftop.screens.pane import Pane, Picture
from ebpftop.screens.talkers import TalkersPane
from ebpftop.sources import Sampler, Source
from ebpftop.widgets.bar import Bar

PANES: tuple[type[Pane], ...] = (OverviewPane, TalkersPane, BlocksPane)
"""The panes, in the order of their tabs."""

_KEPT_EVENTS = 200
_SMALLEST = (60, 15)
_NOTICE_S = 12.0


class DashboardApp(App[None]):
    """The dashboard of one instance.

    Args:
        source: Where snapshots come from; the dashboard closes it.
        title: The names of the interfaces.
        interval_s: Seconds between snapshots.
        controls: What changes the kernel's state; None for a dashboard that may only watch.
        read_only_reason: Why it may only watch.
        notices: What the operator should know from the start, in sentences.
    """

    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = list(actions.bindings())
    HORIZONTAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [
        (0, "-tiny-width"),
        (_SMALLEST[0], "-narrow"),
        (110, "-wide"),
    ]
    VERTICAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [
        (0, "-tiny-height"),
        (_SMALLEST[1], "-short"),
        (32, "-tall"),
        (44, "-very-tall"),
    ]

    class SnapshotReady(Message, bubble=False):
        """There is a new snapshot; one that waits behind a slow terminal is skipped."""

        def __init__(self, snapshot: Snapshot) -> None:
            super().__init__()
            self.snapshot = snapshot

        def can_replace(self, message: Message) -> bool:
            """Say that of two in a row only the later one matters."""
            return isinstance(message, DashboardApp.SnapshotReady)

    class SourceLost(Message, bubble=False):
        """There will be no more snapshots."""

        def __init__(self, error: EbpftopError) -> None:
            super().__init__()
            self.error = error

    class Attempted(Message, bubble=False):
        """An act is over."""

        def __init__(self, attempt: Dialog.Attempt, error: EbpftopError | None) -> None:
            super().__init__()
            self.attempt = attempt
            self.error = error

    def __init__(
        self,
        source: Source,
        *,
        title: str,
        interval_s: float = 1.0,
        controls: Controls | None = None,
        read_only_reason: str = "",
        notices: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.title = "ebpftop"
        self.sub_title = printable(title)
        self.controls = controls
        self.lost_error: EbpftopError | None = None
        """Why there are no more snapshots; None while there are."""
        self.paused = False
        """Whether the display stands still."""
        self.picture: Picture | None = None
        """The latest of everything, whether or not it is displayed."""
        self.shown: Picture | None = None
        """What is displayed."""
        self.read_only_reason = printable(read_only_reason)
        self._notices = [printable(notice, 1000) for notice in notices]
        # Snapshots replace each other in the queue; what happened meanwhile must not get lost.
        self._arrived: deque[tuple[Sequence[Event], int]] = deque()
        self.sampler = Sampler(source, interval_s, self._deliver, self._lose)
        self.panes = {pane.NAME: pane(controls) for pane in PANES}

    # -- layout ---------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Lay out the header, the tabs, the panes and the footer."""
        yield Bar(id="header")
        yield Bar(pinned="left", id="tabs")
        yield Static(id="lost", markup=False)
        with ContentSwitcher(initial=PANES[0].NAME, id="panes"):
            yield from self.panes.values()
        yield Bar(id="footer")
        yield Static(
            f"ebpftop needs a terminal of {_SMALLEST[0]}x{_SMALLEST[1]} or more. q quits",
            id="too-small",
            markup=False,
        )
