# SPDX-License-Identifier: Apache-2.0
"""The Balancer pane: what it shows, what it stages, and what it writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from textual.widgets import Input

from ebpftop.errors import KernelRefusedError
from ebpftop.model import Backend, HealthCheck, Service, Snapshot, Vip
from ebpftop.screens.backend_history import BackendHistory, BackendKey
from ebpftop.screens.balancer import BalancerPane
from ebpftop.screens.balancer_dialogs import parse_check
from ebpftop.screens.balancer_rows import check_text
from tests.tui.driving import Dashboard, dashboard
from tests.tui.fakes import FakeControls, Served, backends, snapshot, vips

WEB, MAIL = "198.51.100.10:80/tcp", "[2001:db8::25]:25/tcp"
VIP = Service.parse(WEB)
ONE, TWO, THREE = (Service.parse(f"10.0.0.{n}:8080", "tcp") for n in (1, 2, 3))
SERVERS = (
    Served("10.0.0.1:8080", 3, share=0.75, got=0.74, flows=30, first_weight=3),
    Served("10.0.0.2:8080", 1, share=0.25, got=0.26, flows=10, first_weight=2),
    Served("10.0.0.3:8080", 4, healthy=False, share=0.0, got=0.0, flows=0, first_weight=4),
)
MAILERS = (Served("[2001:db8:1::1]:2525", share=1.0, healthy=None),)


def balanced(
    sequence: int = 0, *served: Served, algorithm: str = "wrr", **changes: Any
) -> Snapshot:
    """Build a snapshot with two VIPs."""
    wanted = [Vip(VIP, algorithm, check=HealthCheck("http", path="/up")), Vip(Service.parse(MAIL))]
    held = backends({WEB: served or SERVERS, MAIL: MAILERS})
    return snapshot(sequence, **{"vips": vips(wanted), "backends": held, **changes})


def pane(running: Dashboard) -> BalancerPane:
    """Return the pane in sight, which is the balancer's."""
    found = running.app.main.pane
    assert isinstance(found, BalancerPane)
    return found


def row(running: Dashboard, number: int) -> list[str]:
    """Return the words of a row of the backends, from 0."""
    return pane(running).table.lines[1 + number][2:].split()


def wished(running: Dashboard) -> list[str]:
    """Return the column of wished shares."""
    heading = pane(running).table.lines[0]
    end = heading.index("wish") + len("wish")
    lines = pane(running).table.lines[1:]
    return [line[:end].split()[-1] for line in lines if line.strip()]


async def fill(running: Dashboard, field: str, text: str) -> None:
    """Write into a field of the dialog."""
    entry = running.app.screen.query_one(f"#{field}", Input)
    entry.value = text
    entry.focus()
    await running.pilot.pause()


# What is shown


async def test_the_vips_and_the_chosen_ones_backends_are_shown() -> None:
    async with dashboard(balanced(), size=(160, 30)) as running:
        await running.press("4")
        web, mail = pane(running).vip_table.lines[1:3]
        assert web[2:].split()[:5] == [WEB, "wrr", "nat", "2/3", "40"]
        assert "http /up every 2s, rise 2, fall 3" in web
        assert mail[2:].split()[:4] == [MAIL, "wrr", "nat", "1/1"]
        assert "none" in mail
        assert row(running, 0)[:11] == [
            "10.0.0.1:8080", "●", "up", "✔", "3", "75.0%", "37.5%", "74.0%", "30", "6", "90",
        ]  # fmt: skip
        assert row(running, 2)[:6] == ["10.0.0.3:8080", "●", "up", "✖", "4", "0%"]
        assert "2 VIPs" in running.lines[1]
        assert "4 backends" in running.lines[1]
        assert "✖ 1 unhealthy" in running.lines[1]


async def test_another_vip_is_chosen_and_its_backends_are_shown() -> None:
    async with dashboard(balanced()) as running:
        await running.press("4", "shift+tab", "down")
        assert row(running, 0)[0] == "[2001:db8:1::1]:2525"
        assert "10.0.0.1:8080" not in running.text
        assert "▸ [2001:db8:1::1]:2525" in running.text
        # Nothing checks its health.
        assert row(running, 0)[3] == "–"


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 40), (200, 50)])
async def test_what_matters_is_in_sight_at_every_size(size: tuple[int, int]) -> None:
    async with dashboard(balanced(), size=size) as running:
        await running.press("4")
        heading = pane(running).table.lines[0]
        for column in ("backend", "state", "weight", "share", "wish"):
            assert column in heading
        assert WEB in running.text
        if size[0] >= 80:
            for column in ("live", "got", "flows", "pps"):
                assert column in heading


