# SPDX-License-Identifier: Apache-2.0
"""What a traffic process of a lab does: `python -m ebpftop.lab.roles ROLE --OPTION=VALUE`.

Each runs inside a host's namespace, prints one JSON line when it is ready, and another with
its result when it ends: at SIGTERM, or by itself where its time is limited.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = b"<!doctype html><title>ebpftop demo</title><p>Served from a network namespace.</p>\n"
"""What the HTTP server answers to every GET."""

_LATENCIES_KEPT = 100_000
_UDP_PAYLOAD = b"ebpftop: innocent traffic\n"
_BULK_BYTES = 1 << 16
_DOWNLOAD, _UPLOAD = b"d", b"u"
_SAMPLE_S = 0.05
_SAMPLES_KEPT = 12_000


def report(result: Mapping[str, object]) -> None:
    """Print one JSON line for the process that started this one."""
    print(json.dumps(result), flush=True)


class StopSignal:
    """Takes SIGTERM from the process and turns it into an answer to `wait`."""

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self._came = False

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for the signal; return whether it has come, now or earlier."""
        if not self._came:
            self._came = signal.sigtimedwait({signal.SIGTERM}, max(0.0, timeout_s)) is not None
        return self._came


class _Server(ThreadingHTTPServer):
    """Listens on IPv4 and IPv6 at once, and says nothing about clients that break off."""

    address_family = socket.AF_INET6
    request_queue_size = 1024
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind to both families, whatever the namespace's `bindv6only` says."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # The base class would look its own name up, and there is no resolver in a lab.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a broken connection pass in silence."""


class _Handler(BaseHTTPRequestHandler):
    """Answers every GET with `PAGE`."""

    protocol_version = "HTTP/1.1"
    timeout = 10.0

    def do_GET(self) -> None:
        """Send the page."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep quiet: the dashboard owns the terminal."""


def serve_http(options: argparse.Namespace) -> None:
    """Serve the page on all addresses until SIGTERM."""
    # Before any thread starts, so that none of them is left to take the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with _Server(("::", options.port), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        report({"ready": True})
        signal.sigwait({signal.SIGTERM})
        server.shutdown()
    report({})


class _HttpClient:
    """Sends requests at a steady rate, whether or not earlier ones were answered."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._ok = 0
        self._failed = 0

    async def run(self) -> None:
        """Send until all are sent or SIGTERM comes, then report.

        Requests that are under way when the signal comes do not count.
        """
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        report({"ready": True})
        under_way: set[asyncio.Task[None]] = set()
        due_s = loop.time()
        for number in itertools.count():
            if number == self._options.count:
                await asyncio.gather(*under_way)
                break
            task = asyncio.create_task(self._request())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due_s = max(due_s + 1 / self._options.rate, loop.time())
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), due_s - loop.time())
                break
        for task in under_way:
            task.cancel()
        report(self._result())

    async def _request(self) -> None:
        started_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._options.timeout):
                good = await self._get()
        except OSError:
            good = False
        if good:
            self._ok += 1
            self._latencies_s.append(time.perf_counter() - started_s)
        else:
            self._failed += 1

    async def _get(self) -> bool:
        """Fetch the page over a connection of its own; return whether it came whole."""
        host, port = self._options.server, self._options.port
        reader, writer = await asyncio.open_connection(host, port)
        try:
            name = f"[{host}]" if ":" in host else host
            head = f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.read(-1)
        finally:
            writer.close()
        return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(PAGE)

    def _result(self) -> dict[str, object]:
        ordered = sorted(self._latencies_s)
        return {
            "requests": self._ok + self._failed,
            "failed": self._failed,
            "p50_ms": _percentile_ms(ordered, 50),
            "p99_ms": _percentile_ms(ordered, 99),
        }


def _percentile_ms(ordered_s: list[float], percent: int) -> float | None:
    """Return the nearest-rank percentile of sorted seconds, in milliseconds."""
    if not ordered_s:
        return None
    rank = -(-len(ordered_s) * percent // 100)
    return round(ordered_s[rank - 1] * 1000, 3)


def request_http(options: argparse.Namespace) -> None:
    """Request the page steadily until SIGTERM; report requests, failures and latencies."""
    asyncio.run(_HttpClient(options).run())


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

    role = roles.add_parser("http-client")
    role.set_defaults(act=request_http)
    role.add_argument("--server", required=True, help="address of the server")
    role.add_argument("--port", type=int, required=True)
    role.add_argument("--rate", type=float, required=True, help="requests a second")
    role.add_argument("--timeout", type=float, required=True, help="seconds for one request")
    role.add_argument("--count", type=int, required=True, help="requests in all; -1: no end")

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
