# SPDX-License-Identifier: Apache-2.0
"""Verbs that attach and detach."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import click

from ebpftop import config
from ebpftop.cli.parameters import CONFIG, INTERFACE, INTERFACES, MODE, require_root
from ebpftop.control import policy as policies
from ebpftop.control.protection import ProtectionControl
from ebpftop.control.sweeping import Sweeper
from ebpftop.errors import NotAttachedError, SourceLostError
from ebpftop.kernel import attaching, bpffs
from ebpftop.kernel.instance import Instance, find, sweep_stale

ENDS = (signal.SIGTERM, signal.SIGINT)
"""What ends `--serve`."""
LOOK_EVERY_S = 1.0
"""How often `--serve` looks whether what it serves is still there."""


@click.command()
@INTERFACES
@MODE
@CONFIG
@click.option("--serve", is_flag=True, help="Stay in the foreground and tell what ends.")
def attach(ifaces: Sequence[str], mode: str, policy_path: Path | None, serve: bool) -> None:
    """Attach to interfaces and leave the programs there; several share one instance."""
    require_root("attaching")
    policy = config.load(policy_path) if policy_path else config.Policy()
    if serve:
        # Told to end while it attaches, it ends when that is done.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    joined = _joined(ifaces) if serve else None
    instance = joined or policies.attach(ifaces, policy, mode=mode, path=policy_path, pinned=True)
    modes = ", ".join(f"{a.name} ({a.mode})" for a in instance.meta.attachments)
    click.echo(f"{'joined what is ' if joined else ''}attached to {modes}")
    try:
        if serve:
            _serve(instance)
    finally:
        instance.close()


def _joined(ifaces: Sequence[str]) -> Instance | None:
    """Open what a service attached before it was restarted."""
    try:
        return find(ifaces[0], read_only=False)
    except NotAttachedError:
        return None


def _serve(instance: Instance) -> None:
    """Sweep until a signal says so, which the caller has blocked; what is attached stays.

    Raises:
        SourceLostError: It does not: somebody detached it, or the interfaces were deleted.
    """
    sweeper = Sweeper(ProtectionControl(instance))
    sweeper.start()
    try:
        while signal.sigtimedwait(ENDS, LOOK_EVERY_S) is None:
            if sweeper.error:
                raise sweeper.error
            if not instance.is_live():
                raise SourceLostError(
                    f"ebpftop was detached from {instance.describe()}", "nothing of it is left"
                )
    finally:
        sweeper.stop()
        sweep_stale()


@click.command()
@INTERFACE
def detach(iface: str) -> None:
    """Take an interface out; the last one takes everything of ours with it."""
    require_root("detaching")
    instance = find(iface, read_only=False, whole=False)
    try:
        with bpffs.locked(instance.name):
            attaching.detach(instance, iface)
    finally:
        instance.close()
