# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' own arithmetic: figures, ratios, budgets, the tables and the plot."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import __main__ as command
from tests.bench import plot, registry, report
from tests.bench.budgets import BUDGETS, verdicts
from tests.bench.figures import Figure, Row, Table, over, ratio

MACHINE = {
    "kernel": "6.1", "processor": "a processor", "cores": 2, "virtual": True,
    "packages": {"nftables": "1.0"},
}  # fmt: skip
SAMPLES = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=50)


def table(*rows: Row) -> Table:
    return Table("some", "Some figures", rows, "How it was done.", 1.5)


@given(SAMPLES)
def test_a_figure_lies_within_its_samples(samples: list[float]) -> None:
    found = Figure.of(samples)
    assert min(samples) <= found.low <= found.median <= found.high <= max(samples)
    assert found.rounds == len(samples)


def test_a_figure_is_the_median_and_the_quartiles() -> None:
    assert Figure.of([5, 1, 3, 2, 4]) == Figure(3, 2, 4, 5)
    assert Figure.of([5, 1, 3, 2, 4]).spread == 2
    with pytest.raises(ValueError, match="sample"):
        Figure.of([])


def test_a_ratio_compares_samples_of_one_round() -> None:
    # WHEN one round is slow for both THEN the ratio does not know of it
    assert ratio([10, 20, 90], [5, 10, 45]) == Figure(2, 2, 2, 3)


def test_a_ratio_of_unlike_numbers_of_rounds_takes_the_worst_of_both_spreads() -> None:
    found = ratio([8, 10, 12], [4, 5, 5, 6, 5])
    assert (found.median, found.low, found.high) == (2, 9 / 5, 11 / 5)


def test_nothing_is_compared_with_what_takes_no_time() -> None:
    with pytest.raises(ValueError, match="above 0"):
        ratio([1, 2], [0, 0])


def test_the_base_is_taken_off_round_by_round() -> None:
    assert over([10, 30], [4, 5]) == [6, 25]


def test_a_budget_is_met_where_the_median_is_within_it() -> None:
    beside = Row("drop", "ns", [8, 8, 8], "peer", [10, 10, 10], budget="drop")
    tick = Row("tick", "% of a core", [5.1], budget="tick")
    found = {verdict.budget.key: verdict for verdict in verdicts([table(beside, tick)])}
    assert (found["drop"].measured, found["drop"].met) == (0.8, True)
    assert (found["tick"].measured, found["tick"].met) == (5.1, False)
    assert (found["rss"].measured, found["rss"].met) == (None, None)
    assert len(found) == len(BUDGETS)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([Row("a", "MB", [1], budget="rss"), Row("b", "MB", [1], budget="rss")], "two rows"),
        ([Row("a", "MB", [1], budget="speed")], "no budget speed"),
        ([Row("a", "KB", [1], budget="rss")], "in MB, not KB"),
    ],
)
def test_a_budget_has_one_row_and_its_unit(rows: list[Row], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        verdicts([table(*rows)])


def test_json_has_medians_spreads_ratios_and_what_was_skipped() -> None:
    rows = [
        Row("fast", "ns", [10, 11, 12], "slow", [20, 22, 24], details={"insns": 7}),
        Row("gone", skipped="not installed"),
    ]
    told = json.loads(json.dumps(report.as_json(MACHINE, [table(*rows)])))
    assert told["machine"]["kernel"] == "6.1"
    fast, gone = told["tables"][0]["rows"]
    assert (fast["median"], fast["low"], fast["high"], fast["rounds"]) == (11, 10.5, 11.5, 3)
    assert (fast["beside"], fast["ratio"]["median"], fast["insns"]) == ("slow", 0.5, 7)
    assert gone == {"what": "gone", "skipped": "not installed"}


def test_the_page_shows_each_row_and_claims_no_difference_within_the_spread() -> None:
    rows = [
        Row("clear", "ns", [10, 11, 12], "peer", [20, 22, 24]),
        Row("unclear", "ns", [9, 10, 11], "peer", [10, 10, 10]),
        Row("gone", skipped="not installed"),
    ]
    page = report.page(MACHINE, [table(*rows)])
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line[:1] == "|"}
    assert "11.0 (10.5–11.5) ns | 0.50 x (0.50–0.50) peer" in lines["clear"]
    assert "1.00 x ~ (0.95–1.05) peer" in lines["unclear"]
    assert "skipped: not installed" in lines["gone"]
    assert "a processor, 2 cores, virtual, Linux 6.1" in page
    assert "## Some figures\n\nHow it was done." in page


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    rows = [
        Row("sizes", details={"insns": 12345}),
        Row("timed", "ns", [1], "peer", [2], details={"line": "x", "times": 1}),
    ]
    for some in (rows, rows[:1], rows[1:]):
        body = report.page(MACHINE, [table(*some)]).partition("## Some figures")[2]
        lines = [line for line in body.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1
    assert "12,345" in report.page(MACHINE, [table(*rows)])


def test_rows_on_a_line_are_drawn() -> None:
    rows = [
        Row(f"{n}", "ns", [n * 10.0], details={"line": "a < b", "times": n}) for n in (100, 1, 10)
    ]
    drawn = ElementTree.fromstring(report.growth_svg([table(*rows)]))
    (line,) = drawn.iter("{http://www.w3.org/2000/svg}polyline")
    placed = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    # THEN tenfold steps are equally wide, and more is further up
    (x0, y0), (x1, y1), (x2, y2) = placed
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 > y1 > y2
    assert y2 >= plot.TOP
    assert report.growth_svg([table(Row("none", "ns", [1]))]) == ""


def good(effort: registry.Effort) -> list[Row]:
    return [Row("rounds", "n", [effort.rounds])]


def bad(effort: registry.Effort) -> list[Row]:
    raise OSError("no such device")


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        registry.Measurement("bad", "Bad", bad, 1, "", watches=True),
        registry.Measurement("good", "Good", good, 2, "", watches=False),
    ]
    monkeypatch.setattr("tests.bench.__main__.measurements", lambda: made)
    monkeypatch.setattr("ebpftop.kernel.bpffs.mount", lambda *, lasting: None)


