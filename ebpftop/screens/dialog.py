# SPDX-License-Identifier: Apache-2.0
"""What every dialog that acts has in common, and the ones that only ask for a yes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from ebpftop import format as fmt
from ebpftop.control import Controls
from ebpftop.errors import EbpftopError
from ebpftop.model import Allowed, Blocks, Prefix, Snapshot
from ebpftop.screens.figures import number_of, rate, standing
from ebpftop.screens.targets import covering, sending
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell, Column
from ebpftop.widgets.ledger import Ledger

_FACTS = (Column("", "", 9, "left"), Column("", "", 10, "left", stretch=200))

_MAX_WORDS = 1000


class Dialog(ModalScreen[None]):
    """A modal dialog about a target that does not change while it is open.

    Args:
        title: What it is about to do, and to whom.
        does: What Enter does, in a word or two.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", show=False),
        Binding("enter", "confirm", "confirm", show=False),
    ]

    @dataclass
    class Attempt(Message):
        """Asks the app to run an act off the event loop, and to say how it went."""

        dialog: Dialog | None
        """Who asks, and is told of the outcome; None for a pane or a key that needs no dialog."""
        act: Callable[[], object]
        """What to run; raises an `EbpftopError` where it cannot be done."""
        said: str
        """What to tell the operator once it is done."""
        told: Callable[[EbpftopError | None], None] | None = None
        """Called with what became of it, where a pane asks."""

    def __init__(self, title: str, does: str) -> None:
        super().__init__()
        self._title = fmt.printable(title)
        self._does = does
        self._busy = False
        self.facts = Ledger(_FACTS, headed=False, fitted=True, css_id="facts")
        self.problem = Static(id="problem", markup=False)

    def compose(self) -> ComposeResult:
        """Lay out the facts, the fields, the problem, and the keys."""
        with Vertical(id="dialog") as box:
            box.border_title = Content(self._title)
            yield self.facts
            yield from self.fields()
            yield self.problem
            yield Bar(css_id="keys")

    def fields(self) -> Sequence[Widget]:
        """Return what the operator fills in."""
        return ()

    def on_mount(self) -> None:
        """Say which keys there are."""
        keys = [Cell(self._does, key="Enter"), Cell("cancel", key="Esc")]
        self.query_one("#keys", Bar).show([], keys)

    @abstractmethod
    def show(self, snapshot: Snapshot) -> None:
        """Draw what is known of the target now. Called once a tick."""

    @abstractmethod
    def action_confirm(self) -> None:
        """Check the fields and attempt the act."""

    def action_cancel(self) -> None:
        """Close without doing anything more; what is under way is not taken back."""
        self.dismiss()

    def attempt(self, act: Callable[[], None], said: str) -> None:
        """Run `act` off the event loop, unless one is under way already."""
        if not self._busy:
            self._busy = True
            self.problem.display = False
            self.post_message(self.Attempt(self, act, said))

    def attempted(self, error: EbpftopError | None) -> None:
        """Close if it went well; if not, say why and keep all that was typed."""
        self._busy = False
        if error is None:
            self.dismiss()
        else:
            self.complain(str(error))

    def complain(self, problem: str, field: Widget | None = None) -> None:
        """Say what is wrong, and put the cursor where it can be mended."""
        self.problem.update(fmt.printable(problem, _MAX_WORDS))
        self.problem.display = True
        if field is not None:
            field.focus()


class ConfirmDialog(Dialog):
    """Asks for a yes before one act on one target.

    Args:
        title: What it is about to do, and to whom.
        does: What Enter does, in a word or two.
        target: The address or prefix.
        effect: What will come of it.
        act: What to run on a yes.
        snapshot: What is known when it opens.
    """

    def __init__(
        self,
        title: str,
        does: str,
        target: Prefix,
        effect: Callable[[Snapshot], str],
        act: Callable[[], None],
        snapshot: Snapshot,
    ) -> None:
        super().__init__(title, does)
        self.target = target
        self._effect = effect
        self._act = act
        self.show(snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw what the target sends and what blocks or allows it."""
        rows = [*target_facts(snapshot, self.target), [Cell("then", "muted")]]
        rows[-1].append(Cell(self._effect(snapshot)))
        self.facts.show(rows)

    def action_confirm(self) -> None:
        """Attempt the act."""
        self.attempt(self._act, self._title)


def field_row(label: str, field: Input, hint: str = "") -> Horizontal:
    """Return a line of a dialog: what a field is, the field, and how to write it."""
    words = [Label(label, classes="label", markup=False), field]
    if hint:
        words.append(Label(hint, classes="hint", markup=False))
    return Horizontal(*words, classes="field")


def target_facts(snapshot: Snapshot, target: Prefix) -> list[list[Cell]]:
    """Return rows that say what `target` sends now and what blocks or allows it."""
    now = sending(snapshot, target)
    who = "not tracked: nothing seen from it"
    if now.sources:
        who = f"{rate(now.pps)} pps   {fmt.bits_rate_unit(now.bps)}"
        who += f"   {fmt.percent(now.share)} of all"
    rows = [[Cell("sends now", "muted"), Cell(who, "strong")]]
    if not target.is_host:
        rows.append([Cell("covers", "muted"), Cell(number_of(now.sources, "tracked source"))])
    held = standing(snapshot, target)
    rows.extend([Cell("is now" if i == 0 else "", "muted"), cell] for i, cell in enumerate(held))
    return rows


def unblock_dialog(controls: Controls, snapshot: Snapshot, target: Prefix) -> Dialog | None:
    """Return the dialog that ends the block which holds `target`; None where there is none."""
    block = covering(snapshot.blocks, target)
    if block is None:
        return None

    def effect(now: Snapshot) -> str:
        return _still_held(now.blocks, block) or "its packets pass, as far as the limits allow"

    act = partial(controls.unblock, block)
    return ConfirmDialog(f"Unblock {block}", "unblock", block, effect, act, snapshot)


def allow_dialog(controls: Controls, snapshot: Snapshot, target: Prefix) -> Dialog:
    """Return the dialog that lets all from `target` pass."""

    def effect(_now: Snapshot) -> str:
        return "everything from it passes: no block and no limit holds for it"

    act = partial(controls.allow, target)
    return ConfirmDialog(f"Allow {target}", "allow", target, effect, act, snapshot)


def disallow_dialog(controls: Controls, snapshot: Snapshot, target: Prefix) -> Dialog | None:
    """Return the dialog that ends the allowance which holds for `target`; None without one."""
    allowed = covering(snapshot.allowed, target)
    if allowed is None:
        return None

    def effect(now: Snapshot) -> str:
        return _still_held(now.allowed, allowed) or "blocks and limits hold for it again"

    act = partial(controls.disallow, allowed)
    return ConfirmDialog(f"Disallow {allowed}", "disallow", allowed, effect, act, snapshot)


def _still_held(entries: Blocks | Allowed, entry: Prefix) -> str:
    """Say which wider entry holds for `entry` once `entry` itself is gone; empty for none."""
    wider = covering(entries, entry, below=entry.length)
    word = "blocked" if isinstance(entries, Blocks) else "allowed"
    return f"stays {word} by {wider}" if wider is not None else ""
