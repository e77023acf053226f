# SPDX-License-Identifier: Apache-2.0
"""The sixth pane: every flow through a VIP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ebpftop import actions, model
from ebpftop import format as fmt
from ebpftop.model import CONNECTION_STATES, GONE, Clock, Connections, Flow, Snapshot
from ebpftop.screens.figures import age, number_of
from ebpftop.screens.list_pane import ListPane, field_kinds
from ebpftop.screens.pane import Picture
from ebpftop.sources.balancing import CONNECTIONS
from ebpftop.widgets.cells import Cell, Column, Tone

_TONES: Mapping[str, Tone] = {
    "established": "good", "udp": "good", "syn-sent": "warn", "syn-received": "warn",
}  # fmt: skip
_OPENING = tuple(CONNECTION_STATES.index(word) for word in ("syn-sent", "syn-received"))

_CLOSED = CONNECTION_STATES.index("closed")


def _held(snapshot: Snapshot) -> Connections:
    return snapshot.connections or Connections.empty()


class FlowRows:
    """The flows of a snapshot as rows of a table.

    Args:
        snapshot: Where they are.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._flows = _held(snapshot)

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each of the pane's columns."""
        held = self._flows
        flow, backend = held.flow(row), held.backends[held.backend[row]]
        state = CONNECTION_STATES[held.state[row]]
        return (
            Cell(flow.client.endpoint, "strong"),
            Cell(str(flow.vip), "info"),
            Cell(backend.endpoint if backend else GONE, "plain" if backend else "bad"),
            Cell(state, _TONES.get(state, "muted")),
            Cell(fmt.count(int(held.packets[row])), "strong"),
            Cell(fmt.size(int(held.bytes[row]))),
            Cell(age(self._snapshot, int(held.first_ns[row])), "muted"),
            Cell(age(self._snapshot, int(held.last_ns[row])), "muted"),
        )

    def key(self, row: int) -> Flow:
        """Return the flow in `row`."""
        return self._flows.flow(row)

    def row_of(self, key: Flow) -> int | None:
        """Return the row of a flow."""
        return self._flows.row_of(key)


class ConnectionsPane(ListPane):
    """Every flow, those of the most packets first.

    Args:
        controls: The acts that are possible; none of them is on a flow.
    """

    NAME = actions.CONNECTIONS
    COLUMNS = (
        Column("client", "client", 17, "left", grows=True),
        Column("vip", "VIP", 20, "left", rank=7, grows=True),
        Column("backend", "backend", 15, "left", rank=1, grows=True),
        Column("state", "state", 12, "left", rank=2),
        Column("packets", "packets", 7, rank=3),
        Column("bytes", "bytes", 8, rank=5),
        Column("age_s", "age", 6, rank=4),
        Column("idle_s", "idle", 6, rank=6),
    )
    SORT = "packets"
    IDENTITY = ("vip", "port", "client")
    FILTER_FIELDS = field_kinds(Connections.empty().columns(Clock(0, 0.0)))

    @property
    def wants(self) -> frozenset[str]:
        """The flows: they are read only while somebody looks at them."""
        return frozenset((CONNECTIONS,))

    def show(self, picture: Picture) -> None:
        """Draw the flows, which come a moment after the pane was opened."""
        super().show(picture)
        if self.target is None:
            self.table.select(0)

    def fields(self, snapshot: Snapshot) -> Mapping[str, model.Column]:
        """Return the columns that are sorted and filtered by."""
        return _held(snapshot).columns(snapshot.clock)

    def rows(self, snapshot: Snapshot) -> FlowRows:
        """Return where the table's text comes from."""
        return FlowRows(snapshot)

    def about(self, target: Flow) -> Sequence[Cell]:
        """Say who sends it, and whether that is tracked."""
        assert self.picture is not None
        snapshot = self.picture.snapshot
        if _held(snapshot).row_of(target) is None:
            return [Cell("ended", "muted")]
        row = snapshot.sources.row_of(target.client.address)
        if row is None:
            return [Cell("its client is not tracked", "muted")]
        return [Cell(f"client {fmt.bits_rate_unit(snapshot.sources.bps[row])}")]

    def empty_text(self) -> str:
        """Say why there is no row."""
        if self.picture is None or self.picture.snapshot.connections is None:
            return "Reading the flows"
        if not len(self.picture.snapshot.vips):
            return "No flow: there is no VIP. Balancer adds one"
        return "No flow: they appear here with their first packet to a VIP"

    def summary(self) -> Sequence[Cell]:
        """Say how many there are, how many are being opened, and how many are shown."""
        if self.picture is None or self.picture.snapshot.connections is None:
            return ()
        held = self.picture.snapshot.connections
        if self.filter is not None:
            of = number_of(len(held), "flow")
            return [Cell(f"{len(self.table.order):,} shown of {of}", "key")]
        opening = int(np.isin(held.state, _OPENING).sum())
        closed = int((held.state == _CLOSED).sum())
        cells = [Cell(f"{opening:,} opening", "warn")] if opening else []
        cells.append(Cell(number_of(len(held) - closed, "flow"), "muted"))
        return [*cells, Cell(f"{closed:,} closed", "muted")] if closed else cells

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return its acts."""
        return {**super().acts(), "talker": self._show_client}

    def can(self, action_id: str) -> bool:
        """Whether one of its acts makes sense for the selected flow."""
        if action_id == "talker":
            return self.target is not None
        return super().can(action_id)

    def _show_client(self) -> None:
        if self.target is not None:
            self.post_message(self.GoTo(actions.TALKERS, target=self.target.client.address))
