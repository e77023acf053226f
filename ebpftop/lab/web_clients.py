# SPDX-License-Identifier: Apache-2.0
"""The lab's web clients: one at a steady rate, one with many connections."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import socket
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass

from ebpftop.lab.reporting import report
from ebpftop.lab.web_server import PAGE, SERVER_HEADER

_LATENCIES_KEPT = 100_000


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


@dataclass(slots=True)
class _Connection:
    """What became of one connection of a load."""

    port: int = 0
    """The client's; 0 where none came about."""
    server: str = ""
    """Who answered the first request."""
    answered: int = 0
    """Requests with a whole and right answer."""


class _Load:
    """Keeps so many connections open at a time, each for so many requests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._left = itertools.count() if options.count < 0 else iter(range(options.count))
        self._stopping = asyncio.Event()
        self._open = self._most_open = self._connections = self._answered = 0
        self._servers: Counter[str] = Counter()
        self._failures: list[dict[str, object]] = []

    async def run(self) -> None:
        """Load until all connections are made or SIGTERM comes, then report.

        Connections that are open then get the answer they wait for, and are closed.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        report({"ready": True})
        await asyncio.gather(*(self._worker() for _ in range(self._options.parallel)))
        report(
            {
                "connections": self._connections,
                "requests": self._answered + len(self._failures),
                "failed": len(self._failures),
                "failures": self._failures,
                "servers": self._servers,
                "most_open": self._most_open,
            }
        )

    async def _worker(self) -> None:
        for _ in self._left:
            if self._stopping.is_set():
                return
            connection = _Connection()
            try:
                await self._use(connection)
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                self._failures.append(
                    {
                        "port": connection.port,
                        "server": connection.server,
                        "at_s": time.monotonic(),
                        "error": repr(error),
                    }
                )
                await asyncio.sleep(self._options.pause)
            self._connections += 1
            self._answered += connection.answered
            if connection.server:
                self._servers[connection.server] += 1

    async def _use(self, connection: _Connection) -> None:
        """Make one connection and its requests.

        Raises:
            OSError, EOFError, ValueError, LimitOverrunError: A request failed.
        """
        options = self._options
        with self._bound() as handle:
            connection.port = handle.getsockname()[1]
            async with asyncio.timeout(options.timeout):
                await asyncio.get_running_loop().sock_connect(
                    handle, (options.server, options.port)
                )
            reader, writer = await asyncio.open_connection(sock=handle)
            self._open += 1
            self._most_open = max(self._most_open, self._open)
            try:
                await self._talk(connection, reader, writer)
            finally:
                self._open -= 1
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    def _bound(self) -> socket.socket:
        """Return a socket on a port that no failure had: what the kernel knows of those stays."""
        spent = {failure["port"] for failure in self._failures}
        while True:
            handle = socket.socket(
                socket.AF_INET6 if ":" in self._options.server else socket.AF_INET
            )
            handle.setblocking(False)
            handle.bind(("", 0))
            if handle.getsockname()[1] not in spent:
                return handle
            handle.close()

    async def _talk(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for number in range(self._options.requests):
            if number and not self._stopping.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self._options.pause)
            if number and self._stopping.is_set():
                return
            async with asyncio.timeout(self._options.timeout):
                writer.write(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                page = await reader.readexactly(len(PAGE))
            if not head.startswith("HTTP/1.1 200 ") or page != PAGE:
                raise ValueError(head)
            connection.server = head.partition(f"{SERVER_HEADER}: ")[2].partition("\r")[0]
            connection.answered += 1


def load_http(options: argparse.Namespace) -> None:
    """Request the page over many connections; report requests, failures and who answered."""

    async def load() -> None:
        await _Load(options).run()

    asyncio.run(load())
