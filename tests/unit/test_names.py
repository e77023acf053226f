# SPDX-License-Identifier: Apache-2.0
"""Names in the background: never waited for, kept, bounded, and hostile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ebpftop.model import Prefix
from ebpftop.sources import names
from ebpftop.sources.names import WORKERS, Names

ADDRESS = Prefix.parse("192.0.2.1")


@contextmanager
def looking_up(script: str) -> Iterator[Names]:
    found = Names(("sh", "-c", script, "lookup"))
    try:
        yield found
    finally:
        found.stop()


def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_a_name_is_there_after_it_was_asked_for_and_asked_only_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with looking_up(f'echo asked >> {log}; echo "$1 host.example alias.example"') as found:
        assert found.of(ADDRESS) == ""
        until(lambda: found.of(ADDRESS))
        for _ in range(100):
            assert found.of(ADDRESS) == "host.example"
    assert log.read_text() == "asked\n"


def test_that_there_is_no_name_is_kept_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with looking_up(f"echo asked >> {log}; exit 2") as found:
        found.of(ADDRESS)
        until(log.exists)
        until(lambda: not found._asked)
        assert found.of(ADDRESS) == ""
    assert log.read_text() == "asked\n"


def test_an_answer_is_asked_for_again_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    with looking_up('echo "$1 name-$(date +%N)"') as found:
        until(lambda: found.of(ADDRESS))
        first = found.of(ADDRESS)
        monkeypatch.setattr(names, "KEPT_FOR_S", 0.0)
        until(lambda: found.of(ADDRESS) != first)


def test_a_slow_resolver_holds_nobody_up_and_is_killed_at_the_end() -> None:
    with looking_up("exec sleep 60") as found:
        begin_s = time.monotonic()
        for number in range(50):
            found.of(Prefix.parse(f"192.0.2.{number}"))
        assert time.monotonic() - begin_s < 5
        until(lambda: len(found._running) == WORKERS)
    assert time.monotonic() - begin_s < 30
    assert not [t for t in threading.enumerate() if t.name.startswith("ebpftop-names")]


def test_what_a_name_server_says_cannot_write_on_the_terminal() -> None:
    with looking_up("printf '%s \\033[2Jevil\\342\\200\\256.example\\n' \"$1\"") as found:
        until(lambda: found.of(ADDRESS))
        assert found.of(ADDRESS).isprintable()
        assert "evil" in found.of(ADDRESS)


def test_what_is_kept_and_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MOST_KEPT", 3)
    monkeypatch.setattr(names, "MOST_WAITING", 8)
    with looking_up('echo "$1 host"') as found:
        for number in range(20):
            found.of(Prefix.parse(f"192.0.2.{number}"))
            assert len(found._asked) <= 8
        until(lambda: not found._asked)
        assert len(found._kept) <= 3


def test_a_machine_without_the_command_has_no_names() -> None:
    found = Names(("/nonexistent/getent",))
    try:
        found.of(ADDRESS)
        until(lambda: not found._asked)
        assert found.of(ADDRESS) == ""
    finally:
        found.stop()
