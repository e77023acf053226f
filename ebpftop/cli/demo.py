# SPDX-License-Identifier: Apache-2.0
"""`ebpftop demo`: a network on this machine, with real servers, clients and a flood."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from tempfile import TemporaryDirectory
from typing import Any

import click
import msgspec

from ebpftop import lab as labs
from ebpftop import report
from ebpftop.cli.dashboard import Session, show
from ebpftop.cli.output import print_json, print_pairs, print_table
from ebpftop.cli.parameters import JSON, require_root
from ebpftop.config import AuditPolicy, CapacityPolicy, ClassPolicy, LimitPolicy, Policy
from ebpftop.config.balancing import BackendPolicy, CheckPolicy, VipPolicy
from ebpftop.config.dashboard import load_settings
from ebpftop.config.values import (
    EndpointText,
    PositiveSeconds,
    Prefixes,
    RateBps,
    Seconds,
    ServiceText,
)
from ebpftop.control import policy as policies
from ebpftop.control.everything import InstanceControl
from ebpftop.control.holding import Holding
from ebpftop.errors import EbpftopError
from ebpftop.format import UNKNOWN, bits_rate_unit, count, duration, rate_text
from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import Instance
from ebpftop.model import Event, Prefix, Snapshot
from ebpftop.sources.balancing import CONNECTIONS
from ebpftop.sources.live import LiveSource

DEFAULT_S = 10.0
TICK_S = 0.5

POLICY = Policy(
    limits=LimitPolicy(pps=2000, syn=200, grace_s=Seconds(1.0), block_for_s=Seconds(15.0)),
    capacity=CapacityPolicy(sources=16_384, blocks=4096, prefixes=1024, connections=65_536),
    classes=(
        ClassPolicy(
            name="downloads",
            rate_bps=RateBps(20_000_000),
            addresses=Prefixes([Prefix.parse(labs.DOWNLOADER)]),
        ),
    ),
    vips=(
        VipPolicy(
            address=ServiceText(f"{labs.VIP4}:80/tcp"),
            check=CheckPolicy(
                kind="http",
                interval_s=PositiveSeconds(0.4),
                timeout_s=PositiveSeconds(0.3),
                fall=2,
            ),
            backends=tuple(
                BackendPolicy(address=EndpointText(f"{address}:80"))
                for address in labs.DEMO_BACKENDS
            ),
        ),
    ),
)
"""Limits that the clients stay far below and the flood is far above, a shaped download, a VIP."""


@click.command()
@click.option("--for", "seconds", type=click.FloatRange(3, 3600), metavar="SECONDS",
              help="Without the dashboard: run so long and print a report.")  # fmt: skip
@JSON
def demo(seconds: float | None, as_json: bool) -> None:
    """Build a small network on this machine, flood it, and watch it being protected."""
    require_root("the demo")
    signals = _note_signals()
    bpffs.mount(lasting=False)
    watched = seconds is None and not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        with labs.demo_lab() as lab, labs.joined(lab.server), _attached(lab) as instance:
            _leave_if_told(signals)
            if watched:
                _open_dashboard(lab, instance, signals)
                return
            answer = _measure(lab, instance, seconds or DEFAULT_S, signals)
    except EbpftopError:
        # What tells us to end may have ended a child of ours too.
        _leave_if_told(signals)
        raise
    if as_json:
        print_json(answer)
    else:
        _print(answer)


def _note_signals() -> list[int]:
    """Return a list that will hold what told this process to end, a closed terminal included.

    Leaving from within a handler could lose a process that is being started.
    """
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves SIGHUP
            signal.signal(number, lambda number, _: signals.append(number))
    return signals


def _leave_if_told(signals: list[int]) -> None:
    if signals:
        raise SystemExit(128 + signals[0])


@contextmanager
def _attached(lab: labs.Lab) -> Iterator[Instance]:
    with TemporaryDirectory(prefix="ebpftop-demo-") as folder:
        # What is done in the demo is nobody's business on this machine.
        audit = AuditPolicy(path=f"{folder}/acts.jsonl")
        policy = msgspec.structs.replace(POLICY, audit=audit)
        instance = policies.attach(
            [lab.server.interface], policy, mode="auto", path=None, pinned=False
        )
        try:
            yield instance
        finally:
            with bpffs.locked(instance.name):
                instance.remove()


def _open_dashboard(lab: labs.Lab, instance: Instance, signals: list[int]) -> None:
    traffic = labs.start_demo_traffic(lab)
    _leave_if_told(signals)
    session = Session(Instance(instance.folder, read_only=False), instance, ours=True)
    show(session, load_settings(), interval_s=1.0, keep=False)
    traffic.stop()


def _measure(
    lab: labs.Lab, instance: Instance, seconds: float, signals: list[int]
) -> dict[str, Any]:
    """Run the traffic, and return the report."""
    holding = Holding(instance, InstanceControl(instance))
    source = LiveSource(Instance(instance.folder, read_only=False))
    source.wants = frozenset((CONNECTIONS,))
    told: list[Event] = []
    try:
        traffic = labs.start_demo_traffic(lab)
        holding.start()
        ends_s = time.monotonic() + seconds
        while True:
            _leave_if_told(signals)
            snapshot = source.snapshot()
            told += snapshot.events
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                break
            time.sleep(min(TICK_S, left_s))
        done = traffic.stop()
    finally:
        holding.stop()
        source.close()
    return _report(snapshot, told, done, seconds)


def _report(
    snapshot: Snapshot, told: list[Event], traffic: labs.TrafficReport, seconds: float
) -> dict[str, Any]:
    answer = report.everything(snapshot, told)
    attacker = next((row for row in answer["top"] if row["address"] == traffic.flood.address), None)
    return {
        "seconds": seconds,
        **answer,
        "download": asdict(traffic.download),
        "balanced": asdict(traffic.balanced) if traffic.balanced else None,
        "clients": [asdict(client) for client in traffic.clients],
        "flood": {
            **asdict(traffic.flood),
            "received_packets": attacker["packets"] if attacker else 0,
            "dropped_packets": attacker["dropped"] if attacker else 0,
            "blocked": any(b["address"] == traffic.flood.address for b in answer["blocks"]),
        },
    }


def _print(answer: dict[str, Any]) -> None:
    flood = answer["flood"]
    received = flood["received_packets"]
    share = flood["dropped_packets"] / received if received else 0.0
    print_pairs(
        {
            "interface": ", ".join(
                f"{i['name']} ({i['mode']})" for i in answer["status"]["interfaces"]
            ),
            "flood": f"{flood['address']}, {count(flood['sent_packets'])} packets",
            "dropped": f"{count(flood['dropped_packets'])} of {count(received)} ({share:.1%})",
            "blocked": "automatically" if flood["blocked"] else "no",
            "shaped": "; ".join(map(_class_words, answer["classes"])) or "nothing",
            "balanced": _balanced_words(answer),
        }
    )
    click.echo()
    print_table(
        ["CLIENT", "REQUESTS", "FAILED", "MEDIAN", "P99"],
        [
            [
                c["address"], str(c["requests"]), str(c["failed"]),
                _latency(c["p50_ms"]), _latency(c["p99_ms"]),
            ]
            for c in answer["clients"]
        ],
    )  # fmt: skip
    click.echo()
    for event in answer["events"]:
        at = duration(max(0.0, event["time"] - answer["events"][0]["time"]))
        click.echo(f"{at:>6}  {event['kind']:<12} {event['address'] or ''} {event['detail']}")


def _class_words(row: dict[str, Any]) -> str:
    now = bits_rate_unit(row["bps"])
    return f"{row['class']} at {now} of {rate_text(row['rate_bps'])}, by {row['action']}"


def _balanced_words(answer: dict[str, Any]) -> str:
    balanced = answer["balanced"]
    shares = ", ".join(f"{row['backend']} {row['new']}" for row in answer["backends"])
    return (
        f"{count(balanced['requests'])} requests to {balanced['vip']}, "
        f"{count(balanced['failed'])} failed; connections: {shares}"
    )


def _latency(latency_ms: float | None) -> str:
    return UNKNOWN if latency_ms is None else f"{latency_ms:.1f} ms"
