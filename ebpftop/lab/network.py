# SPDX-License-Identifier: Apache-2.0
"""A small network in namespaces: a server, clients and an attacker on one bridge."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from ebpftop.errors import EbpftopError, KernelRefusedError, NotPermittedError
from ebpftop.lab import farm
from ebpftop.lab.hosts import Backend, Host
from ebpftop.lab.namespace import (
    NETNS_DIR,
    Namespace,
    batch,
    joined,
    set_sysctls,
    switch_off_tx_checksums,
)

_TOOLS = {"ip": "iproute2", "bridge": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux"}
_NETNS_NAME = re.compile(
    r"ebpftop-(?P<owner>(?P<pid>\d+)(?:\.\d+)?)-(?:wire|server|client\d+|attacker|backend\d+)"
)
_SERVER_NUMBER = 1
_FIRST_CLIENT_NUMBER = 11
_ATTACKER_NUMBER = 66
_FIRST_BACKEND_NUMBER = 71
_MOST_CLIENTS = _ATTACKER_NUMBER - _FIRST_CLIENT_NUMBER
_MOST_BACKENDS = 100
_KILL_TIMEOUT_S = 5.0


class Lab:
    """A network on one machine; built when this returns, gone after `close` or the `with` block.

    A namespace for each host, named `ebpftop-PID-ROLE`, and one for the bridge between them.
    A second lab of one process is called `ebpftop-PID.2-ROLE`, and so on.

    Args:
        clients: How many client hosts, up to 55.
        backends: How many servers behind the balancer, up to 100.
        arms: 2 puts them on a network of their own behind the server's `eth1`.

    Raises:
        ValueError: No such number of clients, backends or arms.
        NotPermittedError: The process is not root.
        EbpftopError: A tool is missing.
        KernelRefusedError: The kernel refused; nothing is left behind.
    """

    _serials: ClassVar[Iterator[int]] = itertools.count(1)
    _owners: ClassVar[set[str]] = set()

    def __init__(self, clients: int = 3, *, backends: int = 0, arms: int = 1) -> None:
        if not 0 <= clients <= _MOST_CLIENTS:
            raise ValueError(f"a lab has 0 to {_MOST_CLIENTS} clients, not {clients}")
        if not 0 <= backends <= _MOST_BACKENDS or arms not in (1, 2):
            raise ValueError(f"a lab has 0 to {_MOST_BACKENDS} backends on 1 or 2 arms")
        if os.geteuid():
            raise NotPermittedError("only root may build a network of namespaces", "use sudo")
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise EbpftopError(f"`{tool}` is not installed", f"install {package}")
        self.sweep()
        serial = next(self._serials)
        self._owner = str(os.getpid()) if serial == 1 else f"{os.getpid()}.{serial}"
        self.wire = Namespace(name="wire", netns=self._netns("wire"))
        """Holds the bridge `br0`, with one port a host, named as the host is."""
        self.server = self._host("server", _SERVER_NUMBER)
        """The host whose interface ebpftop attaches to."""
        self.clients = [
            self._host(f"client{i + 1}", _FIRST_CLIENT_NUMBER + i) for i in range(clients)
        ]
        """Hosts without a task of their own."""
        self.attacker = self._host("attacker", _ATTACKER_NUMBER)
        """The host that floods."""
        self.backends = [self._backend(i) for i in range(backends)]
        """Servers behind the balancer, which runs on `server`."""
        self._arms = arms
        self._held: list[int] = []
        self._owners.add(self._owner)
        try:
            self._build()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise KernelRefusedError("the lab cannot be built", str(error)) from error
            raise

    @property
    def hosts(self) -> list[Host]:
        """The server, the clients, the attacker and the backends."""
        return [self.server, *self.clients, self.attacker, *self.backends]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what was started in the lab and remove its namespaces; may be called again."""
        namespaces = [self.wire, *self.hosts]
        children = [child for namespace in namespaces for child in namespace.children]
        _kill(children, [namespace.netns_path for namespace in namespaces])
        while self._held:
            os.close(self._held.pop())
        _remove(namespace.netns for namespace in namespaces)
        self._owners.discard(self._owner)

    @classmethod
    def sweep(cls) -> list[str]:
        """Remove the namespaces of labs whose process is gone; their names are returned."""
        stale = [path.name for path in NETNS_DIR.glob("ebpftop-*") if cls._is_stale(path.name)]
        _remove(stale)
        return stale

    @classmethod
    def _is_stale(cls, netns: str) -> bool:
        match = _NETNS_NAME.fullmatch(netns)
        if match is None:
            return False
        pid = int(match["pid"])
        if pid == os.getpid():
            return match["owner"] not in cls._owners
        started = _start_ticks(pid)
        return started is None or _owner_mark(netns) not in (None, str(started))

    def _netns(self, role: str) -> str:
        return f"ebpftop-{self._owner}-{role}"

    def _host(self, role: str, number: int) -> Host:
        return Host(name=role, netns=self._netns(role), number=number)

    def _backend(self, index: int) -> Backend:
        role = f"backend{index + 1}"
        number = _FIRST_BACKEND_NUMBER + index
        return Backend(name=role, netns=self._netns(role), number=number)

    def _build(self) -> None:
        namespaces: Sequence[Namespace] = [self.wire, *self.hosts]
        batch("ip", [f"netns add {namespace.netns}" for namespace in namespaces])
        for namespace in namespaces:
            # A number alone may come to another process: the start time tells them apart.
            namespace.ip(f"link set lo up alias {_start_ticks(os.getpid())}")
        self._build_wire()
        for host in self.hosts:
            self._build_host(host)
        if self.backends:
            self._held = farm.build(self.wire, self.server, self.backends, arms=self._arms)

    def _build_wire(self) -> None:
        with joined(self.wire):
            set_sysctls({"ipv6/conf/default/disable_ipv6": "1"})
        self.wire.ip(
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            "link set br0 up",
            *(
                f"link add {host.name} type veth"
                f" peer name {host.interface} address {host.mac} netns {host.netns}"
                for host in self.hosts
            ),
            *(f"link set {host.name} master br0 up" for host in self.hosts),
        )
        # Without these, frames to a host that has not spoken yet would go to every port.
        known = [f"fdb replace {host.mac} dev {host.name} master static" for host in self.hosts]
        batch("bridge", known, netns=self.wire.netns)

    def _build_host(self, host: Host) -> None:
        with joined(host):
            set_sysctls(
                {
                    # Spoofed sources must reach the server as they would from a router.
                    "ipv4/conf/all/rp_filter": "0",
                    f"ipv4/conf/{host.interface}/rp_filter": "0",
                    # Addresses are of use at once, and nobody asks for routers.
                    f"ipv6/conf/{host.interface}/accept_dad": "0",
                    f"ipv6/conf/{host.interface}/router_solicitations": "0",
                }
            )
            switch_off_tx_checksums(host.interface)
        host.ip(
            *(
                f"address add {network} dev {host.interface}{' nodad' if ':' in network else ''}"
                for network in host.networks
            ),
            f"link set {host.interface} up",
        )


