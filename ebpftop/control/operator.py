# SPDX-License-Identifier: Apache-2.0
"""From where the operator is connected: whom no rule of ours may cut off.

sudo takes SSH_CONNECTION away, so the ancestors' environments are read, and where an
ancestor is sshd itself, the far ends of its sockets. Below a terminal multiplexer the
ancestors are those of whoever started it: its clients' ancestors count too.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

from ebpftop.model import Prefix

PROC = Path("/proc")
MULTIPLEXERS = {"tmux: server": "tmux: client", "screen": "screen"}
"""What the process that holds the terminals is called, and those that show them."""

_ESTABLISHED = "01"
_MOST_ANCESTORS = 64
_LOOPBACK = (Prefix.parse("127.0.0.0/8"), Prefix.parse("::1"))


def peers() -> set[Prefix]:
    """Return the addresses the operator's own connection comes from; empty on a console."""
    processes = list(_ancestors(os.getpid()))
    names = {_name(process) for process in processes}
    shown_by = {MULTIPLEXERS[name] for name in names & MULTIPLEXERS.keys()}
    if shown_by:
        clients = [p for p in PROC.glob("[0-9]*") if _name(p) in shown_by]
        processes += [a for client in clients for a in _ancestors(int(client.name))]
    found = set()
    for process in processes:
        found |= _peers_by_environment(process)
        if _name(process).startswith("sshd"):
            found |= _peers_by_sockets(process)
    return {peer for peer in found if not _is_loopback(peer)}


def connected() -> set[Prefix]:
    """Return the far ends of every TCP connection of this network namespace."""
    return {peer for peer, _ in _connections(PROC / "thread-self")}


def _is_loopback(peer: Prefix) -> bool:
    return any(net.contains(peer) for net in _LOOPBACK)


def _ancestors(pid: int) -> Iterator[Path]:
    """Yield the /proc folders of a process and of its ancestors, as far as they can be read."""
    for _ in range(_MOST_ANCESTORS):
        process = PROC / str(pid)
        yield process
        try:
            # The name in brackets may hold anything: read behind the last one.
            pid = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return
        if pid == 0:
            return


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except (OSError, ValueError):
        return ""


def _peers_by_environment(process: Path) -> set[Prefix]:
    try:
        entries = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return set()
    found = set()
    for entry in entries:
        name, _, value = entry.partition(b"=")
        if name in (b"SSH_CONNECTION", b"SSH_CLIENT") and value.split():
            found |= _parsed(value.split()[0].decode(errors="replace").partition("%")[0])
    return found


def _parsed(text: str) -> set[Prefix]:
    try:
        peer = Prefix.parse(text)
    except ValueError:
        return set()
    return {peer} if peer.is_host else set()


def _peers_by_sockets(process: Path) -> set[Prefix]:
    try:
        targets = {os.readlink(fd) for fd in (process / "fd").iterdir()}
    except OSError:
        return set()
    return {peer for peer, inode in _connections(process) if f"socket:[{inode}]" in targets}


def _connections(process: Path) -> Iterator[tuple[Prefix, str]]:
    """Yield the far end and the inode of each TCP connection in a process's namespace."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (process / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _ESTABLISHED:
                for peer in _parsed(_address(fields[2].partition(":")[0])):
                    yield peer, fields[9]


def _address(text: str) -> str:
    """Turn the 32-bit little-endian words of /proc/net/tcp into an address."""
    words = [int(text[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address)
