# SPDX-License-Identifier: Apache-2.0
"""What it costs to import and to export a list of a hundred thousand addresses."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from ebpftop import lab as labs
from ebpftop import lists, report
from ebpftop.config import AuditPolicy, Policy
from ebpftop.control import policy as policies
from ebpftop.control.everything import InstanceControl
from ebpftop.kernel.instance import Instance
from ebpftop.model import Snapshot
from ebpftop.sources.live import LiveSource

COUNT = 100_000


def run() -> list[dict[str, object]]:
    """Measure each step; returns a row for each."""
    with TemporaryDirectory() as folder, labs.Lab(clients=0) as lab, labs.joined(lab.server):
        policy = Policy(audit=AuditPolicy(path=f"{folder}/acts.jsonl"))
        instance = policies.attach(["eth0"], policy, mode="auto", path=None, pinned=False)
        try:
            return _measured(instance, Path(folder))
        finally:
            instance.remove()


def _measured(instance: Instance, folder: Path) -> list[dict[str, object]]:
    plain, whole = folder / "list", folder / "list.json"
    addresses = (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(COUNT))
    plain.write_text("".join(f"{address}\n" for address in addresses))
    control = InstanceControl(instance)
    requests = lists.read_list(plain)
    rows = [
        ("read a plain list", _seconds(lambda: lists.read_list(plain))),
        ("put it in force", _seconds(lambda: control.block_all(requests))),
        ("write it as JSON", _seconds(lambda: _exported(_snapshot(instance), whole))),
        ("read the JSON list", _seconds(lambda: lists.read_list(whole))),
        ("undo it", _seconds(control.undo)),
    ]
    return [{"step": step, "addresses": COUNT, "seconds": round(took, 2)} for step, took in rows]


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
