# SPDX-License-Identifier: Apache-2.0
"""What the operator switches while watching: the unit, names, the time between snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from ebpftop.screens.history import UNITS
from ebpftop.screens.pane import Pane
from ebpftop.screens.player import Player
from ebpftop.sources import Sampler
from ebpftop.sources.names import Names

INTERVALS_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Times between snapshots that a key walks through."""


class Switches:
    """What is switched on, and the keys for it.

    Args:
        sampler: What brings snapshots.
        panes: Those that show names.
        redraw: Draws what is displayed anew.
    """

    def __init__(
        self, sampler: Sampler | Player, panes: Iterable[Pane], redraw: Callable[[], None]
    ) -> None:
        self._sampler = sampler
        self._panes = tuple(panes)
        self._redraw = redraw
        self.unit = UNITS[0]
        """What rates and graphs are shown in."""
        self.names: Names | None = None
        """Where names of addresses are looked up; None until somebody wants them."""

    def acts(self) -> Mapping[str, Callable[[], object]]:
        """Return what is done for each of its actions, by its id."""
        return {
            "names": self._toggle_names,
            "unit": self._change_unit,
            "interval": lambda: self._change_interval(1),
            "interval-back": lambda: self._change_interval(-1),
        }

    async def stop(self) -> None:
        """Stop what looks names up, and wait for it off the event loop."""
        if self.names is not None:
            await asyncio.to_thread(self.names.stop)

    def _change_interval(self, steps: int) -> None:
        """Take the next of the usual times between snapshots, or the one before."""
        now_s = self._sampler.interval_s
        at = min(range(len(INTERVALS_S)), key=lambda i: abs(INTERVALS_S[i] - now_s))
        self._sampler.interval_s = INTERVALS_S[(at + steps) % len(INTERVALS_S)]
        self._sampler.sample_now()

    def _change_unit(self) -> None:
        """Show rates in the next unit."""
        self.unit = UNITS[(UNITS.index(self.unit) + 1) % len(UNITS)]
        self._redraw()

    def _toggle_names(self) -> None:
        """Show names beside addresses, or none; what was looked up is kept."""
        self.names = self.names or Names()
        for pane in self._panes:
            pane.names = None if pane.names else self.names
        self._redraw()
