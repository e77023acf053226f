# SPDX-License-Identifier: Apache-2.0
"""What the shaper has put on which interface, as the `shaper_hooks` map remembers it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ebpftop.errors import KernelRefusedError
from ebpftop.kernel.maps import Map


class HookTable:
    """What was put on which interface.

    Args:
        table: The `shaper_hooks` map.
    """

    def __init__(self, table: Map) -> None:
        self._map = table
        self._rows = table.read()[1].copy()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for row in self._rows[self._rows["ifindex"] != 0]:
            yield int(row["ifindex"]), int(row["flags"])

    def flags(self, ifindex: int) -> int:
        """Return what is on an interface, bits of `Hook`."""
        return int(self._rows["flags"][self._rows["ifindex"] == ifindex].sum())

    def set(self, ifindex: int, flags: int) -> None:
        """Remember what is on an interface; 0 forgets it.

        Raises:
            KernelRefusedError: There are too many interfaces.
        """
        at = np.flatnonzero(self._rows["ifindex"] == ifindex)
        if not len(at):
            at = np.flatnonzero(self._rows["ifindex"] == 0)
        if not len(at):
            raise KernelRefusedError("too many interfaces to shape", "attach fewer together")
        row = int(at[0])
        self._rows[row] = (ifindex, flags) if flags else (0, 0)
        self._map.put(row, self._rows[row : row + 1])
