# SPDX-License-Identifier: Apache-2.0
"""The Connections pane, and the ways to it and back."""

from __future__ import annotations

from typing import Any

import pytest

from ebpftop.model import Prefix, Service, Snapshot, Vip
from tests.tui.driving import Dashboard, dashboard
from tests.tui.fakes import (
    FakeControls,
    Served,
    Talker,
    backends,
    connections,
    snapshot,
    sources,
    vips,
)

WEB, OTHER = "198.51.100.10:80/tcp", "198.51.100.11:80/tcp"
FLOWS = [
    ("192.0.2.1:40001", WEB, "10.0.0.1:8080", "established", 50),
    ("192.0.2.1:40002", WEB, "10.0.0.2:8080", "syn-sent", 1),
    ("192.0.2.9:40003", OTHER, "10.0.0.1:8080", "fin-client", 900),
    ("[2001:db8::77]:40004", WEB, None, "established", 7),
]
CLOSED = ("192.0.2.1:40005", WEB, "10.0.0.1:8080", "closed", 3)
TALKERS = [Talker("192.0.2.1", pps=10), Talker("192.0.2.9", pps=500), Talker("192.0.2.50", 900)]


def balanced(sequence: int = 0, *flows: Any, **changes: Any) -> Snapshot:
    """Build a snapshot with four flows through two VIPs."""
    servers = [Served("10.0.0.1:8080"), Served("10.0.0.2:8080")]
    base = {
        "vips": vips([Vip(Service.parse(WEB)), Vip(Service.parse(OTHER))]),
        "backends": backends({WEB: servers, OTHER: servers[:1]}),
        "connections": connections(flows or FLOWS),
        "sources": sources(TALKERS),
    }
    return snapshot(sequence, **{**base, **changes})


def clients(running: Dashboard) -> list[str]:
    """Return the clients of the flows in sight, from the top."""
    return running.addresses


async def test_every_flow_is_a_row_the_busiest_first() -> None:
    async with dashboard(balanced(), size=(120, 24)) as running:
        await running.press("6")
        assert clients(running) == [
            "192.0.2.9:40003", "192.0.2.1:40001", "[2001:db8::77]:40004", "192.0.2.1:40002",
        ]  # fmt: skip
        lines = running.list_pane.table.lines
        assert lines[2][2:].split() == [
            "192.0.2.1:40001", WEB, "10.0.0.1:8080", "established", "50", "35.0", "kB", "1m30s",
            "now",
        ]  # fmt: skip
        assert lines[3].split()[2] == "gone"
        assert "1 opening" in running.lines[1]
        assert "4 flows" in running.lines[1]


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (160, 50)])
async def test_what_matters_is_in_sight_at_every_size(size: tuple[int, int]) -> None:
    async with dashboard(balanced(), size=size) as running:
        await running.press("6")
        heading = running.list_pane.table.lines[0]
        for column in ("client", "backend", *(["state", "packets", "age"] if size[0] > 60 else [])):
            assert column in heading


async def test_flows_are_sorted_and_filtered_as_talkers_are() -> None:
    async with dashboard(balanced()) as running:
        await running.press("6", "slash")
        await running.type("state:established packets:<20")
        await running.press("enter")
        assert clients(running) == ["[2001:db8::77]:40004"]
        assert "1 shown of 4 flows" in running.lines[1]
        await running.press("escape")
        assert len(clients(running)) == 4
        await running.press("s")
        assert running.list_pane.sort == ("bytes", True)
        await running.press("s", "s", "s")
        assert running.list_pane.sort == ("client", False)
        assert clients(running)[0] == "192.0.2.1:40001"
        await running.press("S")
        assert clients(running)[0] == "[2001:db8::77]:40004"


async def test_the_selection_stays_on_its_flow() -> None:
    async with dashboard(balanced()) as running:
        await running.press("6", "down")
        assert "▸ 192.0.2.1:40001 to 198.51.100.10:80/tcp" in running.text
        more = [("192.0.2.1:40001", OTHER, "10.0.0.1:8080", "established", 5000), *FLOWS]
        await running.tick(balanced(1, *more))
        assert running.list_pane.table.cursor == 2
        await running.tick(balanced(2, *FLOWS[1:]))
        assert "ended" in running.text
        assert running.list_pane.table.cursor is None


async def test_flows_are_read_only_while_they_are_in_sight() -> None:
    async with dashboard(balanced(connections=None)) as running:
        assert not running.source.wants
        await running.press("6")
        assert running.source.wants == {"connections"}
        assert "Reading the flows" in running.text
        running.source.current = balanced(1)
        running.app.sampler.sample_now()
        await running.until(lambda: "192.0.2.1:40001" in running.text)
        await running.press("2")
        assert not running.source.wants


async def test_going_to_the_pane_reads_the_flows_at_once() -> None:
    async with dashboard(balanced(connections=None)) as running:
        running.source.current = balanced(1)
        await running.press("6")
        await running.until(lambda: "192.0.2.1:40001" in running.text)
        # The first row is selected once there is one.
        assert running.list_pane.table.cursor == 0


async def test_a_key_leads_from_a_backend_to_its_flows() -> None:
    async with dashboard(balanced(0, *FLOWS, CLOSED), size=(120, 24)) as running:
        # Those that it has, as the figure there counts them.
        await running.press("4", "f")
        await running.until(lambda: running.app.main.pane.NAME == "connections")
        assert clients(running) == ["192.0.2.1:40001"]
        assert "FILTER vip:198.51.100.10:80/tcp backend:10.0.0.1:8080 -state" in running.lines[0]
        assert running.source.wants == {"connections"}
        await running.press("escape")
        assert len(clients(running)) == 5
        assert "4 flows  1 closed" in running.lines[1]
        # The same address behind another VIP is another backend.
        await running.press("4", "shift+tab", "down", "f")
        await running.until(lambda: running.app.main.pane.NAME == "connections")
        assert clients(running) == ["192.0.2.9:40003"]


async def test_a_key_leads_from_a_flow_to_its_client_in_talkers() -> None:
    async with dashboard(balanced()) as running:
        await running.press("2", "slash")
        await running.type("192.0.2.50")
        await running.press("enter", "6", "t")
        await running.until(lambda: running.app.main.pane.NAME == "talkers")
        assert running.selected == Prefix.parse("192.0.2.9")
        # It is in sight, whatever was filtered there before.
        assert running.list_pane.table.cursor == 1
        assert "▸ 192.0.2.9" in running.text
        assert not running.source.wants


async def test_a_client_that_is_not_tracked_is_said() -> None:
    async with dashboard(balanced()) as running:
        await running.press("6", "down", "down")
        assert "its client is not tracked" in running.text
        await running.press("t")
        await running.until(lambda: running.app.main.pane.NAME == "talkers")
        assert running.selected == Prefix.parse("2001:db8::77")
        assert "not in the table" in running.text


async def test_without_a_flow_it_says_why(controls: FakeControls) -> None:
    async with dashboard(snapshot(connections=connections([])), controls=controls) as running:
        await running.press("6")
        assert "No flow: there is no VIP" in running.text
        await running.press("t", "b", "u", "x")
        assert running.app.main.pane.NAME == "connections"
        assert len(running.app.screen_stack) == 1
    async with dashboard(balanced(connections=connections([]))) as running:
        await running.press("6")
        assert "they appear here with their first packet to a VIP" in running.text
