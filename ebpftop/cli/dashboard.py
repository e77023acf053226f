# SPDX-License-Identifier: Apache-2.0
"""`ebpftop IFACE`: the dashboard, on what is attached or attached for as long as it runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from ebpftop import config
from ebpftop.cli.parameters import CONFIG, INTERFACES, MODE, SETTINGS
from ebpftop.config.dashboard import DashboardSettings, load_settings
from ebpftop.errors import EbpftopError, NotAttachedError, NotPermittedError, UsageError
from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import Instance, find

if TYPE_CHECKING:
    from ebpftop.app import DashboardApp


@dataclass
class Session:
    """What a dashboard works on, and whether it goes when the dashboard does."""

    reader: Instance
    """Read by the dashboard's source, which closes it."""
    writer: Instance | None = None
    """Written by its controls; None for a dashboard that may only watch."""
    ours: bool = False
    """Attached by this dashboard."""
    notices: list[str] = field(default_factory=list)
    """What the operator should know from the start."""
    recording: config.RecordingPolicy = field(default_factory=config.RecordingPolicy)
    """Where recordings go."""


@click.command()
@INTERFACES
@click.option("--read-only", is_flag=True, help="Watch only: never attach, never write.")
@MODE
@click.option("--interval", "interval_s", type=click.FloatRange(0.1, 10), default=1.0,
              show_default=True, metavar="SECONDS", help="Time between looks.")  # fmt: skip
@CONFIG
@click.option("--keep", is_flag=True, help="Leave it attached on quit.")
@SETTINGS
def run(
    ifaces: Sequence[str],
    read_only: bool,
    mode: str,
    interval_s: float,
    policy_path: Path | None,
    keep: bool,
    settings_path: Path | None,
) -> None:
    """Open the dashboard; attach for as long as it is open, or join what is attached."""
    require_terminal("use `ebpftop top` or `ebpftop status` in scripts")
    settings = load_settings(settings_path)
    if read_only:
        reader = find(ifaces[0], read_only=True)
        session = Session(reader, notices=_left_out(ifaces, reader))
    elif os.geteuid() != 0:
        raise NotPermittedError(
            "attaching needs root", f"use sudo, or watch: ebpftop {ifaces[0]} --read-only"
        )
    else:
        session = join_or_attach(ifaces, mode, policy_path, keep=keep)
    show(session, settings, interval_s=interval_s, keep=keep)


def require_terminal(remedy: str) -> None:
    """Refuse to open a dashboard that nobody would see.

    Raises:
        UsageError: There is no terminal; `remedy` says what to do instead.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal", remedy)


def _left_out(ifaces: Sequence[str], joined: Instance) -> list[str]:
    """Say which of the interfaces that were asked for are not the joined instance's."""
    names = {attachment.name for attachment in joined.meta.attachments}
    others = [iface for iface in ifaces if iface not in names]
    return [f"not attached to {', '.join(others)}: that needs a detach first"] if others else []


def join_or_attach(
    ifaces: Sequence[str], mode: str, policy_path: Path | None, *, keep: bool
) -> Session:
    """Join what is attached to the first interface, or attach to all of them."""
    from ebpftop.control import policy as policies

    policy = config.load(policy_path) if policy_path else config.Policy()
    notices = []
    ours = False
    try:
        writer = find(ifaces[0], read_only=False)
        notices += _left_out(ifaces, writer)
        if policy_path:
            notices.append("joined what was attached already: --config was not read again")
    except NotAttachedError:
        writer = policies.attach(
            ifaces, policy, mode=mode, path=policy_path, pinned=False, lasting=keep
        )
        ours = True
        if mode == "auto" and any(a.mode == "generic" for a in writer.meta.attachments):
            notices.append("the driver has no native XDP: generic mode, which costs more")
    reader = Instance(writer.folder, read_only=False)
    return Session(reader, writer, ours, notices, policy.recording)


def show(session: Session, settings: DashboardSettings, *, interval_s: float, keep: bool) -> None:
    """Run the dashboard on a session, and leave things as `keep` says.

    Raises:
        EbpftopError: What is watched went away.
    """
    reader, writer = session.reader, session.writer
    from ebpftop.control.audit import Operator

    seat = bpffs.Seat(writer.name, "control") if writer else None
    try:
        taken = seat.take(Operator.here().user) if seat else ""
        if taken and session.ours:
            raise EbpftopError(f"the new instance was taken first, {taken}", "try again")
        error = _run_app(session, settings, taken or "", interval_s)
    finally:
        if seat:
            seat.close()
        reader.close()
        if writer and session.ours:
            with bpffs.locked(writer.name):
                _leave(writer, keep=keep)
        elif writer:
            writer.close()
    if error:
        raise error


def _leave(writer: Instance, *, keep: bool) -> None:
    """Keep what this dashboard attached, if it still is, or take it away."""
    if keep and writer.is_live():
        writer.pin_links()
        writer.close()
    else:
        from ebpftop.control.audit import Intent, Recorder

        names = [attachment.name for attachment in writer.meta.attachments]
        with Recorder(writer, must_record=False).recording(Intent("detach", targets=names[:1])):
            writer.remove()


def _run_app(
    session: Session, settings: DashboardSettings, taken: str, interval_s: float
) -> EbpftopError | None:
    from ebpftop.app import DashboardApp
    from ebpftop.control.everything import InstanceControl
    from ebpftop.control.holding import Holding
    from ebpftop.sources.live import LiveSource

    control = InstanceControl(session.writer) if session.writer and not taken else None
    holding = Holding(session.writer, control) if session.writer and control else None
    app = DashboardApp(
        LiveSource(session.reader),
        title=session.reader.describe(),
        interval_s=interval_s,
        controls=control,
        read_only_reason=taken,
        notices=session.notices,
        settings=settings,
        recording=session.recording,
    )
    if control:
        control.protect()
    if holding:
        holding.start()
    try:
        asyncio.run(run_until_told(app))
    finally:
        if holding:
            holding.stop()
    return app.lost_error


async def run_until_told(app: DashboardApp) -> None:
    """Run the app; what ends a process, a closed terminal too, ends it as `q` does."""
    loop = asyncio.get_running_loop()

    def leave(number: int, _: FrameType | None) -> None:
        # It follows SIGHUP and SIGTERM often, and Textual would start a second time.
        signal.signal(signal.SIGCONT, lambda *_: None)
        if number == signal.SIGHUP:
            _let_go_of_terminal()
        loop.call_soon_threadsafe(app.exit)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    told = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in told:
        signal.signal(number, leave)
    try:
        await app.run_async(mouse=app.settings.mouse)
    finally:
        for number in told:
            signal.signal(number, before[number])


def _let_go_of_terminal() -> None:
    """Read and write nothing more: Textual waits for ever for a terminal that is gone."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
