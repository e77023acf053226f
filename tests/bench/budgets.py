# SPDX-License-Identifier: Apache-2.0
"""What the program is held to, and whether the figures of a run meet it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.figures import Row, Table


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that something may cost."""

    key: str
    """What rows call it by."""
    what: str
    """For the page."""
    most: float
    """In `unit`."""
    unit: str
    """`x` for a ratio to the row's peer, or the row's own."""
    beside: str = ""
    """What it is compared with, for the page."""


BUDGETS = (
    Budget("drop", "drop of a blocked source", 0.8, "x", "xdp-filter's drop"),
    Budget("pass", "pass of a known source, a limit on", 1.25, "x", "xdp-filter's pass"),
    Budget("balance", "established balanced flow, rewritten, limits off", 87, "ns",
           "the published figure for balancing in XDP"),
    Budget("bucket", "conformant packet through a token bucket", 50, "ns", "an empty TC program"),
    Budget("read", "read and rank 100,000 sources", 2, "x", "the bare batch system calls"),
    Budget("tick", "one tick at 160x50, 100,000 sources all changing", 5, "% of a core", "1 Hz"),
    Budget("rss", "memory of the dashboard, 100,000 sources", 90, "MB"),
    Budget("launch", "launch to first real numbers", 1.5, "s"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """A budget beside what a run measured."""

    budget: Budget
    """What was asked."""
    measured: float | None
    """The median, in the budget's unit; None where this run did not measure it."""
    low: float | None
    """Its lower quartile."""
    high: float | None
    """Its upper quartile."""

    @property
    def met(self) -> bool | None:
        """Whether the median is within the budget; None where it was not measured."""
        return None if self.measured is None else self.measured <= self.budget.most


def verdicts(tables: Sequence[Table]) -> list[Verdict]:
    """Return each budget beside the row that decides it.

    Raises:
        ValueError: Two rows decide one, or a row names one that is not there.
    """
    rows: dict[str, Row] = {}
    for row in (row for table in tables for row in table.rows if row.budget):
        if row.budget in rows:
            raise ValueError(f"two rows decide the budget {row.budget}")
        rows[row.budget] = row
    if unknown := rows.keys() - {budget.key for budget in BUDGETS}:
        raise ValueError(f"there is no budget {', '.join(sorted(unknown))}")
    return [_verdict(budget, rows.get(budget.key)) for budget in BUDGETS]


def _verdict(budget: Budget, row: Row | None) -> Verdict:
    found = None
    if row is not None:
        if budget.unit not in ("x", row.unit):
            raise ValueError(f"the budget {budget.key} is in {budget.unit}, not {row.unit}")
        found = row.ratio if budget.unit == "x" else row.figure
    if found is None:
        return Verdict(budget, None, None, None)
    return Verdict(budget, found.median, found.low, found.high)
