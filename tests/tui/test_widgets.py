# SPDX-License-Identifier: Apache-2.0
"""What widgets draw, without an app where one is not needed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from ebpftop.model import Prefix, Snapshot
from ebpftop.screens.history import KEPT_S, History
from ebpftop.screens.targets import covering, sending
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell, Column, bar, fit, place
from ebpftop.widgets.graph import braille, buckets
from tests.tui.driving import steers_terminal
from tests.tui.fakes import (
    Block,
    Talker,
    allowed,
    blocks,
    rates,
    snapshot,
    sources,
)

COLUMNS = (
    Column("a", "A", 10, "left"),
    Column("b", "B", 6, rank=1),
    Column("c", "C", 6, rank=3),
    Column("d", "D", 6, rank=2, stretch=5),
)
WIDTHS = [column.width for column in COLUMNS]


@pytest.mark.parametrize(
    ("available", "shown"),
    [
        (40, [(0, 10), (1, 6), (2, 6), (3, 11)]),
        (36, [(0, 10), (1, 6), (2, 6), (3, 8)]),
        (34, [(0, 10), (1, 6), (2, 6), (3, 6)]),
        (33, [(0, 10), (1, 6), (3, 11)]),
        (25, [(0, 10), (1, 6)]),
        (17, [(0, 10)]),
        (4, [(0, 4)]),
    ],
)
def test_columns_hide_by_rank_and_share_what_is_left(
    available: int, shown: list[tuple[int, int]]
) -> None:
    assert list(place(COLUMNS, WIDTHS, available)) == shown


@given(st.integers(1, 200))
def test_placed_columns_never_take_more_than_there_is(available: int) -> None:
    placed = place(COLUMNS, WIDTHS, available)
    assert sum(width for _, width in placed) + 2 * (len(placed) - 1) <= max(available, 1)


@given(st.text(), st.integers(1, 60), st.sampled_from(("left", "right")))
def test_fitted_text_is_exactly_as_wide_and_steers_nothing(
    text: str, width: int, align: str
) -> None:
    fitted = fit(text, width, "left" if align == "left" else "right")
    assert cell_len(fitted) == width
    assert not steers_terminal(fitted)


def test_bars_are_as_long_as_their_part() -> None:
    assert bar(0.0, 10) == ""
    assert bar(0.5, 10) == "█████"
    assert bar(1.5, 10) == "█" * 10
    assert bar(0.0125, 10) == "▏"


def test_bucket_holds_the_largest_value_of_its_part() -> None:
    times = np.array([91.0, 92.0, 95.0, 99.0])
    values = np.array([5.0, 7.0, 3.0, 9.0])
    assert buckets(times, values, 99.5, 10.0, 5) == [5.0, 7.0, 3.0, 3.0, 9.0]


def test_bucket_before_the_first_sample_is_unknown() -> None:
    drawn = buckets(np.array([98.0]), np.array([4.0]), 99.5, 10.0, 5)
    assert [math.isnan(value) for value in drawn] == [True] * 4 + [False]


def test_graph_keeps_its_shape_while_it_moves() -> None:
    times = np.arange(0.0, 300.0)
    values = np.random.default_rng(7).random(300) * 100
    # Two seconds to a bucket: after two seconds all of it has moved by one.
    before = buckets(times[:200], values[:200], 199.0, 100.0, 50)
    after = buckets(times[:202], values[:202], 201.0, 100.0, 50)
    assert before[1:] == after[:-1]


def test_graph_tells_nothing_from_no_data_and_little_from_nothing() -> None:
    (line,) = braille([math.nan, math.nan, 0.0, 0.0, 0.001, 1.0], 1.0, 1)
    assert line[0] == " "
    assert line[1] == "⣀"
    assert line[2] == "⣼"


def test_full_column_reaches_the_top_row() -> None:
    lines = braille([1.0, 1.0], 1.0, 3)
    assert lines == ["⣿", "⣿", "⣿"]


class BarApp(App[None]):
    """Shows one bar."""

    def __init__(self, left: list[str], right: list[str], pinned: str) -> None:
        super().__init__()
        self.bar = Bar(pinned="left" if pinned == "left" else "right")
        self.cells = [Cell(text) for text in left], [Cell(text) for text in right]

    def compose(self) -> ComposeResult:
        """Lay out the bar."""
        yield self.bar

    def on_mount(self) -> None:
        """Fill the bar."""
        self.bar.show(*self.cells)


@pytest.mark.parametrize(
    ("pinned", "width", "drawn"),
    [
        ("right", 40, " first  second            help  quit"),
        ("right", 26, " first           help  quit"),
        ("left", 25, " first  second  help"),
        ("left", 10, " first"),
    ],
)
async def test_bar_drops_texts_from_the_side_that_yields(
    pinned: str, width: int, drawn: str
) -> None:
    app = BarApp(["first", "second"], ["help", "quit"], pinned)
    async with app.run_test(size=(width, 3)):
        assert app.bar.text.split() == drawn.split()
        assert len(app.bar.text) == width


def seen(second: float, received_pps: float, interval_s: float | None = 1.0) -> Snapshot:
    """Build a snapshot with just a time and a rate."""
    base = snapshot(0, rates=rates(received_pps, 0.0), interval_s=interval_s)
    clock = base.clock.__class__(int(second * 1e9), base.clock.wall_s)
    return snapshot(0, rates=base.rates, interval_s=interval_s, clock=clock)


def test_history_forgets_what_is_too_old_and_keeps_the_peak() -> None:
    history = History()
    for second in range(1000):
        history = history.extended(seen(second, 900.0 if second == 3 else 10.0))
    assert len(history.times_s) == KEPT_S
    assert history.pps["received"].max() == 10.0
    assert history.peak_pps["received"] == 900.0
    assert history.span_s(999.0) == KEPT_S


def test_history_leaves_out_rates_over_too_short_a_time() -> None:
    history = History().extended(seen(1, 10.0)).extended(seen(1.01, 9e9, interval_s=0.01))
    assert history.peak_pps["received"] == 10.0


def test_sending_adds_up_what_lies_within_a_prefix() -> None:
    talkers = [Talker("10.0.0.1", 100), Talker("10.0.1.1", 50), Talker("11.0.0.1", 25)]
    now = snapshot(sources=sources([*talkers, Talker("2001:db8::1", 25)]), rates=rates(200.0, 0))
    within = sending(now, Prefix.parse("10.0.0.0/8"))
    assert (within.sources, within.pps, within.share) == (2, 150.0, 0.75)
    assert sending(now, Prefix.parse("0.0.0.0/0")).sources == 3
    assert sending(now, Prefix.parse("::/0")).sources == 4
    assert sending(now, Prefix.parse("2001:db8::/32")).sources == 1


def test_longest_entry_covers() -> None:
    held = blocks([Block("10.0.0.0/8"), Block("10.1.0.0/16"), Block("2001:db8::/32")])
    assert covering(held, Prefix.parse("10.1.2.3")) == Prefix.parse("10.1.0.0/16")
    assert covering(held, Prefix.parse("10.2.0.0/16")) == Prefix.parse("10.0.0.0/8")
    assert covering(held, Prefix.parse("10.0.0.0/7")) is None
    assert covering(held, Prefix.parse("10.1.0.0/16"), below=112) == Prefix.parse("10.0.0.0/8")
    assert covering(held, Prefix.parse("2001:db8:1::9")) == Prefix.parse("2001:db8::/32")
    assert covering(allowed([]), Prefix.parse("10.0.0.1")) is None
