# SPDX-License-Identifier: Apache-2.0
"""One health check of one backend: connect, and for HTTP read the status line, no more.

Nothing that a server sends can hold a check longer than its timeout, or bring in more than
a few bytes. A connection is reset at its end, so that checks leave none waiting behind.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from urllib.parse import quote

from ebpftop.model import HealthCheck, Service

LATE_S = 0.25
"""A timeout that rings so late says that this process did not run, not what the backend did."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")
_STATUS_LINE_BYTES = len(b"HTTP/1.1 200 ")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_URL_SIGNS = "!$%&'()*+,/:;=?@~"


async def probe(backend: Service, check: HealthCheck) -> bool | None:
    """Check a backend once; None where nothing was learnt about it, for want of our own.

    Args:
        backend: Where it answers.
        check: How it is asked.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET if backend.address.is_ipv4 else socket.AF_INET6
    try:
        handle = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    due_s = loop.time() + check.timeout_s
    with handle:
        handle.setblocking(False)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        try:
            async with asyncio.timeout_at(due_s):
                await loop.sock_connect(handle, (str(backend.address), check.port or backend.port))
                return check.kind == "tcp" or await _answers(handle, backend, check)
        except OSError:
            return None if loop.time() > due_s + LATE_S else False


async def _answers(handle: socket.socket, backend: Service, check: HealthCheck) -> bool:
    """Ask over an open connection, and compare the status."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(handle, request(backend, check))
    answer = b""
    while len(answer) < _STATUS_LINE_BYTES:
        more = await loop.sock_recv(handle, _STATUS_LINE_BYTES - len(answer))
        if not more:
            break
        answer += more
    status = _STATUS_LINE.match(answer)
    return status is not None and int(status[1]) == check.status


def request(backend: Service, check: HealthCheck) -> bytes:
    """Return an HTTP request; no text of a policy can add a header to it."""
    port = check.port or backend.port
    host = check.host or Service(backend.address, port).endpoint
    head = (
        f"GET {quote(check.path, safe=_URL_SIGNS)} HTTP/1.1",
        f"Host: {quote(host, safe='[]:')}",
        "User-Agent: ebpftop",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode()
