# SPDX-License-Identifier: Apache-2.0
"""A download through a traffic class, beside HTB by hand and nftables' limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

from ebpftop import lab as labs
from ebpftop.config import Policy
from ebpftop.control import policy as policies
from ebpftop.control.class_states import ClassRequest
from ebpftop.control.shaping import ShapingControl
from ebpftop.kernel import bpffs
from ebpftop.model import ClassKey, Prefix, TrafficClass
from tests.bench.figures import Row
from tests.bench.machine import lacks
from tests.bench.registry import Effort, measurement

LIMIT_BPS, WIDE_BPS = 200_000_000, 100_000_000_000
BURST_BYTES = {LIMIT_BPS: 250_000, WIDE_BPS: 1 << 27}
ROUNDS = 3
WARM_UP_S, SECONDS = 0.6, 1.0
LIMITS = {"held to 200 Mbit/s": LIMIT_BPS, "a class that never limits": WIDE_BPS}

Way = Callable[[labs.Lab, int], AbstractContextManager[None]]


@contextmanager
def _by_ebpftop(lab: labs.Lab, rate_bps: int, *, action: str) -> Iterator[None]:
    with labs.joined(lab.server):
        instance = policies.attach(["eth0"], Policy(), mode="auto", path=None, pinned=False)
        try:
            # Of the burst that it chooses by itself, as that is what a user gets.
            wanted = TrafficClass(ClassKey("bench"), rate_bps, 0, action)
            members = [Prefix.parse(lab.clients[0].ipv4)]
            ShapingControl(instance).apply([ClassRequest(wanted, members)])
            yield
        finally:
            with labs.joined(lab.server), bpffs.locked(instance.name):
                ShapingControl(instance, part_of_act=True).apply([])
                instance.remove()


@contextmanager
def _by_htb(lab: labs.Lab, rate_bps: int) -> Iterator[None]:
    client = lab.clients[0].ipv4
    burst = BURST_BYTES[rate_bps]
    for words in (
        "qdisc add dev eth0 root handle 1: htb",
        f"class add dev eth0 parent 1: classid 1:1 htb rate {rate_bps}bit burst {burst}",
        f"filter add dev eth0 parent 1: u32 match ip dst {client}/32 flowid 1:1",
    ):
        lab.server.run(["tc", *words.split()])
    yield


@contextmanager
def _by_nftables(lab: labs.Lab, rate_bps: int) -> Iterator[None]:
    # A limit is at most 2^32 bytes a second in nftables' own units.
    rate = min(rate_bps // 8, 4_000_000_000) // 1000
    burst = BURST_BYTES[rate_bps] // 1000
    rule = f"ip daddr {lab.clients[0].ipv4} limit rate over {rate} kbytes/second"
    rule += f" burst {burst} kbytes drop"
    chain = f"chain c {{ type filter hook output priority 0; {rule}; }}"
    lab.server.run(["nft", f"table inet shape {{ {chain}; }}"])
    yield


_WAYS: dict[str, Way] = {
    "ebpftop, auto": partial(_by_ebpftop, action="auto"),
    "ebpftop, police": partial(_by_ebpftop, action="police"),
    "HTB": _by_htb,
    "nftables' limit": _by_nftables,
    "nothing": lambda _lab, _rate_bps: nullcontext(),
}


@measurement(
    "queueing",
    "A download through a traffic class",
    place=63,
    note="One TCP connection, out of a lab's server. A class that never limits shows what"
    " classifying costs on the way: the connection takes all of a core. By turns, in a network"
    " for each.",
)
def queueing(effort: Effort) -> Sequence[Row]:
    """Measure downloads by turns."""
    reasons = {"nftables' limit": lacks("nftables"), "HTB": lacks("HTB")}
    answer: list[Row] = []
    for title, rate_bps in LIMITS.items():
        found: dict[str, list[float]] = {}
        with ExitStack() as stack:
            networks = {}
            for name, way in _WAYS.items():
                if not reasons.get(name):
                    networks[name] = stack.enter_context(labs.Lab(clients=1))
                    stack.enter_context(way(networks[name], rate_bps))
                    labs.serve_bulk(networks[name].server).wait_ready()
            for _ in range(min(ROUNDS, effort.rounds)):
                for name, lab in networks.items():
                    found.setdefault(name, []).append(_download_mbit(lab))
        answer += _rows(title, found)
    return answer + [Row(name, skipped=reason) for name, reason in reasons.items() if reason]


def _rows(title: str, found: dict[str, list[float]]) -> list[Row]:
    peer = ("HTB", found["HTB"]) if "HTB" in found else ()
    return [
        Row(f"{name}, {title}", "Mbit/s", samples, *(peer if name.startswith("ebpftop") else ()))
        for name, samples in found.items()
    ]


def _download_mbit(lab: labs.Lab) -> float:
    transfer = labs.transfer_bulk(lab.clients[0], lab.server.ipv4)
    transfer.wait_ready()
    time.sleep(WARM_UP_S + SECONDS)
    samples = [each for each in transfer.stop()["samples"] if each[0] >= WARM_UP_S]
    (first_s, first), (last_s, last) = samples[0], samples[-1]
    return float((last - first) * 8 / 1e6 / (last_s - first_s))
