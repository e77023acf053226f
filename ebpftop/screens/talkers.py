# SPDX-License-Identifier: Apache-2.0
"""The second pane: every source that sends, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ebpftop import actions, model
from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.model import Clock, Prefix, Sent, Snapshot, Sources
from ebpftop.screens.assign_dialog import AssignDialog
from ebpftop.screens.block_dialog import BlockDialog
from ebpftop.screens.dialog import allow_dialog, disallow_dialog, unblock_dialog
from ebpftop.screens.effects import Effects
from ebpftop.screens.figures import age, number_of, rate, share_cell, source_summary, standing
from ebpftop.screens.list_pane import field_kinds
from ebpftop.screens.marking import MarkingPane
from ebpftop.screens.pane import Picture
from ebpftop.screens.source_screen import SourceScreen
from ebpftop.screens.targets import covering
from ebpftop.sources.names import Names
from ebpftop.widgets.cells import Cell, Column, state_cell

_SINCE_ACT = "since the act"
_ON_TARGET = frozenset(("block", "unblock", "allow", "disallow", "assign", "look-at"))


def _fields(sources: Sources, clock: Clock, sent: Sent | None = None) -> Mapping[str, model.Column]:
    dropped_pps = model.Column("number", sources.dropped_pps)
    sent_bps = np.full(len(sources), np.nan) if sent is None else sent.bps
    return {
        **sources.columns(clock),
        "dropped_pps": dropped_pps,
        "byte_rate": model.Column("number", sources.bps / 8),
        "sent_bps": model.Column("number", sent_bps),
    }


class SourceRows:
    """The sources of a snapshot as rows of a table.

    Args:
        snapshot: Where they are.
        effects: What came of the latest acts on them.
        names: Where their names are looked up; None for nowhere.
    """

    def __init__(
        self, snapshot: Snapshot, effects: Effects | None, names: Names | None = None
    ) -> None:
        self._snapshot = snapshot
        self._effects = effects
        self._names = names
        self._received = snapshot.rates.pps.get("received", 0.0) if snapshot.rates else 0.0

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each of the pane's columns."""
        sources, sent = self._snapshot.sources, self._snapshot.sent
        state = state_cell(int(sources.state[row]))
        dropped_pps = float(sources.dropped_pps[row])
        address = sources.address(row)
        return (
            Cell(str(address), "strong"),
            Cell(self._names.of(address) if self._names else "", "info"),
            state,
            Cell(rate(sources.pps[row]), "strong"),
            Cell(fmt.bits_rate(sources.bps[row])),
            Cell(fmt.size(float(sources.bps[row]) / 8)),
            Cell(fmt.count(int(sources.packets[row]))),
            Cell(fmt.size(int(sources.bytes[row]))),
            Cell(fmt.count(int(sources.dropped[row]))),
            Cell(rate(dropped_pps), "bad" if dropped_pps > 0 else "plain"),
            Cell(age(self._snapshot, int(sources.last_ns[row])), "muted"),
            Cell(fmt.bits_rate(float(sent.bps[row]) if sent else None)),
            self._since_act(row),
            share_cell(float(sources.pps[row]), self._received, state.tone),
        )

    def _since_act(self, row: int) -> Cell:
        effect = self._effects.of(row) if self._effects else None
        return Cell("") if effect is None else effect.cell()

    def key(self, row: int) -> Prefix:
        """Return the address in `row`."""
        return self._snapshot.sources.address(row)

    def row_of(self, key: Prefix) -> int | None:
        """Return the row of the address `key`."""
        return self._snapshot.sources.row_of(key)


