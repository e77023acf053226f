# SPDX-License-Identifier: Apache-2.0
"""Dialogs about VIPs and their backends: type a weight, add one, take one away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Label

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
from ebpftop.screens.balancer_rows import row_of, wishes
from ebpftop.screens.dialog import Dialog
from ebpftop.screens.figures import number_of
from ebpftop.screens.staging import Staged
from ebpftop.widgets.cells import Cell


def _row(label: str, field: Input, hint: str = "") -> Horizontal:
    words = [Label(label, classes="label", markup=False), field]
    if hint:
        words.append(Label(hint, classes="hint", markup=False))
    return Horizontal(*words, classes="field")


def parse_weight(text: str) -> int:
    """Return the weight that was typed.

    Raises:
        UsageError: It is no whole number.
    """
    typed = text.strip()
    if not (typed.isascii() and typed.isdigit()):
        raise UsageError("a weight is a whole number", "0 takes no new flows")
    return int(typed)


def parse_service(text: str, protocol: str | None = None) -> Service:
    """Return the service that was typed.

    Raises:
        UsageError: It is none.
    """
    try:
        return Service.parse(text, protocol)
    except ValueError:
        example = "198.51.100.10:80/tcp" if protocol is None else "10.0.0.1:8080"
        typed = fmt.printable(text, 60)
        raise UsageError(f"'{typed}' is no such thing", f"write it as {example}") from None


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


class WeightDialog(Dialog):
    """Types the weight of the backend that was selected when it opened.

    Args:
        controls: What writes it.
        snapshot: What is known when it opens.
        key: The backend.
        staged: What else is staged; that stays.
        weight: What is offered.
    """

    def __init__(
        self, controls: Controls, snapshot: Snapshot, key: BackendKey, staged: Staged, weight: int
    ) -> None:
        super().__init__(f"Weight of {key}", "write")
        self._controls = controls
        self._snapshot = snapshot
        self.target = key
        self._staged = staged
        self._weight = Input(str(weight), compact=True, id="weight", restrict=r"[0-9]{0,5}")

    def fields(self) -> Sequence[Widget]:
        """Return the weight."""
        return (_row("weight", self._weight, "0 takes no new flows"),)

    def on_mount(self) -> None:
        """Start in the field."""
        self._weight.focus()
        self.show(self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw each backend's share, and what the typed weight would make of it."""
        self._snapshot = snapshot
        held = snapshot.backends
        if row_of(snapshot, self.target) is None:
            self.facts.show([[Cell("now", "muted"), Cell("there is no such backend", "warn")]])
            return
        expected = self._expected()
        rows = []
        for at, row in enumerate(held.rows_of(self.target.vip)):
            own = held.wanted[row].service == self.target.backend
            then = f"{fmt.percent(held.share[row]):>5} → {fmt.percent(expected[at]):>5}"
            words = f"{then}   {held.wanted[row].service.endpoint}"
            label = "share" if not at else ""
            rows.append([Cell(label, "muted"), Cell(words, "strong" if own else "plain")])
        self.facts.show(rows)

    def _expected(self) -> list[float]:
        row = row_of(self._snapshot, self.target)
        assert row is not None
        typed = Staged()
        try:
            weight = parse_weight(self._weight.value)
            typed.stage(self.target, self._snapshot.backends.wanted[row], weight=weight)
        except UsageError:
            return [float("nan")] * len(self._snapshot.backends.rows_of(self.target.vip))
        return wishes(self._snapshot, self.target.vip, typed)[1]

    def action_confirm(self) -> None:
        """Check the weight and write it."""
        try:
            weight = parse_weight(self._weight.value)
        except UsageError as error:
            self.complain(str(error), self._weight)
            return
        vip, backend = self.target.vip, self.target.backend
        act = partial(self._controls.balancing.set_backends, vip, {backend: {"weight": weight}})
        self.attempt(act, f"Set the weight of {self.target} to {weight}")

    @on(Input.Changed)
    def _changed(self) -> None:
        self.show(self._snapshot)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()


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
            _row(name, field, self._hints.get(name, "")) for name, field in self._inputs.items()
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
            service = parse_service(self.typed(name))
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
            service = parse_service(self.typed(name), self.target.protocol)
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
