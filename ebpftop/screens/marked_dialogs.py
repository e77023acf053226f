# SPDX-License-Identifier: Apache-2.0
"""The dialogs that act on several addresses at once: those that were marked when they opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from textual import on
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import EbpftopError, NotFoundError, UsageError
from ebpftop.model import BlockRequest, Prefix, Snapshot
from ebpftop.screens.block_dialog import DEFAULT_DURATION, OVERRIDE
from ebpftop.screens.dialog import Dialog, field_row
from ebpftop.screens.figures import number_of, rate
from ebpftop.screens.targets import covering, sending_together
from ebpftop.widgets.cells import Cell

LISTED = 5
"""Targets that a dialog names; of the others it says how many there are."""


class MarkedDialog(Dialog):
    """A dialog about several targets.

    Args:
        does: What Enter does, in a word.
        targets: The addresses and prefixes; they stay the same while it is open.
        effect: What will come of it, a sentence each.
        snapshot: What is known when it opens.
    """

    def __init__(
        self, does: str, targets: Sequence[Prefix], effect: Sequence[str], snapshot: Snapshot
    ) -> None:
        super().__init__(f"{does.capitalize()} {_counted(targets)}", does)
        self.targets = tuple(targets)
        self.when_done: Callable[[], None] = lambda: None
        """Called once it is done: nothing is marked any more then."""
        self._effect = effect
        self._snapshot = snapshot

    def on_mount(self) -> None:
        """Draw what is known."""
        self.show(self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw who they are, what they send together, and what will come of it."""
        self._snapshot = snapshot
        then = [
            [Cell("" if at else "then", "muted"), Cell(words)]
            for at, words in enumerate(self._effect)
        ]
        self.facts.show([*marked_facts(snapshot, self.targets), *then, *self._warnings()])

    def _warnings(self) -> Sequence[Sequence[Cell]]:
        """Return what must be said besides."""
        return ()

    def attempted(self, error: EbpftopError | None) -> None:
        """Close and forget the marks if it went well; if not, say why and keep them."""
        if error is None:
            self.when_done()
        super().attempted(error)


class ConfirmMarkedDialog(MarkedDialog):
    """Asks for a yes before one act on several targets; arguments as of its base.

    Args:
        act: What to run on a yes.
    """

    def __init__(
        self,
        does: str,
        targets: Sequence[Prefix],
        effect: Sequence[str],
        snapshot: Snapshot,
        act: Callable[[], None],
    ) -> None:
        super().__init__(does, targets, effect, snapshot)
        self._act = act

    def action_confirm(self) -> None:
        """Attempt the act."""
        self.attempt(self._act, self._title)


class BlockMarkedDialog(MarkedDialog):
    """Blocks all that are marked for a while, all or none.

    Args:
        controls: What blocks.
        snapshot: What is known when it opens.
        targets: The addresses and prefixes.
    """

    @dataclass
    class Guarded(Message):
        """It is known now which targets hold the operator's own access."""

        reasons: Mapping[Prefix, str]
        """Why dropping each of them could cut the operator off."""

    def __init__(self, controls: Controls, snapshot: Snapshot, targets: Sequence[Prefix]) -> None:
        super().__init__("block", targets, ["all are blocked, or none"], snapshot)
        self._controls = controls
        self._reasons: Mapping[Prefix, str] = {}
        self._duration = Input(DEFAULT_DURATION, compact=True, id="duration")
        self._reason = Input(compact=True, id="reason", max_length=120)
        self._override = Input(compact=True, id="override")
        self._override_row = field_row(OVERRIDE, self._override)
        self._override_row.add_class("override")
        self._override_row.display = False

    def fields(self) -> Sequence[Widget]:
        """Return the duration, the reason, and the override where it is needed."""
        return (
            field_row("for", self._duration, "90s, 10m, 2h, forever"),
            field_row("reason", self._reason),
            self._override_row,
        )

    def on_mount(self) -> None:
        """Start at the duration, and ask off the event loop whether a target is guarded."""
        self._duration.focus()
        self.run_worker(self._guard, thread=True, group="guard", exit_on_error=False)

    def _warnings(self) -> Sequence[Sequence[Cell]]:
        """Say which of them hold the operator's own access."""
        rows = [
            [Cell("careful", "alarm"), Cell(f"{target}: {reason}", "bad")]
            for target, reason in list(self._reasons.items())[:LISTED]
        ]
        if rows:
            rows.append([Cell(""), Cell(f"type {OVERRIDE} below to block them all the same")])
        return rows

    def action_confirm(self) -> None:
        """Check the fields and block."""
        try:
            for_s = fmt.parse_duration(self._duration.value)
            if for_s == 0:
                raise UsageError("a block of no time blocks nothing", "write 90s, 10m or forever")
        except UsageError as error:
            self.complain(str(error), self._duration)
            return
        override = self._override.value.strip().lower() == OVERRIDE
        if self._reasons and not override:
            self.complain(f"type {OVERRIDE} to block what your own access needs", self._override)
            return
        reason = fmt.printable(self._reason.value.strip())
        requests = [BlockRequest(target, for_s, reason) for target in self.targets]
        override = override and bool(self._reasons)
        act = partial(self._controls.block_all, requests, override=override)
        self.attempt(act, f"{self._title} for {fmt.duration_text(for_s)}")

    def _guard(self) -> None:
        """Ask the controls; runs in a thread."""
        reasons = {}
        for target in self.targets:
            try:
                reason = self._controls.guarded(target)
            except EbpftopError as error:
                reason = f"cannot tell whether your own access needs it: {error}"
            if reason is not None:
                reasons[target] = reason
        self.post_message(self.Guarded(reasons))

    def on_block_marked_dialog_guarded(self, event: Guarded) -> None:
        """Ask for the override where it is needed."""
        self._reasons = event.reasons
        self._override_row.display = bool(event.reasons)
        self.show(self._snapshot)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()


