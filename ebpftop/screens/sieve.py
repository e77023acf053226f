# SPDX-License-Identifier: Apache-2.0
"""What one table is filtered by and sorted by, and the panes that have such tables."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from textual import on

from ebpftop import actions, model
from ebpftop.control import Controls
from ebpftop.filtering import Filter, FilterError, Kind
from ebpftop.format import printable
from ebpftop.ordering import Ordered
from ebpftop.screens.held_order import MOST_HELD, HeldOrder
from ebpftop.screens.pane import Pane
from ebpftop.widgets.cells import Cell
from ebpftop.widgets.filter_line import FilterLine
from ebpftop.widgets.table import Table


class Sieve:
    """Chooses and sorts the rows of one table.

    Args:
        kinds: The fields it can be filtered and sorted by, and what they are.
        table: Where the rows are shown; None where they cannot be sorted.
        sort: The field they are sorted by at first, largest first; empty for the pane's order.
        identity: The fields that tell rows apart.
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        table: Table | None = None,
        *,
        sort: str = "",
        identity: Sequence[str] = (),
    ) -> None:
        self.kinds = kinds
        self.table = table
        self.sort = (sort, True)
        """The field it is sorted by, and whether the largest is first."""
        self.filter: Filter | None = None
        """What its rows must match; None where all are shown."""
        self.text = ""
        """The filter as it was written, made printable."""
        self.held: HeldOrder | None = None
        """The order that is kept; None where rows are sorted."""
        self._own_order = not sort
        self._identity = tuple(identity)
        self._fields: Mapping[str, model.Column] = {}

    def look_for(self, expression: str) -> None:
        """Show what matches `expression`, or all where it is empty."""
        self.text = printable(expression)
        self.filter = Filter.parse(expression, self.kinds) if expression else None

    def rows(
        self, fields: Mapping[str, model.Column], among: NDArray[np.intp] | None = None
    ) -> Ordered:
        """Return the rows to show, first row first.

        Args:
            fields: The table.
            among: The rows there are, in the pane's order; None for all in theirs.
        """
        self._fields = fields
        if self.filter is not None:
            mask = self.filter.mask(fields)
            among = np.flatnonzero(mask) if among is None else among[mask[among]]
        key, descending = self.sort
        if key:
            ordered = Ordered.by(fields, key, descending=descending, rows=among)
        elif among is None:
            ordered = Ordered.of(np.arange(len(next(iter(fields.values())).values)))
        else:
            ordered = Ordered.of(among)
        if self.held is None:
            return ordered
        return Ordered.of(self.held.apply(fields, ordered.first()))

    def empty(self, otherwise: str) -> str:
        """Say why there is no row: the filter's words, or `otherwise` where there is none."""
        if self.filter is None:
            return otherwise
        return f"No row matches {self.text} ({actions.key('clear-filter')} shows all rows)"

    def mistake(self, expression: str) -> tuple[str, int] | None:
        """Say what is wrong with an expression and at which character; None when nothing."""
        try:
            Filter.parse(expression, self.kinds)
        except FilterError as error:
            return str(error), error.position
        return None

    def sort_by(self, key: str) -> None:
        """Sort by `key`, numbers from the largest and words from the first letter on."""
        self.held = None
        self.sort = (key, self.kinds.get(key, "number") == "number")

    def sort_next(self) -> None:
        """Sort by the next column; after the last comes the pane's own order, if it has one."""
        if self.table is None:
            return
        keys = [key for key in self.table.keys_shown if key in self.kinds]
        keys = ["", *keys] if self._own_order else keys
        at = keys.index(self.sort[0]) if self.sort[0] in keys else -1
        self.sort_by(keys[(at + 1) % len(keys)])

    def invert(self) -> None:
        """Turn the order round."""
        key, descending = self.sort
        self.held = None
        self.sort = (key, not descending)

    def hold(self) -> None:
        """Keep the order of the moment, or let go of it."""
        if self.held is not None:
            self.held = None
        elif self.table is not None and self._fields:
            self.held = HeldOrder(self._fields, self._identity, self.table.order.first(MOST_HELD))


