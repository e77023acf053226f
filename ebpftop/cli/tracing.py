# SPDX-License-Identifier: Apache-2.0
"""The verb that shows packets with what becomes of them: trace."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import click

from ebpftop.cli.output import print_json
from ebpftop.cli.parameters import INTERFACE, JSON, require_root, watched
from ebpftop.control.trace_filter import TraceFilter
from ebpftop.control.tracing import MOST_RATE, Trace
from ebpftop.dissection import trace_line, trace_row
from ebpftop.errors import UsageError
from ebpftop.filtering import FilterError
from ebpftop.format import printable
from ebpftop.kernel.netlink.links import netlink

PATIENCE_S = 0.2
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@INTERFACE
@click.option("--filter", "expression", default="", metavar="EXPR",
              help="Only packets that pass. Fields: source (or address), protocol, verdict, "
              "reason; as in 'source:192.0.2.0/24 protocol:tcp -verdict:passed'.")  # fmt: skip
@click.option("--rate", type=click.IntRange(1, MOST_RATE), default=20, show_default=True,
              metavar="N", help="At most so many a second; the rest is counted.")  # fmt: skip
@click.option("--for", "seconds", type=click.FloatRange(0.1, 86_400), metavar="SECONDS",
              help="End after so long; without it ^C ends it.")  # fmt: skip
@JSON
def trace(iface: str, expression: str, rate: int, seconds: float | None, as_json: bool) -> None:
    """Show packets as they come, with their verdict and its reason.

    A variant of the program takes its place meanwhile, without losing a packet. One trace at a
    time. With --json one object a line; its left_out counts what matched and was not shown.
    """
    wanted = _parsed(expression)
    require_root("a trace")
    with closing(watched(iface)) as instance, _ending() as ended:
        with netlink() as socket:
            link = socket.link(iface)
        traced = Trace(instance, wanted, rate=rate, interface=link.index)
        name = printable(link.name)

        def show() -> None:
            for packet in traced.take(PATIENCE_S):
                if as_json:
                    print_json(trace_row(packet, name), one_line=True)
                else:
                    click.echo(trace_line(packet))
            sys.stdout.flush()

        try:
            _follow(show, traced, ended, seconds)
        finally:
            traced.stop()
        show()
        if not as_json:
            click.echo(f"{traced.left_out:,} packets that matched were left out", err=True)
        if traced.error:
            raise traced.error


def _parsed(expression: str) -> TraceFilter:
    try:
        return TraceFilter.parse(expression)
    except FilterError as error:
        at = f"--filter, at character {error.position + 1}: {error.problem}"
        raise UsageError(at, error.remedy) from error


def _follow(
    show: Callable[[], None], traced: Trace, ended: threading.Event, seconds: float | None
) -> None:
    until_s = None if seconds is None else time.monotonic() + seconds
    while not ended.is_set() and traced.error is None:
        if until_s is not None and time.monotonic() >= until_s:
            return
        show()


@contextmanager
def _ending() -> Iterator[threading.Event]:
    """Set an event instead of dying of a signal, so that the pipeline is put back."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in _ENDS}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
