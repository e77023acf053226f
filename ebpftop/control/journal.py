# SPDX-License-Identifier: Apache-2.0
"""Writes to several maps that can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.kernel.maps import Map


class Journal:
    """What one act has written, and what was there before.

    For maps that user space alone writes, under the writer's lock.

    Args:
        maps: By name.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
        self._ways_back: list[Callable[[], object]] = []

    def put(self, name: str, key: Any, value: Any) -> None:
        """Write one entry."""
        self._remember(name, key)
        opened = self._maps[name]
        opened.put(key, np.array([value], opened.value))

    def delete(self, name: str, key: Any) -> None:
        """Remove one entry."""
        self._remember(name, key)
        self._maps[name].delete(key)

    def undo(self) -> None:
        """Take everything back, the latest first."""
        while self._ways_back:
            with suppress(OSError):
                self._ways_back.pop()()

    def _remember(self, name: str, key: Any) -> None:
        opened = self._maps[name]
        held: NDArray[Any] | None = opened.get(key)
        if held is None:
            self._ways_back.append(lambda: opened.delete(key))
        else:
            before = held
            self._ways_back.append(lambda: opened.put(key, before))
