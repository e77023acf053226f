# SPDX-License-Identifier: Apache-2.0
"""The one screen that is always there: header, tabs, the panes, footer."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Static

from ebpftop import actions
from ebpftop.actions import Action
from ebpftop.control import Controls
from ebpftop.screens import chrome
from ebpftop.screens.acts import ActsPane
from ebpftop.screens.alerts import alerts
from ebpftop.screens.balancer import BalancerPane
from ebpftop.screens.blocks import BlocksPane
from ebpftop.screens.connections import ConnectionsPane
from ebpftop.screens.overview import OverviewPane
from ebpftop.screens.pane import Pane, Picture
from ebpftop.screens.programs import ProgramsPane
from ebpftop.screens.shaper import ShaperPane
from ebpftop.screens.talkers import TalkersPane
from ebpftop.widgets.bar import Bar, length_of
from ebpftop.widgets.cells import GAP, Cell

PANES: tuple[type[Pane], ...] = (
    OverviewPane, TalkersPane, BlocksPane, BalancerPane, ShaperPane, ConnectionsPane,
    ActsPane, ProgramsPane,
)  # fmt: skip
"""The panes, in the order of their tabs."""

SMALLEST = (60, 15)
"""Columns and lines below which nothing useful can be drawn."""

_WIDTHS = [(0, "-tiny-width"), (SMALLEST[0], "-narrow"), (110, "-wide")]
_HEIGHTS = [(0, "-tiny-height"), (SMALLEST[1], "-short"), (32, "-tall"), (44, "-very-tall")]


class MainScreen(Screen[None]):
    """The panes, one in sight, and what stands around them.

    Args:
        title: The names of the interfaces.
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    HORIZONTAL_BREAKPOINTS = _WIDTHS
    VERTICAL_BREAKPOINTS = _HEIGHTS

    def __init__(self, title: str, controls: Controls | None) -> None:
        super().__init__()
        self._names = title
        self.panes = {pane.NAME: pane(controls) for pane in PANES}
        self.pane = self.panes[PANES[0].NAME]
        """The pane in sight."""
        self._header = Bar(css_id="header")
        self._tabs = Bar(pinned="left", css_id="tabs")
        self._banner = Static(id="lost", markup=False)
        self._alerts = Bar(pinned="left", css_id="alerts")
        self._place = Bar(pinned="left", css_id="place")
        self._place.display = False
        self._footer = Bar(css_id="footer")

    def compose(self) -> ComposeResult:
        """Lay out the header, the tabs, the panes and the footer."""
        yield self._header
        yield self._tabs
        yield self._alerts
        yield self._banner
        with ContentSwitcher(initial=self.pane.NAME, id="panes"):
            yield from self.panes.values()
        yield self._place
        yield self._footer
        size = f"{SMALLEST[0]}x{SMALLEST[1]}"
        words = f"ebpftop needs a terminal of {size} or more. {actions.key('quit')} quits"
        yield Static(words, id="too-small", markup=False)

    def on_mount(self) -> None:
        """Give the first pane the focus."""
        self._banner.display = False
        self._alerts.display = False
        self.pane.enter()

    def open_pane(self, name: str, picture: Picture | None) -> None:
        """Bring the pane called `name` into sight and draw `picture` on it."""
        self.pane = self.panes[name]
        self.query_one("#panes", ContentSwitcher).current = name
        if picture is not None:
            self.pane.show(picture)
        self.pane.enter()

    def show_lost(self, why: str, picture: Picture | None) -> None:
        """Say across the whole width that nothing new comes; the last figures stay and look it.

        Args:
            why: The reason.
            picture: What is displayed; None before the first snapshot.
        """
        words = f"SOURCE LOST  {why}."
        if picture is not None:
            words += f" The figures are from {chrome.wall_time(picture.snapshot).text}."
        words += f" {actions.key('quit')} quits"
        self._banner.update(words)
        self._banner.display = True
        self.add_class("-lost")

    def show_chrome(
        self,
        picture: Picture | None,
        *,
        interval_s: float,
        offered: Sequence[Action],
        badges: Sequence[Cell],
        beside_tabs: Sequence[Cell],
        cost: str = "",
        place: tuple[Sequence[Cell], Sequence[Cell]] | None = None,
    ) -> None:
        """Draw the header, the tabs and the footer.

        Args:
            picture: What is displayed; None before the first snapshot.
            interval_s: Seconds between snapshots.
            offered: What can be done here and now.
            badges: What the header says besides.
            cost: What the dashboard itself takes.
            beside_tabs: What stands at the right of the tabs; empty for the pane's own summary.
            place: Where in a recording we are; None on an instance.
        """
        snapshot = picture.snapshot if picture else None
        header = chrome.identity(
            self._names, snapshot, interval_s=interval_s, badges=badges, cost=cost
        )
        self._header.show(*header)
        told = list(alerts(picture)) if picture else []
        self._alerts.display = bool(told)
        self._alerts.show(told)
        switches = [action for action in actions.current() if action.opens]
        beside = beside_tabs or self.pane.summary()
        room = self.size.width - length_of(beside) - 2 - GAP
        self._tabs.show(chrome.tabs(switches, self.pane.NAME, room), beside)
        self._place.display = place is not None
        if place is not None:
            self._place.show(*place)
        typing = self.pane.typing_keys()
        self._footer.show(*((typing, ()) if typing else chrome.footer(offered)))
