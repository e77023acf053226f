# SPDX-License-Identifier: Apache-2.0
"""An act that takes itself back unless it is confirmed, whoever dies in between."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpftop.control.everything import InstanceControl
from ebpftop.kernel import bpffs
from ebpftop.model import Prefix, Service
from tests.kernel.stage import IFACE, Stage, child, ebpftop, staged, until

pytestmark = pytest.mark.kernel

ONE, TWO = "10.4.0.1", "10.4.0.2"
SOON, LATE = "2s", "600s"


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=0, quiet=True) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage, audit_log: Path) -> Iterator[Stage]:
    attached.clear()
    audit_log.unlink(missing_ok=True)
    yield attached
    for path in bpffs.pending_files(attached.instance.name):
        path.unlink(missing_ok=True)
    until(lambda: not waiting_processes(attached))


def waiting_processes(stage: Stage) -> list[int]:
    """Return the processes that wait to take something of this instance back."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if b"ebpftop.reverter" in words and stage.instance.name.encode() + b"." in words:
            found.append(int(path.parent.name))
    return found


def acts() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = ebpftop("acts", IFACE, "--json").json()
    return listed[::-1]


def done(*words: str) -> str:
    result = ebpftop(*words)
    assert result.status == 0, result
    return result.out


def limit() -> int:
    pps: int = ebpftop("limit", IFACE, "--json").json()["pps"]
    return pps


def test_an_act_that_nobody_confirms_takes_itself_back(stage: Stage) -> None:
    done("block", IFACE, ONE, "--revert-after", SOON)
    assert stage.listed() == {ONE}
    (act,) = acts()
    assert 0 < act["reverts_at"] - act["time"] <= 2
    until(lambda: stage.listed() == set())
    until(lambda: [(act["what"], act["result"], act["undone"]) for act in acts()]
          == [("block", "done", True), ("revert", "done", False)])  # fmt: skip
    assert acts()[1]["undoes"] == act["id"]
    assert acts()[1]["user"] == act["user"]


def test_an_act_that_was_confirmed_stays(stage: Stage) -> None:
    done("block", IFACE, ONE, "--revert-after", SOON)
    assert len(waiting_processes(stage)) == 1
    assert "1 act stays" in done("confirm", IFACE)
    until(lambda: not waiting_processes(stage))
    time.sleep(2.2)
    assert stage.listed() == {ONE}
    assert [act["what"] for act in acts()] == ["block", "confirm"]
    assert acts()[0]["reverts_at"] is None
    nothing = ebpftop("confirm", IFACE)
    assert nothing.status == 3
    assert "no act waits" in nothing.err


def test_it_takes_itself_back_when_the_verb_and_its_session_are_killed(stage: Stage) -> None:
    verb = child("limit", IFACE, "--pps", "7", "--revert-after", SOON, start_new_session=True)
    until(lambda: limit() == 7)
    with_it = os.getpgid(verb.pid) if verb.poll() is None else verb.pid
    with contextlib.suppress(ProcessLookupError):  # it had ended by itself
        os.killpg(with_it, signal.SIGKILL)
    verb.communicate(timeout=20)
    until(lambda: limit() == 0)


def test_the_process_waits_in_a_session_of_its_own_and_hears_no_hangup(stage: Stage) -> None:
    done("block", IFACE, ONE, "--revert-after", SOON)
    (pid,) = waiting_processes(stage)
    assert os.getsid(pid) != os.getsid(0)
    # 1 is the first process; a subreaper may stand between.
    assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) != os.getpid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert rss < 30 << 20
    until(lambda: stage.listed() == set())


def test_each_kind_of_act_takes_itself_back(stage: Stage) -> None:
    control = InstanceControl(stage.instance).reverting(2.0)
    done("class", "set", IFACE, "video", "--rate", "8mbit", "--action", "police")
    done("class", "set", IFACE, "video", "--rate", "1mbit", "--revert-after", SOON)
    control.allow(Prefix.parse(TWO))
    control.shaping.assign(Prefix.parse(ONE), "video")

    def is_back() -> bool:
        (row,) = ebpftop("classes", IFACE, "--json").json()
        allowed = ebpftop("allowed", IFACE, "--json").json()
        return row["rate_bps"] == 8_000_000 and not row["addresses"] and not allowed

    assert not is_back()
    until(is_back, 20.0)
    done("class", "del", IFACE, "video")