class AssignMarkedDialog(MarkedDialog):
    """Puts all that are marked into a class, or takes them out of theirs.

    Args:
        controls: What does it.
        snapshot: What is known when it opens.
        targets: The addresses and prefixes.
    """

    def __init__(self, controls: Controls, snapshot: Snapshot, targets: Sequence[Prefix]) -> None:
        names = dict.fromkeys(key.name for key in snapshot.classes.keys)
        effect = [f"one class holds for them: {', '.join(names)}"]
        super().__init__("assign", targets, effect, snapshot)
        self._controls = controls
        self._into = Input(fmt.printable(next(iter(names), "")), compact=True, id="class-name")

    def fields(self) -> Sequence[Widget]:
        """Return the class."""
        return (field_row("class", self._into, "nothing takes them out of their classes"),)

    def on_mount(self) -> None:
        """Start at the class."""
        self._into.focus()

    def action_confirm(self) -> None:
        """Put each of them where it belongs."""
        name, shaping = self._into.value.strip(), self._controls.shaping
        if name:
            each = partial(shaping.assign, name=name)
            self.attempt(partial(on_each, each, self.targets), f"{self._title} to {name}")
        else:
            said = f"Take {_counted(self.targets)} out of their classes"
            self.attempt(partial(on_each, shaping.unassign, self.targets, missing=True), said)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()


OnMarked = Callable[[Controls, Snapshot, Sequence[Prefix]], "MarkedDialog | str"]
"""Makes a dialog about what is marked, or says why there is nothing to ask."""


def _unblock_marked(
    controls: Controls, snapshot: Snapshot, marked: Sequence[Prefix]
) -> MarkedDialog | str:
    blocks = [covering(snapshot.blocks, target) for target in marked]
    targets = _known(blocks)
    if not targets:
        return "none of those marked is blocked"
    act = partial(on_each, controls.unblock, targets, missing=True)
    effect = ["their packets pass, as far as the limits allow", *_rest(blocks, "blocked")]
    return ConfirmMarkedDialog("unblock", targets, effect, snapshot, act)


def _allow_marked(
    controls: Controls, snapshot: Snapshot, marked: Sequence[Prefix]
) -> MarkedDialog | str:
    act = partial(controls.allow_all, list(marked))
    effect = ["everything from them passes: no block and no limit holds for them"]
    return ConfirmMarkedDialog("allow", marked, effect, snapshot, act)


def _disallow_marked(
    controls: Controls, snapshot: Snapshot, marked: Sequence[Prefix]
) -> MarkedDialog | str:
    entries = [covering(snapshot.allowed, target) for target in marked]
    targets = _known(entries)
    if not targets:
        return "none of those marked is allowed"
    act = partial(on_each, controls.disallow, targets, missing=True)
    effect = ["blocks and limits hold for them again", *_rest(entries, "allowed")]
    return ConfirmMarkedDialog("disallow", targets, effect, snapshot, act)


MARKED_DIALOGS: Mapping[str, OnMarked] = {
    "block": BlockMarkedDialog,
    "unblock": _unblock_marked,
    "allow": _allow_marked,
    "disallow": _disallow_marked,
    "assign": AssignMarkedDialog,
}
"""What opens for each action where rows are marked."""


def marked_facts(snapshot: Snapshot, targets: Sequence[Prefix]) -> list[list[Cell]]:
    """Return rows that say who the targets are, and what they send together now."""
    now = sending_together(snapshot, targets)
    sends = f"{rate(now.pps)} pps   {fmt.bits_rate_unit(now.bps)}   {fmt.percent(now.share)} of all"
    rows = [
        [Cell("targets" if not at else "", "muted"), Cell(str(target), "strong")]
        for at, target in enumerate(targets[:LISTED])
    ]
    if (more := len(targets) - LISTED) > 0:
        rows.append([Cell(""), Cell(f"and {more:,} more", "muted")])
    rows.append([Cell("send now", "muted"), Cell(sends, "strong")])
    rows.append([Cell("cover", "muted"), Cell(number_of(now.sources, "tracked source"))])
    return rows


def on_each(
    act: Callable[[Prefix], None], targets: Sequence[Prefix], *, missing: bool = False
) -> None:
    """Do one act after another; those that are done stay done where one is refused.

    Args:
        act: What to do.
        targets: To whom.
        missing: Whether it is well that there is nothing to do for some: it has ended by itself.

    Raises:
        EbpftopError: One was refused; says how many were done before.
    """
    for done, target in enumerate(targets):
        try:
            act(target)
        except EbpftopError as error:
            if missing and isinstance(error, NotFoundError):
                continue
            raise EbpftopError(
                f"{done} of {len(targets)} done, then {target}: {error.problem}", error.remedy
            ) from error


def _known(entries: Sequence[Prefix | None]) -> list[Prefix]:
    return list(dict.fromkeys(entry for entry in entries if entry is not None))


def _rest(entries: Sequence[Prefix | None], word: str) -> Sequence[str]:
    """Say how many of those marked the act does not concern."""
    others = sum(entry is None for entry in entries)
    return [f"of those marked, {others:,} not {word}"] if others else []


def _counted(targets: Sequence[Prefix]) -> str:
    return str(targets[0]) if len(targets) == 1 else f"{len(targets):,} addresses"
