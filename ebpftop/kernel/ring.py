# SPDX-License-Identifier: Apache-2.0
"""A ring buffer of the kernel's, read by libbpf (`ring_buffer__new` in its `libbpf.h`)."""

from __future__ import annotations

import ctypes as ct
import errno
import os
from collections.abc import Callable

from ebpftop.kernel.libbpf import call, library

_TAKE = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_size_t)


class Ring:
    """The one reader of a ring buffer, for one thread at a time.

    Args:
        fd: Of the map.
        take: Called by `poll` with each record.

    Raises:
        OSError: The kernel refused.
    """

    def __init__(self, fd: int, take: Callable[[bytes], None]) -> None:
        def took(_context: int, at: int, size: int) -> int:
            take(ct.string_at(at, size))
            return 0

        self._took = _TAKE(took)  # libbpf keeps its address, and nothing else keeps it alive
        new = library().ring_buffer__new
        new.restype = ct.c_void_p
        self._ring = ct.c_void_p(new(fd, self._took, None, None))
        if not self._ring:
            number = ct.get_errno()
            raise OSError(number, f"ring_buffer__new: {os.strerror(number)}")

    def poll(self, timeout_s: float) -> int:
        """Take what is there, or wait for something; returns how many records that were."""
        try:
            return call("ring_buffer__poll", self._ring, ct.c_int(round(timeout_s * 1000)))
        except OSError as error:
            if error.errno == errno.EINTR:
                return 0
            raise

    def close(self) -> None:
        """Let go of the ring buffer."""
        library().ring_buffer__free(self._ring)
