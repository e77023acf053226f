# SPDX-License-Identifier: Apache-2.0
"""The filter language on every table, and a mistake shown where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual.widgets import Static

from ebpftop.config.dashboard import DashboardSettings
from ebpftop.model import Blocks, Listing, Service, Vip
from ebpftop.widgets.ledger import Ledger
from ebpftop.widgets.table import Table
from tests.tui.driving import Dashboard, dashboard
from tests.tui.fakes import (
    FakeControls,
    Served,
    Shaped,
    attack,
    backends,
    classes,
    connections,
    vips,
)
from tests.tui.test_programs import FOUND, MAPS, PROGRAMS

WEB, DNS = "198.51.100.10:80/tcp", "[2001:db8::53]:53/udp"
FULL = attack(
    classes=classes([Shaped("uplink"), Shaped("video", 8_000_000), Shaped("backup", dropped=9)]),
    vips=vips([Vip(Service.parse(WEB)), Vip(Service.parse(DNS), "maglev", "dsr")]),
    backends=backends({
        WEB: [Served("10.0.0.1:8080", 3), Served("10.0.0.2:8080", healthy=False, flows=70)],
        DNS: [Served("[2001:db8:1::1]:5353")],
    }),
    connections=connections([("192.0.2.1:40000", WEB, "10.0.0.1:8080", "established", 900),
                             ("192.0.2.2:40001", WEB, "10.0.0.2:8080", "udp", 90)]),
    programs=PROGRAMS,
    maps=MAPS,
    inspection=FOUND,
)  # fmt: skip
"""A snapshot with rows in every table."""

TABLES = {
    "events": (("1",), "kind:flood", "812k packets", "automatic for 1m"),
    "events by address": (("1",), "address:203.0.113.0/24", "812k packets", "automatic for 1m"),
    "talkers": (("2",), "address:203.0.113.0/24", "203.0.113.77", "198.51.100.23"),
    "blocks": (("3",), "reason:/botnet/", "198.51.100.0/24", "192.0.2.200"),
    "allowed": (("3", "tab"), "address:10.99.0.0/16", "10.99.0.0/16", "192.0.2.10  "),
    "backends": (("4",), "connections:70", "10.0.0.2:8080", "10.0.0.1:8080"),
    "vips": (("4", "shift+tab"), "mode:dsr", "[2001:db8::53]:53", "198.51.100.10:80/tcp"),
    "classes": (("5",), "rate_bps:<10m", "video", "backup"),
    "connections": (("6",), "packets:>100", "192.0.2.1:40000", "192.0.2.2:40001"),
    "programs": (("8",), "hook:/^tc/", "shape_egress", "86,856"),
    "maps": (("8", "tab"), "fill:>0.8", "blocked_ips", "ip_tracker"),
    "fixtures": (("8", "tab", "tab"), "whose:other", "fq_codel", "ours"),
}


@pytest.mark.parametrize("name", TABLES)
async def test_every_table_is_filtered_and_shown_whole_again(name: str) -> None:
    keys, expression, stays, goes = TABLES[name]
    async with dashboard(FULL, size=(140, 44)) as running:
        await running.press(*keys)
        assert stays in rows(running)
        assert goes in rows(running)
        await running.press("/")
        await running.type(expression)
        await running.press("enter")
        assert f"FILTER {expression}" in running.lines[0]
        assert stays in rows(running)
        assert goes not in rows(running)
        await running.press("escape")
        assert "FILTER" not in running.text
        assert goes in rows(running)


def rows(running: Dashboard) -> str:
    """Return what the tables show, without the lines about selections and alerts."""
    pane = running.app.main.pane
    tables = [*pane.query(Table), *pane.query(Ledger)]
    shown = [table for table in tables if table.display and table.id != "top-talkers"]
    return "\n".join(line for table in shown for line in table.lines)


@pytest.mark.parametrize("name", TABLES)
async def test_a_mistake_is_shown_under_its_place(name: str) -> None:
    keys, *_ = TABLES[name]
    async with dashboard(FULL, size=(140, 44)) as running:
        await running.press(*keys, "/")
        await running.type("flood nosuchfield:3")
        at = next(i for i, line in enumerate(running.lines) if "flood nosuchfield:3" in line)
        assert running.lines[at + 1].index("▲") == running.lines[at].index("nosuchfield")
        assert "nosuchfield" in running.lines[at + 2]
        await running.press("enter")
        assert "FILTER" not in running.lines[0]


async def test_two_tables_of_a_pane_have_a_filter_each() -> None:
    async with dashboard(FULL, size=(140, 44)) as running:
        await running.press("8", "/")
        await running.type("hook:xdp")
        await running.press("enter", "tab", "/")
        await running.type("type:array")
        await running.press("enter")
        assert "FILTER hook:xdp  type:array" in running.lines[0]
        assert "shape_egress" not in running.text
        assert "blocked_ips" not in rows(running)
        await running.press("escape")
        assert "blocked_ips" in rows(running)
        assert "shape_egress" not in running.text


async def test_no_row_that_matches_is_said_in_a_small_table_too() -> None:
    async with dashboard(FULL) as running:
        await running.press("3", "tab", "/")
        await running.type("packets:>1g")
        await running.press("enter")
        assert "No row matches packets:>1g (Esc shows all rows)" in running.text


async def test_what_is_inside_a_map_is_filtered_and_left_by_the_same_key() -> None:
    asked = "entries:blocked_ips"
    listed = Listing(asked, [f"192.0.2.{n}  {n}" for n in range(9)])
    async with dashboard(FULL, size=(100, 30)) as running:
        await running.press("8", "tab", "enter")
        await running.tick(replace(FULL, sequence=1, inspection=replace(FOUND, listing=listed)))
        await running.press("/")
        await running.type("192.0.2.7")
        await running.press("enter")
        assert "192.0.2.7  7" in running.text
        assert "192.0.2.3  3" not in running.text
        await running.press("escape")
        assert "192.0.2.3  3" in running.text
        await running.press("escape")
        assert "192.0.2.3  3" not in running.text
        assert "ip_tracker" in running.text


async def test_one_key_drops_what_is_staged_and_then_the_filter(controls: object) -> None:
    async with dashboard(FULL, size=(120, 30), controls=controls) as running:
        await running.press("4", "/")
        await running.type("10.0.0.2")
        await running.press("enter", "down", "plus")
        assert "STAGED" in running.text
        await running.press("escape")
        assert "STAGED" not in running.text
        assert "FILTER" in running.text
        await running.press("escape")
        assert "FILTER" not in running.text


async def test_classes_are_sorted_by_a_column_and_back_in_their_own_order() -> None:
    async with dashboard(FULL, size=(140, 30)) as running:
        await running.press("5")

        def names() -> list[str]:
            lines = running.app.main.pane.query("#shaper-table").first().lines[1:4]  # type: ignore[attr-defined]
            return [line.lstrip("▸ ").split()[0] for line in lines]

        assert names() == ["uplink", "video", "backup"]
        await running.press("s")
        assert names() == ["backup", "uplink", "video"]
        await running.press("S")
        assert names() == ["video", "uplink", "backup"]
        await running.press(*["s"] * 12)
        assert names() == ["uplink", "video", "backup"]


async def test_the_order_of_flows_is_held_by_what_they_are() -> None:
    async with dashboard(FULL, size=(120, 30)) as running:
        await running.press("6", "F")
        assert "ORDER HELD" in running.lines[0]
        turned = connections([("192.0.2.1:40000", WEB, "10.0.0.1:8080", "established", 900),
                              ("192.0.2.2:40001", WEB, "10.0.0.2:8080", "udp", 9_000)])  # fmt: skip
        await running.tick(replace(FULL, sequence=1, connections=turned))
        assert running.addresses == ["192.0.2.1:40000", "192.0.2.2:40001"]
        await running.press("F")
        assert running.addresses == ["192.0.2.2:40001", "192.0.2.1:40000"]


async def test_what_is_selected_in_any_table_is_copied() -> None:
    async with dashboard(FULL, size=(120, 30)) as running:
        for keys, copied in (
            (("4",), "10.0.0.1:8080"),
            (("5",), "uplink"),
            (("8",), "xdp_pipeline"),
        ):
            await running.press(*keys, "y")
            assert running.app.clipboard == copied


async def test_texts_that_name_keys_follow_the_key_map(controls: FakeControls) -> None:
    keys = {"new-block": "f6", "new-class": "f7", "new-service": "f8", "assign": "f9",
            "clear-filter": "f10", "quit": "f11"}  # fmt: skip
    settings = DashboardSettings(keys=keys)
    bare = replace(attack(), blocks=Blocks.empty())
    async with dashboard(bare, controls=controls, settings=settings) as running:
        for pane, words in (("3", "f6 blocks an address"), ("5", "f7 makes one, f9 puts"),
                            ("4", "f8 adds one")):  # fmt: skip
            await running.press(pane)
            assert words in running.text
        await running.press("2", "/", *"nobody", "enter")
        assert "(f10 shows all rows)" in running.text
        too_small = running.app.main.query_one("#too-small", Static)
        assert "f11 quits" in str(too_small.content)
