# SPDX-License-Identifier: Apache-2.0
"""Verbs about acts: list them, take them back, let them stay."""

from __future__ import annotations

import time

import click

from ebpftop import report
from ebpftop.cli.output import print_json, print_table
from ebpftop.cli.parameters import INTERFACE, JSON, controlled, watched
from ebpftop.control.undoing import acts_of, chosen
from ebpftop.journal import words


@click.command()
@INTERFACE
@JSON
def acts(iface: str, as_json: bool) -> None:
    """List what operators did to what is attached, the latest first."""
    instance = watched(iface)
    try:
        found = acts_of(instance)
    finally:
        instance.close()
    if found.skipped:
        lines = "1 line" if found.skipped == 1 else f"{found.skipped} lines"
        click.echo(f"ebpftop: {lines} of the audit log cannot be read", err=True)
    if as_json:
        print_json(report.acts(found.acts[::-1]))
        return
    print_table(
        ["ACT", "TIME", "USER", "TERMINAL", "WHAT", "TARGET", "CHANGE", "RESULT"],
        [
            [
                act.id, words.when(act), act.user, act.terminal or "none", act.what, act.target,
                words.change(act), _result(act.result, undone=act.undone, until_s=act.reverts_at_s),
            ]
            for act in reversed(found.acts)
        ],
        left=8,
    )  # fmt: skip


def _result(result: str, *, undone: bool, until_s: float | None) -> str:
    if undone:
        return "undone"
    if until_s is not None and until_s > time.time():
        return f"{result}, reverts in {until_s - time.time():.0f} s"
    return result


@click.command()
@INTERFACE
@click.argument("act", metavar="[ACT]", default="")
@click.option("--force", is_flag=True, help="Even if what it changed was changed since.")
@click.option("--override", is_flag=True, help="Even if it may cut off your own access.")
def undo(iface: str, act: str, force: bool, override: bool) -> None:
    """Take an act back: the one called ACT, or the last that is not undone."""
    with controlled(iface) as control:
        found = chosen(control.acts().acts, act)
        control.undo(found.id, force=force, override=override)
        target = f" {found.target}" if found.target else ""
        click.echo(
            f"undone: {found.what}{target} by {found.user}, "
            f"now {words.going_back(found, time.time())}"
        )


@click.command()
@INTERFACE
def confirm(iface: str) -> None:
    """Let all acts stay that would take themselves back."""
    with controlled(iface) as control:
        number = control.confirm()
        click.echo(f"confirmed: {number} act stays" if number == 1 else f"confirmed: {number} acts")
