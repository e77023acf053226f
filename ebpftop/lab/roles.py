# SPDX-License-Identifier: Apache-2.0
"""What a traffic process of a lab does: `python -m ebpftop.lab.roles ROLE --OPTION=VALUE`.

Each runs inside a host's namespace, prints one JSON line when it is ready, and another with
its result when it ends: at SIGTERM, or by itself where its time is limited.
"""

from __future__ import annotations

import argparse
import signal
import socket
import threading
import time
from contextlib import suppress

from ebpftop.lab.reporting import StopSignal, report
from ebpftop.lab.web_clients import load_http, request_http
from ebpftop.lab.web_server import serve_http

_UDP_PAYLOAD = b"ebpftop: innocent traffic\n"
_BULK_BYTES = 1 << 16
_DOWNLOAD, _UPLOAD = b"d", b"u"
_SAMPLE_S = 0.05
_SAMPLES_KEPT = 12_000


def send_udp(options: argparse.Namespace) -> None:
    """Send small datagrams steadily, from each source address in turn; report their number."""
    stopping = StopSignal()
    senders: dict[str, socket.socket] = {}
    for address in options.sources.split(","):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        senders[address] = socket.socket(family, socket.SOCK_DGRAM)
        senders[address].bind((address, 0))
    sent = dict.fromkeys(senders, 0)
    payload = _UDP_PAYLOAD.ljust(options.size, b".")
    addresses = list(senders)
    report({"ready": True})
    started_s = time.monotonic()
    total = 0
    while total != options.count and not stopping.wait(
        started_s + total / options.pps - time.monotonic()
    ):
        address = addresses[total % len(addresses)]
        senders[address].sendto(payload, (options.server, options.port))
        sent[address] += 1
        total += 1
    report({"sent_packets": total, "sent_packets_by_source": sent})


