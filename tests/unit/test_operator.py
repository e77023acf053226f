# SPDX-License-Identifier: Apache-2.0
"""Where the operator is connected from, found in process tables made by hand."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ebpftop.control import operator
from ebpftop.control.operator import peers
from ebpftop.model import Prefix

Tcp = tuple[str, str, str]
"""Far end, state and inode of a connection."""


class Processes:
    """A /proc in which this process is the youngest."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def add(
        self,
        pid: int,
        parent: int,
        name: str,
        environ: bytes = b"PATH=/bin\0",
        *,
        sockets: Sequence[str] = (),
        connections: Sequence[Tcp] = (),
    ) -> None:
        folder = self._root / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "net").mkdir()
        (folder / "comm").write_text(f"{name}\n")
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} {pid} {pid} 0 -1\n")
        (folder / "environ").write_bytes(environ)
        for number, inode in enumerate(sockets):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
        for version, table in ((4, "tcp"), (6, "tcp6")):
            lines = ["  sl  local_address rem_address   st"]
            for far, state, inode in connections:
                if ipaddress.ip_address(far).version == version:
                    lines.append(
                        f"   0: {_hex('192.0.2.1')}:0016 {_hex(far)}:C350 {state} "
                        f"00000000:00000000 00:00000000 00000000 0 0 {inode} 1"
                    )
            (folder / "net" / table).write_text("\n".join(lines) + "\n")


def _hex(address: str) -> str:
    """Return an address as the kernel prints it, in words of the machine's byte order."""
    packed = ipaddress.ip_address(address).packed
    words = [packed[at : at + 4][::-1].hex() for at in range(0, len(packed), 4)]
    return "".join(words).upper()


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    monkeypatch.setattr(operator, "PROC", tmp_path)
    return Processes(tmp_path)


def found() -> set[str]:
    return {str(peer) for peer in peers()}


ME = os.getpid()
INIT, SSHD, SHELL, SUDO = 1, 1_000_001, 1_000_002, 1_000_003


def test_the_environment_of_an_ancestor_is_read_where_ones_own_is_clean(
    processes: Processes,
) -> None:
    processes.add(ME, SUDO, "ebpftop")
    processes.add(SUDO, SHELL, "sudo")
    processes.add(SHELL, INIT, "bash", b"A=1\0SSH_CONNECTION=192.0.2.9 50000 10.0.0.1 22\0B=2\0")
    processes.add(INIT, 0, "systemd")
    assert found() == {"192.0.2.9"}


@pytest.mark.parametrize(
    ("connection", "peer"),
    [
        (b"2001:db8::7 5 2001:db8::1 22", {"2001:db8::7"}),
        (b"fe80::1%eth0 5 fe80::2%eth0 22", {"fe80::1"}),
        (b"::ffff:192.0.2.9 5 ::ffff:10.0.0.1 22", {"192.0.2.9"}),
        (b"127.0.0.1 5 127.0.0.1 22", set()),
        (b"::1 5 ::1 22", set()),
        (b"", set()),
        (b"   ", set()),
        (b"example.org 5 10.0.0.1 22", set()),
        (b"0.0.0.0/0 5 10.0.0.1 22", set()),
        (b"\xff\xfe 5 10.0.0.1 22", set()),
    ],
)
def test_only_an_address_of_another_machine_is_a_peer(
    processes: Processes, connection: bytes, peer: set[str]
) -> None:
    processes.add(ME, 0, "ebpftop", b"SSH_CONNECTION=" + connection + b"\0")
    assert found() == peer


def test_the_sockets_of_an_sshd_above_are_followed(processes: Processes) -> None:
    connections = [
        ("192.0.2.9", "01", "77"),
        ("2001:db8::7", "01", "78"),
        ("::ffff:192.0.2.10", "01", "79"),
        ("192.0.2.11", "06", "80"),
        ("192.0.2.12", "01", "90"),
    ]
    processes.add(ME, SSHD, "ebpftop", sockets=["90"], connections=connections)
    processes.add(
        SSHD, INIT, "sshd-session", sockets=["77", "78", "79", "80"], connections=connections
    )
    processes.add(INIT, 0, "systemd")

    # Its own, and only those that are established; a socket of another process is not.
    assert found() == {"192.0.2.9", "2001:db8::7", "192.0.2.10"}


@pytest.mark.parametrize(
    ("server", "client"), [("tmux: server", "tmux: client"), ("screen", "screen")]
)
def test_below_a_multiplexer_the_logins_that_show_it_count(
    processes: Processes, server: str, client: str
) -> None:
    showing, login = 1_000_010, 1_000_011
    processes.add(ME, SHELL, "ebpftop")
    processes.add(SHELL, SUDO, "bash", b"SSH_CONNECTION=192.0.2.8 5 10.0.0.1 22\0")
    processes.add(SUDO, INIT, server)
    processes.add(showing, login, client)
    processes.add(login, INIT, "bash", b"SSH_CONNECTION=192.0.2.9 5 10.0.0.1 22\0")
    processes.add(1_000_012, INIT, "bash", b"SSH_CONNECTION=192.0.2.10 5 10.0.0.1 22\0")
    processes.add(INIT, 0, "systemd")
    assert found() == {"192.0.2.8", "192.0.2.9"}


def test_without_a_multiplexer_above_its_clients_are_nobodys(processes: Processes) -> None:
    processes.add(ME, 0, "ebpftop")
    processes.add(SHELL, 0, "tmux: client", b"SSH_CONNECTION=192.0.2.9 5 10.0.0.1 22\0")
    assert found() == set()


def test_a_name_with_brackets_does_not_hide_who_its_parent_is(processes: Processes) -> None:
    processes.add(ME, SHELL, "a) S 1 (b")
    processes.add(SHELL, 0, "bash", b"SSH_CLIENT=192.0.2.9 5 22\0")
    assert found() == {"192.0.2.9"}


def test_what_cannot_be_read_ends_the_search_and_no_more(processes: Processes) -> None:
    processes.add(ME, SHELL, "ebpftop", b"SSH_CONNECTION=192.0.2.9 5 10.0.0.1 22\0")
    assert found() == {"192.0.2.9"}


def test_every_connection_of_the_namespace_is_known(tmp_path: Path, processes: Processes) -> None:
    connections = [("192.0.2.9", "01", "1"), ("2001:db8::7", "01", "2"), ("192.0.2.8", "0A", "3")]
    processes.add(SHELL, 0, "bash", connections=connections)
    (tmp_path / "thread-self").symlink_to(tmp_path / str(SHELL))
    assert operator.connected() == {Prefix.parse("192.0.2.9"), Prefix.parse("2001:db8::7")}
