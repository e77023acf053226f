# SPDX-License-Identifier: Apache-2.0
"""Verbs that attach and detach."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import click

from ebpftop import config
from ebpftop.cli.parameters import CONFIG, INTERFACE, INTERFACES, MODE, require_root
from ebpftop.control import policy as policies
from ebpftop.control.protection import ProtectionControl
from ebpftop.control.sweeping import Sweeper
from ebpftop.errors import NotAttachedError
from ebpftop.kernel import attaching, bpffs
from ebpftop.kernel.instance import Instance, find


@click.command()
@INTERFACES
@MODE
@CONFIG
@click.option("--serve", is_flag=True, help="Stay in the foreground and tell what ends.")
def attach(ifaces: Sequence[str], mode: str, policy_path: Path | None, serve: bool) -> None:
    """Attach to interfaces and leave the programs there; several share one instance."""
    require_root("attaching")
    policy = config.load(policy_path) if policy_path else config.Policy()
    instance = _joined(ifaces) if serve else None
    if instance is None:
        instance = policies.attach(ifaces, policy, mode=mode, path=policy_path, pinned=True)
        modes = ", ".join(f"{a.name} ({a.mode})" for a in instance.meta.attachments)
        click.echo(f"attached to {modes}")
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
    """Sweep until a signal says so; what is attached stays."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    sweeper = Sweeper(ProtectionControl(instance))
    sweeper.start()
    while not told.wait(0.2):
        if sweeper.error:
            raise sweeper.error
    sweeper.stop()


@click.command()
@INTERFACE
def detach(iface: str) -> None:
    """Take an interface out; the last one takes everything of ours with it."""
    require_root("detaching")
    instance = find(iface, read_only=False)
    try:
        with bpffs.locked(instance.name):
            attaching.detach(instance, iface)
    finally:
        instance.close()
