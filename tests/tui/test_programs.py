# SPDX-License-Identifier: Apache-2.0
"""The programs pane: costs, maps, hooks, and inside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ebpftop.model import (
    Fixture,
    Inspection,
    InterfaceCounters,
    Listing,
    MapInfo,
    Program,
    ProgramFacts,
    Snapshot,
)
from tests.tui.driving import Dashboard, dashboard
from tests.tui.fakes import snapshot

PROGRAMS = [
    Program("xdp_pipeline", 71, "xdp", "0123456789abcdef", 10, 1000, 86_856),
    Program("shape_egress", 72, "tc egress", "fedcba9876543210", 0, 0, 1_200),
]
MAPS = [
    MapInfo("config", "array", None, 1, 4096),
    MapInfo("ip_tracker", "lru_hash", 1_000, 131_072, 20_000_000),
    MapInfo("blocked_ips", "hash", 95_000, 100_000, 8_000_000),
]
FOUND = Inspection(
    measured=True,
    programs={
        71: ProgramFacts(45_000, 27_000, 250_000.0, 81.4, 0.0204),
        72: ProgramFacts(9_600, 5_000, 0.0, None, 0.0),
    },
    fixtures=[
        Fixture("eth0", "xdp", "xdp_pipeline", "71", True),
        Fixture("eth0", "tcx ingress", "evil\x1b[2J[red]", "99", False),
        Fixture("eth0", "qdisc", "fq_codel", "0:", False, 1_234_567, 42),
    ],
    counters=[InterfaceCounters("eth0", 5_000_000, 1, 4_000_000, 1, 17, 3, 0)],
)


def looked(sequence: int = 0, **changes: Any) -> Snapshot:
    found = replace(FOUND, **changes)
    return snapshot(sequence, programs=PROGRAMS, maps=MAPS, inspection=found)


async def opened(running: Dashboard) -> None:
    await running.press("8")
    await running.until(lambda: running.source.wants == {"inspection"})


async def test_the_pane_shows_costs_maps_hooks_and_the_interfaces_counters() -> None:
    async with dashboard(looked(), size=(120, 40)) as running:
        await opened(running)
        for words in ("xdp_pipeline", "250,000", "81", "2.0%", "86,856", "5,625", "fq_codel",
                      "lost before XDP 17", "after 3", "131,072"):  # fmt: skip
            assert words in running.text, words


async def test_a_close_look_is_asked_for_while_the_pane_is_in_sight_and_no_longer() -> None:
    async with dashboard(looked()) as running:
        assert running.source.wants == frozenset()
        await opened(running)
        await running.press("1")
        await running.until(lambda: running.source.wants == frozenset())


async def test_a_map_that_is_nearly_full_comes_first_with_a_sign() -> None:
    async with dashboard(looked()) as running:
        await opened(running)
        lines = [line for line in running.lines if "hash" in line]
        assert "blocked_ips" in lines[0]
        assert "▲  95%" in lines[0]
        assert "▲" not in lines[1]


async def test_what_is_not_ours_is_named_and_cannot_write_on_the_terminal() -> None:
    async with dashboard(looked(), size=(120, 40)) as running:
        await opened(running)
        (line,) = (line for line in running.lines if "tcx ingress" in line)
        assert "other" in line
        assert "evil" in line
        assert "\x1b" not in running.text
        assert "[red]" in line


async def test_a_programs_instructions_are_shown_and_left_again() -> None:
    async with dashboard(looked()) as running:
        await opened(running)
        await running.press("enter")
        asked = "instructions:xdp_pipeline"
        await running.until(lambda: asked in running.source.wants)
        assert "it is being read" in running.text
        listing = Listing(asked, [f"{n}: r{n} = {n}" for n in range(9)], left_out=3)
        await running.tick(looked(1, listing=listing))
        assert "4: r4 = 4" in running.text
        assert "and 3 more" in running.text
        await running.press("escape")
        await running.until(lambda: running.source.wants == {"inspection"})
        assert "r4 = 4" not in running.text
        assert "blocked_ips" in running.text


async def test_a_maps_entries_are_shown_for_the_map_that_is_selected() -> None:
    async with dashboard(looked()) as running:
        await opened(running)
        await running.press("tab", "enter")
        asked = "entries:blocked_ips"
        await running.until(lambda: asked in running.source.wants)
        await running.tick(looked(1, listing=Listing("entries:config", ["another's"])))
        assert "another's" not in running.text
        await running.tick(looked(2, listing=Listing(asked, ["192.0.2.1  3"])))
        assert "192.0.2.1  3" in running.text
        await running.tick(looked(3, listing=Listing(asked, [], note="it is empty")))
        assert "it is empty" in running.text


async def test_without_root_the_pane_says_that_costs_are_not_known() -> None:
    blind = looked(measured=False, programs={71: ProgramFacts(), 72: ProgramFacts()})
    async with dashboard(blind) as running:
        await opened(running)
        assert "run times need root" in running.text
        assert "–" in next(line for line in running.lines if "xdp_pipeline" in line)