async def test_the_last_minute_of_a_backend_is_drawn() -> None:
    async with dashboard(balanced(), size=(160, 30)) as running:
        await running.press("4")
        for second in range(1, 62, 2):
            await running.tick(balanced(second, interval_s=2.0))
        line = pane(running).table.lines[1].rstrip()[-15:]
        assert all(0x2800 < ord(character) <= 0x28FF for character in line)


def test_history_keeps_a_minute_and_forgets_backends_that_went() -> None:
    history = BackendHistory()
    for second in range(0, 300, 2):
        history = history.extended(balanced(second, interval_s=2.0))
    assert len(history.of(BackendKey(VIP, ONE))[0]) <= 31
    history = history.extended(balanced(300, SERVERS[1], interval_s=2.0))
    assert BackendKey(VIP, ONE) not in history.samples
    unknown = Served("10.0.0.2:8080", bps=float("nan"))
    assert np.array_equal(
        history.extended(balanced(301, unknown)).of(BackendKey(VIP, TWO))[0],
        history.of(BackendKey(VIP, TWO))[0],
    )


async def test_without_a_vip_it_says_so(controls: FakeControls) -> None:
    async with dashboard(snapshot(), controls=controls) as running:
        await running.press("4")
        assert "No VIP: nothing is balanced. n adds one" in running.text
        await running.press("plus", "minus", "w", "0", "d", "e", "o", "m", "x", "f", "enter")
        assert len(running.app.screen_stack) == 1
        assert controls.calls == []
        await running.press("n")
        assert "New VIP" in running.text


async def test_a_backend_that_cannot_be_reached_is_said() -> None:
    async with dashboard(balanced(0, Served("10.0.0.1:8080", reachable=False))) as running:
        await running.press("4")
        assert "its way is looked up for each packet" in running.text


# Staging


async def test_plus_and_minus_stage_the_weight_by_one_and_enter_writes_it(
    controls: FakeControls,
) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "plus", "plus")
        assert row(running, 0)[4] == "3→5"
        assert controls.calls == []
        await running.press("minus", "minus", "minus")
        assert row(running, 0)[4] == "3→2"
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("set_backends", VIP, {ONE: {"weight": 2}})]
        # Nothing looks done until the kernel says so.
        await running.until(lambda: row(running, 0)[4] == "3")
        await running.tick(balanced(1, Served("10.0.0.1:8080", 2), *SERVERS[1:]))
        assert row(running, 0)[4] == "2"
        assert "STAGED" not in running.text


async def test_what_is_staged_shows_the_shares_that_will_come_of_it(
    controls: FakeControls,
) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4")
        # By their weights; the third has none in the ring, as it is not healthy.
        assert wished(running) == ["37.5%", "12.5%", "50.0%"]
        await running.press("plus")
        assert wished(running) == ["→80.0%", "→20.0%", "→0%"]
        await running.press("down", "0")
        assert wished(running) == ["→100%", "→0%", "→0%"]
        assert "STAGED 10.0.0.1:8080 weight 4; 10.0.0.2:8080 state drain" in running.text
        assert "Enter write  Esc drop" in running.lines[-1]
        await running.press("m", "e")
        # least: equal among those that take flows
        assert wished(running) == ["→50.0%", "→50.0%", "→0%"]


async def test_who_was_bad_when_the_checks_ended_takes_no_flows_as_the_ring_says(
    controls: FakeControls,
) -> None:
    unchecked = [replace(server, healthy=None) for server in SERVERS]
    async with dashboard(balanced(0, *unchecked), controls=controls) as running:
        await running.press("4")
        assert "2/3" in pane(running).vip_table.lines[1]
        await running.press("plus")
        assert wished(running) == ["→80.0%", "→20.0%", "→0%"]


async def test_all_that_is_staged_is_written_in_one_act(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "plus", "down", "0", "down", "d", "plus", "enter")
        await running.until(lambda: controls.calls)
        changes = {
            ONE: {"weight": 4},
            TWO: {"state": "drain"},
            THREE: {"state": "down", "weight": 5},
        }
        assert controls.calls == [("set_backends", VIP, changes)]


