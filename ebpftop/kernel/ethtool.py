# SPDX-License-Identifier: Apache-2.0
"""What a driver says of itself.

/sys would not do: it shows the interfaces of the network namespace in which it was mounted.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO = 3
ETHTOOL_GGRO = 0x2B
_WORDS = 49
"""Size of struct ethtool_drvinfo (linux/ethtool.h), in 32-bit words: cmd, driver, and more."""


def merges(interface: str) -> bool:
    """Whether packets that come in may be merged into larger ones (GRO)."""
    value = array.array("I", [ETHTOOL_GGRO, 0])
    request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            fcntl.ioctl(handle, SIOCETHTOOL, request)
        except OSError:
            return True
    return bool(value[1])


def driver(interface: str) -> str:
    """Return the name of an interface's driver, `unknown` where it does not say."""
    answer = array.array("I", [ETHTOOL_GDRVINFO, *[0] * (_WORDS - 1)])
    request = struct.pack("16sP16x", interface.encode(), answer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            fcntl.ioctl(handle, SIOCETHTOOL, request)
        except OSError:
            return "unknown"
    return answer.tobytes()[4:36].rstrip(b"\0").decode(errors="replace") or "unknown"
