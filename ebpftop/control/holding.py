# SPDX-License-Identifier: Apache-2.0
"""What the process that holds an instance does beside its acts, in threads of their own."""

from __future__ import annotations

from ebpftop.control.checking import InstancePatients
from ebpftop.control.everything import InstanceControl
from ebpftop.control.health import HealthChecker
from ebpftop.control.sweeping import Sweeper
from ebpftop.errors import EbpftopError
from ebpftop.kernel.instance import Instance


class Holding:
    """Sweeps an instance and checks the health of its backends, from `start` to `stop`.

    Health is checked by one process at a time: a second one waits until the first has ended.

    Args:
        instance: Open for writing; who opened it closes it after `stop`.
        control: Of the instance.
    """

    def __init__(self, instance: Instance, control: InstanceControl) -> None:
        self._sweeper = Sweeper(control)
        patients = InstancePatients(instance, control.balancing.set_health)
        self._checker = HealthChecker(patients)

    def start(self) -> None:
        """Begin."""
        self._sweeper.start()
        self._checker.start()

    def stop(self) -> None:
        """End, and wait for that; health is unknown to readers from now on."""
        self._checker.stop()
        self._sweeper.stop()

    @property
    def error(self) -> EbpftopError | None:
        """What ended one of them early; a viewer of the instance meets the same."""
        return self._sweeper.error or self._checker.error