async def test_escape_drops_what_is_staged(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "plus", "m", "down", "0")
        assert pane(running).staged.touches(VIP)
        await running.press("escape")
        assert row(running, 0)[4] == "3"
        assert wished(running) == ["37.5%", "12.5%", "50.0%"]
        assert "STAGED" not in running.text
        await running.press("enter")
        assert controls.calls == []


@pytest.mark.parametrize(
    ("key", "state", "sign"), [("0", "drain", "→ drain"), ("d", "down", "→ down")]
)
async def test_a_backend_is_drained_taken_down_and_brought_back(
    controls: FakeControls, key: str, state: str, sign: str
) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "down", key)
        assert sign in pane(running).table.lines[2]
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls.pop() == ("set_backends", VIP, {TWO: {"state": state}})
        held = (SERVERS[0], Served("10.0.0.2:8080", state=state, share=0), SERVERS[2])
        await running.tick(balanced(1, *held))
        assert state in pane(running).table.lines[2]
        await running.press("e", "enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("set_backends", VIP, {TWO: {"state": "up"}})]


async def test_o_restores_the_weight_it_was_found_with(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "down")
        assert "found with weight 2" in running.text
        await running.press("plus", "plus", "o")
        assert row(running, 1)[4] == "1→2"
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("set_backends", VIP, {TWO: {"weight": 2}})]


async def test_m_stages_each_algorithm_in_turn(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "m")
        assert "→least" in pane(running).vip_table.lines[1]
        await running.press("m")
        assert "→maglev" in pane(running).vip_table.lines[1]
        assert f"*{WEB}" in running.text
        await running.press("m", "m")
        assert "→" not in running.text
        await running.press("m", "m", "enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("set_vip", VIP, {"algorithm": "maglev"})]


async def test_a_weight_does_not_fall_below_0(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "down", "minus", "minus", "minus")
        assert row(running, 1)[4] == "1→0"


async def test_what_is_staged_stays_on_its_backend_however_rows_move(
    controls: FakeControls,
) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "plus")
        # WHEN another backend comes to stand where it stood
        new = Served("10.0.0.9:8080", 7)
        await running.tick(balanced(1, new, *SERVERS))
        assert [row(running, n)[4] for n in (0, 1)] == ["7", "3→4"]
        assert pane(running).target == BackendKey(VIP, ONE)
        # WHEN somebody else writes it meanwhile
        other = Served("10.0.0.1:8080", 9)
        await running.tick(balanced(2, other, *SERVERS[1:]))
        assert row(running, 0)[4] == "9→4"
        # WHEN it goes, THEN what was staged for it goes too, and is on no other
        await running.tick(balanced(3, *SERVERS[1:]))
        assert "→" not in running.text
        assert "10.0.0.1:8080  is no more" in running.text
        await running.press("plus", "enter")
        assert controls.calls == []


async def test_what_is_refused_stays_staged_and_is_said(controls: FakeControls) -> None:
    controls.refusal = KernelRefusedError("the table is full", "detach")
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "plus", "enter")
        told = running.app._notifications
        await running.until(lambda: any("table is full: detach" in n.message for n in told))
        assert row(running, 0)[4] == "3→4"
        controls.refusal = None
        await running.press("enter")
        await running.until(lambda: controls.calls)


async def test_enter_while_a_write_is_under_way_writes_nothing_twice(
    controls: FakeControls,
) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        controls.may_act.clear()
        await running.press("4", "plus", "enter", "enter")
        # What is staged meanwhile is not lost when the first is done.
        await running.press("plus")
        controls.may_act.set()
        await running.until(lambda: controls.calls)
        await running.until(lambda: "Enter write" in running.lines[-1])
        assert controls.calls == [("set_backends", VIP, {ONE: {"weight": 4}})]
        assert row(running, 0)[4] == "3→5"


