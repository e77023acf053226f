# SPDX-License-Identifier: Apache-2.0
"""The pipeline's variant with a trace in it: loaded, put in the pipeline's place, taken out again.

It is loaded over the maps of the instance when a trace begins, so that an attach does not pay for
it. Its pins are in a folder of their own in the instance's; while that is there, a link may
have the variant on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ebpftop.bpf import trace_layout
from ebpftop.kernel import bpffs, libbpf, loading

PROGRAM = trace_layout.PROGRAM
"""Name of the variant in the kernel."""
PIPELINE_PIN = "prog_xdp_pipeline"
SEAT = "trace"


def room(folder: Path) -> Path:
    """Return the folder, in an instance's, of what belongs to its trace."""
    return folder / "trace"


def pin(folder: Path) -> Path:
    """Return where the variant is pinned while there is one."""
    return room(folder) / f"prog_{PROGRAM}"


def load(folder: Path, defines: Mapping[str, int]) -> int:
    """Compile, load and pin the variant, and hand its number; nothing runs it yet.

    Args:
        folder: The instance's.
        defines: As it was attached with.

    Raises:
        EbpftopError: As of `loading.load`.
        OSError: The instance is gone, or the bpffs takes no more.
    """
    room(folder).mkdir(mode=0o700)
    loading.load(room(folder), defines, [loading.TRACE], share=folder)
    return number(folder)


def number(folder: Path) -> int:
    """Return the variant's number, 0 where there is none."""
    try:
        with _opened(pin(folder)) as program:
            return libbpf.program_info(program).id
    except FileNotFoundError:
        return 0


def put_in_place(folder: Path) -> None:
    """Let the variant run where the pipeline does; call it under the writer's lock."""
    with _opened(folder / PIPELINE_PIN) as pipeline, _opened(pin(folder)) as variant:
        libbpf.swap_xdp(pipeline, variant)


def restore(folder: Path) -> None:
    """Let the pipeline run again, and unload the variant; call it under the writer's lock."""
    if not room(folder).exists():
        return
    if pin(folder).exists():
        with _opened(folder / PIPELINE_PIN) as pipeline, _opened(pin(folder)) as variant:
            libbpf.swap_xdp(variant, pipeline)
    shutil.rmtree(room(folder), ignore_errors=True)


def restore_abandoned(folder: Path) -> None:
    """Do so where the process that traced is gone; call it under the writer's lock."""
    if not room(folder).exists():
        return
    seat = bpffs.Seat(folder.name, SEAT)
    try:
        if seat.take("a sweep") is None:
            restore(folder)
    finally:
        seat.close()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = libbpf.open_pin(path)
    try:
        yield fd
    finally:
        os.close(fd)
