# SPDX-License-Identifier: Apache-2.0
"""What has changed on a source's row since somebody acted on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ebpftop import format as fmt
from ebpftop.model import Act, Prefix, Snapshot
from ebpftop.model.acts import DONE
from ebpftop.screens.figures import rate
from ebpftop.screens.source_history import SourceHistory
from ebpftop.widgets.cells import Cell

SHOWN_S = 60.0
"""How long after an act its effect is shown."""
_FACETS = ("block", "allow", "limits")
_MOST_TARGETS = 64
"""Of a longer list the rows show nothing besides their state."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What came of an act on one source."""

    act: Act
    """The latest one about it."""
    passed_before: float
    """Packets a second of it that passed before; NaN where that is not known."""
    passed_now: float
    """The same now."""
    dropped: float
    """Packets of it that were dropped since."""

    def cell(self) -> Cell:
        """Return it in words: the rate that passes before and after, and the drops since."""
        words = f"{rate(self.passed_before)}→{rate(self.passed_now)} pass"
        if self.dropped >= 1:
            words += f", {fmt.count(round(self.dropped))} dropped"
        return Cell(words, "good" if self.passed_now < self.passed_before else "info")


class Effects:
    """The effects of the latest acts, for the rows of one snapshot.

    Args:
        snapshot: Where the acts are, and what is sent now.
        history: What was sent in the last minute.
    """

    def __init__(self, snapshot: Snapshot, history: SourceHistory) -> None:
        self._snapshot = snapshot
        self._history = history
        earliest_s = snapshot.clock.wall_s - SHOWN_S
        recent = (
            act
            for act in reversed(snapshot.acts or ())
            if act.result == DONE and act.facet in _FACETS and act.time_s > earliest_s
        )
        self._acts = [(act, targets) for act in recent if (targets := _targets(act)) is not None]

    def __bool__(self) -> bool:
        return bool(self._acts)

    def of(self, row: int) -> Effect | None:
        """Return the effect of the latest act about the source in `row`; None without one."""
        if not self._acts:
            return None
        sources = self._snapshot.sources
        address = sources.address(row)
        act = next((act for act, targets in self._acts if _is_about(targets, address)), None)
        if act is None:
            return None
        clock = self._snapshot.clock
        at_s = clock.monotonic_ns / 1e9 - (clock.wall_s - act.time_s)
        before, dropped = _around(self._history, address, at_s)
        if act.facet == "limits" and dropped < 1:
            return None  # it is about everybody: say so only where something came of it
        now = float(sources.pps[row]) - float(sources.dropped_pps[row])
        return Effect(act, before, max(0.0, now), dropped)


def _around(history: SourceHistory, address: Prefix, at_s: float) -> tuple[float, float]:
    """Return what of a source passed a second before an instant, and its drops since."""
    series = history.of(address)
    before = series.times_s <= at_s
    passed = (series.pps - series.dropped_pps)[before]
    # Of the tick in which it was done, what came after.
    part = np.clip((series.times_s - at_s) / series.lengths_s, 0.0, 1.0)
    dropped = float((series.dropped_pps * series.lengths_s * part).sum())
    return (max(0.0, float(passed[-1])) if len(passed) else float("nan")), dropped


def _is_about(targets: Sequence[Prefix], address: Prefix) -> bool:
    return any(target.contains(address) for target in targets)


_EVERYBODY = (Prefix(0, 0, 0),)


def _targets(act: Act) -> Sequence[Prefix] | None:
    """Return whom an act was about; None where that is too long or cannot be read."""
    if act.facet == "limits":
        return _EVERYBODY
    try:
        texts = list(_texts(act.target, act.new))
        return [Prefix.parse(text) for text in texts] if len(texts) <= _MOST_TARGETS else None
    except (KeyError, TypeError, ValueError):
        return None


def _texts(target: str, new: Any) -> Iterator[str]:
    if isinstance(new, list):
        for group in new:
            yield from group["targets"]
    else:
        yield target
