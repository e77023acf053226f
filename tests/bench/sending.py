# SPDX-License-Identifier: Apache-2.0
"""A child process that sends from many sources in turn: `python -m tests.bench.sending ...`."""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from ebpftop import lab as labs
from ebpftop.lab.frames import BATCH_FRAMES, PacketSocket
from tests.bench.instances import FIRST_SOURCE
from tests.kernel.packets import frame

_PACE_S = 0.002


def start(host: labs.Host, target: labs.Host, sources: int, pps: int) -> None:
    """Start it on a host; it ends with the lab.

    Args:
        host: Where it runs.
        target: Whom it sends to.
        sources: How many addresses send in turn.
        pps: Packets a second.
    """
    argv = [sys.executable, "-m", "tests.bench.sending", host.interface, target.mac]
    child = host.spawn([*argv, str(sources), str(pps)])
    assert child.stdout is not None
    child.stdout.readline()


def _send(interface: str, mac: str, sources: int, pps: int) -> None:
    packet = bytes.fromhex(mac.replace(":", "")) + frame("10.0.0.0")[6:]
    frames = np.tile(np.frombuffer(packet, np.uint8), (BATCH_FRAMES, 1))
    words = frames.view(">u2")
    numbers = np.arange(BATCH_FRAMES)
    begun_s, sent = time.monotonic(), 0
    with PacketSocket(interface) as output:
        output.aim(frames)
        print(json.dumps({"ready": True}), flush=True)
        while True:
            if sent > (time.monotonic() - begun_s) * pps:
                time.sleep(_PACE_S)
                continue
            addresses = FIRST_SOURCE + (sent + numbers) % sources
            words[:, 13], words[:, 14] = addresses >> 16, addresses & 0xFFFF
            words[:, 12] = 0
            total = words[:, 7:17].sum(axis=1, dtype=np.uint32)
            total = (total & 0xFFFF) + (total >> 16)
            words[:, 12] = (total & 0xFFFF) + (total >> 16) ^ 0xFFFF
            output.send(BATCH_FRAMES)
            sent += BATCH_FRAMES


if __name__ == "__main__":
    _send(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
