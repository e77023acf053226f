# SPDX-License-Identifier: Apache-2.0
"""What the process that holds an instance does from time to time."""

from __future__ import annotations

import threading

from ebpftop.control.protection import ProtectionControl
from ebpftop.errors import EbpftopError
from ebpftop.kernel.instance import describe_failure


class Sweeper(threading.Thread):
    """Tells the end of blocks and keeps protected addresses up to date, until stopped.

    Args:
        control: Of the instance.
    """

    INTERVAL_S = 2.0

    def __init__(self, control: ProtectionControl) -> None:
        super().__init__(name="ebpftop-sweeper", daemon=True)
        self._control = control
        self._stopped = threading.Event()
        self.error: EbpftopError | None = None
        """What ended it early; a viewer of the instance meets the same."""

    def run(self) -> None:
        """Sweep until `stop`; not called directly."""
        try:
            while not self._stopped.wait(self.INTERVAL_S):
                self._control.sweep()
        except EbpftopError as error:
            self.error = error
        except OSError as error:
            self.error = describe_failure(error)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        if self.is_alive():
            self.join()
