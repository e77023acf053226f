# SPDX-License-Identifier: Apache-2.0
"""What a service manager is told, on a socket of its own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ebpftop.cli.readiness import tell_ready


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"ebpftop-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else str(tmp_path / "notify"))
        manager.settimeout(5)
        tell_ready()
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nonexistent/notify"])
def test_without_a_manager_nobody_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    tell_ready()
