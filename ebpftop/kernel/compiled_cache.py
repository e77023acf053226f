# SPDX-License-Identifier: Apache-2.0
"""Compiled programs kept from one attach to the next, where root alone can write.

What comes from here runs in the kernel with root's rights. So nothing is taken from a folder or
a file that anybody else owns or may write, and nothing that is damaged: it is compiled anew.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from ebpftop.bpf import layout
from ebpftop.kernel.compiled import Compiled

FOLDER = Path("/var/cache/ebpftop")
KEPT = 16
"""Entries; each is of one module and one set of capacities, about 200 kB."""
LARGEST_BYTES = 1 << 24
_SOURCES = Path(layout.__file__).parent
_PRIVATE = stat.S_IRWXG | stat.S_IRWXO
_DIGEST_BYTES = hashlib.sha256().digest_size


def key(request: str, interpreter: str) -> str:
    """Return the name of the entry for what the compiler is asked, as it is now.

    Every source and the compiler's own script are in it; what that is made of is in the entry.
    """
    digest = hashlib.sha256()
    for said in (request, interpreter, platform.machine()):
        digest.update(said.encode() + b"\0")
    for path in sorted(_SOURCES.rglob("*")):
        if path.suffix in {".c", ".h"} or path.name == "compile.py":
            digest.update(str(path.relative_to(_SOURCES)).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def take(name: str) -> Compiled | None:
    """Return an entry, None where there is none that may be used."""
    try:
        with _folder() as folder:
            packed = _read(folder, name)
            compiled = msgspec.json.decode(packed, type=Compiled)
            if not all(_unchanged(*tool) for tool in compiled.tools):
                return None
            # The entries that are kept are those that were used last.
            os.utime(name, dir_fd=folder)
    except (OSError, msgspec.DecodeError):
        return None
    return compiled


def put(name: str, compiled: Compiled) -> None:
    """Keep an entry, and of the others those that were used last; nothing where that fails."""
    packed = msgspec.json.encode(compiled)
    with suppress(OSError):
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        with _folder() as folder:
            _write(folder, name, hashlib.sha256(packed).digest() + packed)
            _forget_oldest(folder)


def problem() -> str:
    """Return in words why nothing is kept; empty where it is."""
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        with _folder() as folder:
            tempfile.TemporaryFile(dir=f"/proc/self/fd/{folder}").close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


@contextmanager
def _folder() -> Iterator[int]:
    """Open the folder.

    Raises:
        PermissionError: Somebody else than root owns it or gets into it.
    """
    fd = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check_owner(os.fstat(fd))
        yield fd
    finally:
        os.close(fd)


def _check_owner(status: os.stat_result) -> None:
    if status.st_uid != 0 or status.st_mode & _PRIVATE:
        raise PermissionError(f"{FOLDER} is not root's alone")


def _read(folder: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        _check_owner(status)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise PermissionError(f"{FOLDER / name} is no file of ours")
        content = file.read(LARGEST_BYTES)
    digest, packed = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(packed).digest() != digest:
        raise OSError(f"{FOLDER / name} is damaged")
    return packed


def _write(folder: int, name: str, content: bytes) -> None:
    unfinished = f"{name}.{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    fd = os.open(unfinished, flags, 0o600, dir_fd=folder)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(unfinished, dir_fd=folder)
        raise


def _forget_oldest(folder: int) -> None:
    used = {
        name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns
        for name in os.listdir(folder)
    }
    for name in sorted(used, key=used.__getitem__, reverse=True)[KEPT:]:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)


def _unchanged(path: str, size: int, changed_ns: int) -> bool:
    status = os.stat(path)
    return (status.st_size, status.st_mtime_ns) == (size, changed_ns)
