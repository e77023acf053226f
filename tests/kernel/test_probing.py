# SPDX-License-Identifier: Apache-2.0
"""Health checks of real servers in a namespace: those that live, fail, stall and attack."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from ebpftop.control.probing import probe
from ebpftop.lab import Lab, joined
from ebpftop.model import HealthCheck, Service

pytestmark = pytest.mark.kernel

PORT = 8000
TIMEOUT_S = 0.4
HTTP = HealthCheck("http", timeout_s=TIMEOUT_S, path="/live", status=200)
TCP = HealthCheck("tcp", timeout_s=5.0)


def good(peer: socket.socket) -> None:
    peer.recv(1000)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def unwell(peer: socket.socket) -> None:
    peer.recv(1000)
    peer.sendall(b"HTTP/1.0 503 no\r\n\r\n200")


def bare(peer: socket.socket) -> None:
    peer.recv(1000)
    peer.sendall(b"HTTP/1.1 200\r\n\r\n")


def in_pieces(peer: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n":
        peer.sendall(bytes([byte]))
        time.sleep(0.001)


def slow(peer: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" * 2:
        peer.sendall(bytes([byte]))
        time.sleep(0.2)


def silent(peer: socket.socket) -> None:
    peer.settimeout(10)
    while peer.recv(1000):
        pass


def closing(peer: socket.socket) -> None:
    peer.recv(1000)


def endless(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"200 " * 10_000)


def long_status(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 2000 OK\r\n")


def other_protocol(peer: socket.socket) -> None:
    peer.sendall(b"SSH-2.0-200 HTTP/1.1 200 OK\r\n")


def hostile(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 \xff\x1b[2J 200 \r\n")


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    """A host of its own; the thread stays in it."""
    with Lab(clients=0) as lab, joined(lab.server):
        yield lab


@pytest.fixture
def serve(host: Lab) -> Iterator[Callable[[Callable[[socket.socket], None]], Service]]:
    """Start a server, which answers every connection one way, on both families."""
    listeners = []

    def accept(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer, suppress(OSError):
                    answer(peer)

    def start(answer: Callable[[socket.socket], None]) -> Service:
        listener = socket.create_server(
            ("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True
        )
        listeners.append(listener)
        threading.Thread(target=accept, args=(listener, answer), daemon=True).start()
        return Service.parse(f"{host.server.ipv4}:{PORT}", "tcp")

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


Serve = Callable[[Callable[[socket.socket], None]], Service]


@pytest.mark.parametrize(
    ("answer", "by_tcp", "by_http"),
    [
        (good, True, True), (bare, True, True), (in_pieces, True, True),
        (unwell, True, False), (slow, True, False), (silent, True, False),
        (closing, True, False), (endless, True, False), (long_status, True, False),
        (other_protocol, True, False), (hostile, True, False),
    ],
)  # fmt: skip
def test_a_server_is_judged_by_its_status_line_and_in_time(
    serve: Serve, answer: Callable[[socket.socket], None], by_tcp: bool, by_http: bool
) -> None:
    backend = serve(answer)
    assert asyncio.run(probe(backend, TCP)) is by_tcp
    check = replace(HTTP, timeout_s=5.0) if by_http else HTTP
    begun_s = time.monotonic()
    # A loaded machine may run this process too late to say anything.
    assert (asyncio.run(probe(backend, check)) or False) is by_http
    assert time.monotonic() - begun_s < check.timeout_s + 2


def test_another_status_another_port_and_ipv6_are_asked_for_where_the_check_says_so(
    serve: Serve, host: Lab
) -> None:
    serve(unwell)
    elsewhere = Service.parse(f"[{host.server.ipv6}]:9", "udp")
    check = HealthCheck("http", timeout_s=5, port=PORT, status=503)
    assert asyncio.run(probe(elsewhere, check)) is True


def test_what_is_asked_is_the_path_in_the_name_of_the_host(serve: Serve) -> None:
    heard: list[bytes] = []

    def listening(peer: socket.socket) -> None:
        heard.append(peer.recv(1000))
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    backend = serve(listening)
    check = HealthCheck("http", timeout_s=5, path="/live", host="shop.example")
    assert asyncio.run(probe(backend, check)) is True
    assert heard[0].startswith(b"GET /live HTTP/1.1\r\nHost: shop.example\r\n")


def test_a_port_without_a_server_and_a_way_to_nowhere_fail(host: Lab) -> None:
    for nowhere in (f"{host.server.ipv4}:1", "198.18.0.200:80", "203.0.113.1:80"):
        backend = Service.parse(nowhere, "tcp")
        assert not asyncio.run(probe(backend, replace(TCP, timeout_s=TIMEOUT_S))), nowhere


def test_checks_leave_nothing_waiting_behind(serve: Serve, host: Lab) -> None:
    backend = serve(good)
    for check in (TCP, HTTP):
        assert asyncio.run(probe(backend, check)) is not False
    waiting = host.server.run(["ss", "-Htan", "state", "time-wait"]).stdout
    assert f":{PORT}" not in waiting


def test_without_a_file_descriptor_of_our_own_nothing_is_said_of_the_backend(
    serve: Serve,
) -> None:
    backend = serve(good)

    async def probe_without_room() -> bool | None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            return await probe(backend, TCP)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert asyncio.run(probe_without_room()) is None


def test_a_process_that_did_not_run_in_time_says_nothing_of_the_backend(serve: Serve) -> None:
    backend = serve(silent)

    async def probe_while_stopped() -> bool | None:
        asking = asyncio.create_task(probe(backend, HTTP))
        await asyncio.sleep(TIMEOUT_S / 4)
        time.sleep(TIMEOUT_S + 0.5)
        return await asking

    assert asyncio.run(probe_while_stopped()) is None
