# SPDX-License-Identifier: Apache-2.0
"""What all acts on an instance share: the writer's lock, and the kernel's refusals as errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import Instance, describe_failure


class InstanceWriter:
    """Base of the controls of one instance.

    Args:
        instance: Open for writing; who opened it closes it.
        holding_lock: The caller holds the writer's lock over all its acts.
    """

    def __init__(self, instance: Instance, *, holding_lock: bool = False) -> None:
        self._instance = instance
        self._holding_lock = holding_lock
        self._maps = instance.maps

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the writer's lock over one act.

        Raises:
            EbpftopError: The kernel refused, or another writer does not end.
        """
        try:
            with nullcontext() if self._holding_lock else bpffs.locked(self._instance.name):
                yield
        except OSError as error:
            raise describe_failure(error) from error
