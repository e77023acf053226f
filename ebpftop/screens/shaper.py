# SPDX-License-Identifier: Apache-2.0
"""The fifth pane: traffic classes, and their token buckets filling and emptying."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from textual import on
from textual.app import ComposeResult

from ebpftop import actions
from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.model import Classes, ClassKey
from ebpftop.screens.assign_dialog import AssignDialog
from ebpftop.screens.class_dialog import ClassDialog, DeleteClassDialog
from ebpftop.screens.fields import class_fields
from ebpftop.screens.figures import rate
from ebpftop.screens.new_class_dialog import NewClassDialog
from ebpftop.screens.pane import Picture
from ebpftop.screens.sieve import Sieve, SievedPane, field_kinds
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell, Column, Tone
from ebpftop.widgets.graph import braille, buckets
from ebpftop.widgets.table import Table

SPARK_CELLS = 15
SPARK_S = 60.0
_LOW_SHARE = 0.25
_SAID = frozenset(("tokens", "burst", "empties", "packets", "dropped", "drop/s", "marks"))
"""Columns that are said of the selected class where they are hidden."""
_ON_TARGET = frozenset(("class-rate", "class-burst", "delete-class"))


def tokens_cell(tokens_bytes: float, burst_bytes: float) -> Cell:
    """Return what is in a bucket, and a bar of it against the full one."""
    if not math.isfinite(tokens_bytes):
        return Cell(fmt.UNKNOWN, "muted")
    share = tokens_bytes / burst_bytes if burst_bytes else 0.0
    tone: Tone = "good" if share > _LOW_SHARE else "warn" if share > 0 else "bad"
    text = fmt.size(tokens_bytes) if tokens_bytes >= 0 else f"-{fmt.size(-tokens_bytes)}"
    return Cell(f"{text:>8}", tone, part=min(1.0, max(0.0, share)))


def empty_in(seconds: float) -> str:
    """Return the time until a bucket is empty."""
    if seconds == 0:
        return "empty"
    return "never" if math.isinf(seconds) else fmt.duration(seconds)


class ClassRows:
    """The classes of a snapshot as rows of a table.

    Args:
        picture: Where they are, and their last minute.
    """

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._classes = picture.snapshot.classes

    def cells(self, row: int) -> Sequence[Cell]:
        """Return a cell for each of the pane's columns."""
        held = self._classes
        key, limit_bps = held.keys[row], int(held.rate_bps[row])
        bps, dropped_pps = float(held.bps[row]), float(held.dropped_pps[row])
        under = "" if not held.wanted[row].parent else "└ "
        return (
            Cell(f"{under}{key.name}", "strong"),
            Cell("in" if key.direction == "ingress" else "out", "muted"),
            Cell(held.action[row], "info"),
            Cell(fmt.rate_text(limit_bps), "strong"),
            Cell(fmt.bits_rate(bps), "warn" if bps > 0.98 * limit_bps else "plain"),
            tokens_cell(float(held.tokens_bytes[row]), float(held.burst_bytes[row])),
            Cell(fmt.size(int(held.burst_bytes[row]))),
            Cell(empty_in(held.empty_in_s(row))),
            Cell(fmt.count(int(held.packets[row]))),
            Cell(fmt.count(int(held.dropped_packets[row])), "bad" if dropped_pps > 0 else "plain"),
            Cell(rate(dropped_pps), "bad" if dropped_pps > 0 else "plain"),
            Cell(fmt.count(int(held.marked_packets[row]))),
            Cell(self._spark(key, limit_bps), "info"),
        )

    def _spark(self, key: ClassKey, limit_bps: int) -> str:
        """Draw the last minute of a class; a full column is its rate, or its peak above it."""
        samples = self._picture.classes.of(key)
        now_s = self._picture.snapshot.clock.monotonic_ns / 1e9
        values = buckets(samples.times_s, samples.bps, now_s, SPARK_S, 2 * SPARK_CELLS)
        peak = max([limit_bps, *(value for value in values if not math.isnan(value))])
        return braille(values, peak, 1)[0]

    def key(self, row: int) -> ClassKey:
        """Return the class in `row`."""
        return self._classes.keys[row]

    def row_of(self, key: ClassKey) -> int | None:
        """Return the row of a class."""
        return self._classes.row_of(key)