class TalkersPane(MarkingPane):
    """Every source, busiest first; block, unblock, allow.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    NAME = actions.TALKERS
    COLUMNS = (
        Column("address", "address", 15, "left", grows=True),
        Column("name", "name", 16, "left", rank=2, stretch=24),
        Column("state", "state", 9, "left", rank=2),
        Column("pps", "pps", 7, rank=1),
        Column("bps", "bps", 7, rank=3),
        Column("byte_rate", "B/s", 8, rank=3),
        Column("packets", "packets", 9, rank=8),
        Column("bytes", "bytes", 8, rank=6),
        Column("dropped", "dropped", 9, rank=4),
        Column("dropped_pps", "drop/s", 8, rank=5),
        Column("last_seen_s", "seen", 6, rank=7),
        Column("sent_bps", "sent", 7, rank=9),
        Column("", _SINCE_ACT, 26, "left", rank=1, stretch=6),
        Column("", "share", 10, "left", rank=10, stretch=44),
    )
    SORT = "pps"
    FILTER_FIELDS = field_kinds(_fields(Sources.empty(), Clock(0, 0.0)))

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(controls)
        self._effects: Effects | None = None

    def show(self, picture: Picture) -> None:
        """Draw the sources, what is sent to them where that is counted, and what acts changed."""
        self._effects = Effects(picture.snapshot, picture.sources)
        unknown = {
            _SINCE_ACT: not self._effects,
            "sent_bps": picture.snapshot.sent is None,
            "name": self.names is None,
            "byte_rate": picture.unit != "bytes",
            "bps": picture.unit == "bytes",
        }
        self.table.leave_out(*(key for key, absent in unknown.items() if absent))
        super().show(picture)

    def fields(self, snapshot: Snapshot) -> Mapping[str, model.Column]:
        """Return the columns that are sorted and filtered by."""
        return _fields(snapshot.sources, snapshot.clock, snapshot.sent)

    def rows(self, snapshot: Snapshot) -> SourceRows:
        """Return where the table's text comes from."""
        return SourceRows(snapshot, self._effects, self.names)

    def about(self, target: Prefix) -> Sequence[Cell]:
        """Say what the selected source sends, and what blocks or allows it."""
        assert self.picture is not None
        snapshot = self.picture.snapshot
        row = snapshot.sources.row_of(target)
        held = standing(snapshot, target)
        if row is None:
            return [Cell("not tracked any more", "warn"), *held]
        state = state_cell(int(snapshot.sources.state[row]))
        name = self.names.of(target) if self.names else ""
        sends = Cell(
            f"{name}  " * bool(name) + f"{rate(snapshot.sources.pps[row])} pps  "
            f"{fmt.bits_rate_unit(snapshot.sources.bps[row])}"
        )
        return [sends, *held] if held else [sends, state]

    def empty_text(self) -> str:
        """Say why there is no row."""
        return "Nobody has sent anything yet: sources appear here with their first packet"

    def summary(self) -> Sequence[Cell]:
        """Say how many there are, and how many are shown."""
        if self.picture is None:
            return ()
        if self.filter is None:
            return [*self.marks(), *source_summary(self.picture.snapshot)]
        of = number_of(len(self.picture.snapshot.sources), "source")
        return [*self.marks(), Cell(f"{len(self.table.order):,} shown of {of}", "key")]

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return its acts on the selected source."""
        return {
            **super().acts(),
            "block": self._block,
            "unblock": lambda: self._open(unblock_dialog),
            "allow": lambda: self._open(allow_dialog),
            "disallow": lambda: self._open(disallow_dialog),
            "assign": self._assign,
            "look-at": self._look_at,
            **self.marked_acts(),
        }

    def _block(self) -> None:
        if self.controls is not None and self.picture is not None and self.target is not None:
            self.app.push_screen(BlockDialog(self.controls, self.picture, self.target))

    def _assign(self) -> None:
        if self.controls is not None and self.picture is not None and self.target is not None:
            self.app.push_screen(AssignDialog(self.controls, self.picture, self.target))

    def _look_at(self) -> None:
        """Show all that is known of the selected source."""
        if self.picture is not None and self.target is not None:
            self.app.push_screen(SourceScreen(self.target, self.picture), self._looked)

    def _looked(self, _: None) -> None:
        """Let the app ask for no more than this pane needs again."""
        self.post_message(self.Changed())

    def can(self, action_id: str) -> bool:
        """Whether one of its acts makes sense for the selected source, or for those marked."""
        if self.acts_on_marked(action_id):
            return self.can_on_marked(action_id)
        if self.picture is None or self.target is None:
            return action_id not in _ON_TARGET and super().can(action_id)
        snapshot = self.picture.snapshot
        match action_id:
            case "unblock":
                return covering(snapshot.blocks, self.target) is not None
            case "allow":
                return covering(snapshot.allowed, self.target) is None
            case "assign":
                return len(snapshot.classes) > 0
            case "disallow":
                return covering(snapshot.allowed, self.target) is not None
        return super().can(action_id)
