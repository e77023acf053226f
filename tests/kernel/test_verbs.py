# SPDX-License-Identifier: Apache-2.0
"""Verbs that look, and the exit statuses: on a real instance, in the words of the contract."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from ebpftop.bpf import layout
from ebpftop.cli import watching
from ebpftop.model import VERDICTS, Prefix
from tests.kernel.attached import NOBODY
from tests.kernel.packets import udp
from tests.kernel.stage import IFACE, PROGRAM, Stage, child, ebpftop, staged, until

pytestmark = pytest.mark.kernel

QUIET, LOUD, SIX = "10.1.0.1", "10.1.0.2", "2001:db8:1::1"


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=0, quiet=True) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(watching, "SAMPLE_S", 0.05)
    attached.clear()
    return attached


def refused(status: int, *words: str) -> str:
    """Run a verb that must fail so; return its one line of complaint."""
    done = ebpftop(*words)
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("ebpftop: ")
    assert done.err.count("\n") == 1
    return done.err


def test_status_tells_what_is_attached_and_what_it_did(stage: Stage) -> None:
    before = ebpftop("status", IFACE, "--json").json()
    ebpftop("block", IFACE, LOUD)
    stage.send(QUIET, 11)
    stage.send(LOUD, 7)
    after = ebpftop("status", IFACE, "--json").json()

    assert (after["iface"], after["attached"]) == (IFACE, True)
    assert [(i["name"], i["mode"]) for i in after["interfaces"]] == [(IFACE, "native")]
    assert after["uptime_s"] > before["uptime_s"] > 0
    programs = {program["name"]: program for program in after["programs"]}
    assert programs["xdp_pipeline"]["hook"] == "xdp"
    assert programs["xdp_pipeline"]["verified_insns"] > 1000
    assert set(after["packets"]) == {"total", *VERDICTS} == set(after["bytes"])
    assert after["packets"]["total"] == sum(after["packets"][word] for word in VERDICTS)
    assert after["bytes"]["total"] == sum(after["bytes"][word] for word in VERDICTS)
    assert after["packets"]["dropped"] - before["packets"]["dropped"] == 7
    assert after["drops"]["blocked"] - before["drops"]["blocked"] == 7
    assert after["protocols"]["udp"] - before["protocols"]["udp"] == 18
    assert sum(after["protocols"].values()) == after["packets"]["total"]
    maps = {found["name"]: found for found in after["maps"]}
    assert maps["ip_tracker"]["entries"] == 2
    assert maps["ip_tracker"]["max_entries"] == 131_072
    assert maps["ip_tracker"]["memory_bytes"] > 10_000_000
    assert maps["blocked_ips"]["entries"] == 1
    assert maps["stats"]["entries"] is None
    assert after["invariants"] == dict.fromkeys(after["invariants"], True)
    assert len(after["invariants"]) == 3


def test_status_is_readable_without_json(stage: Stage) -> None:
    shown = ebpftop("status", IFACE)
    assert shown.status == 0
    assert "eth0 (native)" in shown.out


def test_top_has_every_promised_field(stage: Stage) -> None:
    stage.send(QUIET, 3)
    stage.send(SIX, 5)
    rows = {row["address"]: row for row in ebpftop("top", IFACE, "--json").json()}

    assert rows.keys() == {QUIET, SIX}
    row = rows[SIX]
    assert (row["packets"], row["bytes"]) == (5, 5 * (14 + 40 + 8 + 18))
    assert (row["pps"], row["bps"], row["dropped"], row["state"]) == (0.0, 0.0, 0, "passed")
    assert row["first_seen_s"] == row["last_seen_s"] > 1_600_000_000


def put(stage: Stage, address: str, **fields: int) -> None:
    """Write the row of a source."""
    prefix, row = Prefix.parse(address), np.zeros(1, layout.SOURCE)
    for name, value in fields.items():
        (row["counted"] if name in (layout.TRAFFIC.names or ()) else row)[name] = value
    stage.instance.maps["ip_tracker"].put((prefix.high, prefix.low), row)


@contextmanager
def talking(stage: Stage) -> Iterator[None]:
    """Have one source send many small packets meanwhile, and another few large ones."""
    done = threading.Event()

    def talk() -> None:
        while not done.wait(0.002):
            stage.send(LOUD, 20)
            stage.send(QUIET, 4, udp(bytes(1400)))

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def top(*words: str) -> list[str]:
    return [row["address"] for row in ebpftop("top", IFACE, "--json", *words).json()]


def test_top_sorts_by_every_word_and_cuts(stage: Stage) -> None:
    now_ns = time.monotonic_ns()
    put(stage, QUIET, passed_packets=1, passed_bytes=9000, last_ns=now_ns)
    put(stage, LOUD, passed_packets=50, passed_bytes=500, last_ns=now_ns - 2 * 10**9)
    put(stage, SIX, passed_bytes=700, dropped_packets=9, last_ns=now_ns - 10**9)

    assert top("--sort", "packets") == [LOUD, SIX, QUIET]
    assert top("--sort", "bytes") == [QUIET, SIX, LOUD]
    assert top("--sort", "dropped") == [SIX, QUIET, LOUD]
    assert top("--sort", "last") == [QUIET, SIX, LOUD]
    assert top("--sort", "last", "-n", "2") == [QUIET, SIX]
    with talking(stage):
        # A sample may end between what the two send.
        until(lambda: top() == [LOUD, QUIET, SIX])
        until(lambda: top("--sort", "pps") == [LOUD, QUIET, SIX])
        until(lambda: top("--sort", "bps") == [QUIET, LOUD, SIX])


def test_top_shows_what_passes_the_filter(stage: Stage) -> None:
    stage.control.block(Prefix.parse(LOUD), for_s=None)
    for address, count in ((QUIET, 3), (LOUD, 5), (SIX, 7)):
        stage.send(address, count)

    assert top("--filter", "state:blocked") == [LOUD]
    assert set(top("--filter", "address:10.0.0.0/8")) == {QUIET, LOUD}
    assert set(top("--filter", "-10.1 packets:>1")) == {SIX}
    assert top("--filter", "packets:5..7 dropped:0") == [SIX]


def test_top_watches_with_one_object_a_line(stage: Stage) -> None:
    with talking(stage):
        watcher = child("top", IFACE, "--watch", "0.1", "--json", "--sort", "packets")
        assert watcher.stdout is not None
        answers = [json.loads(watcher.stdout.readline()) for _ in range(3)]
        watcher.terminate()
        watcher.communicate(timeout=10)

    times = [answer["time"] for answer in answers]
    assert times == sorted(set(times))
    for answer in answers:
        assert answer["iface"] == IFACE
        assert [row["address"] for row in answer["top"]] == [LOUD, QUIET]
        assert all(row["pps"] >= 0 for row in answer["top"])
    assert any(row["pps"] > 0 for answer in answers for row in answer["top"])


def test_top_watches_every_five_seconds_where_no_time_is_given(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    done = ebpftop("top", IFACE, "--watch", "--json")
    assert (done.status, done.err.strip()) == (130, "")
    assert slept == [watching.SAMPLE_S, 5, 5]
    assert len(done.out.splitlines()) == 2


def test_top_watches_for_as_long_as_somebody_reads(stage: Stage) -> None:
    stage.send(QUIET)
    for words in ("--json", ""):
        done = subprocess.run(
            ["bash", "-c",
             f"{PROGRAM} top {IFACE} --watch 0.1 {words} | head -n 2; echo ${{PIPESTATUS[0]}}"],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "0"
        assert done.stdout.count(QUIET) >= 1


def test_a_command_whose_output_nobody_reads_ends_quietly(stage: Stage) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{PROGRAM} status {IFACE} --json | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_top_ends_when_what_it_watches_is_detached() -> None:
    with staged(clients=0) as stage:
        watcher = child("top", IFACE, "--watch", "0.1", "--json")
        assert watcher.stdout is not None
        json.loads(watcher.stdout.readline())
        assert ebpftop("detach", IFACE).status == 0
        _, err = watcher.communicate(timeout=10)
        assert watcher.returncode == 1
        assert err.startswith("ebpftop: ebpftop was detached from eth0")
        assert ebpftop("status", IFACE).status == 5
        assert not stage.instance.folder.exists()


def test_blocks_and_the_allow_list_say_what_they_did(stage: Stage) -> None:
    ebpftop("block", IFACE, "10.1.0.0/24", "--for", "10m", "--reason", "scanner")
    ebpftop("block", IFACE, SIX)
    ebpftop("allow", IFACE, QUIET)
    for address, count in ((QUIET, 3), (LOUD, 5), (SIX, 7)):
        stage.send(address, count)

    blocks = {row["address"]: row for row in ebpftop("blocks", IFACE, "--json").json()}
    assert blocks.keys() == {"10.1.0.0/24", SIX}
    prefix = blocks["10.1.0.0/24"]
    assert 590 < prefix.pop("expires_in_s") <= 600
    assert prefix == {
        "address": "10.1.0.0/24", "source": "manual", "reason": "scanner", "packets": 5,
        "bytes": 300,
    }  # fmt: skip
    assert blocks[SIX] == {
        "address": SIX, "source": "manual", "reason": "", "expires_in_s": None, "packets": 7,
        "bytes": 7 * 80,
    }  # fmt: skip
    assert ebpftop("allowed", IFACE, "--json").json() == [
        {"address": QUIET, "packets": 3, "bytes": 180}
    ]
    shown = ebpftop("blocks", IFACE).out
    assert "scanner" in shown
    assert "forever" in shown
    assert QUIET in ebpftop("allowed", IFACE).out


def test_lists_without_entries_are_empty_and_not_an_error(stage: Stage) -> None:
    assert ebpftop("blocks", IFACE, "--json").json() == []
    assert ebpftop("allowed", IFACE, "--json").json() == []
    assert ebpftop("top", IFACE, "--json").json() == []
    assert ebpftop("top", IFACE).status == ebpftop("blocks", IFACE).status == 0


VERBS = [
    ["status"], ["top"], ["blocks"], ["allowed"], ["block", QUIET], ["unblock", QUIET],
    ["allow", QUIET], ["disallow", QUIET], ["limit"], ["limit", "--pps", "1"], ["detach"],
]  # fmt: skip


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_verb_on_a_missing_interface_names_those_there_are(
    stage: Stage, words: list[str]
) -> None:
    verb, *rest = words
    assert refused(3, verb, "eth1", *rest) == "ebpftop: no interface eth1: did you mean eth0?\n"
    assert refused(5, verb, "lo", *rest) == (
        "ebpftop: ebpftop is not attached to lo: sudo ebpftop attach lo\n"
    )


def test_status_of_nothing_is_json_too(stage: Stage) -> None:
    done = ebpftop("status", "lo", "--json")
    assert done.status == 5
    assert json.loads(done.out) == {"iface": "lo", "attached": False}


@pytest.mark.parametrize(
    "words",
    [["block", QUIET], ["limit", "--pps", "1"]],
    ids=" ".join,
)
def test_a_user_without_rights_changes_nothing_and_is_told_to_become_root(
    stage: Stage, words: list[str]
) -> None:
    verb, *rest = words
    done = subprocess.run(
        [*NOBODY, PROGRAM, verb, IFACE,
         *rest],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "ebpftop: changing anything needs root: run it with sudo\n"
    assert stage.listed() == set()
    assert not ebpftop("limit", IFACE, "--json").json()["pps"]