def _start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses, and may hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _owner_mark(netns: str) -> str | None:
    """Return the start time that a lab wrote on a namespace's `lo`; None where it has not yet."""
    argv = ["ip", "-n", netns, "-json", "link", "show", "dev", "lo"]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        return None
    mark: str | None = json.loads(done.stdout)[0].get("ifalias")
    return mark


def _kill(children: Sequence[subprocess.Popen[bytes]], netns_paths: Iterable[Path]) -> None:
    """Kill `children` and what they started in the namespaces, and wait until all are gone.

    Others in the namespaces are spared: the lab's owner, or a shell that looks around.
    """
    for child in children:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    sessions = {child.pid for child in children}
    inodes = {path.stat().st_ino for path in netns_paths if path.exists()}
    deadline_s = time.monotonic() + _KILL_TIMEOUT_S
    while (left := _members(sessions, inodes)) and time.monotonic() < deadline_s:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _members(sessions: set[int], inodes: set[int]) -> list[int]:
    """Return the processes of `sessions` in the namespaces with these inode numbers."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        with suppress(OSError):
            if os.getsid(pid) in sessions and (path / "ns/net").stat().st_ino in inodes:
                found.append(pid)
    return found


def _remove(netns: Iterable[str]) -> None:
    """Delete those of the named namespaces that exist."""
    there = [name for name in netns if (NETNS_DIR / name).exists()]
    if not there:
        return
    # Another process may sweep at the same time: what counts is that they are gone.
    commands = "\n".join(f"netns delete {name}" for name in there)
    done = subprocess.run(
        ["ip", "-force", "-batch", "-"], input=commands, capture_output=True, text=True
    )
    if any((NETNS_DIR / name).exists() for name in there):
        raise KernelRefusedError("namespaces of a lab cannot be removed", done.stderr.strip())