class SievedPane(Pane):
    """A pane whose tables are filtered in a line of their own, sorted, and held.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(controls)
        self.filter_line = FilterLine(lambda expression: self._typed_for.mistake(expression))
        self._typing: Sieve | None = None

    @property
    @abstractmethod
    def sieves(self) -> Sequence[Sieve]:
        """What can be filtered here now."""

    @property
    def sieve(self) -> Sieve:
        """The one of the table that takes the keys, else the first."""
        focused = (each for each in self.sieves if each.table and each.table.has_focus)
        return next(focused, self.sieves[0])

    @property
    def _typed_for(self) -> Sieve:
        """The one that the filter line is about."""
        return self._typing or self.sieve

    @property
    def copied(self) -> str:
        """What is copied of the selection; empty for nothing."""
        table = self.sieve.table
        return "" if table is None or table.selected is None else str(table.selected)

    @property
    def sort(self) -> tuple[str, bool]:
        """The field that the rows are sorted by, and whether the largest is first."""
        return self.sieve.sort

    @property
    def filter(self) -> Filter | None:
        """What the rows must match; None where all are shown."""
        return self.sieve.filter

    @property
    def filter_text(self) -> str:
        """The filters in force; empty where all rows are shown."""
        return "  ".join(sieve.text for sieve in self.sieves if sieve.text)

    @property
    def holds_order(self) -> bool:
        """Whether rows stay in the order that they had."""
        return any(sieve.held is not None for sieve in self.sieves)

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return the acts on a table that can be filtered."""
        return {
            "filter": self._open_filter,
            "clear-filter": lambda: self._look_for(self.sieve, ""),
            "sort": lambda: self._change(Sieve.sort_next),
            "invert": lambda: self._change(Sieve.invert),
            "hold-order": lambda: self._change(Sieve.hold),
            "copy": self._copy,
        }

    def can(self, action_id: str) -> bool:
        """Whether one of its actions makes sense now."""
        if action_id == "clear-filter":
            return self.sieve.filter is not None or self.filter_line.is_open
        if action_id == "copy":
            return bool(self.copied)
        if action_id == "invert":
            return bool(self.sieve.sort[0])
        return super().can(action_id)

    def typing_keys(self) -> Sequence[Cell]:
        """Return the keys of the filter line while it is open."""
        keys = (Cell("show what matches", key="Enter"), Cell("show all", key="Esc"))
        return keys if self.filter_line.has_keys else ()

    def look_for(self, expression: str, target: Any) -> None:
        """Show what another pane sent the operator here for."""
        sieve = self.sieves[0]
        self._look_for(sieve, expression)
        if target is not None and sieve.table is not None:
            sieve.table.select_key(target)

    def _open_filter(self) -> None:
        self._typing = self.sieve
        self.filter_line.open(self._typing.text)

    def _look_for(self, sieve: Sieve, expression: str) -> None:
        self.filter_line.close()
        self._typing = None
        sieve.look_for(expression)
        self._redraw()

    def _change(self, change: Callable[[Sieve], None]) -> None:
        change(self.sieve)
        self._redraw()

    def _copy(self) -> None:
        """Hand what is selected to the terminal's clipboard (OSC 52)."""
        if self.copied:
            self.app.copy_to_clipboard(printable(self.copied))
            self.app.notify(f"copied {printable(self.copied)}", markup=False)

    def _redraw(self) -> None:
        if self.picture is not None:
            self.show(self.picture)
        self.post_message(self.Changed())

    @on(FilterLine.Accepted)
    def _filter_accepted(self, event: FilterLine.Accepted) -> None:
        self._typed(event.expression)

    @on(FilterLine.Cancelled)
    def _filter_cancelled(self) -> None:
        self._typed("")

    def _typed(self, expression: str) -> None:
        sieve = self._typed_for
        self._look_for(sieve, expression)
        (sieve.table or self).focus()

    @on(Table.SortRequested)
    def _heading_clicked(self, event: Table.SortRequested) -> None:
        sieve = next((each for each in self.sieves if each.table is event.table), None)
        if sieve is None or event.key not in sieve.kinds:
            return
        if event.key == sieve.sort[0]:
            sieve.invert()
        else:
            sieve.sort_by(event.key)
        self._redraw()


def field_kinds(fields: Mapping[str, model.Column]) -> Mapping[str, Kind]:
    """Return what the columns of a table are, by their names."""
    return {name: column.kind for name, column in fields.items()}
