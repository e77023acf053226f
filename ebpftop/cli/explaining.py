# SPDX-License-Identifier: Apache-2.0
"""The verb that says what would become of a packet: explain."""

from __future__ import annotations

from contextlib import closing

import click

from ebpftop.cli.output import print_json, print_pairs
from ebpftop.cli.parameters import INTERFACE, JSON, SERVICE, require_root, watched
from ebpftop.control.explaining import explain as explain_packet
from ebpftop.format import parse_service
from ebpftop.kernel.netlink.links import netlink
from ebpftop.model import Service


@click.command()
@INTERFACE
@click.argument("client", metavar="CLIENT:PORT")
@click.argument("vip", metavar="VIP", type=SERVICE)
@JSON
def explain(iface: str, client: str, vip: Service, as_json: bool) -> None:
    """Say what would become of a packet from a client to a VIP, and why; changes nothing."""
    require_root("running a program")
    source = parse_service(client, vip.protocol)
    with closing(watched(iface)) as instance:
        with netlink() as socket:
            index = socket.link(iface).index
        told = explain_packet(instance, index, source, vip)
    backend = told.backend.endpoint if told.backend else None
    answer = {
        "client": source.endpoint,
        "vip": str(vip),
        "verdict": told.verdict,
        "reason": told.reason or None,
        "backend": backend,
        "placement": told.placement,
        "why": told.why,
    }
    if as_json:
        print_json(answer)
    else:
        print_pairs({name: value or "none" for name, value in answer.items()})
