# SPDX-License-Identifier: Apache-2.0
"""Verbs that look at the load balancer: backends, connections."""

from __future__ import annotations

import time
from typing import Any

import click

from ebpftop import report
from ebpftop.cli.output import print_json, print_table
from ebpftop.cli.parameters import COUNT, INTERFACE, JSON, watched
from ebpftop.format import UNKNOWN, bits_rate_unit, count, duration, percent, size
from ebpftop.model import Connections, Snapshot
from ebpftop.ranking import Filter
from ebpftop.sources.balancing import CONNECTIONS
from ebpftop.sources.live import LiveSource

SAMPLE_S = 1.0
"""Time over which `backends` measures rates."""
_HEALTH = {True: "healthy", False: "unhealthy", None: UNKNOWN}


@click.command()
@INTERFACE
@JSON
def backends(iface: str, as_json: bool) -> None:
    """List the backends of each VIP: their shares of new flows, and what they carry."""
    listed = report.backends(_measured(iface))
    if as_json:
        print_json(listed)
        return
    print_table(
        ["VIP", "BACKEND", "STATE", "HEALTH", "WEIGHT", "SHARE", "MEASURED", "FLOWS", "NEW",
         "PACKETS", "BYTES", "PPS", "BIT/S"],
        [
            [
                row["vip"], row["backend"], row["state"], _HEALTH[row["healthy"]],
                str(row["weight"]), percent(row["share"]), percent(row["measured_share"]),
                count(row["connections"]), count(row["new"]), count(row["packets"]),
                size(row["bytes"]), count(row["pps"]), bits_rate_unit(row["bps"]),
            ]
            for row in listed
        ],
        left=4,
    )  # fmt: skip


def _measured(iface: str) -> Snapshot:
    source = LiveSource(watched(iface))
    try:
        snapshot = source.snapshot()
        if len(snapshot.backends):
            time.sleep(SAMPLE_S)
            snapshot = source.snapshot()
        return snapshot
    finally:
        source.close()


@click.command()
@INTERFACE
@click.option("-n", "rows", type=COUNT, default=None, help="How many rows; all without it.")
@click.option("--filter", "expression", default="", metavar="EXPR",
              help="Only flows that pass, as in 'client:10.0.0.0/8 state:udp'.")  # fmt: skip
@JSON
def connections(iface: str, rows: int | None, expression: str, as_json: bool) -> None:
    """List the flows through VIPs, those of the most packets first."""
    only = Filter.parse(expression, report.CONNECTION_FIELDS)
    source = LiveSource(watched(iface))
    source.wants = frozenset((CONNECTIONS,))
    try:
        snapshot = source.snapshot()
    finally:
        source.close()
    held = snapshot.connections or Connections.empty()
    chosen = report.chosen_connections(held, snapshot.clock, count=rows, only=only)
    listed = report.connections(held, snapshot.clock, chosen.tolist())
    if as_json:
        print_json(listed)
    else:
        _print_connections(listed)


def _print_connections(listed: list[dict[str, Any]]) -> None:
    print_table(
        ["CLIENT", "VIP", "BACKEND", "STATE", "PACKETS", "BYTES", "AGE", "IDLE"],
        [
            [
                row["client"], row["vip"], row["backend"] or UNKNOWN, row["state"],
                count(row["packets"]), size(row["bytes"]), duration(row["age_s"]),
                duration(row["idle_s"]),
            ]
            for row in listed
        ],
        left=4,
    )  # fmt: skip
