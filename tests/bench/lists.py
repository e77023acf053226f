# SPDX-License-Identifier: Apache-2.0
"""What it costs to import and to export a list of a hundred thousand addresses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ebpftop import lists, report
from ebpftop.control.everything import InstanceControl
from ebpftop.kernel.instance import Instance
from ebpftop.model import Snapshot
from ebpftop.sources.live import LiveSource
from tests.bench.figures import Row
from tests.bench.instances import attached
from tests.bench.registry import Effort, measurement

COUNT = 100_000


@measurement(
    "lists",
    "A block list of 100,000 addresses",
    place=45,
    note="Seconds for each step of a list's life, once: each is an act as a verb has it, which"
    " is in the audit log with every address before it is done.",
)
def imported(effort: Effort) -> Sequence[Row]:
    """Measure each step."""
    with TemporaryDirectory() as folder, attached(clients=0) as (_, instance):
        return _measured(instance, Path(folder))


def _measured(instance: Instance, folder: Path) -> list[Row]:
    plain, whole = folder / "list", folder / "list.json"
    addresses = (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(COUNT))
    plain.write_text("".join(f"{address}\n" for address in addresses))
    control = InstanceControl(instance)
    requests = lists.read_list(plain)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("read a plain list", lambda: lists.read_list(plain)),
        ("put it in force", lambda: control.block_all(requests)),
        ("write it as JSON", lambda: _exported(_snapshot(instance), whole)),
        ("read the JSON list", lambda: lists.read_list(whole)),
        ("undo it", control.undo),
    ]
    return [Row(step, "s", [_seconds(work)]) for step, work in steps]


def _snapshot(instance: Instance) -> Snapshot:
    source = LiveSource(Instance(instance.folder, read_only=False))
    try:
        return source.snapshot()
    finally:
        source.close()


def _exported(snapshot: Snapshot, path: Path) -> None:
    lists.write_list(path, lists.json_text(report.blocks(snapshot)))


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
