# SPDX-License-Identifier: Apache-2.0
"""Draw each pane, as SVG, from the recording of the lab: `python -m tests.shots FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from textual.widgets import Input

from ebpftop.app import DashboardApp
from ebpftop.sources.recording import RecordingSource, Tape
from tests.tui.driving import Dashboard
from tests.tui.fakes import FakeControls, FakeSource
from tests.tui.recorded import RecordedLab

WIDE, NARROW = (120, 36), (80, 24)
PICTURES: dict[str, list[str]] = {
    "overview": ["1"],
    "talkers": ["2"],
    "source": ["enter"],
    "block": ["escape", "b"],
    "blocks": ["escape", "3"],
    "balancer": ["escape", "4"],
    "staged": ["plus", "plus", "plus"],
    "connections": ["escape", "f"],
    "shaper": ["5"],
    "class": ["r"],
    "acts": ["escape", "7"],
    "programs": ["8"],
    "limits": ["l"],
    "help": ["escape", "question_mark"],
}
"""The keys that lead from each picture to the next."""


def _save(app: DashboardApp, folder: Path, name: str) -> None:
    app.save_screenshot(f"{name}.svg", str(folder))
    print(folder / f"{name}.svg")


async def _draw(lab: RecordedLab, size: tuple[int, int], folder: Path, suffix: str) -> None:
    """Draw the panes as an operator had them who watched the lab."""
    async with lab.dashboard(size=size, controls=FakeControls()) as running:
        running.app.sampler.interval_s = 1.0
        for name, keys in PICTURES.items():
            await running.press(*keys)
            # A dialog learns in another thread whether its target is guarded.
            await running.app.workers.wait_for_complete()
            for field in running.app.screen.query(Input):
                field.cursor_blink = False
            await running.pilot.pause()
            _save(running.app, folder, f"{name}{suffix}")


async def _draw_replay(lab: RecordedLab, folder: Path) -> None:
    """Draw the dashboard on the recording itself, in its midst."""
    app = DashboardApp(RecordingSource(Tape(lab.path)), title=lab.title)
    async with app.run_test(size=WIDE) as pilot:
        running = Dashboard(app, pilot, FakeSource())
        await running.press("space", "}", "[", "[")
        await running.until(lambda: app.shown and app.shown.snapshot.sequence < len(lab.ticks) - 15)
        _save(app, folder, "replay")


async def _draw_all(folder: Path) -> None:
    lab = RecordedLab()
    for size, suffix in ((WIDE, ""), (NARROW, "-80x24")):
        await _draw(lab, size, folder, suffix)
    await _draw_replay(lab, folder)


def main() -> None:
    """Draw every picture."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    asyncio.run(_draw_all(folder))


if __name__ == "__main__":
    main()
