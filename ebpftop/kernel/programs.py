# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of loaded programs beyond their names: instructions, run times, hooks."""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ebpftop.kernel import libbpf

BPF_STATS_RUN_TIME = 0
MOST_ON_A_HOOK = 64


class _QueryOptions(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("query_flags", ct.c_uint32),
        ("attach_flags", ct.c_uint32),
        ("program_ids", ct.c_void_p),
        ("count", ct.c_uint32),
        ("attach_flags_each", ct.c_void_p),
    )


def instructions(fd: int) -> bytes:
    """Return a program's instructions as the verifier left them, 8 bytes each.

    Empty where the kernel does not show them (`kernel.kptr_restrict`, missing rights).
    """
    room = ct.create_string_buffer(libbpf.program_info(fd).translated_bytes)
    info = libbpf.object_info(
        fd, libbpf.ProgramRecord, translated_bytes=len(room), translated_at=ct.addressof(room)
    )
    return room.raw[: info.translated_bytes] if info.translated_at else b""


class RunStatistics:
    """Lets the kernel measure the run time of every program, while it is on.

    It costs each run two reads of the clock, and ends with the process at the latest.
    """

    def __init__(self) -> None:
        self._fd: int | None = None

    def switch(self, *, on: bool) -> None:
        """Turn it on or off; again: nothing.

        Raises:
            OSError: The kernel refused, as it does without root.
        """
        if on and self._fd is None:
            self._fd = libbpf.call("bpf_enable_stats", BPF_STATS_RUN_TIME)
        elif not on and self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def is_on(self) -> bool:
        """Whether it is on by us."""
        return self._fd is not None


def tcx_programs(ifindex: int, *, egress: bool) -> list[int]:
    """Return the ids of the programs on an interface's TCX hook, in the order they run.

    Raises:
        OSError: Linux before 6.6, or missing rights.
    """
    room = (ct.c_uint32 * MOST_ON_A_HOOK)()
    options = _QueryOptions(ct.sizeof(_QueryOptions))
    options.program_ids, options.count = ct.addressof(room), MOST_ON_A_HOOK
    libbpf.call("bpf_prog_query_opts", ifindex, libbpf.BPF_TCX[egress], ct.byref(options))
    return list(room[: options.count])


@contextmanager
def opened(program_id: int) -> Iterator[int | None]:
    """Open a program by its number for a few questions; None where that is not possible."""
    fd: int | None = None
    with suppress(OSError):
        fd = libbpf.program_fd(program_id)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def name_of(program_id: int) -> str:
    """Return the name of a program, empty where it is gone or closed to us."""
    with opened(program_id) as fd:
        return "" if fd is None else libbpf.program_info(fd).name
