# SPDX-License-Identifier: Apache-2.0
"""VIPs and backends as rows of tables, with what is staged for them beside what is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ebpftop import format as fmt
from ebpftop.model import Backend, HealthCheck, Service, Snapshot, wished_shares
from ebpftop.screens.backend_history import KEPT_S, BackendHistory, BackendKey
from ebpftop.screens.figures import rate
from ebpftop.screens.pane import Picture
from ebpftop.screens.staging import Staged
from ebpftop.widgets.cells import Cell, Column, Tone
from ebpftop.widgets.graph import braille, buckets

SPARK_CELLS = 15
STAGED = "→"
"""Stands before a value that is staged: a sign, for where there is no colour."""
STATES: Mapping[str, tuple[str, Tone]] = {
    "up": ("●", "good"),
    "drain": ("◐", "warn"),
    "down": ("✖", "bad"),
}
"""Sign and tone of what an operator wants of a backend."""
HEALTH: Mapping[bool | None, tuple[str, Tone]] = {
    True: ("✔", "good"),
    False: ("✖", "bad"),
    None: (fmt.UNKNOWN, "muted"),
}
"""Sign and tone of what the checks say."""
NEAR = 0.02
"""Shares that differ by less are taken for the same."""

VIP_COLUMNS = (
    Column("vip", "VIP", 18, "left", grows=True),
    Column("algorithm", "by", 7, "left", rank=2),
    Column("mode", "mode", 4, "left", rank=8),
    Column("", "takes", 5, rank=1),
    Column("connections", "flows", 5, rank=4),
    Column("new_per_s", "new/s", 5, rank=5),
    Column("pps", "pps", 5, rank=3),
    Column("bps", "bps", 5, rank=6),
    Column("dropped", "drops", 5, rank=7),
    Column("", "check", 10, "left", rank=9, stretch=40),
)
BACKEND_COLUMNS = (
    Column("backend", "backend", 15, "left", grows=True),
    Column("state", "state", 7, "left"),
    Column("healthy", "live", 4, "left", rank=1),
    Column("weight", "weight", 6),
    Column("share", "share", 5),
    Column("", "wish", 6),
    Column("measured_share", "got", 5, rank=2),
    Column("connections", "flows", 5, rank=3),
    Column("new_per_s", "new/s", 5, rank=7),
    Column("pps", "pps", 5, rank=4),
    Column("bps", "bps", 5, rank=5),
    Column("", "last minute", SPARK_CELLS, "left", rank=6),
)


def wishes(snapshot: Snapshot, vip: Service, staged: Staged) -> tuple[list[float], list[float]]:
    """Return which shares a VIP's backends are to have, and would have by what is staged.

    The first leaves health out: beside the share in force it shows what an outage costs. The
    second is what the ring will be.
    """
    held, row = snapshot.backends, snapshot.vips.row_of(vip)
    rows = held.rows_of(vip)
    if row is None or not rows:
        return [], []
    algorithm = snapshot.vips.wanted[row].algorithm
    present = [held.wanted[at] for at in rows]
    planned = [staged.wanted(BackendKey(vip, each.service), each) for each in present]
    by = staged.algorithm(vip) or algorithm
    expected = wished_shares(by, planned, [not held.is_left_out(at) for at in rows])
    if not any(expected) and snapshot.vips.wanted[row].no_backend == "all":
        expected = wished_shares(by, planned)
    return wished_shares(algorithm, present), expected


def check_text(check: HealthCheck | None) -> str:
    """Say how a VIP's backends are checked."""
    if check is None:
        return "none"
    asked = f"http {check.path}" if check.kind == "http" else "tcp"
    every = fmt.duration(check.interval_s)
    return f"{asked} every {every}, rise {check.rise}, fall {check.fall}"


def spark(history: BackendHistory, key: BackendKey, now_s: float, cells: int = SPARK_CELLS) -> str:
    """Draw the last minute of a backend's bits a second; a full column is its peak."""
    times_s, bps = history.of(key)
    values = buckets(times_s, bps, now_s, KEPT_S, 2 * cells)
    peak = max((value for value in values if not math.isnan(value)), default=0.0)
    return braille(values, peak, 1)[0]


