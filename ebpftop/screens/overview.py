# SPDX-License-Identifier: Apache-2.0
"""The first pane: how much comes in, what becomes of it, who sends most, what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from ebpftop import actions
from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.model import VERDICTS, Event, Snapshot, Totals
from ebpftop.ranking import order
from ebpftop.screens.fields import event_fields
from ebpftop.screens.figures import limits_cells, rate, rate_in, share_cell, source_summary
from ebpftop.screens.history import GRAPHED, History
from ebpftop.screens.pane import Picture
from ebpftop.screens.sieve import Sieve, SievedPane, field_kinds
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell, Column, Tone, state_cell
from ebpftop.widgets.graph import Graph
from ebpftop.widgets.ledger import Ledger

_TONES: dict[str, Tone] = {
    "received": "info",
    "passed": "good",
    "dropped": "bad",
    "aborted": "bad",
}
_EVENT_TONES: dict[str, Tone] = {
    "flood": "bad",
    "block": "warn",
    "table-full": "bad",
    "flood-end": "good",
    "unblock": "good",
}
_PROTOCOLS = ("tcp", "udp", "icmp", "icmpv6", "other")
_TOP_ROWS = 15

_TALKERS = (
    Column("", "TOP TALKERS", 15, "left", stretch=4, grows=True),
    Column("", "state", 9, "left"),
    Column("", "pps", 7),
    Column("", "bps", 7),
    Column("", "dropped", 7, rank=3),
    Column("", "drop/s", 7, rank=2),
    Column("", "share", 14, "left", rank=1, stretch=60),
)
_VERDICTS = (
    Column("", "VERDICTS", 11, "left", stretch=3),
    Column("", "packets", 7),
    Column("", "bytes", 7),
    Column("", "pps", 6),
)
_PROTOCOL = (
    Column("", "PROTOCOLS", 9, "left", stretch=3),
    Column("", "packets", 7, rank=1),
    Column("", "pps", 6),
)
_DROPS = (Column("", "DROPS", 10, "left", stretch=20), Column("", "packets", 7))
_EVENTS = (
    Column("", "EVENTS", 8, "left"),
    Column("", "", 10, "left"),
    Column("", "", 15, "left", grows=True),
    Column("", "", 10, "left", stretch=200),
)


class Tile(Vertical):
    """One rate: its name, what it is now, its peak, and its last minutes.

    Args:
        graphed: Which rate, a word of `GRAPHED`.
    """

    def __init__(self, graphed: str) -> None:
        super().__init__(id=f"tile-{graphed}")
        self._graphed = graphed
        self._title, self._now, self._graph = Bar(), Bar(), Graph()

    def compose(self) -> ComposeResult:
        """Lay out the title, the figures and the graph."""
        yield self._title
        yield self._now
        yield self._graph

    def show(self, snapshot: Snapshot, history: History, top: float, unit: str) -> None:
        """Draw the rate in a word of `UNITS`; `top` is the value of a full graph."""
        name = self._graphed
        pps = snapshot.rates.pps.get(name) if snapshot.rates else None
        bps = snapshot.rates.bps.get(name) if snapshot.rates else None
        values, highest = history.graph(name, unit)
        peak = rate_in(highest, unit) if len(history.times_s) else fmt.UNKNOWN
        self._title.show([Cell(name.upper(), _TONES[name])], [Cell(f"peak {peak}", "muted")])
        volume = rate_in(None if bps is None else bps / 8, "bytes") if unit == "bytes" else ""
        self._now.show(
            [Cell(f"{rate(pps)} pps", "strong")],
            [Cell(volume or fmt.bits_rate_unit(bps), "strong")],
        )
        now_s = snapshot.clock.monotonic_ns / 1e9
        span_s = history.span_s(now_s)
        self._graph.show(
            history.times_s,
            values,
            now_s=now_s,
            span_s=span_s,
            top=top,
            label=f"{rate_in(top, unit)} · {fmt.duration_text(span_s)}" if top > 0 else "",
        )


class OverviewPane(SievedPane):
    """Totals and graphs, top talkers, verdicts, protocols, drop reasons and events.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    NAME = actions.OVERVIEW
    can_focus = True

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(controls)
        self._tiles = [Tile(graphed) for graphed in GRAPHED]
        self._talkers = Ledger(_TALKERS, css_id="top-talkers")
        self._verdicts = Ledger(_VERDICTS, css_id="verdicts")
        self._protocols = Ledger(_PROTOCOL, css_id="protocols")
        self._drops = Ledger(_DROPS, css_id="drops")
        self._limits = Bar(pinned="left", css_id="limits")
        self._events = Ledger(_EVENTS, css_id="events")
        self._sieve = Sieve(field_kinds(event_fields(())))

    def compose(self) -> ComposeResult:
        """Lay out the pane from top to bottom."""
        yield Horizontal(*self._tiles, id="tiles")
        yield self._talkers
        yield Horizontal(self._verdicts, self._protocols, self._drops, id="tables")
        yield self._limits
        yield self.filter_line
        yield self._events

    @property
    def sieves(self) -> Sequence[Sieve]:
        """What can be filtered here: the events."""
        return (self._sieve,)

    def show(self, picture: Picture) -> None:
        """Draw all of it."""
        self.picture = picture
        snapshot, history = picture.snapshot, picture.history
        drawn = (history.graph(name, picture.unit)[0] for name in GRAPHED)
        top = max((float(np.max(values)) for values in drawn if len(values)), default=0.0)
        for tile in self._tiles:
            tile.show(snapshot, history, top, picture.unit)
        self._talkers.show(list(_top_talkers(snapshot, _TOP_ROWS)))
        self._verdicts.show(list(_verdict_rows(snapshot)))
        self._protocols.show(list(_protocol_rows(snapshot)))
        self._drops.show(list(_drop_rows(snapshot.totals)))
        self._limits.show(limits_cells(snapshot.limits))
        chosen = self._sieve.rows(event_fields(picture.events)).first().tolist()
        rows = [_event_row(picture.events[row]) for row in chosen]
        empty = Cell(self._sieve.empty(""), "muted")
        self._events.show(rows or [(Cell(""), Cell(""), Cell(""), empty)])

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return the acts on events: they stay in the order in which they happened."""
        of_all = super().acts()
        return {name: of_all[name] for name in ("filter", "clear-filter")}

    def summary(self) -> Sequence[Cell]:
        """Say how many send and how many are held back."""
        return () if self.picture is None else source_summary(self.picture.snapshot)

    def enter(self) -> None:
        """Take the focus."""
        self.focus()


def _top_talkers(snapshot: Snapshot, count: int) -> Iterator[Sequence[Cell]]:
    """Yield a row for each of the sources that send most now."""
    sources = snapshot.sources
    fields = sources.columns(snapshot.clock)
    key = "pps" if snapshot.rates else "packets"
    received = snapshot.rates.pps.get("received", 0.0) if snapshot.rates else 0.0
    for row in order(fields, key, descending=True, limit=count).tolist():
        state = state_cell(int(sources.state[row]))
        yield (
            Cell(str(sources.address(row)), "strong"),
            state,
            Cell(rate(sources.pps[row]), "strong"),
            Cell(fmt.bits_rate(sources.bps[row])),
            Cell(fmt.count(int(sources.dropped[row]))),
            Cell(rate(sources.dropped_pps[row])),
            share_cell(float(sources.pps[row]), received, state.tone),
        )


def _verdict_rows(snapshot: Snapshot) -> Iterator[Sequence[Cell]]:
    counts = {"received": snapshot.totals.received, **snapshot.totals.verdicts}
    for name in ("received", *VERDICTS):
        if (counted := counts.get(name)) is None:
            continue
        pps = snapshot.rates.pps.get(name) if snapshot.rates else None
        tone = _TONES.get(name, "plain") if counted.packets else "muted"
        rest: Tone = "plain" if counted.packets else "muted"
        yield (
            Cell(name, tone),
            Cell(fmt.count(counted.packets), rest),
            Cell(fmt.size(counted.bytes), rest),
            Cell(rate(pps), rest),
        )


def _protocol_rows(snapshot: Snapshot) -> Iterator[Sequence[Cell]]:
    rates, totals = snapshot.rates, snapshot.totals
    rows: list[tuple[str, int, float | None]] = [
        (name, totals.protocols.get(name, 0), rates.protocols.get(name) if rates else None)
        for name in _PROTOCOLS
    ]
    rows.insert(1, ("  syn", totals.syn, rates.syn if rates else None))
    for name, packets, pps in rows:
        tone: Tone = "plain" if packets else "muted"
        yield Cell(name, tone), Cell(fmt.count(packets), tone), Cell(rate(pps), tone)


def _drop_rows(totals: Totals) -> Iterator[Sequence[Cell]]:
    """Yield reasons, those with most packets first; real drops before those of a dry run."""
    groups: tuple[tuple[Mapping[str, int], str, Tone], ...] = (
        (totals.drops, "", "bad"),
        (totals.would_drop, "would: ", "warn"),
        (totals.unparsed, "unparsed: ", "muted"),
    )
    empty = True
    for counts, prefix, tone in groups:
        for reason, packets in sorted(counts.items(), key=lambda item: -item[1]):
            if packets:
                empty = False
                yield Cell(prefix + reason, tone), Cell(fmt.count(packets))
    if empty:
        yield Cell("none", "muted"), Cell("")


def _event_row(event: Event) -> Sequence[Cell]:
    return (
        Cell(time.strftime("%H:%M:%S", time.localtime(event.time_s)), "muted"),
        Cell(event.kind, _EVENT_TONES.get(event.kind, "plain")),
        Cell(event.address, "strong"),
        Cell(event.detail),
    )
