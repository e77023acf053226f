# SPDX-License-Identifier: Apache-2.0
"""Text that would steer a terminal, in every field that comes from outside, on every screen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ebpftop.model import (
    ClassKey,
    Event,
    Fixture,
    HealthCheck,
    Interface,
    InterfaceCounters,
    Listing,
    MapInfo,
    Prefix,
    Program,
    Service,
    Snapshot,
    Vip,
)
from ebpftop.sources.names import Names
from tests.tui.driving import Dashboard, dashboard, steers_terminal
from tests.tui.fakes import (
    HOSTILE,
    START_S,
    Block,
    FakeControls,
    Served,
    Shaped,
    attack,
    backends,
    blocks,
    classes,
    vips,
)
from tests.tui.test_programs import FOUND

WEB = "198.51.100.10:80/tcp"
MARKUP = "[red]"
"""What stays of the hostile text wherever at least half of it has room."""


def hostile(sequence: int = 0, asked: str = "") -> Snapshot:
    """Build a snapshot with the hostile text in every field of it that is text."""
    fixtures = [Fixture(HOSTILE, HOSTILE, HOSTILE, HOSTILE, False, 1, 1)]
    listing = Listing(asked or HOSTILE, [HOSTILE] * 3, 4, HOSTILE)
    held = [Block("203.0.113.77", reason=HOSTILE), Block("198.51.100.0/24", reason=HOSTILE)]
    found = replace(
        FOUND, fixtures=fixtures, listing=listing,
        counters=[InterfaceCounters(HOSTILE, *range(7))],
    )  # fmt: skip
    return attack(
        sequence,
        interfaces=[Interface(HOSTILE, HOSTILE, up=False)],  # type: ignore[arg-type]
        blocks=blocks(held),
        events=[Event(n, START_S, HOSTILE, HOSTILE, HOSTILE) for n in range(5)],
        invariants={HOSTILE: False},
        classes=classes([
            Shaped(HOSTILE, action=HOSTILE),
            Shaped(HOSTILE + "2", parent=HOSTILE, action=HOSTILE, members=("203.0.113.77",)),
        ]),
        vips=vips([Vip(Service.parse(WEB),
                       check=HealthCheck("http", path="/" + HOSTILE, host=HOSTILE))]),
        backends=backends({WEB: [Served("10.0.0.1:8080")]}),
        programs=[Program(HOSTILE, 71, HOSTILE, HOSTILE, 1, 1, 1)],
        maps=[MapInfo(HOSTILE, HOSTILE, 9, 10, 10)],
        inspection=found,
    )  # fmt: skip


async def harmless(running: Dashboard, *keys: str) -> None:
    """Press keys and look at every line of the screen, in each of its segments."""
    await running.press(*keys)
    await running.app.workers.wait_for_complete()
    await running.pilot.pause()
    assert not steers_terminal(running.text.replace("\n", "")), keys
    for strip in running.app.screen._compositor.render_strips():
        for segment in strip:
            assert not steers_terminal(segment.text), keys
            assert segment.style is None or not segment.style.link, keys


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_nothing_from_outside_steers_the_terminal_on_any_screen(
    size: tuple[int, int], controls: FakeControls
) -> None:
    loud = Prefix.parse("203.0.113.77")
    controls.guards[loud] = HOSTILE
    options = {"title": HOSTILE, "notices": [HOSTILE], "controls": controls}
    async with dashboard(hostile(), size=size, **options) as running:
        await running.tick(hostile(1))
        screens: tuple[tuple[str, ...], ...] = (
            ("1",), ("/", *"[red"), ("escape",), ("question_mark",), ("escape",),
            ("2",), ("enter",), ("escape",), ("b",), ("escape",), ("u",), ("escape",),
            ("c",), ("escape",), ("a",), ("escape",), ("l",), ("escape",),
            ("v", "down", "v", "b"), ("escape",), ("u",), ("escape",), ("c",), ("escape", "V"),
            ("3",), ("n",), ("escape",), ("u",), ("escape",), ("tab",),
            ("4",), ("w",), ("escape",), ("n",), ("escape",), ("x",), ("escape",), ("tab", "n"),
            ("escape",), ("m",), ("5",), ("r",), ("escape",), ("x",), ("escape",), ("n",),
            ("escape",), ("c",), ("escape",), ("down",), ("6",),
            ("8",), ("tab",), ("y",), ("tab",), ("y",), ("shift+tab", "shift+tab"),
        )  # fmt: skip
        for keys in screens:
            await harmless(running, *keys)
        await running.press("enter")
        await running.tick(hostile(2, f"instructions:{HOSTILE}"))
        await harmless(running, "down")
        assert MARKUP in running.text


async def test_hostile_names_of_sources_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Names, "of", lambda *_: HOSTILE)
    async with dashboard(hostile(), size=(160, 40)) as running:
        await running.press("2")
        await harmless(running, "N")
        assert MARKUP in running.text
        await harmless(running, "enter")


async def test_the_hostile_text_is_in_the_classes_key_as_well() -> None:
    assert hostile().classes.row_of(ClassKey(HOSTILE, "egress")) == 0
    assert steers_terminal(HOSTILE)
