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
    REVERT_AFTER,
    Duration,
    controlled,
    watched,
)
from ebpftop.errors import UsageError
from ebpftop.format import duration_text, rate_text
from ebpftop.lists import Defaults, parse_list, read_list
from ebpftop.model import BlockRequest, Limits, Prefix

LIST = click.Path(allow_dash=True, path_type=Path)


@click.command()
@INTERFACE
@click.argument("address", metavar="ADDR", type=ADDRESS, required=False)
@click.option("--from", "path", metavar="FILE", type=LIST,
              help="Block a list, all or none: an address a line, or JSON.")  # fmt: skip
@click.option("--for", "lasting", type=DURATION, help="How long; without it, for ever.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever reads the list.")
@click.option("--override", is_flag=True, help="Even if it may cut off your own access.")
@REVERT_AFTER
def block(
    iface: str,
    address: Prefix | None,
    path: Path | None,
    lasting: Duration | None,
    reason: str,
    override: bool,
    revert_after: Duration | None,
) -> None:
    """Drop all from an address or prefix; again: change the block."""
    if (address is None) == (path is None):
        raise UsageError("block takes an ADDR or --from FILE", "see `ebpftop block --help`")
    for_s = lasting.seconds if lasting else None
    if address is not None:
        requests = [BlockRequest(address, for_s, reason)]
    else:
        requests = _read_list(path or Path(), Defaults(for_s, reason))
    with controlled(iface, revert_after) as control:
        control.block_all(requests, override=override)


def _read_list(path: Path, defaults: Defaults) -> list[BlockRequest]:
    if str(path) != "-":
        return read_list(path, defaults)
    return parse_list(click.open_file("-", errors="replace").read(), "-", defaults)


@click.command()
@INTERFACE
@click.argument("address", metavar="ADDR", type=ADDRESS)
def unblock(iface: str, address: Prefix) -> None:
    """End the block of exactly this address or prefix, manual or automatic."""
    with controlled(iface) as control:
        control.unblock(address)


@click.command()
@INTERFACE
@click.argument("address", metavar="ADDR", type=ADDRESS, required=False)
@click.option("--from", "path", metavar="FILE", type=LIST,
              help="Allow a list, all or none: an address a line, or JSON.")  # fmt: skip
def allow(iface: str, address: Prefix | None, path: Path | None) -> None:
    """Let all from an address or prefix pass, before blocks and limits."""
    if (address is None) == (path is None):
        raise UsageError("allow takes an ADDR or --from FILE", "see `ebpftop allow --help`")
    if address is not None:
        prefixes = [address]
    else:
        listed = _read_list(path or Path(), Defaults(verb="allowed"))
        prefixes = [request.prefix for request in listed]
    with controlled(iface) as control:
        control.allow_all(prefixes)


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
@REVERT_AFTER
@JSON
def limit(
    iface: str, dry_run: str | None, revert_after: Duration | None, as_json: bool, **given: Any
) -> None:
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
        with controlled(iface, revert_after) as control:
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
