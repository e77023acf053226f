# SPDX-License-Identifier: Apache-2.0
"""Runs the dashboard without a terminal, feeds it, and reads its screen."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from textual.pilot import Pilot

from ebpftop.app import DashboardApp
from ebpftop.model import Prefix, Snapshot
from ebpftop.screens.list_pane import ListPane
from tests.tui.fakes import FakeSource, attack

PATIENCE_S = 10.0
"""How long a condition may take to come true before a test fails."""


class Dashboard:
    """A running dashboard and the source that feeds it."""

    def __init__(self, app: DashboardApp, pilot: Pilot[None], source: FakeSource) -> None:
        self.app = app
        self.pilot = pilot
        self.source = source

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds and all that follows from it is drawn."""
        deadline_s = monotonic() + PATIENCE_S
        while not condition():
            assert monotonic() < deadline_s, f"never came true; the screen is\n{self.text}"
            await self.pilot.pause(0.01)
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        """Press keys one after another."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        await self.press(*text)

    async def tick(self, snapshot: Snapshot) -> None:
        """Let the source give `snapshot`, and wait until the dashboard has taken it in."""
        self.source.current = snapshot
        self.app.sampler.sample_now()
        await self.until(
            lambda: self.app.picture and self.app.picture.snapshot.sequence == snapshot.sequence
        )

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        # The compositor is where the lines are that a terminal would be sent.
        strips = self.app.screen._compositor.render_strips()
        return [strip.text.rstrip() for strip in strips]

    @property
    def text(self) -> str:
        """What is on the screen, as one text."""
        return "\n".join(self.lines)

    @property
    def list_pane(self) -> ListPane:
        """The pane in sight, which is a list."""
        pane = self.app.main.pane
        assert isinstance(pane, ListPane)
        return pane

    @property
    def selected(self) -> Prefix | None:
        """What is selected in the pane in sight, which lists addresses."""
        target = self.list_pane.target
        assert target is None or isinstance(target, Prefix)
        return target

    @property
    def addresses(self) -> list[str]:
        """The first words of the table's rows that are in sight, headings left out."""
        rows = [line[2:].split() for line in self.list_pane.table.lines[1:]]
        return [words[0] for words in rows if words]


@asynccontextmanager
async def dashboard(
    snapshot: Snapshot | None = None, *, size: tuple[int, int] = (80, 24), **options: Any
) -> AsyncIterator[Dashboard]:
    """Run the dashboard on a fake source, from its first picture on."""
    source = FakeSource(snapshot or attack())
    # Snapshots come when a test asks for one, and not by themselves.
    app = DashboardApp(source, **{"title": "eth0", "interval_s": 3600.0, **options})
    async with app.run_test(size=size, notifications=True) as pilot:
        running = Dashboard(app, pilot, source)
        await running.until(lambda: app.shown is not None)
        yield running


def steers_terminal(text: str) -> bool:
    """Return whether `text` holds a character that a terminal obeys instead of showing it."""
    return any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)
