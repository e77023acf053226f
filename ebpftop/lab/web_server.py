# SPDX-License-Identifier: Apache-2.0
"""The lab's web server, which may fail now and then."""

from __future__ import annotations

import argparse
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ebpftop.lab.reporting import StopSignal, report

PAGE = b"<!doctype html><title>ebpftop demo</title><p>Served from a network namespace.</p>\n"
"""What the HTTP server answers to every GET."""


SERVER_HEADER = "X-Served-By"
"""Header in which a server says its name."""
_FOR_EVER_S = 1e6


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
    """Answers every GET with `PAGE`, in one segment."""

    protocol_version = "HTTP/1.1"
    timeout = 10.0
    wbufsize = -1
    name = ""
    """What the server calls itself."""

    def do_GET(self) -> None:
        """Send the page."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.send_header(SERVER_HEADER, self.name)
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep quiet: the dashboard owns the terminal."""


def serve_http(options: argparse.Namespace) -> None:
    """Serve the page on all addresses until SIGTERM, but for the outages that are asked for."""
    # Before any thread starts, so that none of them is left to take the signal.
    stopping = StopSignal()
    handler = type("_NamedHandler", (_Handler,), {"name": options.name})
    works_s = options.fail_after or _FOR_EVER_S
    is_first = True
    while True:
        with _Server(("::", options.port), handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            if is_first:
                report({"ready": True})
            stopping.wait(works_s)
            server.shutdown()
        if stopping.wait(options.fail_for):
            break
        works_s, is_first = options.fail_every - options.fail_for, False
    report({})
