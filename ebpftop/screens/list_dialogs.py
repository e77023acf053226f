# SPDX-License-Identifier: Apache-2.0
"""The dialogs that read a whole list from a file, and write one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Label

from ebpftop import format as fmt
from ebpftop import lists, report
from ebpftop.control import Controls
from ebpftop.errors import UsageError
from ebpftop.model import Snapshot
from ebpftop.screens.dialog import Dialog
from ebpftop.widgets.cells import Cell

_DEFAULT_DURATION = "1h"


def _row(label: str, field: Input, hint: str = "") -> Horizontal:
    words = [Label(label, classes="label", markup=False), field]
    if hint:
        words.append(Label(hint, classes="hint", markup=False))
    return Horizontal(*words, classes="field")


class ImportDialog(Dialog):
    """Blocks or allows every address of a file.

    Args:
        controls: What does it.
        snapshot: What is known when it opens.
        allow: The list is of whom to allow.
    """

    def __init__(self, controls: Controls, snapshot: Snapshot, *, allow: bool) -> None:
        super().__init__("Allow a list" if allow else "Block a list", "read it")
        self._controls = controls
        self._allow = allow
        self._path = Input(compact=True, id="address", placeholder="a file on this machine")
        self._duration = Input(_DEFAULT_DURATION, compact=True, id="duration")
        self._reason = Input(compact=True, id="reason", max_length=120)
        self.show(snapshot)

    def fields(self) -> Sequence[Widget]:
        """Return the file and, for blocks, what holds where it says nothing."""
        rows = [_row("file", self._path)]
        if not self._allow:
            rows.append(_row("for", self._duration, "where the list does not say"))
            rows.append(_row("reason", self._reason))
        return rows

    def on_mount(self) -> None:
        """Start with the file."""
        self._path.focus()

    def show(self, snapshot: Snapshot) -> None:
        """Draw what a list is, and how many there are."""
        held = len(snapshot.allowed) if self._allow else len(snapshot.blocks)
        what = "addresses are allowed" if self._allow else "blocks are in force"
        self.facts.show(
            [
                [Cell("now", "muted"), Cell(f"{held:,} {what}")],
                [Cell("reads", "muted"), Cell("an address a line, or JSON; all or nothing")],
            ]
        )

    def action_confirm(self) -> None:
        """Check the fields, and read and write off the event loop."""
        try:
            for_s = fmt.parse_duration(self._duration.value)
            if for_s == 0:
                raise UsageError("a block of no time blocks nothing", "write 90s, 10m or forever")
        except UsageError as error:
            self.complain(str(error), self._duration)
            return
        path = self._path.value.strip()
        if not path:
            self.complain("which file?", self._path)
            return
        reason = fmt.printable(self._reason.value.strip())
        verb = "allowed" if self._allow else "blocked"
        defaults = lists.Defaults(for_s, reason, verb)
        self.attempt(partial(self._do, Path(path), defaults), f"Read {fmt.printable(path)}")

    def _do(self, path: Path, defaults: lists.Defaults) -> None:
        """Read the list and put it in force; runs in a thread."""
        try:
            requests = lists.read_list(path, defaults)
        except UsageError as error:
            first, *more = error.remedy.split("\n  ")
            raise UsageError(error.problem, " ".join([first, "; ".join(more)])) from None
        if not requests:
            raise UsageError(f"{fmt.printable(str(path))} has no address in it")
        if self._allow:
            self._controls.allow_all([request.prefix for request in requests])
        else:
            self._controls.block_all(requests)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()


class ExportDialog(Dialog):
    """Writes the blocks, or the allow list, to a new file.

    Args:
        snapshot: What is known when it opens.
        allowed: The allow list, and not the blocks.
    """

    def __init__(self, snapshot: Snapshot, *, allowed: bool) -> None:
        super().__init__("Export the allow list" if allowed else "Export the blocks", "write it")
        self._allowed = allowed
        self._snapshot = snapshot
        self._path = Input(compact=True, id="address", placeholder="a new file: .json, or plain")
        self.show(snapshot)

    def fields(self) -> Sequence[Widget]:
        """Return the file."""
        return (_row("file", self._path),)

    def on_mount(self) -> None:
        """Start with the file."""
        self._path.focus()

    def show(self, snapshot: Snapshot) -> None:
        """Draw how many there are."""
        self._snapshot = snapshot
        held = len(snapshot.allowed) if self._allowed else len(snapshot.blocks)
        form = "JSON keeps reasons and ends, a plain list the addresses alone"
        self.facts.show(
            [
                [Cell("writes", "muted"), Cell("1 entry" if held == 1 else f"{held:,} entries")],
                [Cell("form", "muted"), Cell(form)],
            ]
        )  # fmt: skip

    def action_confirm(self) -> None:
        """Write the file, off the event loop."""
        path = self._path.value.strip()
        if not path:
            self.complain("which file?", self._path)
            return
        act = partial(_write, Path(path), self._snapshot, allowed=self._allowed)
        self.attempt(act, f"Write {fmt.printable(path)}")

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()


def _write(path: Path, snapshot: Snapshot, *, allowed: bool) -> None:
    rows = report.allowed(snapshot) if allowed else report.blocks(snapshot)
    if path.suffix == ".json":
        lists.write_list(path, lists.json_text(rows))
    else:
        lists.write_list(path, "".join(f"{row['address']}\n" for row in rows))
