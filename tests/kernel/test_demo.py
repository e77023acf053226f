# SPDX-License-Identifier: Apache-2.0
"""The demo: what it shows is true, and it leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ebpftop.cli import demo
from ebpftop.kernel import bpffs
from ebpftop.lab.namespace import NETNS_DIR
from tests.kernel.attached import NOBODY
from tests.kernel.stage import PROGRAM, until
from tests.kernel.terminal import Terminal

pytestmark = pytest.mark.kernel

SECONDS = 8
START_S = 60.0
"""How long a loaded machine may take to build it."""
PROCESSES = 12
"""Servers, clients, the flood, the download and the load."""
BACKENDS = ("backend1", "backend2", "backend3")
ROLES = ("wire", "server", "client1", "client2", "client3", "attacker", *BACKENDS)


@dataclass
class Demo:
    """A demo as a process of its own, and all that belongs to it."""

    process: subprocess.Popen[Any]
    files: dict[Path, int] = field(default_factory=dict)
    """Inodes of its namespaces, its pins and its lock."""
    members: dict[Path, str] = field(default_factory=dict)
    """Its processes, and when each started."""

    @classmethod
    def start(cls, seconds: int) -> Demo:
        argv = [PROGRAM, "demo", "--for", str(seconds), "--json"]
        return cls(
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )

    def namespaces(self) -> list[Path]:
        return [NETNS_DIR / f"ebpftop-{self.process.pid}-{role}" for role in ROLES]

    def meet(self) -> None:
        """Wait until it is attached and its traffic runs, and note what it consists of."""
        paths = self.namespaces()
        until(lambda: all(path.exists() for path in paths), START_S)
        inodes = {path.stat().st_ino for path in paths}
        server = paths[ROLES.index("server")].stat().st_ino
        (folder,) = until(lambda: list(bpffs.BPFFS.glob(f"{server}-*")), START_S)
        lock = bpffs.RUN / f"{folder.name}.lock"
        until(lambda: len(processes_in(inodes)) >= PROCESSES, START_S)
        self.members = {p: since for p in processes_in(inodes) if (since := started(p))}
        self.files = {path: path.stat().st_ino for path in (*paths, folder, lock)}

    def leftovers(self) -> list[Path]:
        """Return what is left of it: namespaces, processes, pins, its lock.

        Numbers of namespaces and of processes go to others soon, so a path alone says nothing.
        """
        left = [path for path in self.namespaces() if path.exists()]
        left += [path for path, inode in self.files.items() if inode_of(path) == inode]
        return left + [path for path, since in self.members.items() if started(path) == since]


def processes_in(namespaces: set[int]) -> list[Path]:
    return [p for p in Path("/proc").glob("[0-9]*") if inode_of(p / "ns/net") in namespaces]


def inode_of(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def started(process: Path) -> str | None:
    """Return when a process started, None where it has ended."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    """Demos that a test started; a test that fails leaves none of them running."""
    started: list[Demo] = []
    yield started
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
        each.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    """The report of one demo, which has left nothing behind."""
    shown = Demo.start(SECONDS)
    shown.meet()
    out, err = shown.process.communicate(timeout=60)
    assert (shown.process.returncode, err) == (0, "")
    assert shown.leftovers() == []
    report: dict[str, Any] = json.loads(out)
    return report


def test_its_report_has_every_list(answer: dict[str, Any]) -> None:
    assert answer.keys() >= {
        "status", "top", "blocks", "allowed", "events", "classes", "backends", "connections",
    }  # fmt: skip
    assert answer["status"]["attached"]
    assert answer["status"]["uptime_s"] >= SECONDS
    assert answer["status"]["invariants"] == dict.fromkeys(answer["status"]["invariants"], True)
    assert answer["allowed"] == []


def test_its_flood_was_dropped_and_blocked_automatically(answer: dict[str, Any]) -> None:
    flood = answer["flood"]
    assert flood["blocked"]
    assert flood["sent_packets"] > 50_000
    assert flood["dropped_packets"] > 0.9 * flood["received_packets"]
    assert flood["received_packets"] == pytest.approx(flood["sent_packets"], rel=0.05)
    (block,) = answer["blocks"]
    assert (block["address"], block["source"]) == (flood["address"], "auto")
    assert block["packets"] > 0
    kinds = [event["kind"] for event in answer["events"]]
    assert kinds.count("auto-block") == 1
    assert "flood" in kinds
    row = answer["top"][0]
    assert (row["address"], row["state"]) == (flood["address"], "blocked")
    assert row["dropped"] == flood["dropped_packets"]
    status = answer["status"]
    # Counters move while they are read.
    assert status["packets"]["dropped"] == pytest.approx(row["dropped"], rel=0.01)
    assert sum(status["drops"].values()) == pytest.approx(status["packets"]["dropped"], rel=0.01)


def test_its_clients_were_served_throughout(answer: dict[str, Any]) -> None:
    assert len(answer["clients"]) == 3
    states = {row["address"]: row["state"] for row in answer["top"]}
    for client in answer["clients"]:
        assert client["failed"] == 0
        assert client["requests"] > 10 * (SECONDS - 1)
        assert client["p99_ms"] is not None
        assert states[client["address"]] == "passed"


def test_its_download_was_shaped(answer: dict[str, Any]) -> None:
    (row,) = answer["classes"]
    assert row["addresses"] == [answer["download"]["address"]]
    assert 0 < row["bps"] <= 1.02 * row["rate_bps"]
    assert 0.8 * row["rate_bps"] / 8 * (SECONDS - 1) < answer["download"]["bytes"]
    assert answer["download"]["bytes"] < row["rate_bps"] / 8 * (SECONDS + 1)
    (sender,) = (t for t in answer["top"] if t["address"] == answer["download"]["address"])
    assert sender["sent_bytes"] > answer["download"]["bytes"]


def test_its_vip_has_three_servers_and_one_of_them_fails_and_returns(
    answer: dict[str, Any],
) -> None:
    balanced = answer["balanced"]
    rows = {row["backend"]: row for row in answer["backends"]}
    assert list(rows) == ["192.0.2.71:80", "192.0.2.72:80", "192.0.2.73:80"]
    told = [(e["kind"], e["address"]) for e in answer["events"] if e["address"] == "192.0.2.72"]
    assert told[:2] == [("backend-down", "192.0.2.72"), ("backend-up", "192.0.2.72")]
    assert [row["healthy"] for row in rows.values()] == [True] * 3
    assert [row["share"] for row in rows.values()] == pytest.approx([1 / 3] * 3)
    # All of them served, and who failed served less.
    served = balanced["servers"]
    assert list(served) == list(BACKENDS)
    assert 0 < served["backend2"] < 0.9 * min(served["backend1"], served["backend3"])
    # What was lost was lost before the checks noticed.
    assert 0 < balanced["failed"] < 0.1 * balanced["requests"]
    clients = {row["client"].rpartition(":")[0] for row in answer["connections"]}
    assert clients == {answer["clients"][0]["address"]}


def test_its_report_is_readable_without_json(
    answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    demo._print(answer)
    unanswered = answer["clients"][0] | {"p50_ms": None, "p99_ms": None}
    demo._print(answer | {"clients": [unanswered], "events": []})
    shown = capsys.readouterr().out
    for words in ("blocked    automatically", answer["flood"]["address"], "auto-block", "–"):
        assert words in shown


def test_a_demo_that_was_killed_is_cleaned_up_by_the_next_which_ends_cleanly_when_told(
    demos: list[Demo],
) -> None:
    # GIVEN a demo that had no chance to clean up
    demos.append(killed := Demo.start(60))
    killed.meet()
    killed.process.kill()
    killed.process.wait()
    until(lambda: not any(started(process) for process in killed.members))
    assert len(killed.leftovers()) >= len(ROLES)

    # WHEN another starts, the first one's remains go
    demos.append(told := Demo.start(60))
    told.meet()
    assert killed.leftovers() == []

    # AND WHEN that one is told to end, nothing remains either
    told.process.terminate()
    out, err = told.process.communicate(timeout=20)
    assert (told.process.returncode, out, err) == (128 + signal.SIGTERM, "", "")
    assert told.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_demo_that_is_told_to_end_while_it_is_built_leaves_nothing(
    demos: list[Demo], number: signal.Signals
) -> None:
    demos.append(built := Demo.start(60))
    until(lambda: built.namespaces()[0].exists())
    os.kill(built.process.pid, number)
    out, _ = built.process.communicate(timeout=20)
    assert built.process.returncode == 128 + number
    assert out == ""
    assert built.leftovers() == []


@pytest.mark.parametrize("how", ["q", "closed terminal"])
def test_the_dashboard_of_the_demo_leaves_nothing_when_it_ends(how: str) -> None:
    # GIVEN the demo on a terminal, with its flood on the screen
    terminal = Terminal([PROGRAM, "demo"])
    try:
        shown = Demo(terminal.process)
        shown.meet()
        terminal.wait_for("198.18.0.66")

        # WHEN it is left
        if how == "q":
            terminal.press("q")
        else:
            terminal.hang_up()
        status = terminal.wait()

        # THEN nothing of it remains
        assert shown.leftovers() == []
        assert status == 0
    finally:
        terminal.close()


def test_a_user_without_rights_is_told_to_become_root() -> None:
    done = subprocess.run(
        [*NOBODY, PROGRAM, "demo"],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "ebpftop: the demo needs root: run it with sudo\n"
