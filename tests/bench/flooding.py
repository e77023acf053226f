# SPDX-License-Identifier: Apache-2.0
"""A flood that is dropped: how fast it goes, and what a client has left; beside nftables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from ebpftop import lab as labs
from ebpftop.config import Policy
from ebpftop.control import policy as policies
from ebpftop.control.protection import ProtectionControl
from ebpftop.kernel import bpffs
from ebpftop.lab.traffic import BULK_PORT
from ebpftop.model import BlockRequest, Prefix
from tests.bench.figures import Figure, Row
from tests.bench.machine import lacks
from tests.bench.registry import Effort, measurement

SECONDS = 1.0
ROUNDS = 5
CLIENT_MBIT = 500
CLIENT_PPS = CLIENT_MBIT * 1e6 / 8 / 1500
TIMES = 10
"""How many times the client's packets the flood is."""
WARM_UP_S = 0.5


@contextmanager
def _by_nothing(_: labs.Lab) -> Iterator[None]:
    yield


@contextmanager
def _by_ebpftop(lab: labs.Lab) -> Iterator[None]:
    with labs.joined(lab.server):
        instance = policies.attach(["eth0"], Policy(), mode="auto", path=None, pinned=False)
        try:
            block = BlockRequest(Prefix.parse(lab.attacker.ipv4), None)
            ProtectionControl(instance).block_all([block], override=True)
            yield
        finally:
            with bpffs.locked(instance.name):
                instance.remove()


@contextmanager
def _by_nft(lab: labs.Lab, chain: str) -> Iterator[None]:
    rule = f"ip saddr {lab.attacker.ipv4} counter drop"
    family = "netdev" if "device" in chain else "inet"
    rules = f"table {family} drops {{ chain c {{ type filter hook {chain}; {rule}; }}; }}"
    lab.server.run(["nft", rules])
    yield


@contextmanager
def _by_nft_ingress(lab: labs.Lab) -> Iterator[None]:
    with _by_nft(lab, "ingress device eth0 priority -500"):
        yield


@contextmanager
def _by_nft_input(lab: labs.Lab) -> Iterator[None]:
    with _by_nft(lab, "input priority 0"):
        yield


_TC_LIMIT = [
    "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", f"{CLIENT_MBIT}mbit", "burst",
    "128kb", "latency", "20ms",
]  # fmt: skip
_WAYS: dict[str, Callable[[labs.Lab], AbstractContextManager[None]]] = {
    "ebpftop": _by_ebpftop,
    "nftables, ingress": _by_nft_ingress,
    "nftables, input": _by_nft_input,
    "nothing": _by_nothing,
}


@contextmanager
def _networks() -> Iterator[tuple[dict[str, labs.Lab], str]]:
    """Build a network for each way; yields them, and why some are left out."""
    reason = lacks("nftables")
    with ExitStack() as stack:
        built = {}
        for name, way in _WAYS.items():
            if not (reason and name.startswith("nftables")):
                built[name] = stack.enter_context(labs.Lab(clients=1))
                stack.enter_context(way(built[name]))
                labs.serve_bulk(built[name].server).wait_ready()
                built[name].clients[0].run(_TC_LIMIT)
        yield built, reason


def _with_reason(rows: list[Row], reason: str) -> list[Row]:
    return [*rows, Row("nftables", skipped=reason)] if reason else rows


@measurement(
    "dropping",
    "A flood from one address, dropped",
    place=61,
    note="What one core sends as fast as it can through a veth pair, whose other end drops it on"
    " the same core: the less a drop costs, the more it is. By turns, in a network for each. For"
    " XDP, a veth pair first copies each packet into a page, which hardware does not, and"
    " nftables is spared.",
)
def dropping(effort: Effort) -> Sequence[Row]:
    """Flood as fast as one core can, by turns."""
    found: dict[str, list[float]] = {}
    with _networks() as (networks, reason):
        for _ in range(min(ROUNDS, effort.rounds)):
            for name, lab in networks.items():
                sent = labs.flood(lab.attacker, lab.server, "udp", seconds=SECONDS).wait(20)
                rate = sent["sent_packets"] / sent["seconds"] / 1e3
                found.setdefault(name, []).append(rate)
    best = "nftables, ingress"
    rows = [
        Row(name, "thousand packets/s", samples,
            *((best, found[best]) if name == "ebpftop" and best in found else ()))
        for name, samples in found.items()
    ]  # fmt: skip
    return _with_reason(rows, reason)


@measurement(
    "goodput",
    "A client while a flood is dropped",
    place=62,
    note=f"What arrives of one TCP upload whose host sends {CLIENT_MBIT} Mbit/s at most, while"
    f" another host floods its port with {TIMES} times as many connection requests, or as many"
    " as one core can. By turns, in a network for each. The sender's core does the server's"
    " work on its packets here, so that what an undropped flood costs slows the flood too.",
)
def goodput(effort: Effort) -> Sequence[Row]:
    """Measure an upload, without the flood and with it."""
    found: dict[str, list[tuple[float, float]]] = {}
    with _networks() as (networks, reason):
        for _ in range(min(ROUNDS, effort.rounds)):
            for name, lab in networks.items():
                if name == "nothing":
                    found.setdefault("no flood", []).append(_upload(lab, flooded=False))
                found.setdefault(name, []).append(_upload(lab, flooded=True))
    arrived = {name: [mbit for mbit, _ in samples] for name, samples in found.items()}
    rows = []
    for name, samples in found.items():
        protected = name not in ("nothing", "no flood")
        sent = round(Figure.of([pps for _, pps in samples]).median)
        rows.append(
            Row(
                name, "Mbit/s", arrived[name],
                peer="nothing" if protected else "",
                peer_samples=arrived["nothing"] if protected else (),
                details={"flood_packets_per_s": sent} if sent else {},
            )
        )  # fmt: skip
    return _with_reason(rows, reason)


def _upload(lab: labs.Lab, *, flooded: bool) -> tuple[float, float]:
    """Return the megabits a second of an upload, and the packets a second of the flood."""
    attack = None
    if flooded:
        pps = round(CLIENT_PPS * TIMES)
        attack = labs.flood(lab.attacker, lab.server, "syn", pps=pps, seconds=60, port=BULK_PORT)
        attack.wait_ready()
    client = lab.clients[0]
    transfer = labs.transfer_bulk(client, lab.server.ipv4, way="up")
    transfer.wait_ready()
    time.sleep(WARM_UP_S + SECONDS)
    told = transfer.stop()
    sent = attack.stop() if attack is not None else {"sent_packets": 0, "seconds": 1}
    samples = [(at_s, octets) for at_s, octets in told["samples"] if at_s >= WARM_UP_S]
    (first_s, first), (last_s, last) = samples[0], samples[-1]
    mbit = (last - first) * 8 / 1e6 / (last_s - first_s)
    return max(mbit, 0.001), sent["sent_packets"] / sent["seconds"]
