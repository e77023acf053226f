# SPDX-License-Identifier: Apache-2.0
"""A few pictures of the whole screen, to be looked at when they change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from ebpftop.app import DashboardApp
from ebpftop.model import HealthCheck, Prefix, Service, Vip
from ebpftop.screens.cost import OwnCost
from tests.tui.driving import Dashboard
from tests.tui.fakes import (
    START_NS,
    FakeControls,
    FakeSource,
    Served,
    Shaped,
    attack,
    backends,
    classes,
    connections,
    rates,
    vips,
)
from tests.tui.test_programs import FOUND, MAPS, PROGRAMS


@pytest.fixture(autouse=True)
def same_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the header say the same of the dashboard's own cost in every run."""
    monkeypatch.setattr(OwnCost, "words", lambda *_: "self 2% 75.0 MB")


INSPECTED = {"programs": PROGRAMS, "maps": MAPS, "inspection": FOUND}
"""Programs and maps, one of which is nearly full."""
WEB, DNS = "198.51.100.10:80/tcp", "[2001:db8::53]:53/udp"


def shaped_by(second: int) -> list[Shaped]:
    """Return classes that carry more and less as time goes by."""
    wave_bps = 4_000_000 + 60_000 * (second * 7 % 230)
    return [
        Shaped("uplink", 100_000_000, 131_072, 131_072, wave_bps, wave_bps, members=()),
        Shaped("video", offered_bps=wave_bps, bps=wave_bps, parent="uplink"),
        Shaped("backup", 8_000_000, 40_000, -2_000, 16_000_000, 8_000_000, "police", dropped=321),
    ]


def balanced_by(second: int) -> dict[str, Any]:
    """Return a balancer one of whose servers carries more and less, and one of which is down."""
    wave_bps = 4_000_000.0 + 60_000 * (second * 7 % 230)
    web = [
        Served("10.0.0.1:8080", 3, share=0.75, got=0.746, flows=212, first_weight=3, bps=wave_bps),
        Served(
            "10.0.0.2:8080", 1, share=0.25, got=0.254, flows=71, first_weight=2, bps=wave_bps / 3
        ),
        Served("10.0.0.3:8080", 4, "up", False, 0.0, 0.0, 0, first_weight=4, bps=0.0),
    ]
    dns = [Served("[2001:db8:1::1]:5353", healthy=None, share=1.0, got=1.0, flows=9)]
    wanted = [
        Vip(Service.parse(WEB), check=HealthCheck("http", path="/up")),
        Vip(Service.parse(DNS), "maglev", "dsr"),
    ]
    flows = [
        (f"192.0.2.{1 + n % 30}:{40_000 + 7 * n}", WEB, f"10.0.0.{1 + (n % 4 == 0)}:8080",
         ("established", "syn-sent", "fin-client")[n * n % 3], 900 - 20 * n)
        for n in range(40)
    ]  # fmt: skip
    return {
        "vips": vips(wanted),
        "backends": backends({WEB: web, DNS: dns}),
        "connections": connections(flows, START_NS + second * 10**9),
    }


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
            changes = {"rates": flow, "classes": held, **balanced_by(second)}
            changes |= INSPECTED if "8" in keys else {}
            await running.tick(attack(second, interval_s=3.0, **changes))
        await running.press(*keys)
        # The dialog learns of the guard from another thread.
        awaited = "override" if "b" in keys else "packets/s" if "enter" in keys else "ebpftop"
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
        pytest.param(("4", "plus", "down", "0"), (80, 24), id="balancer-80x24"),
        pytest.param(("4", "plus"), (120, 40), id="balancer-120x40"),
        pytest.param(("4", "w"), (80, 24), id="weight-dialog-80x24"),
        pytest.param(("6", "down"), (80, 24), id="connections-80x24"),
        pytest.param(("5",), (120, 30), id="shaper-120x30"),
        pytest.param(("5", "down", "r"), (80, 24), id="class-dialog-80x24"),
        pytest.param(("8",), (80, 24), id="programs-80x24"),
        pytest.param(("8",), (200, 60), id="programs-200x60"),
        pytest.param(("2", "enter"), (80, 24), id="source-80x24"),
        pytest.param(("2", "enter"), (200, 60), id="source-200x60"),
        pytest.param(("2", "v", "down", "v"), (80, 24), id="talkers-80x24"),
        pytest.param(("3",), (80, 24), id="blocks-80x24"),
    ],
)
def test_screen(
    keys: tuple[str, ...],
    size: tuple[int, int],
    controls: FakeControls,
    snap_compare: Callable[..., bool],
) -> None:
    controls.guards[Prefix.parse("203.0.113.77")] = "your own ssh session comes from it"
    source = FakeSource(attack(classes=classes(shaped_by(0)), **balanced_by(0)))
    app = DashboardApp(source, title="eth0", interval_s=10.0, controls=controls)
    assert snap_compare(app, terminal_size=size, run_before=flooded(source, *keys))
