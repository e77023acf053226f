# SPDX-License-Identifier: Apache-2.0
"""The dialog that blocks an address or a prefix: one that was selected, or one that is typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from textual import on
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import EbpftopError, UsageError
from ebpftop.model import Prefix, Snapshot
from ebpftop.screens.dialog import Dialog, field_row, target_facts
from ebpftop.screens.pane import Picture
from ebpftop.screens.revert_field import RevertField
from ebpftop.screens.stopped import foresight_rows
from ebpftop.screens.what_if import if_blocked
from ebpftop.widgets.cells import Cell

DEFAULT_DURATION = "10m"
"""What is offered: long enough to think, short enough to heal."""

OVERRIDE = "override"
"""What must be typed before one's own access is blocked."""


class BlockDialog(Dialog):
    """Blocks for a while; the target is the one that was selected when it opened.

    Args:
        controls: What blocks.
        picture: What is known when it opens.
        target: The address; None for one that is typed.
    """

    @dataclass
    class Guarded(Message):
        """Whether a prefix holds the operator's own access is known now."""

        prefix: Prefix
        """What was asked about."""
        reason: str | None
        """Why dropping it could cut the operator off; None where it could not."""

    def __init__(self, controls: Controls, picture: Picture, target: Prefix | None = None) -> None:
        super().__init__("New block" if target is None else f"Block {target}", "block")
        self._controls = controls
        self._snapshot = picture.snapshot
        self._history = picture.sources
        self.target = target
        self._guarded: dict[Prefix, str | None] = {}
        whole = "" if target is None else str(target.length - _offset(target))
        self._address = Input(compact=True, id="address", placeholder="192.0.2.1 or 192.0.2.0/24")
        self._length = Input(whole, compact=True, id="length", restrict=r"[0-9]{0,3}")
        self._duration = Input(DEFAULT_DURATION, compact=True, id="duration")
        self._reason = Input(compact=True, id="reason", max_length=120)
        self._revert = RevertField()
        self._override = Input(compact=True, id="override")
        self._override_row = field_row(OVERRIDE, self._override)
        self._override_row.add_class("override")
        self._override_row.display = False

    def fields(self) -> Sequence[Widget]:
        """Return the prefix, the duration, the reason, and the override where it is needed."""
        prefix = (
            field_row("address", self._address)
            if self.target is None
            else field_row("prefix /", self._length, "shorter blocks its neighbours too")
        )
        return (
            prefix,
            field_row("for", self._duration, "90s, 10m, 2h, forever"),
            field_row("reason", self._reason),
            self._revert,
            self._override_row,
        )

    def on_mount(self) -> None:
        """Start where most often something is changed, and ask about the target."""
        (self._address if self.target is None else self._duration).focus()
        self._ask_guard()
        self.show(self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw what the prefix sends and sent, and whether it holds the operator's own access."""
        if snapshot.sequence != self._snapshot.sequence:
            self._history = self._history.extended(snapshot)
        self._snapshot = snapshot
        try:
            prefix = self._prefix()
        except UsageError:
            self.facts.show([[Cell("blocks", "muted"), Cell(fmt.UNKNOWN, "muted")]])
            self._override_row.display = False
            return
        rows = [[Cell("blocks", "muted"), Cell(str(prefix), "strong")]]
        rows.extend(target_facts(snapshot, prefix))
        allowed = [snapshot.allowed.prefix(row) for row in range(len(snapshot.allowed))]
        rows.extend(foresight_rows(if_blocked(self._history, prefix, allowed)))
        reason = self._guarded.get(prefix)
        if reason is not None:
            rows.append([Cell("careful", "alarm"), Cell(reason, "bad")])
            rows.append([Cell(""), Cell(f"type {OVERRIDE} below to block it all the same")])
        self._override_row.display = reason is not None
        self.facts.show(rows)

    def action_confirm(self) -> None:
        """Check the fields and block."""
        field: Widget = self._address if self.target is None else self._length
        try:
            prefix = self._prefix()
            field = self._duration
            for_s = fmt.parse_duration(self._duration.value)
            if for_s == 0:
                raise UsageError("a block of no time blocks nothing", "write 90s, 10m or forever")
            field = self._revert.entry
            controls = self._revert.guarding(self._controls)
        except UsageError as error:
            self.complain(str(error), field)
            return
        override = self._override.value.strip().lower() == OVERRIDE
        if self._guarded.get(prefix) is not None and not override:
            self.complain(f"type {OVERRIDE} to block what your own access needs", self._override)
            return
        act = partial(
            controls.block,
            prefix,
            for_s=for_s,
            reason=fmt.printable(self._reason.value.strip()),
            override=override and self._guarded.get(prefix) is not None,
        )
        self.attempt(act, f"Block {prefix} for {fmt.duration_text(for_s)}{self._revert.said()}")

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()

    @on(Input.Changed, "#address")
    @on(Input.Changed, "#length")
    def _prefix_changed(self) -> None:
        self._ask_guard()
        self.show(self._snapshot)

    def _prefix(self) -> Prefix:
        """Return what is to be blocked.

        Raises:
            UsageError: What was typed is no address, prefix or prefix length.
        """
        if self.target is None:
            return fmt.parse_address(self._address.value)
        offset = _offset(self.target)
        longest = self.target.length - offset
        typed = self._length.value
        if not typed.isdigit() or int(typed) > longest:
            raise UsageError(f"the prefix length is a number from 0 to {longest}")
        return self.target.truncated(int(typed) + offset)

    def _ask_guard(self) -> None:
        """Find out, off the event loop, whether the prefix holds the operator's own access."""
        try:
            prefix = self._prefix()
        except UsageError:
            return
        if prefix not in self._guarded:
            self.run_worker(
                partial(self._guard, prefix), thread=True, group="guard", exit_on_error=False
            )

    def _guard(self, prefix: Prefix) -> None:
        """Ask the controls; runs in a thread."""
        try:
            reason = self._controls.guarded(prefix)
        except EbpftopError as error:
            reason = f"cannot tell whether your own access needs it: {error}"
        self.post_message(self.Guarded(prefix, reason))

    def on_block_dialog_guarded(self, event: Guarded) -> None:
        """Show the answer."""
        self._guarded[event.prefix] = event.reason
        self.show(self._snapshot)


def _offset(prefix: Prefix) -> int:
    """Return how many of the 128 bits come before those that an operator counts."""
    return 96 if prefix.is_ipv4 else 0
