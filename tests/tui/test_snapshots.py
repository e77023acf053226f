# SPDX-License-Identifier: Apache-2.0
"""A few pictures of the whole screen, to be looked at when they change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from ebpftop.app import DashboardApp
from ebpftop.model import Prefix
from tests.tui.driving import Dashboard
from tests.tui.fakes import FakeControls, FakeSource, Shaped, attack, classes, rates


def shaped_by(second: int) -> list[Shaped]:
    """Return classes that carry more and less as time goes by."""
    wave_bps = 4_000_000 + 60_000 * (second * 7 % 230)
    return [
        Shaped("uplink", 100_000_000, 131_072, 131_072, wave_bps, wave_bps, members=()),
        Shaped("video", offered_bps=wave_bps, bps=wave_bps, parent="uplink"),
        Shaped("backup", 8_000_000, 40_000, -2_000, 16_000_000, 8_000_000, "police", dropped=321),
    ]


def flooded(source: FakeSource, *keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Return what plays ninety seconds in which a flood begins, and then presses `keys`."""

    async def play(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, DashboardApp)
        running = Dashboard(app, pilot, source)
        for second in range(0, 91, 3):
            flood_pps = 900_000.0 * min(1.0, max(0, second - 60) / 10)
            received_pps = 40_000.0 + 500 * (second * 7 % 23) + flood_pps
            flow = rates(received_pps, 0.97 * flood_pps)
            held = classes(shaped_by(second))
            await running.tick(attack(second, rates=flow, classes=held, interval_s=3.0))
        await running.press(*keys)
        # The dialog learns of the guard from another thread.
        awaited = "override" if "b" in keys else "ebpftop"
        await running.until(lambda: awaited in running.text)
        for field in app.screen.query(Input):
            field.cursor_blink = False
        await pilot.pause()

    return play


@pytest.mark.parametrize(
    ("keys", "size"),
    [
        pytest.param((), (80, 24), id="overview-80x24"),
        pytest.param(("2", "down"), (120, 40), id="talkers-120x40"),
        pytest.param(("3",), (100, 30), id="blocks-100x30"),
        pytest.param(("2", "b"), (80, 24), id="block-dialog-80x24"),
        pytest.param(("5",), (120, 30), id="shaper-120x30"),
        pytest.param(("5", "down", "r"), (80, 24), id="class-dialog-80x24"),
    ],
)
def test_screen(
    keys: tuple[str, ...],
    size: tuple[int, int],
    controls: FakeControls,
    snap_compare: Callable[..., bool],
) -> None:
    controls.guards[Prefix.parse("203.0.113.77")] = "your own ssh session comes from it"
    source = FakeSource(attack(classes=classes(shaped_by(0))))
    app = DashboardApp(source, title="eth0", interval_s=10.0, controls=controls)
    assert snap_compare(app, terminal_size=size, run_before=flooded(source, *keys))