class VipRows:
    """The VIPs of a snapshot as rows of a table.

    Args:
        snapshot: Where they are.
        staged: What waits to be written.
    """

    def __init__(self, snapshot: Snapshot, staged: Staged) -> None:
        self._snapshot = snapshot
        self._staged = staged

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each of `VIP_COLUMNS`."""
        held, backends = self._snapshot.vips, self._snapshot.backends
        vip = held.wanted[row]
        rows = backends.rows_of(vip.service)
        live = sum(backends.takes_flows(at) for at in rows)
        planned = self._staged.algorithm(vip.service)
        touched = self._staged.touches(vip.service)
        dropped = int(held.dropped[row])
        tone: Tone = "bad" if not live else "good" if live == len(rows) else "warn"
        return (
            Cell(f"{'*' if touched else ''}{vip.service}", "warn" if touched else "strong"),
            Cell(f"{STAGED}{planned}", "badge") if planned else Cell(vip.algorithm, "info"),
            Cell(vip.mode, "muted"),
            Cell(f"{live}/{len(rows)}", tone),
            Cell(fmt.count(int(backends.connections[rows].sum()))),
            Cell(rate(held.new_per_s[row])),
            Cell(rate(held.pps[row]), "strong"),
            Cell(fmt.bits_rate(held.bps[row])),
            Cell(fmt.count(dropped), "bad" if dropped else "plain"),
            Cell(check_text(vip.check), "muted"),
        )

    def key(self, row: int) -> Service:
        """Return the VIP in `row`."""
        return self._snapshot.vips.wanted[row].service

    def row_of(self, key: Service) -> int | None:
        """Return the row of a VIP."""
        return self._snapshot.vips.row_of(key)


class BackendRows:
    """The backends of one VIP as rows of a table.

    Args:
        picture: Where they are, and their last minute.
        vip: Whose.
        staged: What waits to be written.
    """

    def __init__(self, picture: Picture, vip: Service, staged: Staged) -> None:
        self._picture = picture
        self._held = picture.snapshot.backends
        self._vip = vip
        self._staged = staged
        self._rows = self._held.rows_of(vip)
        self._wishes = wishes(picture.snapshot, vip, staged)

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each of `BACKEND_COLUMNS`."""
        held, at = self._held, self._rows.index(row)
        present = held.wanted[row]
        key = self.key(row)
        planned = self._staged.wanted(key, present)
        share, got = float(held.share[row]), float(held.measured_share[row])
        wish = self._wishes[0][at]
        sign, tone = HEALTH[held.healthy[row]]
        now_s = self._picture.snapshot.clock.monotonic_ns / 1e9
        return (
            Cell(present.service.endpoint, "strong"),
            _state_cell(present, planned),
            Cell(sign, tone),
            _weight_cell(present, planned),
            Cell(fmt.percent(share), "strong" if abs(share - wish) < NEAR else "warn"),
            self._wish_cell(at),
            Cell(fmt.percent(got), "plain" if abs(got - share) < NEAR else "muted"),
            Cell(fmt.count(int(held.connections[row]))),
            Cell(rate(held.new_per_s[row])),
            Cell(rate(held.pps[row])),
            Cell(fmt.bits_rate(held.bps[row])),
            Cell(spark(self._picture.backends, key, now_s), "info"),
        )

    def _wish_cell(self, at: int) -> Cell:
        wish, expected = (part[at] for part in self._wishes)
        if self._staged.touches(self._vip):
            return Cell(f"{STAGED}{fmt.percent(expected)}", "badge")
        return Cell(fmt.percent(wish), "muted")

    def key(self, row: int) -> BackendKey:
        """Return the backend in `row`."""
        return BackendKey(self._vip, self._held.wanted[row].service)

    def row_of(self, key: BackendKey) -> int | None:
        """Return the row of a backend."""
        return row_of(self._picture.snapshot, key)


def row_of(snapshot: Snapshot, key: BackendKey) -> int | None:
    """Return the row of a backend in a snapshot, None where it has none."""
    held = snapshot.backends
    rows = (row for row in held.rows_of(key.vip) if held.wanted[row].service == key.backend)
    return next(rows, None)


def backend_facts(picture: Picture, key: BackendKey | None) -> Sequence[Cell]:
    """Say what is known of the selected backend."""
    if key is None:
        return [Cell("no backend selected", "muted")]
    name, snapshot = key.backend.endpoint, picture.snapshot
    held, row = snapshot.backends, row_of(snapshot, key)
    if row is None:
        return [Cell(f"▸ {name}  is no more", "muted")]
    cells = [Cell(f"▸ {name}", "strong")]
    if not held.reachable[row]:
        cells.append(Cell("its way is looked up for each packet", "warn"))
    if (first := int(held.first_weight[row])) != held.wanted[row].weight:
        cells.append(Cell(f"found with weight {first}", "muted"))
    got = float(held.measured_share[row])
    said = f"got {fmt.percent(got)} of the flows of 10 s"
    cells.append(Cell("no new flow in 10 s" if math.isnan(got) else said))
    line = spark(picture.backends, key, snapshot.clock.monotonic_ns / 1e9, 10)
    return [*cells, Cell(fmt.bits_rate_unit(held.bps[row])), Cell(line.strip(), "info")]


def _state_cell(present: Backend, planned: Backend) -> Cell:
    if planned.state != present.state:
        return Cell(f"{STAGED} {planned.state}", "badge")
    sign, tone = STATES[present.state]
    return Cell(f"{sign} {present.state}", tone)


def _weight_cell(present: Backend, planned: Backend) -> Cell:
    if planned.weight != present.weight:
        return Cell(f"{present.weight}{STAGED}{planned.weight}", "badge")
    return Cell(str(present.weight))
