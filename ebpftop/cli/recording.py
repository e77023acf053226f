# SPDX-License-Identifier: Apache-2.0
"""Verbs on recordings: record what is attached, and replay a file."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ebpftop import report
from ebpftop.cli.output import print_json
from ebpftop.cli.parameters import INTERFACE, JSON, watched
from ebpftop.errors import EbpftopError
from ebpftop.format import printable, size
from ebpftop.sources import Sampler
from ebpftop.sources.balancing import CONNECTIONS
from ebpftop.sources.live import LiveSource
from ebpftop.sources.recording import RecordingSource, Tape, TapeWriter

if TYPE_CHECKING:
    from ebpftop.model import Snapshot

INTERVAL_S = 1.0
"""Time between ticks."""

_FILE = click.argument("path", metavar="FILE", type=click.Path(path_type=Path))


@click.command()
@INTERFACE
@_FILE
@click.option("--for", "seconds", type=click.FloatRange(0.1, 30 * 86_400), metavar="SECONDS",
              help="End after so long; without it ^C ends it.")  # fmt: skip
def record(iface: str, path: Path, seconds: float | None) -> None:
    """Record what is attached: each tick with all lists, for `ebpftop replay`.

    FILE must not exist. It holds addresses, so only its owner can read it.
    """
    instance = watched(iface)
    try:
        writer = TapeWriter(path, instance.describe())
    except BaseException:
        instance.close()
        raise
    try:
        source = LiveSource(instance)
        source.wants = frozenset((CONNECTIONS,))
        error = _record(source, writer, seconds)
    finally:
        writer.close()
    click.echo(f"{printable(str(path))}: {writer.ticks:,} ticks, {size(writer.size_bytes)}")
    if error:
        raise error


def _record(source: LiveSource, writer: TapeWriter, seconds: float | None) -> EbpftopError | None:
    """Record until the time is over or a signal tells us to end; returns what ended it earlier."""
    done = threading.Event()
    failures: list[EbpftopError] = []

    def lost(error: EbpftopError) -> None:
        failures.append(error)
        done.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: done.set()) for number in signals}
    sampler = Sampler(source, INTERVAL_S, writer.write, lost)
    try:
        sampler.start()
        done.wait(seconds)
    finally:
        sampler.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    return failures[0] if failures else None


@click.command()
@_FILE
@JSON
def replay(path: Path, as_json: bool) -> None:
    """Open the dashboard on a recording, or print the report of its last tick."""
    if not as_json:
        _open_dashboard(path)
        return
    tape = Tape(path)
    try:
        print_json(report.everything(_last(tape), list(tape.events())))
        damage = tape.damage
    finally:
        tape.close()
    if damage:
        sys.stdout.flush()
        raise damage


def _last(tape: Tape) -> Snapshot:
    """Return the last tick that can be read."""
    try:
        return tape.tick(len(tape) - 1)
    except EbpftopError:
        if not len(tape):
            raise
        return tape.tick(len(tape) - 1)


def _open_dashboard(path: Path) -> None:
    from ebpftop.app import DashboardApp
    from ebpftop.cli.dashboard import require_terminal, run_until_told

    require_terminal("use `ebpftop replay FILE --json` in scripts")
    tape = Tape(path)
    source = RecordingSource(tape)
    asyncio.run(run_until_told(DashboardApp(source, title=tape.title)))
    if tape.damage:
        raise tape.damage
