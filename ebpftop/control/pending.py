# SPDX-License-Identifier: Apache-2.0
"""Acts that take themselves back unless they are confirmed: one small process waits for each.

The process is started before the act is done, in a session of its own, and outlives whoever
started it. Its orders are a file beside the instance's lock. Whoever removes that file has
decided: who confirms, so that the act stays, or the process itself, which then takes it back.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ebpftop.errors import KernelRefusedError
from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import Instance

START_PATIENCE_S = 20.0
READY = b"ready\n"


class Pending(msgspec.Struct, kw_only=True, frozen=True):
    """The orders of one such process."""

    id: str
    """The act."""
    key: str
    """The instance, as `Instance.key`."""
    folder: str
    """Where that is pinned."""
    facet: str
    """The part of the state that the act changes."""
    target: str
    """Its target in words."""
    revert_to: Any
    """The state to go back to."""
    deadline_ns: int
    """When, by CLOCK_MONOTONIC."""
    user: str
    """Who acted."""
    login: str | None
    """Who logged in at first."""
    terminal: str | None
    """From which terminal."""


class Timer:
    """A process that waits."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def cancel(self) -> None:
        """Let it end without doing anything."""
        self._path.unlink(missing_ok=True)


def path_of(name: str, act: str) -> Path:
    """Return where the orders about an act on the instance called `name` are."""
    return bpffs.RUN / f"{name}{bpffs.PENDING}{act}"


def of(instance: Instance) -> Sequence[Pending]:
    """Return all that waits on an instance, the first deadline first."""
    found = []
    for path in bpffs.pending_files(instance.name):
        try:
            orders = msgspec.json.decode(path.read_bytes(), type=Pending)
        except (FileNotFoundError, msgspec.MsgspecError):
            continue  # decided just now, or not written yet
        if orders.key == instance.key:
            found.append(orders)
    return sorted(found, key=lambda orders: orders.deadline_ns)


def start(instance: Instance, orders: Pending) -> Timer:
    """Start the process, and wait until it is ready.

    Raises:
        KernelRefusedError: It did not start; nothing waits.
    """
    path = path_of(instance.name, orders.id)
    timer = Timer(path)
    try:
        path.touch(mode=0o600)
        path.write_bytes(msgspec.json.encode(orders))
        # -P: what lies in the folder that we were called from is nobody's module.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ebpftop.reverter", str(path)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=START_PATIENCE_S, check=False,
        )  # fmt: skip
        if done.stdout != READY:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            raise OSError(0, words[-1] if words else "it ended")
    except (OSError, subprocess.TimeoutExpired) as error:
        timer.cancel()
        why = getattr(error, "strerror", None) or "it took too long"
        raise KernelRefusedError(
            f"the process that would take it back did not start: {why}", "nothing was changed"
        ) from None
    return timer


def state_to_restore(instance: Instance, facet: str, target: str, old: Any) -> Any:
    """Return the last confirmed state: `old`, or what an act that still waits had found.

    Lists are each for themselves.
    """
    waiting = [o for o in of(instance) if o.facet == facet] if not isinstance(old, list) else []
    if facet == "backends":
        return _backends_to_restore(waiting, target, old)
    return next((orders.revert_to for orders in waiting if orders.target == target), old)


def _backends_to_restore(waiting: Sequence[Pending], target: str, old: Any) -> Any:
    """Return the state of each backend that was confirmed last; each is for itself."""
    vip, states = target.partition(" ")[0], dict(old)
    for orders in reversed(waiting):
        if orders.target.partition(" ")[0] == vip:
            states |= {name: s for name, s in orders.revert_to.items() if name in states}
    return states


def deadline_ns(after_s: float) -> int:
    """Return the instant that is `after_s` from now."""
    return time.monotonic_ns() + int(after_s * 1e9)
