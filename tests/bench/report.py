# SPDX-License-Identifier: Apache-2.0
"""The tables of a run, as JSON and as the page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench import plot
from tests.bench.budgets import Verdict, verdicts
from tests.bench.figures import Figure, Row, Table

_PAGE_HEAD = """# What ebpftop costs

Written by `make bench`, which measures all of it in one run on one machine; the same figures
are in [performance.json](performance.json). A figure is a median, with the quartiles in
brackets; a ratio is of the same rounds. **~** stands where the quartiles of a ratio lie on
both sides of 1: no difference is claimed there.
"""

BUDGETS_BEGIN, BUDGETS_END = "<!-- budgets: begin -->", "<!-- budgets: end -->"
"""Between these lines of a page, `with_budgets` writes."""


def as_json(machine: Mapping[str, object], tables: Sequence[Table]) -> dict[str, Any]:
    """Return everything, with plain numbers."""
    return {
        "machine": dict(machine),
        "seconds": round(sum(table.seconds for table in tables)),
        "budgets": [_verdict_json(verdict) for verdict in verdicts(tables)],
        "tables": [
            {
                "name": table.name,
                "title": table.title,
                "note": table.note,
                "seconds": round(table.seconds, 1),
                "rows": [_row_json(row) for row in table.rows],
            }
            for table in tables
        ],
    }


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    budget = verdict.budget
    return {
        "key": budget.key, "what": budget.what, "most": budget.most, "unit": budget.unit,
        "measured": _rounded(verdict.measured), "low": _rounded(verdict.low),
        "high": _rounded(verdict.high), "met": verdict.met,
    }  # fmt: skip


def _row_json(row: Row) -> dict[str, Any]:
    answer: dict[str, Any] = {"what": row.name}
    if row.skipped:
        return {**answer, "skipped": row.skipped}
    if (figure := row.figure) is not None:
        answer |= {"unit": row.unit, **_figure_json(figure)}
    if (compared := row.ratio) is not None:
        answer["beside"] = row.peer
        answer["ratio"] = _figure_json(compared)
    if row.budget:
        answer["budget"] = row.budget
    return {**answer, **row.details}


def _figure_json(figure: Figure) -> dict[str, Any]:
    return {
        "median": _rounded(figure.median), "low": _rounded(figure.low),
        "high": _rounded(figure.high), "rounds": figure.rounds,
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def budget_table(tables: Sequence[Table]) -> str:
    """Return the budgets beside what was measured, in Markdown."""
    lines = ["| what | budget | measured | |", "|---|---|---|---|"]
    for verdict in verdicts(tables):
        budget = verdict.budget
        word = {True: "met", False: "**over**", None: "not measured"}[verdict.met]
        beside = f", {budget.beside}" if budget.beside else ""
        measured = "–" if verdict.measured is None else _number(verdict.measured)
        asked = f"{budget.most:g} {budget.unit}{beside}"
        lines.append(f"| {budget.what} | {asked} | {measured} | {word} |")
    return "\n".join(lines)


def with_budgets(text: str, tables: Sequence[Table]) -> str:
    """Return a page with the budgets of this run in their place.

    Raises:
        ValueError: It has no place for them.
    """
    before, begin, rest = text.partition(BUDGETS_BEGIN)
    _, end, after = rest.partition(BUDGETS_END)
    if not begin or not end:
        raise ValueError("the page has no place for budgets")
    return f"{before}{begin}\n{budget_table(tables)}\n{end}{after}"


def page(machine: Mapping[str, Any], tables: Sequence[Table]) -> str:
    """Return the page of the documentation."""
    minutes = sum(table.seconds for table in tables) / 60
    where = (
        f"{machine['processor']}, {machine['cores']} cores"
        f"{', virtual' if machine['virtual'] else ''}, Linux {machine['kernel']}"
    )
    parts = [_PAGE_HEAD, f"{where}; the run took {minutes:.0f} minutes."]
    packages = machine["packages"]
    parts.append("Beside " + ", ".join(f"{name} {packages[name]}" for name in packages) + ".")
    parts += ["## Budgets", budget_table(tables)]
    for table in tables:
        parts += [f"## {table.title}", table.note, _table(table)]
        if growth_svg([table]):
            parts.append("![How the cost of a packet grows](../screenshots/growth.svg)")
    return "\n\n".join(part for part in parts if part) + "\n"


def growth_svg(tables: Sequence[Table]) -> str:
    """Draw the rows that say which `line` they are on, and how many `times` there is of it."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in (row for table in tables for row in table.rows if row.samples):
        if "line" in row.details and (figure := row.figure) is not None:
            at = float(str(row.details["times"]))
            points.setdefault(str(row.details["line"]), []).append((at, figure.median))
    lines = [plot.Line(name, sorted(found)) for name, found in points.items()]
    across, up = "times as many", "ns a packet over an empty program"
    return plot.svg("How the cost of a packet grows", across, up, lines) if lines else ""


def _table(table: Table) -> str:
    details = list(dict.fromkeys(name for row in table.rows for name in row.details))
    compared = any(row.peer_samples for row in table.rows)
    measured = any(row.samples or row.skipped for row in table.rows)
    names = ["what", *(["measured"] if measured else []), *(["beside"] if compared else [])]
    names += [name.replace("_", " ") for name in details]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in table.rows:
        cells = [row.name, *([_measured(row)] if measured else [])]
        cells += [_compared(row)] if compared else []
        cells += [_cell(row.details.get(name, "")) for name in details]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _measured(row: Row) -> str:
    figure = row.figure
    if figure is None:
        return f"skipped: {row.skipped}" if row.skipped else ""
    spread = "" if figure.rounds == 1 else f" ({_number(figure.low)}–{_number(figure.high)})"
    return f"{_number(figure.median)}{spread} {row.unit}"


def _compared(row: Row) -> str:
    found = row.ratio
    if found is None:
        return ""
    unclear = " ~" if found.low <= 1 <= found.high and found.rounds > 1 else ""
    return (
        f"{found.median:.2f} x{unclear} ({found.low:.2f}–{found.high:.2f}) {row.peer}"
    )  # fmt: skip


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _number(value: float) -> str:
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
