# SPDX-License-Identifier: Apache-2.0
"""The trace: packets as they come, with what becomes of them, while this screen is open."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from ebpftop.control import Controls, Tracing
from ebpftop.control.trace_filter import mistake
from ebpftop.dissection import trace_line
from ebpftop.errors import EbpftopError
from ebpftop.format import printable
from ebpftop.widgets.bar import Bar
from ebpftop.widgets.cells import Cell
from ebpftop.widgets.filter_line import FilterLine

RATE = 20
"""The most packets a second that are shown."""
KEPT = 500
"""Lines that can be scrolled back to."""
EVERY_S = 0.2
_EXAMPLE = "source:10.0.0.0/8 verdict:dropped"


class TraceScreen(ModalScreen[None]):
    """Asks for a filter, switches the trace on, and off when it is left.

    Args:
        controls: Where the trace is switched on.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", show=False),
        Binding("slash", "ask", show=False),
    ]

    @dataclass
    class Begun(Message):
        """The trace is on."""

        trace: Tracing
        """What it shows."""

    @dataclass
    class Refused(Message):
        """The trace cannot be switched on."""

        error: EbpftopError
        """Why."""

    def __init__(self, controls: Controls) -> None:
        super().__init__()
        self._controls = controls
        self._trace: Tracing | None = None
        self._beginning = False
        # Who leaves while the variant is loaded leaves the thread to switch it off again.
        self._left, self._lock = False, threading.Lock()
        self._expression = ""
        self._shown, self._lines = 0, deque[str](maxlen=KEPT)
        self._filter = FilterLine(mistake, _EXAMPLE)
        self._text = Static(markup=False)
        self._state = Bar()

    def compose(self) -> ComposeResult:
        """Lay out the lines, the filter and what is to be said of it all."""
        with Vertical(id="trace") as box:
            box.border_title = Content("Trace")
            box.border_subtitle = Content("/ filter   Esc ends the trace")
            with VerticalScroll() as lines:
                lines.anchor()
                yield self._text
            yield self._filter
            yield self._state

    def on_mount(self) -> None:
        """Ask for a filter."""
        self.set_interval(EVERY_S, self._look)
        self._say("Enter begins; with no filter every packet is shown")
        self.action_ask()

    async def on_unmount(self) -> None:
        """Switch the trace off, off the event loop."""
        with self._lock:
            self._left, trace = True, self._trace
        if trace is not None:
            await asyncio.to_thread(_stopped, trace)

    def action_ask(self) -> None:
        """Ask for a filter, or for another one."""
        if not self._beginning:
            self._filter.open(self._expression)

    @on(FilterLine.Cancelled)
    def _cancelled(self, event: FilterLine.Cancelled) -> None:
        event.stop()
        if self._trace is None:
            self.dismiss()
        else:
            self.query_one(VerticalScroll).focus()

    @on(FilterLine.Accepted)
    def _accepted(self, event: FilterLine.Accepted) -> None:
        event.stop()
        self._expression = event.expression
        self.query_one(VerticalScroll).focus()
        if self._trace is not None:
            self._trace.ask(self._expression, RATE)
            return
        self._beginning = True
        self._say("the program's variant is loaded and put in its place")
        begin = partial(self._begin, self._expression)
        self.run_worker(begin, thread=True, exit_on_error=False)

    def _begin(self, expression: str) -> None:
        """Switch the trace on; runs in a worker's thread."""
        try:
            trace = self._controls.trace(expression, RATE)
        except EbpftopError as error:
            self.post_message(self.Refused(error))
            return
        with self._lock:
            if not self._left:
                self._trace = trace
        if self._trace is None:
            _stopped(trace)
        else:
            self.post_message(self.Begun(trace))

    def on_trace_screen_begun(self) -> None:
        """Say what is looked for."""
        self._beginning = False
        self._look()

    def on_trace_screen_refused(self, message: Refused) -> None:
        """Say why there is no trace, and ask again."""
        self._beginning = False
        self._say(printable(str(message.error), 1000), bad=True)
        self.action_ask()

    def _look(self) -> None:
        """Show what came."""
        trace = self._trace
        if trace is None:
            return
        packets = trace.take()
        if packets:
            self._shown += len(packets)
            self._lines.extend(map(trace_line, packets))
            self._text.update(Content("\n".join(self._lines)))
        if trace.error is not None:
            self._say(printable(str(trace.error), 1000), bad=True)
            return
        left_out = trace.left_out
        self._state.show([
            Cell(f"at most {RATE}/s", "muted"),
            Cell(f"{self._shown:,} shown"),
            Cell(f"{left_out:,} left out", "warn" if left_out else "muted"),
            Cell(f"FILTER {printable(self._expression)}", "badge") if self._expression
            else Cell("every packet", "muted"),
        ])  # fmt: skip

    def _say(self, words: str, *, bad: bool = False) -> None:
        self._state.show([Cell(words, "bad" if bad else "muted")])


def _stopped(trace: Tracing) -> None:
    """Switch a trace off; what the kernel refuses, the next that writes to the instance does."""
    try:
        trace.stop()
    except EbpftopError:
        return