class ShaperPane(SievedPane):
    """Every class, with its bucket; make, change and delete them.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    NAME = actions.SHAPER
    COLUMNS = (
        Column("class", "class", 10, "left", grows=True),
        Column("direction", "way", 3, "left", rank=9),
        Column("action", "by", 6, "left", rank=6),
        Column("rate_bps", "rate", 8),
        Column("bps", "now", 7),
        Column("tokens_bytes", "tokens", 16, "left", rank=1, stretch=20),
        Column("burst_bytes", "burst", 7, rank=7),
        Column("empty_in_s", "empties", 7, rank=4),
        Column("packets", "packets", 7, rank=8),
        Column("dropped_packets", "dropped", 7, rank=2),
        Column("dropped_pps", "drop/s", 6, rank=5),
        Column("marked_packets", "marks", 6, rank=10),
        Column("", "last minute", SPARK_CELLS, "left", rank=3),
    )
    FILTER_FIELDS = field_kinds(class_fields(Classes.empty()))

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(controls)
        self.table = Table(self.COLUMNS, css_id="shaper-table")
        self._sieve = Sieve(self.FILTER_FIELDS, self.table, identity=("class", "direction"))
        self.detail = Bar(pinned="left")
        self.hidden = Bar(pinned="left", css_id="shaper-hidden")

    def compose(self) -> ComposeResult:
        """Lay out the filter line, the classes and the lines about the selected one."""
        yield self.filter_line
        yield self.table
        yield self.detail
        yield self.hidden

    @property
    def sieves(self) -> Sequence[Sieve]:
        """What can be filtered here."""
        return (self._sieve,)

    @property
    def copied(self) -> str:
        """The name of the selected class."""
        return "" if self.target is None else self.target.name

    @property
    def target(self) -> ClassKey | None:
        """The selected class."""
        selected: ClassKey | None = self.table.selected
        return selected

    def show(self, picture: Picture) -> None:
        """Draw the classes, those under a parent right below it."""
        self.picture = picture
        sieve = self._sieve
        ordered = sieve.rows(class_fields(picture.snapshot.classes), self._order(picture))
        empty = sieve.empty(self._empty_text())
        self.table.show(ClassRows(picture), ordered, sorted_by=sieve.sort, empty=empty)
        if self.target is None:
            self.table.select(0)
        self._show_detail()

    def _order(self, picture: Picture) -> NDArray[np.intp]:
        held = picture.snapshot.classes

        def place(row: int) -> tuple[int, int]:
            wanted = held.wanted[row]
            above = held.row_of(ClassKey(wanted.parent, wanted.key.direction))
            return (row, -1) if above is None else (above, row)

        return np.array(sorted(range(len(held)), key=place), np.intp)

    def _empty_text(self) -> str:
        if self.controls is None:
            return "No traffic class: nothing is shaped"
        makes, puts = actions.key("new-class"), actions.key("assign")
        return f"No traffic class: {makes} makes one, {puts} puts an address into it"

    def _show_detail(self) -> None:
        if self.picture is None:
            return
        held, key = self.picture.snapshot.classes, self.target
        row = None if key is None else held.row_of(key)
        if key is None or row is None:
            gone = "no class selected" if key is None else f"▸ {key}  is no more"
            self.detail.show([Cell(gone, "muted")])
            self.hidden.show([])
            return
        members = held.members[row]
        listed = " ".join(str(member) for member in members[:4])
        listed = listed or f"no address: {actions.key('assign')} assigns one"
        more = f" and {len(members) - 4} more" if len(members) > 4 else ""
        way = "in" if key.direction == "ingress" else "out"
        cells = [Cell(f"▸ {key.name}", "strong"), Cell(f"{way} by {held.action[row]}", "info")]
        if held.wanted[row].parent:
            cells.append(Cell(f"under {held.wanted[row].parent}", "muted"))
        if backlog := int(held.backlog_bytes[row]):
            cells.append(Cell(f"{fmt.size(backlog)} waiting", "warn"))
        children = [wanted for wanted in held.wanted if wanted.parent == held.keys[row].name]
        if children and not members:
            names = " ".join(child.key.name for child in children)
            listed = f"a ceiling over {names}"
        self.detail.show([*cells, Cell(listed + more, "muted")])
        self._show_hidden(row)

    def _show_hidden(self, row: int) -> None:
        """Say of the selected class what the table has no room for."""
        assert self.picture is not None
        cells = ClassRows(self.picture).cells(row)
        hidden = [at for at in self.table.hidden if self.COLUMNS[at].title in _SAID]
        said = []
        for at in hidden:
            tone = "muted" if cells[at].tone == "plain" else cells[at].tone
            said.append(Cell(f"{self.COLUMNS[at].title} {cells[at].text.strip()}", tone))
        self.hidden.show(said)

    def summary(self) -> Sequence[Cell]:
        """Say how many classes there are, and what passed beside them."""
        if self.picture is None:
            return ()
        snapshot = self.picture.snapshot
        number = len(snapshot.classes)
        cells = [Cell("1 class" if number == 1 else f"{number} classes", "muted")]
        beside = sum(count.packets for count in snapshot.unclassified.values())
        if beside:
            cells.append(Cell(f"{fmt.count(beside)} packets in none", "muted"))
        return cells

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return its acts."""
        return {
            **super().acts(),
            "class-rate": lambda: self._edit("rate"),
            "class-burst": lambda: self._edit("burst"),
            "new-class": self._new_class,
            "delete-class": self._delete,
            "assign": self._assign,
        }

    def can(self, action_id: str) -> bool:
        """Whether one of its acts makes sense now."""
        if action_id in _ON_TARGET:
            return self.table.cursor is not None
        if action_id == "assign":
            return self.picture is not None and len(self.picture.snapshot.classes) > 0
        return super().can(action_id)

    def enter(self) -> None:
        """Take the focus, and start the selection on the first class."""
        self.table.focus()
        if self.target is None:
            self.table.select(0)

    def on_resize(self) -> None:
        """Say what there is no room for now, once the table knows its size."""
        self.call_after_refresh(self._show_detail)

    def _edit(self, field: str) -> None:
        if self.controls is not None and self.picture is not None and self.target is not None:
            self.app.push_screen(ClassDialog(self.controls, self.picture, self.target, field))

    def _new_class(self) -> None:
        if self.controls is not None and self.picture is not None:
            self.app.push_screen(NewClassDialog(self.controls, self.picture))

    def _delete(self) -> None:
        if self.controls is not None and self.picture is not None and self.target is not None:
            snapshot = self.picture.snapshot
            self.app.push_screen(DeleteClassDialog(self.controls, snapshot, self.target))

    def _assign(self) -> None:
        if self.controls is not None and self.picture is not None:
            self.app.push_screen(AssignDialog(self.controls, self.picture, into=self.target))

    @on(Table.Selected)
    def _selection_moved(self) -> None:
        self._show_detail()
        self.post_message(self.Changed())
