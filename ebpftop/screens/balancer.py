# SPDX-License-Identifier: Apache-2.0
"""The fourth pane: VIPs, and the backends of the chosen one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from textual import on
from textual.app import ComposeResult

from ebpftop import actions
from ebpftop.control import Controls
from ebpftop.errors import EbpftopError
from ebpftop.model import ALGORITHMS, Backend, Backends, Service, Vip, Vips
from ebpftop.screens.backend_history import BackendKey
from ebpftop.screens.balancer_dialogs import (
    DeleteServiceDialog,
    NewBackendDialog,
    NewVipDialog,
)
from ebpftop.screens.balancer_rows import (
    BACKEND_COLUMNS,
    VIP_COLUMNS,
    BackendRows,
    VipRows,
    backend_facts,
    row_of,
)
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.fields import backend_fields, vip_fields
from ebpftop.screens.figures import number_of
from ebpftop.screens.pane import Picture
from ebpftop.screens.sieve import Sieve, SievedPane, field_kinds
from ebpftop.screens.staging import Staged
from ebpftop.screens.weight_dialog import WeightDialog
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell
from ebpftop.widgets.table import Table

_VIP_KINDS = field_kinds(vip_fields(Vips.empty(), Backends.empty()))
_BACKEND_KINDS = field_kinds(backend_fields(Backends.empty()))


class BalancerPane(SievedPane):
    """VIPs above, the chosen one's backends below; what is staged waits for Enter.

    Args:
        controls: The acts that are possible; None when the dashboard may only watch.
    """

    NAME = actions.BALANCER

    def __init__(self, controls: Controls | None) -> None:
        super().__init__(controls)
        self.vip_table = Table(VIP_COLUMNS, css_id="vip-table")
        self.table = Table(BACKEND_COLUMNS, css_id="backend-table")
        self._backends = Sieve(_BACKEND_KINDS, self.table, identity=("vip", "backend"))
        self._vips = Sieve(_VIP_KINDS, self.vip_table, identity=("vip",))
        self.staged = Staged()
        self._detail = Bar(pinned="left")
        self._plan = Bar(pinned="left", css_id="plan")
        self._writing: list[Service] = []

    def compose(self) -> ComposeResult:
        """Lay out the filter line, both tables, and the lines about selection and plan."""
        yield self.filter_line
        yield self.vip_table
        yield self.table
        yield self._detail
        yield self._plan

    @property
    def sieves(self) -> Sequence[Sieve]:
        """What can be filtered here: the backends of the chosen VIP, and the VIPs."""
        return (self._backends, self._vips)

    @property
    def copied(self) -> str:
        """The VIP or the backend that is selected."""
        if self._on_vips:
            return super().copied
        return "" if self.target is None else self.target.backend.endpoint

    @property
    def vip(self) -> Vip | None:
        """The chosen VIP; None where there is none, or no more."""
        chosen = self.vip_table.selected
        if self.picture is None or chosen is None:
            return None
        held = self.picture.snapshot.vips
        row = held.row_of(chosen)
        return None if row is None else held.wanted[row]

    @property
    def target(self) -> BackendKey | None:
        """The selected backend, whether or not it is still there."""
        selected: BackendKey | None = self.table.selected
        return selected

    @property
    def present(self) -> Backend | None:
        """The selected backend as it is now; None where there is none, or no more."""
        if self.picture is None or self.target is None or self.vip is None:
            return None
        if self.target.vip != self.vip.service:
            return None
        row = row_of(self.picture.snapshot, self.target)
        return None if row is None else self.picture.snapshot.backends.wanted[row]

    def show(self, picture: Picture) -> None:
        """Draw both tables."""
        self.picture = picture
        snapshot = picture.snapshot
        self.staged.settle(snapshot)
        count = len(snapshot.vips)
        self.vip_table.display = count > 0
        shown = self._vips.rows(vip_fields(snapshot.vips, snapshot.backends), np.arange(count))
        self.vip_table.show(
            VipRows(snapshot, self.staged), shown,
            sorted_by=self._vips.sort, empty=self._vips.empty(""),
        )  # fmt: skip
        if self.vip_table.selected is None:
            self.vip_table.select(0)
        self._show_backends()

    def _show_backends(self) -> None:
        """Draw the backends of the chosen VIP, and the lines below them."""
        if self.picture is None:
            return
        chosen = self.vip_table.selected
        held = self.picture.snapshot.backends
        rows = [] if chosen is None else held.rows_of(chosen)
        shown = BackendRows(self.picture, chosen, self.staged)
        sieve = self._backends
        ordered = sieve.rows(backend_fields(held), np.array(rows, np.intp))
        empty = sieve.empty(self._empty_text())
        self.table.show(shown, ordered, sorted_by=sieve.sort, empty=empty)
        if self.target is None or self.target.vip != chosen:
            self.table.select(0)
        self._show_detail()

    def _empty_text(self) -> str:
        may, adds = self.controls is not None, actions.key("new-service")
        if self.picture is None or not len(self.picture.snapshot.vips):
            return "No VIP: nothing is balanced" + (f". {adds} adds one" if may else "")
        if self.vip is None:
            return f"{self.vip_table.selected} is no more: Tab and ↓ choose another"
        return "This VIP has no backend" + (f": {adds} adds one" if may else "")

    def _show_detail(self) -> None:
        if self.picture is None:
            return
        self._detail.show(backend_facts(self.picture, self.target))
        vip = self.vip
        plan: list[Cell] = []
        if vip is not None and self.staged.touches(vip.service):
            plan = [Cell(f"STAGED {self.staged.described(vip.service)}", "badge")]
        self._plan.display = bool(plan)
        self._plan.show(plan)

    def summary(self) -> Sequence[Cell]:
        """Say how many there are, and how many cannot take flows."""
        if self.picture is None:
            return ()
        held = self.picture.snapshot.backends
        cells = [
            Cell(number_of(len(self.picture.snapshot.vips), "VIP"), "muted"),
            Cell(number_of(len(held), "backend"), "muted"),
        ]
        if bad := sum(healthy is False for healthy in held.healthy):
            cells.insert(0, Cell(f"✖ {bad} unhealthy", "bad"))
        return cells

    def acts(self) -> Mapping[str, Callable[[], None]]:
        """Return its acts."""
        return {
            **super().acts(),
            "write-staged": self._write,
            "drop-staged": self._drop,
            "weight-up": lambda: self._stage_weight(1),
            "weight-down": lambda: self._stage_weight(-1),
            "weight": self._type_weight,
            "drain": lambda: self._stage(state="drain"),
            "take-down": lambda: self._stage(state="down"),
            "bring-back": lambda: self._stage(state="up"),
            "restore-weight": self._restore,
            "algorithm": self._stage_algorithm,
            "flows": self._show_flows,
            "new-service": self._new,
            "delete-service": self._delete,
        }

    def can(self, action_id: str) -> bool:
        """Whether one of its acts makes sense now."""
        vip = self.vip
        if action_id in super().acts():
            # One key drops what is staged and, when nothing is, the filter.
            staged = action_id == "clear-filter" and self.can("drop-staged")
            return not staged and super().can(action_id)
        match action_id:
            case "new-service":
                return self.picture is not None
            case "write-staged" | "drop-staged":
                busy = vip is not None and vip.service in self._writing
                staged = vip is not None and self.staged.touches(vip.service)
                return staged and not (busy and action_id == "write-staged")
            case "algorithm":
                return vip is not None
            case "delete-service":
                return vip is not None if self._on_vips else self.present is not None
        return self.present is not None and action_id in self.acts()

    def enter(self) -> None:
        """Take the focus: it is on the backends, which most acts are about."""
        self.table.focus()

    @property
    def _on_vips(self) -> bool:
        return self.vip_table.has_focus

    def _stage(self, **values: object) -> None:
        target, present = self.target, self.present
        if target is not None and present is not None:
            self.staged.stage(target, present, **values)
            self._redraw()

    def _planned_weight(self) -> int:
        target, present = self.target, self.present
        assert target is not None
        assert present is not None
        return self.staged.wanted(target, present).weight

    def _stage_weight(self, step: int) -> None:
        self._stage(weight=max(0, self._planned_weight() + step))

    def _restore(self) -> None:
        if self.picture is not None and self.target is not None:
            row = row_of(self.picture.snapshot, self.target)
            if row is not None:
                self._stage(weight=int(self.picture.snapshot.backends.first_weight[row]))

    def _stage_algorithm(self) -> None:
        vip = self.vip
        if vip is not None:
            now = self.staged.algorithm(vip.service) or vip.algorithm
            following = ALGORITHMS[(ALGORITHMS.index(now) + 1) % len(ALGORITHMS)]
            self.staged.stage_algorithm(vip, following)
            self._redraw()

    def _drop(self) -> None:
        vip = self.vip
        if vip is not None:
            self.staged.drop(vip.service)
            self._redraw()

    def _write(self) -> None:
        """Write what is staged for the chosen VIP; it stays staged until that has succeeded."""
        vip, controls = self.vip, self.controls
        if vip is None or controls is None:
            return
        service = vip.service
        if algorithm := self.staged.algorithm(service):
            act = partial(controls.balancing.set_vip, service, {"algorithm": algorithm})
            told = partial(self.staged.drop_algorithm, service, algorithm)
            self._attempt(service, act, f"Place flows of {service} by {algorithm}", told)
        if changes := self.staged.changes(service):
            act = partial(controls.balancing.set_backends, service, changes)
            told = partial(self.staged.drop_written, service, changes)
            self._attempt(service, act, f"Set backends of {service}", told)

    def _attempt(
        self, vip: Service, act: Callable[[], None], said: str, written: Callable[[], None]
    ) -> None:
        def told(error: EbpftopError | None) -> None:
            self._writing.remove(vip)
            if error is None:
                written()
            self._redraw()

        self._writing.append(vip)
        self.post_message(Dialog.Attempt(None, act, said, told))

    def _type_weight(self) -> None:
        if self.controls is not None and self.picture is not None and self.target is not None:
            snapshot = self.picture.snapshot
            weight = self._planned_weight()
            self.app.push_screen(
                WeightDialog(self.controls, snapshot, self.target, self.staged, weight)
            )

    def _show_flows(self) -> None:
        target = self.target
        if target is not None:
            # As many as the column counts: an entry outlives its flow for a while.
            words = f"vip:{target.vip} backend:{target.backend.endpoint} -state:closed"
            self.post_message(self.GoTo(actions.CONNECTIONS, words))

    def _new(self) -> None:
        if self.controls is None or self.picture is None:
            return
        snapshot, vip = self.picture.snapshot, self.vip
        if self._on_vips or vip is None:
            self.app.push_screen(NewVipDialog(self.controls, snapshot))
        else:
            self.app.push_screen(NewBackendDialog(self.controls, snapshot, vip.service))

    def _delete(self) -> None:
        vip, controls, picture = self.vip, self.controls, self.picture
        if vip is None or controls is None or picture is None:
            return
        backend = None if self._on_vips or self.target is None else self.target.backend
        self.app.push_screen(DeleteServiceDialog(controls, picture.snapshot, vip.service, backend))

    def on_descendant_focus(self) -> None:
        """Offer what the other table has to offer."""
        self.post_message(self.Changed())

    @on(Table.Selected)
    def _selection_moved(self, event: Table.Selected) -> None:
        if event.table is self.vip_table:
            self._show_backends()
        self._show_detail()
        self.post_message(self.Changed())
