# SPDX-License-Identifier: Apache-2.0
"""The talkers pane: sort, filter, selection."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import pytest
from textual.strip import Strip

from ebpftop.model import Prefix, SourceState
from ebpftop.screens.pane import Picture
from tests.tui.driving import dashboard
from tests.tui.fakes import START_NS, Talker, attack, many_sources, snapshot, sources

THREE = [
    Talker("10.0.0.1", pps=300, packets=10, dropped=5),
    Talker("10.0.0.2", pps=200, packets=30, state=SourceState.LIMITED),
    Talker("10.0.0.3", pps=100, packets=20),
]


async def test_busiest_is_first_and_selected_when_the_pane_opens() -> None:
    async with dashboard(snapshot(sources=sources(THREE[::-1]))) as running:
        await running.press("2")
        assert running.addresses == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        assert running.selected == Prefix.parse("10.0.0.1")


async def test_selection_follows_its_address_when_rows_move() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2", "down")
        assert running.selected == Prefix.parse("10.0.0.2")
        # WHEN the selected source becomes the quietest, and rows are stored in another order
        moved = [Talker("10.0.0.9", pps=900), *THREE[2:], *THREE[:1], Talker("10.0.0.2", pps=1)]
        await running.tick(snapshot(1, sources=sources(moved)))
        # THEN the same address is selected, on its new row
        assert running.selected == Prefix.parse("10.0.0.2")
        assert running.list_pane.table.cursor == 3
        marked = [line for line in running.list_pane.table.lines if line.startswith("▸")]
        assert len(marked) == 1
        assert "10.0.0.2" in marked[0]


async def test_selection_on_a_source_that_is_gone_is_on_no_row() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2", "down")
        await running.tick(snapshot(1, sources=sources([THREE[0], THREE[2]])))
        assert running.selected == Prefix.parse("10.0.0.2")
        assert running.list_pane.table.cursor is None
        assert not [line for line in running.list_pane.table.lines if line.startswith("▸")]
        assert "10.0.0.2  not tracked any more" in running.text
        # AND WHEN it comes back, it is selected again
        await running.tick(snapshot(2, sources=sources(THREE)))
        assert running.list_pane.table.cursor == 1


async def test_sort_key_walks_through_columns_and_heading_shows_it() -> None:
    async with dashboard(snapshot(sources=sources(THREE)), size=(120, 24)) as running:
        await running.press("2")
        assert "pps ▼" in running.list_pane.table.lines[0]
        await running.press("s", "s")
        assert "packets ▼" in running.list_pane.table.lines[0]
        assert running.addresses == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
        await running.press("S")
        assert "packets ▲" in running.list_pane.table.lines[0]
        assert running.addresses == ["10.0.0.1", "10.0.0.3", "10.0.0.2"]


async def test_sort_key_reaches_every_column_that_can_be_sorted() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2")
        seen = set()
        for _ in running.list_pane.COLUMNS:
            seen.add(running.list_pane.sort[0])
            await running.press("s")
        keys = {column.key for column in running.list_pane.COLUMNS if column.key}
        assert seen == keys - {"name", "byte_rate", "sent_bps"}


async def test_a_frozen_order_stays_while_the_figures_go_on() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2")
        before = running.addresses
        await running.press("F")
        assert "ORDER HELD" in running.lines[0]
        turned = [replace(talker, pps=1e6 / (n + 1)) for n, talker in enumerate(reversed(THREE))]
        newcomer = Talker("203.0.113.77", pps=5e6)
        await running.tick(snapshot(1, sources=sources([newcomer, *turned])))
        assert running.addresses == [*before, "203.0.113.77"]
        assert "1.00M" in running.list_pane.table.lines[3]
        await running.tick(snapshot(2, sources=sources([newcomer, *turned[1:]])))
        assert running.addresses == [a for a in before if a != turned[0].address] + ["203.0.113.77"]
        await running.press("F")
        assert running.addresses[0] == "203.0.113.77"
        assert "ORDER HELD" not in running.lines[0]


async def test_sorting_anew_lets_go_of_a_frozen_order() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2", "F", "s")
        assert "ORDER HELD" not in running.lines[0]


async def test_clicking_a_heading_sorts_and_clicking_again_inverts() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2")
        column = running.list_pane.table.lines[0].index("address")
        await running.pilot.click("#talkers-table", offset=(column, 0))
        assert running.list_pane.sort == ("address", False)
        await running.pilot.click("#talkers-table", offset=(column, 0))
        assert running.list_pane.sort == ("address", True)


async def test_clicking_a_row_selects_it() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2")
        await running.pilot.click("#talkers-table", offset=(5, 3))
        assert running.selected == Prefix.parse("10.0.0.3")


async def test_filter_shows_what_matches_and_says_that_it_does() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2", "/")
        await running.type("pps:>150")
        await running.press("enter")
        assert running.addresses == ["10.0.0.1", "10.0.0.2"]
        assert "FILTER pps:>150" in running.lines[0]
        assert "2 shown of 3 sources" in running.lines[1]
        # AND it holds for the next snapshot
        await running.tick(snapshot(1, sources=sources([Talker("10.0.0.8", pps=151), *THREE])))
        assert running.addresses == ["10.0.0.1", "10.0.0.2", "10.0.0.8"]
        # AND Escape shows all again
        await running.press("escape")
        assert len(running.addresses) == 4
        assert "FILTER" not in running.text


async def test_mistake_in_a_filter_is_shown_at_its_place_and_changes_nothing() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2", "/")
        await running.type("pps:1 nosuch:1")
        typed = next(i for i, line in enumerate(running.lines) if "nosuch:1" in line)
        assert running.lines[typed].index("nosuch") == running.lines[typed + 1].index("▲")
        assert "there is no field 'nosuch'" in running.lines[typed + 2]
        await running.press("enter")
        assert running.list_pane.filter is None
        assert len(running.addresses) == 3
        # WHEN it is mended it is taken
        for _ in range(len(" nosuch:1")):
            await running.press("backspace")
        await running.press("enter")
        assert running.list_pane.filter_text == "pps:1"


async def test_keys_typed_into_the_filter_do_nothing_else() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2", "/")
        await running.type("pqs1")
        assert running.app.main.pane.NAME == "talkers"
        assert not running.app.paused
        assert "Esc show all" in running.lines[-1]
        await running.press("escape")
        assert "/ filter" in running.lines[-1]


async def test_filter_that_hides_the_selected_row_leaves_it_selected_on_no_row() -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2", "/")
        await running.type("-10.0.0.1")
        await running.press("enter")
        assert running.selected == Prefix.parse("10.0.0.1")
        assert running.list_pane.table.cursor is None
        assert "not in the table" in running.text


async def test_empty_table_says_why() -> None:
    async with dashboard(snapshot()) as running:
        await running.press("2")
        assert "Nobody has sent anything yet" in running.text
        await running.press("down", "G", "pagedown", "s", "S")
        assert running.selected is None
        await running.press("/")
        await running.type("pps:>1")
        await running.press("enter")
        assert "No row matches pps:>1" in running.text


async def test_one_row_can_be_walked_over() -> None:
    async with dashboard(snapshot(sources=sources(THREE[:1]))) as running:
        await running.press("2", "down", "up", "G", "g", "pageup", "j", "k")
        assert running.list_pane.table.cursor == 0
        assert "row 1 of 1" in running.text


async def test_moving_past_the_edge_scrolls_and_pages() -> None:
    async with dashboard(snapshot(sources=many_sources(10_000))) as running:
        await running.press("2", "G")
        assert "row 10,000 of 10,000" in running.text
        table = running.list_pane.table
        assert table.scroll_offset.y == 10_000 - (table.size.height - 1)
        await running.press("pageup")
        assert table.cursor == 9_999 - (table.size.height - 2)
        await running.press("g")
        assert (table.cursor, table.scroll_offset.y) == (0, 0)


async def test_table_that_shrinks_under_the_viewport_stays_in_sight() -> None:
    async with dashboard(snapshot(sources=many_sources(1_000))) as running:
        await running.press("2", "G")
        await running.tick(snapshot(1, sources=sources(THREE)))
        await running.until(lambda: running.list_pane.table.scroll_offset.y == 0)
        assert running.addresses == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


async def test_ipv6_is_shown_whole_and_narrow_terminals_drop_columns() -> None:
    long = "2001:db8:1111:2222:3333:4444:5555:6666"
    async with dashboard(snapshot(sources=sources([*THREE, Talker(long)]))) as running:
        await running.press("2")
        await running.until(lambda: long in running.text)
        heading = running.list_pane.table.lines[0]
        assert "pps" in heading
        assert "state" in heading
        assert "packets" not in heading


async def test_only_lines_that_differ_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(snapshot(sources=sources(THREE))) as running:
        await running.press("2")
        # Rates that do not change leave the text of every row as it was.
        await running.tick(snapshot(1, sources=sources(THREE, START_NS + 10**9)))
        drawn: list[int] = []
        table = running.list_pane.table
        render_line = table.render_line

        def remember(y: int) -> Strip:
            drawn.append(y)
            return render_line(y)

        monkeypatch.setattr(table, "render_line", remember)
        louder = [THREE[0], Talker("10.0.0.2", pps=250, state=SourceState.LIMITED), THREE[2]]
        await running.tick(snapshot(2, sources=sources(louder, START_NS + 2 * 10**9)))
        assert drawn == [2]


async def test_a_tick_with_ten_thousand_sources_is_quick() -> None:
    ticks = [attack(n, sources=many_sources(10_000, seed=n)) for n in range(1, 8)]
    async with dashboard(attack(), size=(160, 50)) as running:
        await running.press("2")
        await running.tick(ticks[0])
        took_s = []
        for tick in ticks[1:]:
            started_s = perf_counter()
            running.app.picture = Picture.after(running.app.picture, tick, (), 0)
            running.app._show_latest()
            running.app.screen._compositor.render_strips()
            took_s.append(perf_counter() - started_s)
        # It takes about 10 ms; the test is for a fall of a whole order.
        assert min(took_s) < 0.1