def test_one_that_fails_is_named_and_the_others_go_on(declared: None, tmp_path: object) -> None:
    done = CliRunner().invoke(command.main, ["--effort", "quick", "--write", str(tmp_path)])
    assert done.exit_code == 0, done
    assert "skipped: it failed: no such device" in done.output
    assert "rounds | 9.00 n" in done.output
    assert done.output.index("## Bad") < done.output.index("## Good")


def test_one_can_be_chosen_by_name(declared: None) -> None:
    done = CliRunner().invoke(command.main, ["--only", "good"])
    assert "## Good" in done.output
    assert "## Bad" not in done.output
    refused = CliRunner().invoke(command.main, ["--only", "godo"])
    assert refused.exit_code == 2
    assert "there are" in refused.output


def test_the_long_run_is_of_what_watches(declared: None) -> None:
    listed = CliRunner().invoke(command.main, ["--effort", "long", "--list"]).output
    assert "bad" in listed
    assert "good" not in listed


def test_two_measurements_of_one_name_are_refused() -> None:
    assert "dashboard" in [each.name for each in registry.measurements()]
    with pytest.raises(ValueError, match="two measurements called dashboard"):
        registry.measurement("dashboard", "Again", place=3)(good)


def test_every_budget_is_decided_by_some_measurement() -> None:
    folder = Path(registry.__file__).parent
    modules = [path for path in folder.glob("*.py") if path.name != "budgets.py"]
    text = "".join(path.read_text() for path in modules)
    assert [budget.key for budget in BUDGETS if f'"{budget.key}"' not in text] == []


def test_the_measurements_of_all_modules_are_found() -> None:
    names = [each.name for each in registry.measurements()]
    assert {"protection", "balancing", "shaper", "reading", "dashboard", "launch"} <= set(names)
    assert len(names) == len(set(names))


def test_the_budgets_of_a_readme_are_replaced_and_nothing_else() -> None:
    readme = f"before\n{report.BUDGETS_BEGIN}\nold\n{report.BUDGETS_END}\nafter\n"
    tables = [table(Row("tick", "% of a core", [4.5], budget="tick"))]
    written = report.with_budgets(readme, tables)
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert "4.50 | met" in written
    assert report.with_budgets(written, tables) == written
    with pytest.raises(ValueError, match="no place"):
        report.with_budgets("a page without budgets", tables)
