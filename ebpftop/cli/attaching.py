# SPDX-License-Identifier: Apache-2.0
"""Verbs that attach and detach."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import click

from ebpftop import config
from ebpftop.cli.parameters import CONFIG, INTERFACE, INTERFACES, MODE, require_root
from ebpftop.cli.readiness import tell_ready
from ebpftop.cli.reloading import reread
from ebpftop.control import policy as policies
from ebpftop.control.audit import Intent, Recorder
from ebpftop.control.everything import InstanceControl
from ebpftop.control.holding import Holding
from ebpftop.errors import EbpftopError, NotAttachedError, SourceLostError
from ebpftop.kernel import attaching, bpffs
from ebpftop.kernel.instance import Instance, find, sweep_stale

LOOK_EVERY_S = 0.5
"""How often `--serve` looks whether it was told to end, and whether what it serves is there."""


@click.command()
@INTERFACES
@MODE
@CONFIG
@click.option(
    "--serve", is_flag=True, help="Stay in the foreground: sweep, and check the health of backends."
)
def attach(ifaces: Sequence[str], mode: str, policy_path: Path | None, serve: bool) -> None:
    """Attach to interfaces and leave the programs there; several share one instance."""
    require_root("attaching")
    policy = config.load(policy_path) if policy_path else config.Policy()
    # Told to end while it attaches, a service ends when that is done.
    told = _note_signals() if serve else []
    joined = _joined(ifaces) if serve else None
    instance = joined or policies.attach(ifaces, policy, mode=mode, path=policy_path, pinned=True)
    modes = ", ".join(f"{a.name} ({a.mode})" for a in instance.meta.attachments)
    click.echo(f"{'joined what is ' if joined else ''}attached to {modes}")
    try:
        if serve:
            _serve(instance, told)
    finally:
        instance.close()


def _joined(ifaces: Sequence[str]) -> Instance | None:
    """Open what a service attached before it was restarted."""
    try:
        return find(ifaces[0], read_only=False)
    except NotAttachedError:
        return None


def _note_signals() -> list[int]:
    """Return a list that will hold the signals that told this process to end, or to reload."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: told.append(number))
    return told


def _reload_if_told(instance: Instance, told: list[int]) -> None:
    while signal.SIGHUP in told:
        told.remove(signal.SIGHUP)
        try:
            reread(instance)
            click.echo("read the policy file again")
        except EbpftopError as error:
            click.echo(f"ebpftop: {error}", err=True)


def _serve(instance: Instance, told: list[int]) -> None:
    """Sweep until a signal was `told`, and reload on SIGHUP; what is attached stays.

    Raises:
        SourceLostError: It does not: somebody detached it, or the interfaces were deleted.
    """
    holding = Holding(instance, InstanceControl(instance))
    holding.start()
    tell_ready()
    try:
        while True:
            _reload_if_told(instance, told)
            if told:
                break
            time.sleep(LOOK_EVERY_S)
            if holding.error:
                raise holding.error
            if not instance.is_live():
                raise SourceLostError(
                    f"ebpftop was detached from {instance.describe()}", "nothing of it is left"
                )
    finally:
        holding.stop()
        sweep_stale()


@click.command()
@INTERFACE
def detach(iface: str) -> None:
    """Take an interface out; the last one takes everything of ours with it."""
    require_root("detaching")
    instance = find(iface, read_only=False, whole=False)
    try:
        detaching = Intent("detach", targets=[iface])
        with bpffs.locked(instance.name), Recorder(instance).recording(detaching):
            attaching.detach(instance, iface)
    finally:
        instance.close()