def serve_bulk(options: argparse.Namespace) -> None:
    """Send zeros to whoever asks for a download, and take what an upload brings, until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    listener = socket.create_server(
        ("::", options.port), family=socket.AF_INET6, dualstack_ipv6=True
    )
    threading.Thread(target=_accept_bulk, args=(listener,), daemon=True).start()
    report({"ready": True})
    signal.sigwait({signal.SIGTERM})
    report({})


def _accept_bulk(listener: socket.socket) -> None:
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=_serve_bulk, args=(peer,), daemon=True).start()


def _serve_bulk(peer: socket.socket) -> None:
    block = bytearray(_BULK_BYTES)
    with peer, suppress(OSError):
        if peer.recv(1) == _DOWNLOAD:
            while True:
                peer.sendall(block)
        while peer.recv_into(block):
            pass


def transfer_bulk(options: argparse.Namespace) -> None:
    """Download or upload without end over one connection until SIGTERM; report the bytes."""
    stopping = StopSignal()
    moved, failure = [0], [""]

    def move() -> None:
        block = bytearray(_BULK_BYTES)
        try:
            local = (options.source, 0) if options.source else None
            address = (options.server, options.port)
            with socket.create_connection(address, source_address=local) as peer:
                peer.sendall(_DOWNLOAD if options.way == "down" else _UPLOAD)
                while count := peer.recv_into(block) if options.way == "down" else peer.send(block):
                    moved[0] += count
        except OSError as error:
            failure[0] = str(error)

    report({"ready": True})
    started_s = time.monotonic()
    threading.Thread(target=move, daemon=True).start()
    samples = [(0.0, 0)]
    while not stopping.wait(_SAMPLE_S):
        samples.append((round(time.monotonic() - started_s, 4), moved[0]))
    report({"bytes": moved[0], "samples": samples[-_SAMPLES_KEPT:], "failure": failure[0]})


def flood(options: argparse.Namespace) -> None:
    """Send packets as fast as asked, for a limited time; report how many."""
    # Before the import, as numpy starts threads, and one of them would take the signal.
    stopping = StopSignal()
    # Only this role needs numpy, which costs as much to import as all the rest.
    from ebpftop.lab import frames

    batch = frames.FrameBatch(
        frames.Mode(options.mode),
        source=frames.Endpoint(options.source_mac, options.source, 0),
        target=frames.Endpoint(options.target_mac, options.target, options.port),
    )
    with frames.PacketSocket(options.interface) as output:
        report({"ready": True})
        stopping.wait(options.delay)
        report(frames.send(output, batch, options.pps, options.seconds, stopping.wait))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ebpftop.lab.roles", description=__doc__)
    roles = parser.add_subparsers(required=True)

    role = roles.add_parser("http-server")
    role.set_defaults(act=serve_http)
    role.add_argument("--port", type=int, required=True)
    role.add_argument("--name", default="", help="what it calls itself in its answers")
    role.add_argument("--fail-after", type=float, default=0.0, help="seconds; 0: never")
    role.add_argument("--fail-for", type=float, default=0.0, help="how long it then fails")
    role.add_argument("--fail-every", type=float, default=0.0, help="and from when to when again")

    role = roles.add_parser("http-client")
    role.set_defaults(act=request_http)
    role.add_argument("--server", required=True, help="address of the server")
    role.add_argument("--port", type=int, required=True)
    role.add_argument("--rate", type=float, required=True, help="requests a second")
    role.add_argument("--timeout", type=float, required=True, help="seconds for one request")
    role.add_argument("--count", type=int, required=True, help="requests in all; -1: no end")

    role = roles.add_parser("http-load")
    role.set_defaults(act=load_http)
    role.add_argument("--server", required=True, help="address of the server")
    role.add_argument("--port", type=int, required=True)
    role.add_argument("--parallel", type=int, required=True, help="connections at one time")
    role.add_argument("--count", type=int, required=True, help="connections in all; -1: no end")
    role.add_argument("--requests", type=int, required=True, help="requests of a connection")
    role.add_argument("--pause", type=float, required=True, help="seconds between them")
    role.add_argument("--timeout", type=float, required=True, help="seconds for one request")

    role = roles.add_parser("udp-client")
    role.set_defaults(act=send_udp)
    role.add_argument("--sources", required=True, help="its addresses, with commas between")
    role.add_argument("--server", required=True, help="address to send to")
    role.add_argument("--port", type=int, required=True)
    role.add_argument("--pps", type=float, required=True, help="packets a second, of all sources")
    role.add_argument("--count", type=int, required=True, help="packets in all; -1: no end")
    role.add_argument("--size", type=int, default=0, help="bytes of a datagram at least")

    role = roles.add_parser("bulk-server")
    role.set_defaults(act=serve_bulk)
    role.add_argument("--port", type=int, required=True)

    role = roles.add_parser("bulk-client")
    role.set_defaults(act=transfer_bulk)
    role.add_argument("--server", required=True, help="address of the server")
    role.add_argument("--port", type=int, required=True)
    role.add_argument("--way", choices=["down", "up"], required=True)
    role.add_argument("--source", default="", help="address to connect from")

    role = roles.add_parser("flood")
    role.set_defaults(act=flood)
    role.add_argument("--mode", required=True, help="udp, syn, spoofed or v6")
    role.add_argument("--interface", required=True)
    role.add_argument("--source-mac", required=True)
    role.add_argument("--source", required=True, help="address to send from")
    role.add_argument("--target-mac", required=True)
    role.add_argument("--target", required=True, help="address to send to")
    role.add_argument("--port", type=int, required=True, help="port to send to")
    role.add_argument("--pps", type=int, required=True, help="packets a second; 0: flat out")
    role.add_argument("--seconds", type=float, required=True, help="when to end")
    role.add_argument("--delay", type=float, required=True, help="seconds before the first")
    return parser


def main() -> None:
    """Play the role that the command line names."""
    options = _parser().parse_args()
    options.act(options)


if __name__ == "__main__":
    main()
