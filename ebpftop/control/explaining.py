# SPDX-License-Identifier: Apache-2.0
"""What would become of a packet, and why: asked of the program itself, which changes nothing.

The `explain` program is the pipeline with every write to a map compiled out.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

from ebpftop.bpf import balancer_records, layout
from ebpftop.control.vip_table import VipTable
from ebpftop.errors import UsageError
from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import Instance
from ebpftop.model import Service, Vip

VERDICTS = ("aborted", "dropped", "passed", "transmitted", "redirected")
"""Words for XDP's actions, in the order of linux/bpf.h."""
ALGORITHM_WORDS = {
    "rr": "whose turn it is",
    "wrr": "whose turn it is, by weight",
    "least": "that has the fewest flows for its weight",
    "maglev": "that its hash names",
}
REASON_WORDS = {
    "blocked": "its address is blocked",
    "blocked-prefix": "a prefix that it is in is blocked",
    "blocked-auto": "it is blocked automatically, for being over a limit",
    "limit-pps": "it is over the limit of packets a second",
    "limit-bps": "it is over the limit of bits a second",
    "limit-syn": "it is over the limit of connection requests a second",
    "new-source": "too many new sources came, and the policy drops those",
    "no-backend": "no backend takes it",
    "no-next-hop": "no way to its backend is known",
    "flow-collision": "its backend could not tell it from a flow of another VIP",
}
"""Why packets of a connection's first kind are dropped, by the words of `layout.REASONS`."""


class Placement(IntEnum):
    """`enum placement`: how a packet's backend was found."""

    NOT = 0
    FLOW = 1
    TURN = 2
    LEAST = 3
    HASH = 4
    MOVED = 5
    REPLY = 6


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of the first packet of a flow, or the next of one that there is."""

    verdict: str
    """A word of `VERDICTS`."""
    reason: str
    """A word of `layout.REASONS` where it is dropped, or would be without the dry run."""
    backend: Service | None
    """Where it would go, None where it goes to none."""
    placement: str
    """How that was found, `Placement` in lower case."""
    why: str
    """All of it in words."""


def explain(instance: Instance, interface: int, client: Service, vip: Service) -> Explanation:
    """Ask what would become of a packet.

    Args:
        instance: Open for writing, since only then its programs are.
        interface: Number of the interface that it would come in by.
        client: From where; of the VIP's protocol.
        vip: Where to.

    Raises:
        NotFoundError: There is no such VIP.
        UsageError: The client is of the other IP version.
        OSError: The kernel refused.
    """
    table = VipTable(instance.maps)
    wanted = table.vip(table.require(vip))
    if client.address.is_ipv4 != vip.address.is_ipv4:
        raise UsageError(f"{client.endpoint} is of the other IP version than {vip}")
    frame = first_frame(client, vip)
    context = struct.pack("=IIIIII", 0, len(frame), 0, interface, 0, 0)
    told = libbpf.run_program(instance.programs["explain"], frame, context=context)[0]
    number = told >> 16
    backend = (
        balancer_records.service(table.backends["service"][number])
        if 0 < number < layout.BACKENDS and table.backends["id"][number]
        else None
    )
    verdict = VERDICTS[min(told & 15, len(VERDICTS) - 1)]
    reason = layout.REASONS[told >> 8 & 0xFF]
    placement = Placement(told >> 4 & 15)
    if verdict == "dropped" and reason:
        backend = None
    why = _why(wanted, verdict, reason, placement, backend)
    return Explanation(verdict, reason, backend, placement.name.lower(), why)


def _why(vip: Vip, verdict: str, reason: str, placement: Placement, backend: Service | None) -> str:
    said = REASON_WORDS.get(reason, reason)
    if verdict == "dropped":
        return f"it is dropped: {said}"
    spared = f"it would be dropped, but for the dry run: {said}; " if reason else ""
    if backend is None:
        return f"{spared}it is left to this host's stack"
    return spared + "; ".join([_placed(vip, placement, backend), _leaves(verdict)])


def _placed(vip: Vip, placement: Placement, backend: Service) -> str:
    if placement == Placement.FLOW:
        return f"its flow is known, and is that of {backend.endpoint}"
    if placement == Placement.MOVED:
        return f"its flow's backend no longer serves it, and it is moved to {backend.endpoint}"
    if placement == Placement.HASH and vip.algorithm != "maglev":
        return (
            f"no further flows are tracked at this moment, and {backend.endpoint} is the one "
            "that its hash names"
        )
    return f"its flow is new, and {backend.endpoint} is the one {ALGORITHM_WORDS[vip.algorithm]}"


def _leaves(verdict: str) -> str:
    return {
        "transmitted": "it leaves by the interface that it came by",
        "redirected": "it leaves by another interface",
        "passed": "the way there is not known yet: this host's stack finds it and sends it on",
    }.get(verdict, verdict)


def first_frame(client: Service, vip: Service) -> bytes:
    """Return the frame that begins a flow: a TCP SYN, or a UDP datagram.

    Its checksums are zero: the program keeps them right, and asks for none.
    """
    if vip.protocol == "tcp":
        number, flags = socket.IPPROTO_TCP, 0x02
        carried = struct.pack("!HHIIBBHHH", client.port, vip.port, 1, 0, 0x50, flags, 65535, 0, 0)
    else:
        number = socket.IPPROTO_UDP
        carried = struct.pack("!HHHH16x", client.port, vip.port, 24, 0)
    source, destination = client.address.to_bytes(), vip.address.to_bytes()
    if vip.address.is_ipv4:
        packet = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(carried), 1, 0, 64, number, 0, source[12:],
            destination[12:],
        )  # fmt: skip
        ethertype = 0x0800
    else:
        packet = struct.pack("!IHBB16s16s", 6 << 28, len(carried), number, 64, source, destination)
        ethertype = 0x86DD
    return bytes(12) + struct.pack("!H", ethertype) + packet + carried
