# SPDX-License-Identifier: Apache-2.0
"""Recordings for tests: made of snapshots, and played."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ebpftop.model import Snapshot
from ebpftop.sources.recording import RecordingSource, Tape, TapeWriter, writing
from tests.tui.fakes import many_sources, snapshot

SMALL = [snapshot(n, sources=many_sources(n), missed_events=n) for n in range(5)]
"""Ticks that take few bytes."""


def record(path: Path, snapshots: Sequence[Snapshot], **options: Any) -> Path:
    """Write a recording."""
    writer = TapeWriter(path, "eth0", **options)
    for each in snapshots:
        writer.write(each)
    writer.close()
    return path


def record_small(path: Path) -> Path:
    """Write a recording of `SMALL` with a key tick at every third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "KEY_EVERY", 3)
        return record(path, SMALL)


def played(path: Path) -> Iterator[Snapshot]:
    """Play a recording from its first tick until it is lost."""
    source = RecordingSource(Tape(path))
    try:
        while True:
            yield source.snapshot()
    finally:
        source.close()
