# SPDX-License-Identifier: Apache-2.0
"""Verbs of the traffic shaper: class, assign, unassign, classes, count-sent."""

from __future__ import annotations

import time
from typing import Any

import click

from ebpftop import report
from ebpftop.cli.output import print_json, print_table
from ebpftop.cli.parameters import (
    ADDRESS,
    INTERFACE,
    JSON,
    RATE,
    REVERT_AFTER,
    SIZE,
    Duration,
    controlled,
    watched,
)
from ebpftop.control.class_rules import check_key
from ebpftop.control.shaping import COUNT_SENT
from ebpftop.errors import UsageError
from ebpftop.format import bits_rate_unit, count, rate_text, size
from ebpftop.model import DIRECTIONS, SHAPINGS, ClassKey, Prefix
from ebpftop.sources.live import LiveSource

SAMPLE_S = 0.5
"""Time over which `classes` measures rates."""

NAME = click.argument("name", metavar="NAME")
DIRECTION = click.option(
    "--direction", type=click.Choice(DIRECTIONS), default="egress", show_default=True,
    help="What comes in, or what goes out.",
)  # fmt: skip


@click.group(name="class")
def traffic_class() -> None:
    """Make, change and delete traffic classes: addresses that share a rate."""


@traffic_class.command(name="set")
@INTERFACE
@NAME
@DIRECTION
@click.option("--rate", "rate_bps", type=RATE, help="Bits a second, as in 20mbit.")
@click.option("--burst", "burst_bytes", type=SIZE,
              help="Bytes it may send at once, as in 64kb; 0 for what suits the rate.")  # fmt: skip
@click.option("--action", type=click.Choice(SHAPINGS), help="How it is held to its rate.")
@click.option("--priority", type=click.IntRange(0, 7),
              help="0 is the first to get what a parent has left over.")  # fmt: skip
@click.option("--parent", metavar="NAME", help="A class whose rate is a ceiling; '' for none.")
@REVERT_AFTER
def set_class(
    iface: str, name: str, direction: str, revert_after: Duration | None, **given: Any
) -> None:
    """Make a class, or change what is given of it."""
    changes = {field: value for field, value in given.items() if value is not None}
    key = ClassKey(name, direction)
    check_key(key)
    if not changes:
        raise UsageError("class set changes nothing", "say --rate, --burst, --action, ...")
    with controlled(iface, revert_after) as control:
        control.shaping.set_class(key, changes)


@traffic_class.command(name="del")
@INTERFACE
@NAME
@DIRECTION
def delete_class(iface: str, name: str, direction: str) -> None:
    """Delete a class; its addresses are in none then."""
    with controlled(iface) as control:
        control.shaping.delete_class(ClassKey(name, direction))


@click.command()
@INTERFACE
@click.argument("address", metavar="ADDR", type=ADDRESS)
@NAME
@click.option("--direction", type=click.Choice(DIRECTIONS),
              help="Without it, in each direction that has such a class.")  # fmt: skip
def assign(iface: str, address: Prefix, name: str, direction: str | None) -> None:
    """Put an address or prefix into a class; the longest prefix wins."""
    with controlled(iface) as control:
        control.shaping.assign(address, name, direction)


@click.command()
@INTERFACE
@click.argument("address", metavar="ADDR", type=ADDRESS)
def unassign(iface: str, address: Prefix) -> None:
    """Take exactly this address or prefix out of its classes."""
    with controlled(iface) as control:
        control.shaping.unassign(address)


@click.command()
@INTERFACE
@JSON
def classes(iface: str, as_json: bool) -> None:
    """List the classes, what is in their buckets, and what they carry."""
    source = LiveSource(watched(iface))
    try:
        snapshot = source.snapshot()
        if len(snapshot.classes):
            time.sleep(SAMPLE_S)
            snapshot = source.snapshot()
    finally:
        source.close()
    listed = report.classes(snapshot)
    if as_json:
        print_json(listed)
        return
    print_table(
        ["CLASS", "DIRECTION", "ACTION", "RATE", "NOW", "BURST", "TOKENS", "PACKETS", "DROPPED",
         "MARKED", "ADDRESSES"],
        [
            [
                row["class"], row["direction"], row["action"], rate_text(row["rate_bps"]),
                bits_rate_unit(row["bps"]), size(row["burst_bytes"]), _tokens(row["tokens_bytes"]),
                count(row["packets"]), count(row["dropped_packets"]),
                count(row["marked_packets"]), _members(row["addresses"]),
            ]
            for row in listed
        ],
        left=3,
    )  # fmt: skip


def _tokens(tokens_bytes: int | None) -> str:
    if tokens_bytes is not None and tokens_bytes < 0:
        return f"-{size(-tokens_bytes)}"
    return size(tokens_bytes)


def _members(addresses: list[str]) -> str:
    more = f" and {len(addresses) - 2} more" if len(addresses) > 2 else ""
    return ", ".join(addresses[:2]) + more if addresses else "none"


@click.command(name="count-sent")
@INTERFACE
@click.argument("word", metavar="auto|on|off", type=click.Choice(COUNT_SENT))
def count_sent(iface: str, word: str) -> None:
    """Count what is sent to each address; `auto` does while something is shaped."""
    with controlled(iface) as control:
        control.shaping.count_sent(word)
