# SPDX-License-Identifier: Apache-2.0
"""How a traffic process of a lab talks with the process that started it."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping


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
