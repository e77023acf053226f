# SPDX-License-Identifier: Apache-2.0
"""Servers behind a balancer: a lab's server is their director, with one arm or two.

With one arm, clients and backends share a wire, and not a network: what a backend answers
goes through the director. With two, the backends' wire is another, on the director's `eth1`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

from ebpftop.kernel import libbpf
from ebpftop.lab.hosts import Backend, Host
from ebpftop.lab.namespace import Namespace, batch, joined, set_sysctls, switch_off_tx_checksums

VIP4, VIP6 = "198.18.0.100", "fd00:198:18:100::1"
"""Addresses of the director that no other service has."""
DSR_VIP4, DSR_VIP6 = "198.18.0.101", "fd00:198:18:101::1"
"""The same, which the backends own too, on their loopback."""
SECOND_ARM = "eth1"
"""The director's interface on the backends' wire, where that is another."""

_DIRECTOR4, _DIRECTOR6 = "192.0.2.1", "fd00:192:0:2::1"
_SECOND_ARM_MAC = "02:65:62:70:67:01"
_DSR_TABLE = 100
_BPF_PROG_TYPE_XDP = 6
_XDP_PASS = struct.pack("<BBhi", 0xB7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0)
"""r0 = XDP_PASS; exit."""


def build(wire: Namespace, director: Host, backends: Sequence[Backend], *, arms: int) -> list[int]:
    """Put backends behind a director; all of them are on the clients' wire already.

    Args:
        wire: Where the bridge is.
        director: Who balances.
        backends: The servers.
        arms: 2 moves the backends to a wire of their own.

    Returns:
        File descriptors that must stay open as long as packets are to get through.
    """
    ports, arm = [director.name], director.interface
    if arms == 2:
        ports.append("back")
        arm = SECOND_ARM
        _add_second_arm(wire, director, backends)
    _build_director(director, arm)
    for backend in backends:
        _build_backend(backend)
    return [_let_pass(wire, port) for port in ports]


def _add_second_arm(wire: Namespace, director: Host, backends: Sequence[Backend]) -> None:
    wire.ip(
        "link add br1 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        "link set br1 up",
        f"link add back type veth peer name {SECOND_ARM} address {_SECOND_ARM_MAC}"
        f" netns {director.netns}",
        "link set back master br1 up",
        *(f"link set {backend.name} master br1" for backend in backends),
    )
    macs = {"back": _SECOND_ARM_MAC, **{backend.name: backend.mac for backend in backends}}
    known = [f"fdb replace {mac} dev {port} master static" for port, mac in macs.items()]
    batch("bridge", known, netns=wire.netns)
    with joined(director):
        set_sysctls({f"ipv6/conf/{SECOND_ARM}/accept_dad": "0"})
        switch_off_tx_checksums(SECOND_ARM)
    director.ip(f"link set {SECOND_ARM} up")


def _build_director(director: Host, arm: str) -> None:
    with joined(director):
        set_sysctls(
            {
                # A packet whose next hop is not known yet is the stack's to send on.
                "ipv4/ip_forward": "1",
                "ipv6/conf/all/forwarding": "1",
                "ipv4/conf/all/send_redirects": "0",
                f"ipv4/conf/{arm}/send_redirects": "0",
                f"ipv4/conf/{arm}/rp_filter": "0",
            }
        )
    director.ip(
        f"address add {_DIRECTOR4}/24 dev {arm}",
        f"address add {_DIRECTOR6}/64 dev {arm} nodad",
        *(
            f"address add {vip} dev {director.interface}{' nodad' if ':' in vip else ''}"
            for vip in (VIP4, VIP6, DSR_VIP4, DSR_VIP6)
        ),
    )


def _build_backend(backend: Backend) -> None:
    with joined(backend):
        set_sysctls(
            {
                # Who owns a VIP on its loopback must not say so on the wire.
                "ipv4/conf/all/arp_ignore": "1",
                "ipv4/conf/all/arp_announce": "2",
            }
        )
    backend.ip(
        f"route add default via {_DIRECTOR4}",
        f"route add default via {_DIRECTOR6}",
        f"address add {DSR_VIP4} dev lo",
        f"address add {DSR_VIP6} dev lo nodad",
        f"rule add from {DSR_VIP4} lookup {_DSR_TABLE}",
        f"route add 198.18.0.0/15 dev {backend.interface} table {_DSR_TABLE}",
        f"route add fd00:198:18::/48 dev {backend.interface} table {_DSR_TABLE}",
    )
    # A line of a batch takes the family from its first address, but for rules.
    backend.run(["ip", "-6", "rule", "add", "from", DSR_VIP6, "lookup", str(_DSR_TABLE)])


def _let_pass(wire: Namespace, port: str) -> int:
    """Attach a program that passes all: without one, a veth takes no frames from XDP."""
    program = libbpf.call(
        "bpf_prog_load", _BPF_PROG_TYPE_XDP, b"lab_pass", b"GPL", _XDP_PASS, 2, None
    )
    try:
        with joined(wire):
            return libbpf.attach_xdp(program, socket.if_nametoindex(port), native=True)
    finally:
        os.close(program)
