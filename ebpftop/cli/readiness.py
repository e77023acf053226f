# SPDX-License-Identifier: Apache-2.0
"""Tell the service manager that this process does its work (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def tell_ready() -> None:
    """Say so where `NOTIFY_SOCKET` asks for it; a manager that is gone is not waited for."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # An abstract address begins with a zero byte, which no variable can hold.
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(b"READY=1", address)
