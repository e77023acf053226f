# SPDX-License-Identifier: Apache-2.0
"""What shells are offered for words that are no verb and no option."""

from __future__ import annotations

import socket
from typing import Any


def complete_interface(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    """Return the network interfaces whose names begin with what was typed, as click asks it."""
    names = sorted(name for _, name in socket.if_nameindex())
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]
