# SPDX-License-Identifier: Apache-2.0
"""Dialogs that add VIPs and backends, and take them away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import UsageError
from ebpftop.model import (
    ALGORITHMS,
    BALANCING_MODES,
    NO_BACKEND_CHOICES,
    Backend,
    HealthCheck,
    Service,
    Snapshot,
    Vip,
)
from ebpftop.screens.backend_history import BackendKey
from ebpftop.screens.dialog import Dialog, field_row
from ebpftop.screens.figures import number_of
from ebpftop.screens.weight_dialog import parse_weight
from ebpftop.widgets.cells import Cell


def parse_check(text: str) -> HealthCheck | None:
    """Return the check of `none`, `tcp`, `http` or `http /path`.

    Raises:
        UsageError: It is none of them.
    """
    kind, _, path = text.strip().partition(" ")
    if kind in ("", "none"):
        return None
    if (kind == "tcp" and not path) or (kind == "http" and (not path or path.startswith("/"))):
        return HealthCheck(kind, path=path.strip() or "/")
    raise UsageError(f"'{fmt.printable(text, 60)}' is no check", "none, tcp, or http /path")


def _one_of(words: Sequence[str], typed: str, what: str) -> str:
    if typed not in words:
        raise UsageError(f"the {what} is one of {', '.join(words)}")
    return typed


class _FieldsDialog(Dialog):
    """A dialog of lines that are typed; the first that is wrong is named.

    Args:
        title: What it is about to do.
        texts: What is offered, by the line's name.
        hints: What stands beside a line.
    """

    def __init__(self, title: str, texts: Mapping[str, str], hints: Mapping[str, str]) -> None:
        super().__init__(title, "add it")
        self._hints = hints
        self._inputs = {
            name: Input(text, compact=True, id=name.replace(" ", "-"))
            for name, text in texts.items()
        }

    def fields(self) -> Sequence[Widget]:
        """Return a line for each value."""
        return [
            field_row(name, field, self._hints.get(name, ""))
            for name, field in self._inputs.items()
        ]

    def on_mount(self) -> None:
        """Start with the first line."""
        next(iter(self._inputs.values())).focus()

    def typed(self, name: str) -> str:
        """Return what stands in a line."""
        return self._inputs[name].value.strip()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()


class NewVipDialog(_FieldsDialog):
    """Adds a VIP.

    Args:
        controls: What adds it.
        snapshot: What is known when it opens.
    """

    def __init__(self, controls: Controls, snapshot: Snapshot) -> None:
        texts = {"VIP": "", "algorithm": "wrr", "mode": "nat", "none lives": "drop",
                 "check": "tcp"}  # fmt: skip
        hints = {
            "VIP": "198.51.100.10:80/tcp",
            "algorithm": ", ".join(ALGORITHMS),
            "mode": ", ".join(BALANCING_MODES),
            "none lives": "drop new flows, or give them to all",
            "check": "none, tcp, or http /path",
        }
        super().__init__("New VIP", texts, hints)
        self._controls = controls
        self.show(snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw the VIPs there are."""
        names = ", ".join(str(vip.service) for vip in snapshot.vips.wanted) or "none yet"
        self.facts.show([[Cell("VIPs", "muted"), Cell(names)]])

    def action_confirm(self) -> None:
        """Check the lines and add the VIP."""
        name = "VIP"
        try:
            service = fmt.parse_service(self.typed(name))
            name = "algorithm"
            algorithm = _one_of(ALGORITHMS, self.typed(name), name)
            name = "mode"
            mode = _one_of(BALANCING_MODES, self.typed(name), name)
            name = "none lives"
            choice = _one_of(NO_BACKEND_CHOICES, self.typed(name), "choice")
            name = "check"
            check = parse_check(self.typed(name))
        except UsageError as error:
            self.complain(str(error), self._inputs[name])
            return
        wanted = Vip(service, algorithm, mode, choice, check)
        self.attempt(partial(self._controls.balancing.add_vip, wanted), f"Add VIP {service}")


class NewBackendDialog(_FieldsDialog):
    """Puts a backend behind the VIP that was chosen when it opened.

    Args:
        controls: What does it.
        snapshot: What is known when it opens.
        vip: The VIP.
    """

    def __init__(self, controls: Controls, snapshot: Snapshot, vip: Service) -> None:
        hints = {"backend": "10.0.0.1:8080", "weight": "its share, beside the others' weights"}
        super().__init__(f"New backend of {vip}", {"backend": "", "weight": "1"}, hints)
        self._controls = controls
        self.target = vip
        self.show(snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw the backends there are."""
        held = snapshot.backends
        rows = held.rows_of(self.target)
        names = ", ".join(held.wanted[row].service.endpoint for row in rows) or "none yet"
        self.facts.show([[Cell("backends", "muted"), Cell(names)]])

    def action_confirm(self) -> None:
        """Check the lines and add the backend."""
        name = "backend"
        try:
            service = fmt.parse_service(self.typed(name), self.target.protocol)
            name = "weight"
            weight = parse_weight(self.typed(name))
        except UsageError as error:
            self.complain(str(error), self._inputs[name])
            return
        act = partial(self._controls.balancing.add_backend, self.target, Backend(service, weight))
        self.attempt(act, f"Add backend {service.endpoint}")


class DeleteServiceDialog(Dialog):
    """Asks for a yes before a VIP or a backend goes.

    Args:
        controls: What takes it away.
        snapshot: What is known when it opens.
        vip: The VIP, or whose backend it is.
        backend: The backend; None for the VIP itself.
    """

    def __init__(
        self, controls: Controls, snapshot: Snapshot, vip: Service, backend: Service | None
    ) -> None:
        what = f"VIP {vip}" if backend is None else f"backend {BackendKey(vip, backend)}"
        super().__init__(f"Delete {what}", "delete")
        self._controls = controls
        self.target = vip, backend
        self.show(snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw what it carries, and what will come of it."""
        vip, backend = self.target
        held = snapshot.backends
        rows = [r for r in held.rows_of(vip) if backend in (None, held.wanted[r].service)]
        flows = number_of(int(held.connections[rows].sum()), "flow")
        then = "its flows end with it, and its backends go too"
        if backend is not None:
            then = "its flows are moved at their next packet; 0 lets them end first"
        self.facts.show(
            [
                [Cell("has", "muted"), Cell(flows, "strong")],
                [Cell("then", "muted"), Cell(then)],
            ]
        )

    def action_confirm(self) -> None:
        """Take it away."""
        vip, backend = self.target
        acts = self._controls.balancing
        if backend is None:
            self.attempt(partial(acts.delete_vip, vip), f"Delete VIP {vip}")
        else:
            act = partial(acts.delete_backend, vip, backend)
            self.attempt(act, f"Delete backend {backend.endpoint}")
