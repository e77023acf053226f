# SPDX-License-Identifier: Apache-2.0
"""Where instances live: a bpffs of our own on /run/ebpftop/bpf, locks beside it.

Under systemd /sys/fs/bpf is closed to users, and `ip netns exec` hides it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpftop.errors import KernelRefusedError, NotPermittedError

RUN = Path("/run/ebpftop")
BPFFS = RUN / "bpf"
LOCK_PATIENCE_S = 10.0
PENDING = ".pending-"
"""Between an instance's name and an act's, in the name of the file about one that waits."""


def _mounts(process: str) -> list[list[str]]:
    """Return the fields of proc_pid_mountinfo(5) of every mount that a process sees."""
    lines = Path("/proc", process, "mountinfo").read_text().splitlines()
    return [line.split() for line in lines]


def _device(mounts: list[list[str]]) -> str | None:
    """Return the device number of the bpffs among `mounts`, None where it is not mounted."""
    # A later mount on the same folder hides an earlier one.
    for fields in reversed(mounts):
        if fields[4] == str(BPFFS):
            return fields[2] if fields[fields.index("-") + 1] == "bpf" else None
    return None


def _lasts(ours: list[list[str]]) -> bool:
    """Whether the bpffs among our mounts, or one mounted now, is there for others too."""
    try:
        theirs = _mounts("1")
    except OSError:
        return True
    device = _device(ours)
    if device is not None:
        # Under a root of its own the first process may see it by another path.
        return device in {fields[2] for fields in theirs}
    # A mount has a number of its own in every mount namespace.
    return not {fields[0] for fields in ours}.isdisjoint(fields[0] for fields in theirs)


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
    mounts = _mounts("self")
    mounted = _device(mounts) is not None
    if not mounted and os.geteuid() != 0:
        raise NotPermittedError(
            f"no bpffs on {BPFFS}", "run `sudo ebpftop doctor`, which mounts it"
        )
    if lasting and not _lasts(mounts):
        raise KernelRefusedError(f"no lasting bpffs on {BPFFS}", LASTING_MOUNT)
    if mounted:
        return
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
            f"mount -t bpf -o mode=0755 bpf {BPFFS} must work for root",
        )


@contextmanager
def locked(name: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the writer's lock of an instance; yields whether it was got.

    The lock's file goes with the instance's folder.

    Args:
        name: The instance's folder name.
        wait: Wait up to 10 s for another writer; without it a held lock yields False.

    Raises:
        KernelRefusedError: Somebody else kept writing.
    """
    RUN.mkdir(mode=0o755, exist_ok=True)
    path = RUN / f"{name}.lock"
    handle, got = _lock(path, LOCK_PATIENCE_S if wait else 0.0)
    try:
        yield got
    finally:
        if got and not (BPFFS / name).exists():
            path.unlink(missing_ok=True)
        os.close(handle)


def _lock(path: Path, patience_s: float) -> tuple[int, bool]:
    """Open and lock a file; returns its descriptor, and whether the lock was got."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            got = _flock(handle, patience_s)
            # Who held it before may have removed it: a lock on that file holds nobody off.
            if not got or _is_at(handle, path):
                return handle, got
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


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


def folders() -> list[Path]:
    """Return the folders of all instances, in every network namespace.

    Raises:
        NotPermittedError: The bpffs is closed to this user.
    """
    try:
        return sorted(path for path in BPFFS.iterdir() if _is_folder_of_root(path))
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise NotPermittedError(f"{BPFFS} is closed to you", "run it with sudo") from error


def _is_folder_of_root(path: Path) -> bool:
    # A bpffs that was mounted by hand may be open to everybody: only root makes instances.
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0


def names() -> list[str]:
    """Return the names of all instances, and of those that left no more than a lock."""
    return sorted({path.name for path in folders()} | {path.stem for path in RUN.glob("*.lock")})


def remove(name: str) -> None:
    """Take away an instance's folder with all its pins; call it under the writer's lock."""
    shutil.rmtree(BPFFS / name, ignore_errors=True)
    for path in (*(RUN / f"{name}.{duty}" for duty in DUTIES), *pending_files(name)):
        path.unlink(missing_ok=True)


def pending_files(name: str) -> list[Path]:
    """Return the files about acts on an instance that wait to be confirmed."""
    return sorted(RUN.glob(f"{name}{PENDING}*"))


DUTIES = {
    "control": "has control",
    "checks": "checks the backends",
    "trace": "traces its packets",
}
"""What one process at a time does for an instance, and how it is said of that one."""


class Seat:
    """The one place for a process with some duty on an instance, held by a lock until closed.

    Args:
        name: The instance's folder name.
        duty: A word of `DUTIES`.
    """

    def __init__(self, name: str, duty: str) -> None:
        self._does = DUTIES[duty]
        self._handle = os.open(RUN / f"{name}.{duty}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, user: str) -> str | None:
        """Take the seat for `user`; says who has it, and since when, where it is taken."""
        if not _flock(self._handle, 0.0):
            said = os.pread(self._handle, 200, 0).decode(errors="replace")
            return said or f"another process {self._does}"
        since = time.strftime("%a %H:%M:%S")
        os.ftruncate(self._handle, 0)
        words = f"{user}, process {os.getpid()} {self._does} since {since}"
        os.pwrite(self._handle, words.encode(), 0)
        return None

    def close(self) -> None:
        """Leave the seat."""
        os.close(self._handle)
