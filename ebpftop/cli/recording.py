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
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    instance = watched(iface)
    failures: list[EbpftopError] = []

    def lost(error: EbpftopError) -> None:
        failures.append(error)
        done.set()

    try:
        writer = TapeWriter(path, instance.describe())
    except BaseException:
        instance.close()
        raise
    sampler = Sampler(LiveSource(instance), INTERVAL_S, writer.write, lost)
    try:
        sampler.start()
        done.wait(seconds)
    finally:
        sampler.stop()
        writer.close()
    name = printable(str(path))
    click.echo(f"{name}: {writer.ticks:,} ticks, {size(writer.size_bytes)}")
    if failures:
        raise failures[0]


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
