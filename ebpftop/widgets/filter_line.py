# SPDX-License-Identifier: Apache-2.0
"""The line in which a filter is typed; a mistake is shown under the place where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Static

from ebpftop.format import printable

_PROMPT = " / "
_EXAMPLE = "address:10.0.0.0/8 pps:>1k"


class FilterLine(Vertical):
    """A prompt for a filter expression, shown while it is being typed.

    Args:
        check: Says what is wrong with an expression and at which character; None when nothing.
        example: Shown while nothing is typed.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", show=False)]

    @dataclass
    class Accepted(Message):
        """Enter was pressed on an expression without mistakes."""

        expression: str
        """The expression; empty to show all rows."""

    class Cancelled(Message):
        """Escape was pressed: the filter stays off, or goes off."""

    def __init__(
        self, check: Callable[[str], tuple[str, int] | None], example: str = _EXAMPLE
    ) -> None:
        super().__init__()
        self._check, self._example = check, example

    def compose(self) -> ComposeResult:
        """Lay out the prompt, the text and the mistake."""
        with Horizontal():
            yield Static(_PROMPT, markup=False)
            yield Input(compact=True, select_on_focus=False, placeholder=self._example)
        yield Static(id="mistake", markup=False)

    @property
    def is_open(self) -> bool:
        """Whether it is on the screen."""
        return self.has_class("-open")

    @property
    def has_keys(self) -> bool:
        """Whether it takes the keys that are pressed."""
        return self.is_open and self.query_one(Input).has_focus

    def open(self, expression: str) -> None:
        """Show the line with `expression` in it, ready for typing."""
        self.add_class("-open")
        field = self.query_one(Input)
        field.value = expression
        field.cursor_position = len(expression)
        field.focus()

    def close(self) -> None:
        """Take the line off the screen."""
        self.remove_class("-open")

    def action_cancel(self) -> None:
        """Leave without a filter."""
        self.close()
        self.post_message(self.Cancelled())

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self._show_mistake(event.value)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if not self._show_mistake(event.value):
            self.close()
            self.post_message(self.Accepted(event.value.strip()))

    def _show_mistake(self, expression: str) -> bool:
        """Show what is wrong with `expression`; return whether anything is."""
        mistake = self._check(expression)
        line = self.query_one("#mistake", Static)
        line.display = mistake is not None
        if mistake is not None:
            problem, position = mistake
            margin = " " * len(_PROMPT)
            line.update(f"{margin}{' ' * position}▲\n{margin}{printable(problem)}")
        return mistake is not None
