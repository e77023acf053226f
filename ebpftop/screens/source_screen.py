# SPDX-License-Identifier: Apache-2.0
"""All that is known of one source: its last minute, its totals, what holds for it, its flows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen

from ebpftop import format as fmt
from ebpftop.model import CONNECTION_STATES, Connections, Prefix, Snapshot
from ebpftop.screens.figures import age, limits_cells, rate, standing
from ebpftop.screens.picture import Picture
from ebpftop.screens.source_history import KEPT_S, Series
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell, Column, Tone, state_cell
from ebpftop.widgets.graph import Graph
from ebpftop.widgets.ledger import Ledger

AVERAGES_S = (2.0, 10.0, 40.0)
"""Spans of the averages, as iftop has them."""
MOST_FLOWS = 8
_RATES = (
    Column("", "RATES", 10, "left"),
    *(Column("", f"{span:g} s", 9) for span in AVERAGES_S),
    Column("", "peak of 60 s", 12),
)
_TOTALS = (
    Column("", "TOTALS", 14, "left"), Column("", "packets", 10), Column("", "bytes", 9),
)  # fmt: skip
_FLOWS = (
    Column("", "FLOWS", 6, "left"), Column("", "to", 24, "left", stretch=20),
    Column("", "backend", 22, "left", stretch=20), Column("", "state", 12, "left"),
    Column("", "bytes", 9),
)  # fmt: skip


class SourceScreen(ModalScreen[None]):
    """One source, kept up to date while it is open.

    Args:
        target: The source.
        picture: What is known now.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss", show=False)]
    WANTS = frozenset({"connections"})
    """What the source must read for it, as `Source.wants` says."""

    def __init__(self, target: Prefix, picture: Picture) -> None:
        super().__init__()
        self.target = target
        self._first = picture
        self._state, self._holds, self._limits = Bar(), Bar(), Bar()
        self._pps, self._dropped = Graph(), Graph()
        self._rates = Ledger(_RATES, fitted=True)
        self._totals = Ledger(_TOTALS, fitted=True)
        self._flows = Ledger(_FLOWS, fitted=True)

    def compose(self) -> ComposeResult:
        """Lay out the state, the two graphs and the tables."""
        with VerticalScroll(id="source") as box:
            box.border_title = Content(str(self.target))
            box.border_subtitle = Content("Esc closes")
            yield self._state
            yield self._holds
            yield self._pps
            yield self._dropped
            yield self._rates
            yield self._totals
            yield self._limits
            yield self._flows

    def on_mount(self) -> None:
        """Draw what is known already."""
        self.show(self._first)

    def show(self, picture: Picture) -> None:
        """Draw what is known now."""
        snapshot = picture.snapshot
        row = snapshot.sources.row_of(self.target)
        seen = [Cell("not tracked any more", "warn")]
        if row is not None:
            state = state_cell(int(snapshot.sources.state[row]))
            first = age(snapshot, int(snapshot.sources.first_ns[row]))
            last = age(snapshot, int(snapshot.sources.last_ns[row]))
            seen = [state, Cell(f"first seen {first} ago", "muted"), Cell(f"last {last}", "muted")]
        self._state.show(seen)
        held = standing(snapshot, self.target)
        self._holds.show([*held, *_classes(snapshot, self.target)] or [_nothing()])
        series = picture.sources.of(self.target)
        self._draw(snapshot, series)
        self._rates.show(list(_rate_rows(series)))
        self._totals.show(list(_total_rows(snapshot, row)))
        self._limits.show(limits_cells(snapshot.limits))
        flows = list(_flow_rows(snapshot.connections, self.target))
        self._flows.display = bool(flows)
        self._flows.show(flows)

    def _draw(self, snapshot: Snapshot, series: Series) -> None:
        now_s = snapshot.clock.monotonic_ns / 1e9
        top = float(np.max(series.pps, initial=0.0))
        drawn = ((self._pps, series.pps, "pps"), (self._dropped, series.dropped_pps, "drops/s"))
        for graph, values, unit in drawn:
            graph.show(
                series.times_s, values, now_s=now_s, span_s=KEPT_S, top=top,
                label=f"{rate(top)} {unit} · {fmt.duration_text(KEPT_S)}" if top > 0 else unit,
            )  # fmt: skip


def _nothing() -> Cell:
    return Cell("no block, no allowance and no class holds for it", "muted")


def _classes(snapshot: Snapshot, target: Prefix) -> Iterator[Cell]:
    """Yield the traffic classes that the source is in: the longest prefix decides."""
    held = snapshot.classes
    for direction in ("ingress", "egress"):
        best: tuple[int, str] | None = None
        for key, members in zip(held.keys, held.members, strict=True):
            for member in members if key.direction == direction else ():
                if member.contains(target) and (best is None or member.length > best[0]):
                    best = (member.length, key.name)
        if best is not None:
            yield Cell(f"class {best[1]} ({direction})", "info")


def _rate_rows(series: Series) -> Iterator[Sequence[Cell]]:
    for name, values, form in (
        ("packets", series.pps, rate),
        ("bits", series.bps, fmt.bits_rate),
        ("drops", series.dropped_pps, rate),
    ):
        means = [form(series.mean(values, span_s)) for span_s in AVERAGES_S]
        peak = form(float(np.max(values)) if len(values) else None)
        yield [Cell(f"{name}/s", "muted"), *map(Cell, means), Cell(peak, "strong")]


def _total_rows(snapshot: Snapshot, row: int | None) -> Iterator[Sequence[Cell]]:
    if row is None:
        return
    sources = snapshot.sources
    packets, octets = int(sources.packets[row]), int(sources.bytes[row])
    dropped, dropped_bytes = int(sources.dropped[row]), int(sources.dropped_bytes[row])
    counts = [
        ("received", packets, octets),
        ("passed", packets - dropped, octets - dropped_bytes),
        ("dropped", dropped, dropped_bytes),
    ]
    for name, number, size_bytes in counts:
        tone: Tone = "bad" if name == "dropped" and number else "plain"
        yield [Cell(name, "muted"), Cell(f"{number:,}", tone), Cell(fmt.size(size_bytes))]
    if would := int(sources.would_drop[row]):
        yield [Cell("would drop", "warn"), Cell(f"{would:,}", "warn"), Cell("")]
    if snapshot.sent is not None:
        sent = snapshot.sent
        yield [
            Cell("sent to it", "muted"), Cell(f"{int(sent.packets[row]):,}"),
            Cell(fmt.size(int(sent.bytes[row]))),
        ]  # fmt: skip


def _flow_rows(flows: Connections | None, target: Prefix) -> Iterator[Sequence[Cell]]:
    """Yield the largest flows of the source through VIPs: its ports and protocols where known."""
    if flows is None:
        return
    rows = np.flatnonzero((flows.high == target.high) & (flows.low == target.low))
    for row in rows[np.argsort(-flows.bytes[rows].astype(np.int64))][:MOST_FLOWS].tolist():
        backend = flows.backends[flows.backend[row]]
        yield [
            Cell(f":{int(flows.port[row])}", "muted"),
            Cell(str(flows.vips[flows.vip[row]]), "strong"),
            Cell(backend.endpoint if backend else fmt.UNKNOWN),
            Cell(CONNECTION_STATES[flows.state[row]]),
            Cell(fmt.size(int(flows.bytes[row]))),
        ]
