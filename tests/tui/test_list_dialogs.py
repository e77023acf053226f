# SPDX-License-Identifier: Apache-2.0
"""Whole lists from files and into files, from the blocks pane."""

from __future__ import annotations

import json
from pathlib import Path

from ebpftop.model import BlockRequest, Prefix
from tests.tui.driving import dashboard
from tests.tui.fakes import FakeControls, attack
from tests.tui.test_dialogs import fill


async def test_a_list_is_blocked_as_a_whole(controls: FakeControls, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text('["10.0.0.1", {"address": "10.0.0.2", "expires_in_s": null, "reason": "x"}]')
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3", "f")
        assert "4 blocks are in force" in running.text
        await fill(running, "address", str(path))
        await fill(running, "reason", "bots")
        await running.press("enter")
        await running.until(lambda: controls.calls)
        expected = [
            BlockRequest(Prefix.parse("10.0.0.1"), 3600.0, "bots"),
            BlockRequest(Prefix.parse("10.0.0.2"), None, "x"),
        ]
        assert controls.calls == [("block_all", expected, False)]


async def test_a_list_with_bad_lines_is_refused_and_they_are_named(
    controls: FakeControls, tmp_path: Path
) -> None:
    path = tmp_path / "l"
    path.write_text("10.0.0.1\nnonsense\n10.0.0.300\n")
    async with dashboard(attack(), controls=controls, size=(120, 40)) as running:
        await running.press("3", "f")
        await fill(running, "address", str(path))
        await running.press("enter")
        await running.until(lambda: "nothing was blocked" in running.text)
        for words in ("line 2: 'nonsense'", "line 3:", "'10.0.0.300'"):
            assert words in running.text
        assert "\N{REPLACEMENT CHARACTER}" not in running.text
        assert controls.calls == []


async def test_an_allow_list_is_read_where_the_allowed_are_selected(
    controls: FakeControls, tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_text("10.0.0.1\n10.1.0.0/16\n")
    async with dashboard(attack(), controls=controls) as running:
        await running.press("3", "tab", "f")
        assert "Allow a list" in running.text
        await fill(running, "address", str(path))
        await running.press("enter")
        await running.until(lambda: controls.calls)
        wanted = [Prefix.parse("10.0.0.1"), Prefix.parse("10.1.0.0/16")]
        assert controls.calls == [("allow_all", wanted)]


async def test_the_blocks_are_written_to_a_new_file_read_only_too(tmp_path: Path) -> None:
    whole, plain = tmp_path / "blocks.json", tmp_path / "blocks.txt"
    async with dashboard(attack()) as running:
        await running.press("3", "e")
        await fill(running, "address", str(whole))
        await running.press("enter")
        await running.until(lambda: len(running.app.screen_stack) == 1)
        rows = json.loads(whole.read_text())
        assert [row["address"] for row in rows] == [
            "203.0.113.77", "198.51.100.0/24", "192.0.2.200", "2001:db8:bad::/48",
        ]  # fmt: skip
        assert rows[0]["reason"] == "syn flood, ticket 4711"
        await running.press("e")
        await fill(running, "address", str(plain))
        await running.press("enter")
        await running.until(lambda: len(running.app.screen_stack) == 1)
        assert plain.read_text().splitlines() == [row["address"] for row in rows]
        # What is there already stays.
        await running.press("e")
        await fill(running, "address", str(whole))
        await running.press("enter")
        await running.until(lambda: "is there already" in " ".join(running.text.split()))
        assert json.loads(whole.read_text()) == rows
