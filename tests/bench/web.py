# SPDX-License-Identifier: Apache-2.0
"""The highest rate of real web requests through a VIP, beside nftables' destination NAT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from ebpftop import lab as labs
from tests.bench.figures import Row
from tests.bench.machine import lacks
from tests.bench.registry import Effort, measurement
from tests.bench.vip import VIP, by_ebpftop, by_nftables, requests_per_s, web_servers

BACKENDS = 2
SECONDS = 1
ROUNDS = 5
WAYS = {"a connection for each request": False, "connections kept": True}

Way = Callable[[labs.Lab, Sequence[labs.Host]], AbstractContextManager[None]]


@measurement(
    "web",
    "Web requests through a VIP",
    place=60,
    note="wrk with 32 connections on one host, nginx on two others, all of it on the cores of one"
    " machine: the web servers take most of them, and the ratio is of the whole. Every answer"
    " goes back through the balancer, too. By turns, in two networks.",
)
def web(effort: Effort) -> Sequence[Row]:
    """Measure each way by turns."""
    for tool in ("wrk", "nginx"):
        if reason := lacks(tool):
            return [Row("web requests", skipped=reason)]
    ways: dict[str, Way] = {"ebpftop": by_ebpftop}
    reason = lacks("nftables")
    if not reason:
        ways["nftables"] = by_nftables
    found: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        clients = {name: stack.enter_context(_balanced(way)) for name, way in ways.items()}
        for _ in range(min(ROUNDS, effort.rounds)):
            for way, keep in WAYS.items():
                for name, client in clients.items():
                    rate = requests_per_s(client, VIP, SECONDS, keep_alive=keep)
                    found.setdefault((name, way), []).append(rate)
    answer = []
    for (name, way), samples in found.items():
        theirs = found.get(("nftables", way), []) if name == "ebpftop" else []
        peer = "nftables" if theirs else ""
        answer.append(Row(f"{name}, {way}", "requests/s", samples, peer, theirs))
    return [*answer, Row("nftables", skipped=reason)] if reason else answer


@contextmanager
def _balanced(way: Way) -> Iterator[labs.Host]:
    """Build a network with a VIP; yields the client's host."""
    with labs.Lab(clients=1 + BACKENDS) as lab, ExitStack() as stack:
        backends = stack.enter_context(web_servers(lab))
        stack.enter_context(way(lab, backends))
        yield lab.clients[0]
