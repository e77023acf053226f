# SPDX-License-Identifier: Apache-2.0
"""Traffic of a lab, each flow a child process in a host's namespace."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebpftop.errors import EbpftopError
from ebpftop.lab.hosts import Host

HTTP_PORT = 80
"""Where the lab's web server listens."""
DISCARD_PORT = 9
"""Where datagrams go that nobody reads (RFC 863)."""

BULK_PORT = 8080
"""Where the lab's server of endless transfers listens."""

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class Job:
    """A child process that makes traffic in a host's namespace (see `ebpftop.lab.roles`).

    Args:
        host: Where it runs.
        role: What it does: one of its roles.
        options: The role's options.
    """

    def __init__(self, host: Host, role: str, **options: object) -> None:
        self._role = f"{role} in {host.netns}"
        self._result: dict[str, Any] | None = None
        self._told = False
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        path = os.pathsep.join(filter(None, [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
        # -P: root must not import what lies in the current directory.
        argv = [sys.executable, "-P", "-m", "ebpftop.lab.roles", role, *words]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        self._child = host.spawn(argv, env={**os.environ, "PYTHONPATH": path}, stderr=self._errors)

    def wait_ready(self) -> None:
        """Wait until it does its work.

        Raises:
            EbpftopError: It ended before, or took too long.
        """
        output = self._child.stdout
        assert output is not None
        if not select.select([output], [], [], _START_TIMEOUT_S)[0]:
            raise EbpftopError(f"the {self._role} did not start in {_START_TIMEOUT_S:g} seconds")
        if not output.readline():
            self._child.wait()
            raise self._failure()

    def wait(self, timeout_s: float) -> dict[str, Any]:
        """Wait for it to end by itself and return its result; more calls return the same.

        Raises:
            EbpftopError: It did not end in time, and was killed, or it failed.
        """
        if self._result is None:
            try:
                lines = self._child.communicate(timeout=timeout_s)[0].splitlines()
            except subprocess.TimeoutExpired as error:
                self._child.kill()
                raise EbpftopError(f"the {self._role} did not end in {timeout_s:g} s") from error
            if self._child.returncode or not lines:
                raise self._failure()
            self._errors.close()
            self._result = json.loads(lines[-1])
        return self._result

    def stop(self) -> dict[str, Any]:
        """Tell it to end, and return its result.

        Raises:
            EbpftopError: It failed, or does not end.
        """
        self.tell_to_stop()
        return self.wait(_STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill it, as the kernel does for want of memory; it has no result."""
        self._child.kill()
        self._child.wait()

    def tell_to_stop(self) -> None:
        """Tell it to end, without waiting for it; only the first call does."""
        if not self._told:
            self._told = True
            self._child.send_signal(signal.SIGTERM)

    def _failure(self) -> EbpftopError:
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        return EbpftopError(f"the {self._role} failed", words[-1] if words else "")


@dataclass(frozen=True, slots=True)
class Outages:
    """When a server takes no connections."""

    after_s: float
    """From its start to the first."""
    for_s: float
    """How long each lasts."""
    every_s: float
    """From one to the next."""


def serve_http(host: Host, outages: Outages | None = None) -> Job:
    """Start a web server on `host`, on IPv4 and IPv6, port `HTTP_PORT`, which says its name."""
    options = {}
    if outages:
        options = {
            "fail_after": outages.after_s,
            "fail_for": outages.for_s,
            "fail_every": outages.every_s,
        }
    return Job(host, "http-server", port=HTTP_PORT, name=host.name, **options)


def request_http(
    host: Host, server: str, rate: float, *, timeout_s: float = 1.0, count: int = -1
) -> Job:
    """Start a web client on `host`, each request over a connection of its own.

    Args:
        host: Where it runs.
        server: Address of the server, IPv4 or IPv6.
        rate: Requests a second; slow answers do not slow it down.
        timeout_s: After which a request has failed.
        count: Requests in all; -1 is no end.

    Returns:
        A job whose result has `requests`, `failed`, `p50_ms` and `p99_ms`.
    """
    return Job(
        host,
        "http-client",
        server=server,
        port=HTTP_PORT,
        rate=rate,
        timeout=timeout_s,
        count=count,
    )


def load_http(
    host: Host,
    server: str,
    *,
    parallel: int,
    count: int = -1,
    requests: int = 1,
    pause_s: float = 0.0,
    timeout_s: float = 20.0,
    port: int = HTTP_PORT,
) -> Job:
    """Start a web client on `host` that keeps many connections open at a time.

    Args:
        host: Where it runs.
        server: Address of the server, IPv4 or IPv6.
        parallel: Connections at one time.
        count: Connections in all; -1 is no end.
        requests: Requests over each.
        pause_s: Time between two of them.
        timeout_s: After which a request, or a connection that does not come about, has failed.
        port: Of the server.

    Returns:
        A job whose result has `connections`, `requests`, `failed`, `failures` (objects with
        `port` of the client, `server`, `at_s` on CLOCK_MONOTONIC, `error`), `servers` (the
        number of connections by who answered) and `most_open`.
    """
    return Job(
        host,
        "http-load",
        server=server,
        port=port,
        parallel=parallel,
        count=count,
        requests=requests,
        pause=pause_s,
        timeout=timeout_s,
    )


def serve_bulk(host: Host) -> Job:
    """Start a server of endless downloads and uploads on `host`, port `BULK_PORT`."""
    return Job(host, "bulk-server", port=BULK_PORT)


def transfer_bulk(host: Host, server: str, *, way: str = "down", source: str = "") -> Job:
    """Start one endless TCP transfer on `host`.

    Args:
        host: Where it runs.
        server: Address of a host with `serve_bulk`.
        way: `down` from the server, or `up` to it.
        source: Address of `host` to connect from; empty for the kernel's choice.

    Returns:
        A job whose result has `bytes` and `samples`, pairs of seconds and the bytes until then.
    """
    return Job(host, "bulk-client", server=server, port=BULK_PORT, way=way, source=source)


def send_udp(
    host: Host,
    server: str,
    pps: float,
    *,
    sources: Sequence[str] = (),
    count: int = -1,
    size_bytes: int = 0,
) -> Job:
    """Start a steady sender of datagrams on `host`.

    Args:
        host: Where it runs.
        server: Address to send to.
        pps: Packets a second, of all sources together.
        sources: Addresses of `host` to send from in turn; none: its IPv4 address.
        count: Packets in all; -1 is no end.
        size_bytes: Of a datagram, at least.

    Returns:
        A job whose result has `sent_packets` and `sent_packets_by_source`.
    """
    return Job(
        host,
        "udp-client",
        sources=",".join(sources or [host.ipv4]),
        server=server,
        port=DISCARD_PORT,
        pps=pps,
        count=count,
        size=size_bytes,
    )


def flood(
    host: Host,
    target: Host,
    mode: str,
    *,
    pps: int = 0,
    seconds: float,
    delay_s: float = 0.0,
    port: int = DISCARD_PORT,
) -> Job:
    """Start a flood from `host` against `target`.

    Args:
        host: Who sends.
        target: Who receives.
        mode: `udp`, `syn`, `spoofed` or `v6` (see `ebpftop.lab.frames.Mode`).
        pps: Packets a second; 0 is as fast as one core can.
        seconds: It ends after that, stopped or not.
        delay_s: Time before its first packet.
        port: The port of `target`.

    Returns:
        A job whose result has `sent_packets` and `seconds`.
    """
    v6 = mode == "v6"
    return Job(
        host,
        "flood",
        mode=mode,
        interface=host.interface,
        source_mac=host.mac,
        source=host.ipv6 if v6 else host.ipv4,
        target_mac=target.mac,
        target=target.ipv6 if v6 else target.ipv4,
        port=port,
        pps=pps,
        seconds=seconds,
        delay=delay_s,
    )
