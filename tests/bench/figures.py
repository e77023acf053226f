# SPDX-License-Identifier: Apache-2.0
"""What a measurement says: rows of samples, their medians and spreads, ratios to a peer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """A median, and the quartiles around it."""

    median: float
    """Half of the samples are below."""
    low: float
    """A quarter of the samples is below."""
    high: float
    """Three quarters of the samples are below."""
    rounds: int
    """How many samples there were."""

    @classmethod
    def of(cls, samples: Sequence[float]) -> Figure:
        """Return the figure of at least one sample.

        Raises:
            ValueError: There is none.
        """
        if not samples:
            raise ValueError("a figure needs a sample")
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high, len(samples))

    @property
    def spread(self) -> float:
        """The distance of the quartiles."""
        return self.high - self.low


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Return how many times `theirs` `ours` is.

    Samples of the same round are compared with each other, so that a slow moment, which hits
    both, cancels. Where their numbers differ, the quartiles are the worst of both.

    Raises:
        ValueError: There is no sample, or the other's median is not above 0.
    """
    own, other = Figure.of(ours), Figure.of(theirs)
    if other.median <= 0:
        raise ValueError("a ratio needs something above 0 to compare with")
    if len(ours) == len(theirs) and min(theirs) > 0:
        return Figure.of([mine / his for mine, his in zip(ours, theirs, strict=True)])
    return Figure(
        own.median / other.median,
        own.low / max(other.high, other.median),
        own.high / max(other.low, other.median * 0.01),
        min(own.rounds, other.rounds),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    name: str
    """What was measured."""
    unit: str = ""
    """Of the samples."""
    samples: Sequence[float] = ()
    """One for each round; none where it was skipped."""
    peer: str = ""
    """What it is beside; empty where there is nothing."""
    peer_samples: Sequence[float] = ()
    """The peer's, round by round."""
    budget: str = ""
    """The `Budget.key` that this row decides; empty for none."""
    skipped: str = ""
    """Why there is no figure."""
    details: dict[str, object] = field(default_factory=dict)
    """Anything else that belongs into the table."""

    @property
    def figure(self) -> Figure | None:
        """The samples' figure; None where it was skipped."""
        return Figure.of(self.samples) if self.samples else None

    @property
    def ratio(self) -> Figure | None:
        """How many times the peer it is; None without a peer."""
        return ratio(self.samples, self.peer_samples) if self.peer_samples else None


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one measurement."""

    name: str
    """As it is called on the command line."""
    title: str
    """For the page."""
    rows: Sequence[Row]
    """In the order of the page."""
    note: str = ""
    """How it was measured, in sentences."""
    seconds: float = 0.0
    """How long it took."""


def over(samples: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return the samples with the base of the same round taken off."""
    return [sample - below for sample, below in zip(samples, base, strict=True)]
