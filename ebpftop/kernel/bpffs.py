# SPDX-License-Identifier: Apache-2.0
"""Where instances live: a bpffs of our own on /run/ebpftop/bpf, locks beside it.

Under systemd /sys/fs/bpf is closed to users, and `ip netns exec` hides it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpftop.errors import KernelRefusedError, NotPermittedError

RUN = Path("/run/ebpftop")
BPFFS = RUN / "bpf"
LOCK_PATIENCE_S = 10.0


def is_mounted() -> bool:
    """Whether the bpffs is there, as this process sees it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(BPFFS) and fields[fields.index("-") + 1] == "bpf":
            return True
    return False


def in_own_mount_namespace() -> bool:
    """Whether a mount made here would be seen by, and outlive, nobody but our children."""
    try:
        return os.readlink("/proc/self/ns/mnt") != os.readlink("/proc/1/ns/mnt")
    except OSError:
        return False


LASTING_MOUNT = (
    "a mount made in this mount namespace (as in `ip netns exec`) would vanish with it: run "
    "`ebpftop doctor` once outside, which mounts it, or use `nsenter --net=` instead"
)


def mount(*, lasting: bool) -> None:
    """See to it that the bpffs is mounted.

    Args:
        lasting: It must outlive this process and its mount namespace.

    Raises:
        NotPermittedError: We may not mount.
        KernelRefusedError: The mount failed, or would not last.
    """
    if is_mounted():
        return
    if os.geteuid() != 0:
        raise NotPermittedError(
            f"no bpffs on {BPFFS}", "run `sudo ebpftop doctor`, which mounts it"
        )
    if lasting and in_own_mount_namespace():
        raise KernelRefusedError(f"no bpffs on {BPFFS}", LASTING_MOUNT)
    try:
        RUN.mkdir(mode=0o755, exist_ok=True)
        BPFFS.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise KernelRefusedError(
            f"cannot make {BPFFS}: {error.strerror}", "is /run mounted read-only?"
        ) from error
    done = subprocess.run(
        ["mount", "-t", "bpf", "-o", "mode=0755", "bpf", str(BPFFS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise KernelRefusedError(
            f"cannot mount a bpffs on {BPFFS}: {done.stderr.strip()}",
            f"mount -t bpf bpf {BPFFS} must work for root",
        )


@contextmanager
def locked(name: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the writer's lock of an instance; yields whether it was got.

    Args:
        name: The instance's folder name.
        wait: Wait up to 10 s for another writer; without it a held lock yields False.

    Raises:
        KernelRefusedError: Somebody else kept writing.
    """
    RUN.mkdir(mode=0o755, exist_ok=True)
    handle = os.open(RUN / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _flock(handle, LOCK_PATIENCE_S if wait else 0.0)
    finally:
        os.close(handle)


def _flock(handle: int, patience_s: float) -> bool:
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                if patience_s:
                    raise KernelRefusedError(
                        "another ebpftop keeps writing to this instance", "try again"
                    ) from None
                return False
            time.sleep(0.02)
        else:
            return True


class ControlSeat:
    """The one place for a control dashboard on an instance, held by a lock until closed."""

    def __init__(self, name: str) -> None:
        self._handle = os.open(
            RUN / f"{name}.control", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )

    def take(self) -> str | None:
        """Take the seat; says who sits there where it is taken."""
        if not _flock(self._handle, 0.0):
            return os.pread(self._handle, 200, 0).decode(errors="replace") or "another dashboard"
        user = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{user}, process {os.getpid()}".encode(), 0)
        return None

    def close(self) -> None:
        """Leave the seat."""
        os.close(self._handle)
