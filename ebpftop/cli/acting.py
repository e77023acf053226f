# SPDX-License-Identifier: Apache-2.0
"""Verbs that change what is dropped: block, unblock, allow, disallow, limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ebpftop import report
from ebpftop.bpf import layout
from ebpftop.cli.output import print_json, print_pairs
from ebpftop.cli.parameters import (
    ADDRESS,
    COUNT,
    DURATION,
    INTERFACE,
    JSON,
    RATE,
    Duration,
    controlled,
    watched,
)
from ebpftop.errors import KernelRefusedError, UsageError
from ebpftop.format import duration_text, parse_address, printable, rate_text
from ebpftop.model import BlockRequest, Limits, Prefix

MOST_BAD_LINES = 20
"""Bad lines of a list that are named; more are counted."""


@click.command()
@INTERFACE
@click.argument("address", metavar="ADDR", type=ADDRESS, required=False)
@click.option("--from", "path", metavar="FILE", type=click.Path(allow_dash=True, path_type=Path),
              help="Block every address or prefix of a list, one a line, all or none.")  # fmt: skip
@click.option("--for", "lasting", type=DURATION, help="How long; without it, for ever.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever reads the list.")
@click.option("--override", is_flag=True, help="Even if it may cut off your own access.")
def block(
    iface: str,
    address: Prefix | None,
    path: Path | None,
    lasting: Duration | None,
    reason: str,
    override: bool,
) -> None:
    """Drop all from an address or prefix; again: change the block."""
    if (address is None) == (path is None):
        raise UsageError("block takes an ADDR or --from FILE", "see `ebpftop block --help`")
    prefixes = [address] if address is not None else _read_list(path or Path())
    for_s = lasting.seconds if lasting else None
    with controlled(iface) as control:
        control.block_all(
            [BlockRequest(prefix, for_s, reason) for prefix in prefixes], override=override
        )


def _read_list(path: Path) -> list[Prefix]:
    """Read addresses, one a line; `#` begins a comment.

    Raises:
        UsageError: Names every bad line.
    """
    try:
        text = click.open_file(str(path), errors="replace").read()
    except OSError as error:
        raise KernelRefusedError(f"cannot read {printable(str(path))}: {error.strerror}") from None
    prefixes, wrong = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        try:
            prefixes.append(parse_address(words))
        except UsageError as error:
            wrong.append(f"line {number}: {error.problem}")
    if wrong:
        more = [f"and {len(wrong) - MOST_BAD_LINES} more"] if len(wrong) > MOST_BAD_LINES else []
        listed = "\n  ".join([*wrong[:MOST_BAD_LINES], *more])
        lines = "1 bad line" if len(wrong) == 1 else f"{len(wrong)} bad lines"
        raise UsageError(
            f"{printable(str(path))} has {lines}, nothing was blocked",
            f"mend\n  {listed}",
        )
    return prefixes


@click.command()
@INTERFACE
@click.argument("address", metavar="ADDR", type=ADDRESS)
def unblock(iface: str, address: Prefix) -> None:
    """End the block of exactly this address or prefix, manual or automatic."""
    with controlled(iface) as control:
        control.unblock(address)


@click.command()
@INTERFACE
@click.argument("address", metavar="ADDR", type=ADDRESS)
def allow(iface: str, address: Prefix) -> None:
    """Let all from an address or prefix pass, before blocks and limits."""
    with controlled(iface) as control:
        control.allow(address)


@click.command()
@INTERFACE
@click.argument("address", metavar="ADDR", type=ADDRESS)
def disallow(iface: str, address: Prefix) -> None:
    """Take an address or prefix out of the allow list."""
    with controlled(iface) as control:
        control.disallow(address)


@click.command()
@INTERFACE
@click.option("--pps", type=COUNT, help="Packets a second.")
@click.option("--bps", type=RATE, help="Bits a second, as in 50mbit.")
@click.option("--syn", type=COUNT, help="TCP connection requests a second.")
@click.option("--burst", "burst_s", type=DURATION, help="How far ahead of its rate one may run.")
@click.option("--grace", "grace_s", type=DURATION,
              help="How long one may stay over a limit before the automatic block.")  # fmt: skip
@click.option("--block-for", "block_for_s", type=DURATION,
              help="How long the first automatic block lasts; each repeat doubles it.")  # fmt: skip
@click.option(
    "--dry-run",
    type=click.Choice(["on", "off"]),
    help="Count what limits and blocks would drop, drop none of it.",
)
@JSON
def limit(iface: str, dry_run: str | None, as_json: bool, **given: Any) -> None:
    """Limit each source; 0 switches a limit off. Without an option: show the limits."""
    changes = {
        name: value.seconds if isinstance(value, Duration) else value
        for name, value in given.items()
        if value is not None
    }
    for name, value in changes.items():
        if value is None:
            option = name.removesuffix("_s").replace("_", "-")
            raise UsageError(f"--{option} cannot be for ever", "say a time, as in 10m")
    if dry_run is not None:
        changes["dry_run"] = dry_run == "on"
    if changes:
        with controlled(iface) as control:
            control.change_limits(changes)
    else:
        _show_limits(_current_limits(iface), as_json)


def _current_limits(iface: str) -> Limits:
    instance = watched(iface)
    try:
        return layout.limits(instance.maps["config"].read()[1])
    finally:
        instance.close()


def _show_limits(held: Limits, as_json: bool) -> None:
    if as_json:
        print_json(report.limits(held))
        return
    print_pairs(
        {
            "packets a second": str(held.pps or "off"),
            "bits a second": rate_text(held.bps) if held.bps else "off",
            "connection requests a second": str(held.syn or "off"),
            "burst": duration_text(held.burst_s),
            "grace": duration_text(held.grace_s),
            "automatic block": duration_text(held.block_for_s) if held.block_for_s else "off",
            "dry run": "on: nothing is dropped" if held.dry_run else "off",
        }
    )
