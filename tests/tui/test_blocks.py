# SPDX-License-Identifier: Apache-2.0
"""The blocks pane."""

from __future__ import annotations

from ebpftop.model import Prefix
from tests.tui.driving import dashboard, steers_terminal
from tests.tui.fakes import HOSTILE, Block, FakeControls, allowed, attack, blocks, snapshot


async def test_blocks_are_listed_latest_first_with_their_countdown() -> None:
    async with dashboard(attack(), size=(120, 30)) as running:
        await running.press("3")
        rows = [line.split() for line in running.list_pane.table.lines[1:5]]
        assert rows[0][:4] == ["▸", "192.0.2.200", "auto", "42s"]
        assert rows[1][:3] == ["203.0.113.77", "manual", "8m00s"]
        assert rows[2][:3] == ["2001:db8:bad::/48", "manual", "1h00m"]
        assert rows[3][:3] == ["198.51.100.0/24", "manual", "forever"]
        assert "syn flood, ticket 4711" in running.text
        assert "4 blocked  2 allowed" in running.lines[1]


async def test_allowed_addresses_are_in_sight_below() -> None:
    async with dashboard(attack()) as running:
        await running.press("3")
        assert "10.99.0.0/16" in running.text
        await running.tick(attack(1, allowed=allowed([])))
        assert "10.99.0.0/16" not in running.text


async def test_nobody_blocked_says_so_and_how_to_block(controls: FakeControls) -> None:
    async with dashboard(snapshot(), controls=controls) as running:
        await running.press("3")
        assert "Nobody is blocked: n blocks an address" in running.text
        assert "u unblock" not in running.lines[-1]
        await running.press("u", "d")
        assert len(running.app.screen_stack) == 1


async def test_unblocking_asks_first_and_names_its_target(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3", "down", "u")
        assert "Unblock 203.0.113.77" in running.text
        await running.press("escape")
        assert controls.calls == []
        await running.press("u", "enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("unblock", Prefix.parse("203.0.113.77"))]
        assert len(running.app.screen_stack) == 1


async def test_tab_goes_to_the_allowed_and_d_disallows(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3", "tab", "down")
        assert "d disallow" in running.lines[-1]
        assert "u unblock" not in running.lines[-1]
        await running.press("d", "enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("disallow", Prefix.parse("10.99.0.0/16"))]


async def test_block_that_ends_leaves_the_selection_on_no_row(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3")
        assert running.selected == Prefix.parse("192.0.2.200")
        await running.tick(attack(1, blocks=blocks([Block("203.0.113.77")])))
        assert running.selected == Prefix.parse("192.0.2.200")
        assert "not blocked any more" in running.text
        await running.press("u")
        assert len(running.app.screen_stack) == 1


async def test_hostile_reason_is_text_and_nothing_else() -> None:
    held = blocks([Block("10.0.0.1", reason=HOSTILE)])
    async with dashboard(snapshot(blocks=held), size=(160, 24)) as running:
        await running.press("3")
        assert "[/b][red]" in running.text
        assert not steers_terminal(running.text.replace("\n", ""))


async def test_typed_block_takes_a_prefix(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3", "n")
        await running.type("10.20.0.0/16")
        assert "300 tracked sources" in running.text
        await running.press("enter")
        await running.until(lambda: controls.calls)
        assert controls.calls == [("block", Prefix.parse("10.20.0.0/16"), 600.0, "", False)]


async def test_typed_block_says_what_is_wrong_with_an_address(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3", "n")
        await running.type("10.20.0.1/16")
        await running.press("enter")
        assert "has bits set beyond its prefix length" in running.text
        assert controls.calls == []


async def test_blocks_can_be_filtered(controls: FakeControls) -> None:
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3", "/")
        await running.type("source:auto")
        await running.press("enter")
        assert running.addresses == ["192.0.2.200"]
