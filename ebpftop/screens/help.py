# SPDX-License-Identifier: Apache-2.0
"""The help screen, made from what can be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from ebpftop.actions import Action
from ebpftop.format import printable
from ebpftop.model import SourceState
from ebpftop.screens.balancer_rows import STAGED, STATES
from ebpftop.widgets.cells import Cell, Column, state_cell
from ebpftop.widgets.ledger import Ledger
from ebpftop.widgets.table import Table

_STATE_HELP = {
    SourceState.PASSED: "its packets pass",
    SourceState.ALLOWED: "it is on the allow list: nothing holds for it",
    SourceState.LIMITED: "it is over a limit: what is over is dropped",
    SourceState.BLOCKED: "all its packets are dropped",
}
_BACKEND_HELP = {
    "up": "it takes new flows",
    "drain": "it keeps its flows and takes no new ones",
    "down": "its flows are moved at their next packet",
}
_FILTER_HELP = (
    ("pps:>1k", "numbers by =, >, <, or a range 1m..5m"),
    ("address:10.0.0.0/8", "addresses within a prefix"),
    ("state:blocked", "a text, or a part of it as state:/regex/"),
    ("-state:passed", "a minus negates"),
    ("pps:>1k -10.", "all words must hold; a bare word is looked for in every field"),
)


class HelpScreen(ModalScreen[None]):
    """Keys, signs, the filter language, and why things are as they are.

    Args:
        actions: What can be done, by where.
        notes: What the dashboard was told when it started, in sentences.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "dismiss", "close", show=False)
    ]

    def __init__(
        self, actions: Sequence[tuple[str, Sequence[Action]]], notes: Sequence[str]
    ) -> None:
        super().__init__()
        self._actions = actions
        self._notes = notes

    def compose(self) -> ComposeResult:
        """Lay out the sections."""
        with VerticalScroll(id="help") as box:
            box.border_title = Content("Help")
            box.border_subtitle = Content("Esc closes")
            for note in self._notes:
                yield Static(printable(note, 1000), markup=False, classes="note")
            for title, rows in self._sections():
                ledger = Ledger(_columns(title), fitted=True)
                ledger.add_class("section")
                ledger.show(rows)
                yield ledger

    def _sections(self) -> Iterator[tuple[str, Sequence[Sequence[Cell]]]]:
        for title, actions in self._actions:
            yield title, [_key_row(action.all_keys_label, action.help) for action in actions]
        yield "ALSO", [_key_row("^P", "Find any of these by name, or change the colours")]
        moves = [b for b in Table.BINDINGS if isinstance(b, Binding)]
        yield (
            "IN A TABLE",
            [
                *(_key_row(move.key_display or move.key, move.description) for move in moves),
                _key_row("Tab", "Go to the next table"),
                _key_row("click", "Select a row, or sort by a column"),
            ],
        )
        yield "STATES", [[state_cell(s), Cell(text)] for s, text in _STATE_HELP.items()]
        backends = [
            [Cell(f"{STATES[word][0]} {word}", STATES[word][1]), Cell(text)]
            for word, text in _BACKEND_HELP.items()
        ]
        backends.append([Cell(f"{STAGED}3", "badge"), Cell("staged: Enter writes, Esc drops it")])
        yield "BACKENDS", backends
        yield "FILTERS", [[Cell(word, "key"), Cell(text)] for word, text in _FILTER_HELP]


def _columns(title: str) -> tuple[Column, Column]:
    return Column("", title, 12, "left", grows=True), Column("", "", 10, "left", stretch=200)


def _key_row(keys: str, text: str) -> Sequence[Cell]:
    return [Cell(keys, "key"), Cell(text)]