async def test_each_vip_keeps_what_is_staged_for_it(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "plus", "shift+tab", "down")
        assert f"*{WEB}" in running.text
        assert "STAGED" not in running.text
        await running.press("enter", "escape")
        assert controls.calls == []
        await running.press("up", "enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("set_backends", VIP, {ONE: {"weight": 4}})]


# Dialogs


async def test_w_types_the_weight_and_shows_its_effect(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "down", "w")
        assert f"Weight of 10.0.0.2:8080 of {WEB}" in running.text
        await fill(running, "weight", "9")
        assert "75.0% → 25.0%   10.0.0.1:8080" in running.text
        assert "25.0% → 75.0%   10.0.0.2:8080" in running.text
        # WHEN rows move under it, it stays on its target
        await running.tick(balanced(1, Served("10.0.0.9:8080"), *SERVERS))
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("set_backends", VIP, {TWO: {"weight": 9}})]


async def test_a_weight_that_is_no_number_is_named(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "w")
        await fill(running, "weight", "")
        await running.press("enter")
        assert "a weight is a whole number" in running.text
        assert controls.calls == []


async def test_n_adds_a_backend_to_the_chosen_vip(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "n")
        assert f"New backend of {WEB}" in running.text
        await running.type("10.0.0.7")
        await running.press("enter")
        assert "'10.0.0.7'" in running.text
        assert controls.calls == []
        await fill(running, "backend", "10.0.0.7:8080")
        await fill(running, "weight", "5")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        wanted = Backend(Service.parse("10.0.0.7:8080", "tcp"), 5)
        assert controls.calls == [("add_backend", VIP, wanted)]


async def test_n_among_the_vips_adds_a_vip(controls: FakeControls) -> None:
    async with dashboard(balanced(), size=(100, 30), controls=controls) as running:
        await running.press("4", "shift+tab", "n")
        await running.type("198.51.100.11:53/udp")
        await fill(running, "algorithm", "magic")
        await running.press("enter")
        assert "the algorithm is one of rr, wrr, least, maglev" in running.text
        await fill(running, "algorithm", "maglev")
        await fill(running, "check", "icmp")
        await running.press("enter")
        assert "'icmp' is no check" in running.text
        await fill(running, "check", "none")
        await fill(running, "none-lives", "all")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        wanted = Vip(Service.parse("198.51.100.11:53/udp"), "maglev", "nat", "all", None)
        assert controls.calls == [("add_vip", wanted)]


async def test_x_deletes_after_a_yes(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "x")
        assert "30 flows" in running.text
        await running.press("escape")
        assert controls.calls == []
        await running.press("x", "enter")
        await running.until(lambda: controls.calls)
        await running.press("shift+tab", "x")
        assert "40 flows" in running.text
        await running.press("enter")
        await running.until(lambda: len(controls.calls) == 2)
        assert controls.calls == [("delete_backend", VIP, ONE), ("delete_vip", VIP)]


@pytest.mark.parametrize(
    ("text", "check"),
    [("none", None), ("", None), ("tcp", HealthCheck("tcp")), ("http", HealthCheck("http")),
     ("http /up", HealthCheck("http", path="/up"))],
)  # fmt: skip
def test_a_check_in_words(text: str, check: HealthCheck | None) -> None:
    assert parse_check(text) == check
    assert check_text(check).split(" every")[0] == ("http /" if text == "http" else text or "none")


# Read-only


async def test_read_only_shows_all_and_changes_nothing() -> None:
    async with dashboard(balanced(), size=(160, 24)) as running:
        await running.press("4")
        assert row(running, 0)[:5] == ["10.0.0.1:8080", "●", "up", "✔", "3"]
        footer = running.lines[-1]
        for label in ("more", "less", "weight", "drain", "down", "enable", "original",
                      "algorithm", "new", "delete", "write", "drop"):  # fmt: skip
            assert label not in footer
        assert "f flows" in footer
        await running.press("plus", "minus", "w", "0", "d", "e", "o", "m", "n", "x", "enter")
        assert len(running.app.screen_stack) == 1
        assert not pane(running).staged.touches(VIP)
        await running.press("shift+tab", "m", "n", "x", "enter")
        assert len(running.app.screen_stack) == 1
        assert not pane(running).staged.touches(VIP)


async def test_nothing_is_staged_once_the_source_is_lost(controls: FakeControls) -> None:
    async with dashboard(balanced(), controls=controls) as running:
        await running.press("4", "plus")
        running.source.error = KernelRefusedError("gone", "nothing")
        running.app.sampler.sample_now()
        await running.until(lambda: running.app.lost_error)
        await running.press("plus", "enter")
        assert controls.calls == []
        assert row(running, 0)[4] == "3→4"