def test_acts_on_backends_take_themselves_back_each_for_itself(stage: Stage) -> None:
    vip, one, two = "198.51.100.10:80/tcp", "10.0.0.11:80", "10.0.0.12:80"

    def weights() -> dict[str, int]:
        rows = ebpftop("backends", IFACE, "--json").json()
        return {row["backend"]: row["weight"] for row in rows}

    done("vip", "add", IFACE, vip)
    try:
        for backend in (one, two):
            done("backend", "add", IFACE, vip, backend)
        done("backend", "set", IFACE, vip, one, "--weight", "7", "--revert-after", LATE)
        done("backend", "set", IFACE, vip, two, "--weight", "8", "--revert-after", SOON)
        done("vip", "set", IFACE, vip, "--algorithm", "rr", "--revert-after", SOON)
        assert weights() == {one: 7, two: 8}
        until(lambda: weights() == {one: 7, two: 1})
        until(lambda: ebpftop("backends", IFACE, "--json").json()[0]["algorithm"] == "wrr")
        # What goes back at the end is what was confirmed last, for both backends.
        control = InstanceControl(stage.instance).reverting(2)
        service = Service.parse(vip)
        both = {Service.parse(name, "tcp"): {"weight": 5} for name in (one, two)}
        control.balancing.set_backends(service, both)
        assert weights() == {one: 5, two: 5}
        until(lambda: weights() == {one: 1, two: 1})
    finally:
        done("vip", "del", IFACE, vip)


def test_two_that_nobody_confirms_lead_back_to_what_was_confirmed(stage: Stage) -> None:
    done("limit", IFACE, "--pps", "500")
    done("limit", IFACE, "--pps", "9", "--revert-after", SOON)
    done("limit", IFACE, "--pps", "3", "--revert-after", "3s")
    until(lambda: limit() == 500)
    until(lambda: not waiting_processes(stage))
    assert limit() == 500


def test_what_was_changed_since_on_purpose_stays(stage: Stage) -> None:
    done("limit", IFACE, "--pps", "9", "--revert-after", SOON)
    done("limit", IFACE, "--pps", "800")
    until(lambda: not waiting_processes(stage))
    assert limit() == 800
    until(lambda: acts()[-1]["what"] == "revert")
    assert "has been changed since" in acts()[-1]["result"]


def test_an_undo_ends_the_waiting(stage: Stage) -> None:
    done("block", IFACE, ONE, "--revert-after", LATE)
    done("undo", IFACE)
    until(lambda: not waiting_processes(stage))
    assert bpffs.pending_files(stage.instance.name) == []


def test_a_refused_act_leaves_nobody_waiting(stage: Stage) -> None:
    done("allow", IFACE, ONE)
    assert ebpftop("block", IFACE, ONE, "--revert-after", LATE).status == 2
    until(lambda: not waiting_processes(stage))


def test_an_act_whose_guard_does_not_start_is_not_done(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebpftop.control.pending.sys.executable", "/bin/false")
    refused = ebpftop("block", IFACE, ONE, "--revert-after", LATE)
    assert refused.status == 1
    assert "did not start" in refused.err
    assert stage.listed() == set()
    assert bpffs.pending_files(stage.instance.name) == []


def test_a_log_that_cannot_be_written_does_not_stop_the_way_back(
    stage: Stage, audit_log: Path
) -> None:
    done("block", IFACE, ONE, "--revert-after", SOON)
    audit_log.unlink()
    audit_log.mkdir()
    try:
        until(lambda: stage.listed() == set())
        until(lambda: not waiting_processes(stage))
    finally:
        audit_log.rmdir()
        audit_log.touch()


def test_a_time_without_end_is_refused(stage: Stage) -> None:
    for words in ("forever", "0"):
        assert ebpftop("block", IFACE, ONE, "--revert-after", words).status == 2
    assert stage.listed() == set()
