# SPDX-License-Identifier: Apache-2.0
"""One network namespace: commands inside it, and this thread inside it."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ebpftop.errors import EbpftopError, KernelRefusedError

NETNS_DIR = Path("/run/netns")
"""Where iproute2 keeps namespaces that have a name."""

_CLONE_NEWNET = 0x40000000
_SIOCETHTOOL = 0x8946
_ETHTOOL_SET_TX_CHECKSUM = 0x17
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace with a name, and the processes that were started in it."""

    name: str
    """Its part in the lab: `wire`, `server`, `client1`, `attacker`."""
    netns: str
    """Its name for `ip -n`."""
    children: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False, compare=False)
    """What `spawn` started, the finished included."""

    @property
    def netns_path(self) -> Path:
        """The file that stands for it, for `nsenter --net=`."""
        return NETNS_DIR / self.netns

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout_s: float = 10.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end; its output is text, in the result.

        Raises:
            subprocess.CalledProcessError: It failed, and `check` is true.
            subprocess.TimeoutExpired: It took longer than `timeout_s`, and was killed.
        """
        return subprocess.run(
            self._inside(argv), check=check, timeout=timeout_s, capture_output=True, text=True
        )

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stderr: IO[bytes] | int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a command in it, in a session of its own, its standard output in a pipe.

        The kernel kills it when the thread that called this ends, however that ends: call
        it from a thread that lives as long as the child should.
        """
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self._inside(argv)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=env,
            bufsize=0,
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def _inside(self, argv: Sequence[str]) -> list[str]:
        # `ip netns exec` would mount a fresh /sys, and so hide what is mounted below it.
        return ["nsenter", f"--net={self.netns_path}", *argv]

    def ip(self, *commands: str) -> None:
        """Run lines of `ip -batch` in it, up to the first that fails.

        Raises:
            KernelRefusedError: One of them failed.
        """
        batch("ip", commands, netns=self.netns)


def batch(tool: str, commands: Sequence[str], *, netns: str = "") -> None:
    """Run command lines of `ip` or `bridge` in one process, up to the first that fails.

    Args:
        tool: `ip` or `bridge`.
        commands: The lines, without the tool's name.
        netns: Name of the namespace to run them in; empty for the caller's.

    Raises:
        EbpftopError: The tool is not installed.
        KernelRefusedError: A line failed.
    """
    argv = [tool, *(["-n", netns] if netns else []), "-batch", "-"]
    try:
        done = subprocess.run(argv, input="\n".join(commands), capture_output=True, text=True)
    except FileNotFoundError as error:
        raise EbpftopError(f"`{tool}` is not installed", "install iproute2") from error
    if done.returncode:
        raise KernelRefusedError(f"{' '.join(argv)} failed", done.stderr.strip())


def enter(namespace: Namespace) -> None:
    """Move the calling thread into `namespace` for good.

    Threads it starts later are born there; those that run already stay where they are. So a
    process that means to move as a whole calls this before it starts any.

    Raises:
        KernelRefusedError: No right to, or the namespace is gone.
    """
    try:
        with namespace.netns_path.open("rb") as handle:
            _setns(handle.fileno())
    except OSError as error:
        raise KernelRefusedError(
            f"cannot enter the network namespace {namespace.netns}", os.strerror(error.errno or 0)
        ) from error


@contextmanager
def joined(namespace: Namespace) -> Iterator[None]:
    """Move the calling thread into `namespace` for the length of a `with` block.

    A socket made inside keeps working in that namespace after the block.

    Raises:
        KernelRefusedError: No right to, or the namespace is gone.
    """
    with open("/proc/thread-self/ns/net", "rb") as home:
        enter(namespace)
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(fd: int) -> None:
    """Call setns(2), which Python has had only since 3.12."""
    if _libc.setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def set_sysctls(settings: Mapping[str, str]) -> None:
    """Write `net` sysctls of the namespace that the calling thread is in.

    Args:
        settings: Values by path under `/proc/sys/net`, as `ipv6/conf/eth0/accept_dad`.
    """
    for name, value in settings.items():
        Path("/proc/sys/net", name).write_text(value)


def switch_off_tx_checksums(interface: str) -> None:
    """Have checksums complete before a frame leaves `interface` of the thread's namespace.

    A veth pair hands frames over as they are, so an XDP program on the other end would
    otherwise see checksums that nobody has computed yet. Does what `ethtool -K IFACE tx off`
    does (struct ethtool_value in linux/ethtool.h).
    """
    setting = array.array("I", [_ETHTOOL_SET_TX_CHECKSUM, 0])
    request = struct.pack("16sP16x", interface.encode(), setting.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCETHTOOL, request)
