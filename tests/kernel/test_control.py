# SPDX-License-Identifier: Apache-2.0
"""Verbs that change what is dropped: what they write, and that a failed one writes nothing."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Rule
from ebpftop.config import CapacityPolicy, Policy
from ebpftop.control.rules import RuleTable
from ebpftop.kernel import bpffs
from ebpftop.model import Prefix
from tests.kernel.stage import IFACE, Stage, child, ebpftop, staged, until

pytestmark = pytest.mark.kernel

SMALL = Policy(capacity=CapacityPolicy(sources=1024, blocks=16, prefixes=16))


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(SMALL, clients=0) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Stage:
    attached.clear()
    return attached


def contents(stage: Stage) -> dict[str, Any]:
    """Return all that an act could change, for comparison."""
    table = RuleTable(stage.instance.maps)
    rules = {
        (str(table.prefix(slot)), int(table.rules["kind"][slot]), bytes(table.rules["text"][slot]),
         int(table.rules["until_ns"][slot]))
        for slot in np.flatnonzero(table.rules["kind"]).tolist()
    }  # fmt: skip
    lists = {
        name: sorted(key.tobytes() for key in stage.instance.maps[name].read()[0])
        for name in ("blocked_ips", "blocked_nets", "allowed", "protected")
    }
    config = {
        name: int(table.config[name][0])
        for name in layout.CONFIG.names or ()
        if name != "generation"
    }
    return {"rules": rules, "config": config, **lists}


def fails(stage: Stage, status: int, *words: str) -> str:
    """Run a verb that must fail with this status and change nothing; return its complaint."""
    before = contents(stage)
    done = ebpftop(*words)
    assert (done.status, done.out) == (status, "")
    assert contents(stage) == before
    assert done.err.startswith("ebpftop: ")
    return done.err.removeprefix("ebpftop: ").rstrip("\n")


def blocks() -> dict[str, dict[str, Any]]:
    return {row["address"]: row for row in ebpftop("blocks", IFACE, "--json").json()}


@pytest.mark.parametrize(
    "address", ["10.2.0.1", "10.2.0.0/24", "0.0.0.0/0", "2001:db8::1", "2001:db8::/32", "::/0"]
)
def test_a_block_is_set_listed_changed_and_taken_away(stage: Stage, address: str) -> None:
    assert ebpftop("block", IFACE, address).status == 0
    assert blocks()[address]["expires_in_s"] is None

    ebpftop("block", IFACE, address, "--for", "90s", "--reason", "flood, ticket 4711")
    assert blocks().keys() == {address}
    assert 80 < blocks()[address]["expires_in_s"] <= 90
    assert blocks()[address]["reason"] == "flood, ticket 4711"

    ebpftop("block", IFACE, address, "--for", "forever")
    assert blocks()[address]["expires_in_s"] is None
    assert blocks()[address]["reason"] == ""

    assert ebpftop("unblock", IFACE, address).status == 0
    assert blocks() == {}
    fails(stage, 3, "unblock", IFACE, address)


def test_a_changed_block_keeps_its_hits(stage: Stage) -> None:
    ebpftop("block", IFACE, "10.2.0.1")
    stage.send("10.2.0.1", 5)
    ebpftop("block", IFACE, "10.2.0.1", "--for", "10m")
    stage.send("10.2.0.1", 2)
    assert blocks()["10.2.0.1"]["packets"] == 7

    ebpftop("unblock", IFACE, "10.2.0.1")
    ebpftop("block", IFACE, "10.2.0.2")
    assert blocks()["10.2.0.2"]["packets"] == 0


def test_a_reason_is_cut_at_a_character_and_made_printable(stage: Stage) -> None:
    ebpftop("block", IFACE, "10.2.0.1", "--reason", "\x1b[2J" + "ü" * 60)
    reason = blocks()["10.2.0.1"]["reason"]
    assert reason.isprintable()
    assert reason.startswith("\N{REPLACEMENT CHARACTER}[2Jüüü")
    assert set(reason[4:]) <= {"ü", "…"}


def test_unblock_names_the_block_that_holds_the_address(stage: Stage) -> None:
    ebpftop("block", IFACE, "10.2.0.0/16")
    ebpftop("block", IFACE, "10.2.0.0/24")
    complaint = fails(stage, 3, "unblock", IFACE, "10.2.0.1")
    assert complaint == "10.2.0.1 is not blocked by itself: the block of 10.2.0.0/24 holds it"
    assert "`ebpftop blocks` lists them" in fails(stage, 3, "unblock", IFACE, "192.0.2.1")
    # Nor does a block of an address stand for one of the prefix around it.
    assert "`ebpftop blocks`" in fails(stage, 3, "unblock", IFACE, "10.0.0.0/8")


def test_a_block_of_what_is_allowed_is_refused(stage: Stage) -> None:
    ebpftop("allow", IFACE, "10.2.0.0/24")
    for address in ("10.2.0.1", "10.2.0.0/24", "10.2.0.128/25"):
        assert fails(stage, 2, "block", IFACE, address) == (
            f"a block of {address} would do nothing: 10.2.0.0/24 is on the allow list: "
            "disallow 10.2.0.0/24 first"
        )
    # A prefix around it is more than what is allowed.
    assert ebpftop("block", IFACE, "10.2.0.0/16").status == 0
    ebpftop("disallow", IFACE, "10.2.0.0/24")
    assert ebpftop("block", IFACE, "10.2.0.1").status == 0


def test_the_allow_list_takes_addresses_and_prefixes(stage: Stage) -> None:
    for address in ("10.2.0.1", "10.2.0.0/24", "2001:db8::/32", "2001:db8::1", "10.2.0.1"):
        assert ebpftop("allow", IFACE, address).status == 0
    listed = [row["address"] for row in ebpftop("allowed", IFACE, "--json").json()]
    assert sorted(listed) == sorted(["10.2.0.1", "10.2.0.0/24", "2001:db8::/32", "2001:db8::1"])

    assert ebpftop("disallow", IFACE, "10.2.0.1").status == 0
    complaint = fails(stage, 3, "disallow", IFACE, "10.2.0.1")
    assert complaint == "10.2.0.1 is not on the allow list by itself: 10.2.0.0/24 is"
    assert "`ebpftop allowed`" in fails(stage, 3, "disallow", IFACE, "192.0.2.1")


def test_a_list_is_blocked_as_a_whole(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(
        "# bots\n10.2.0.1\n\n10.2.0.2  # again\n2001:db8::/32\n10.2.0.1\n 10.3.0.0/16 \n"
    )
    done = ebpftop("block", IFACE, "--from", str(path), "--for", "1h", "--reason", "bots")
    assert (done.status, done.out, done.err) == (0, "", "")
    assert blocks().keys() == {"10.2.0.1", "10.2.0.2", "2001:db8::/32", "10.3.0.0/16"}
    assert {row["reason"] for row in blocks().values()} == {"bots"}
    assert all(3590 < row["expires_in_s"] <= 3600 for row in blocks().values())


def test_a_list_comes_from_standard_input_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"10.2.0.1\n10.2.0.2\n")))
    assert ebpftop("block", IFACE, "--from", "-").status == 0
    assert blocks().keys() == {"10.2.0.1", "10.2.0.2"}


def test_a_list_with_a_bad_line_blocks_nothing(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("10.2.0.1\n10.2.0.300\n10.2.0.2\n10.2.0.1/8\n")
    complaint = fails(stage, 2, "block", IFACE, "--from", str(path))
    assert "has 2 bad lines, nothing was blocked" in complaint
    assert "line 2: '10.2.0.300' is no address" in complaint
    assert "line 4: '10.2.0.1/8' has bits set" in complaint


@pytest.mark.parametrize(
    ("lines", "title"),
    [
        ([f"10.2.0.{number}" for number in range(17)],
         "the table of blocked addresses is full (16)"),
        ([f"10.{number}.0.0/16" for number in range(17)],
         "the table of blocked prefixes is full (16)"),
    ],
)  # fmt: skip
def test_a_list_that_does_not_fit_blocks_nothing(
    stage: Stage, tmp_path: Path, lines: list[str], title: str
) -> None:
    ebpftop("block", IFACE, "192.0.2.1", "--for", "1h", "--reason", "before")
    path = tmp_path / "list"
    path.write_text("\n".join(["192.0.2.1", "2001:db8::1", *lines]))
    assert title in fails(stage, 1, "block", IFACE, "--from", str(path), "--reason", "after")
    assert blocks()["192.0.2.1"]["reason"] == "before"


@pytest.mark.parametrize(("hosts", "nets"), [(17, 3), (10, 17)])
def test_a_list_that_the_kernel_refuses_in_the_middle_is_taken_back(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: int, nets: int
) -> None:
    monkeypatch.setattr(RuleTable, "_check_room", lambda *_: None)
    ebpftop("block", IFACE, "10.2.0.1", "--for", "1h", "--reason", "before")
    lines = [f"10.2.0.{n}" for n in range(hosts)] + [f"10.{n}.0.0/16" for n in range(10, 10 + nets)]
    path = tmp_path / "list"
    path.write_text("\n".join(lines))
    assert "is full" in fails(stage, 1, "block", IFACE, "--from", str(path))


def test_a_list_with_an_allowed_address_blocks_nothing(stage: Stage, tmp_path: Path) -> None:
    ebpftop("allow", IFACE, "10.2.0.2")
    path = tmp_path / "list"
    path.write_text("10.2.0.1\n10.2.0.2\n")
    assert "10.2.0.2 is on the allow list" in fails(stage, 2, "block", IFACE, "--from", str(path))


def test_an_ended_block_leaves_its_room_to_others(stage: Stage) -> None:
    for number in range(16):
        ebpftop("block", IFACE, f"10.2.0.{number}", "--for", "1ms")
    until(lambda: blocks() == {})
    assert ebpftop("block", IFACE, "10.2.1.1").status == 0
    assert stage.listed() == {"10.2.1.1"}
    assert len(stage.instance.maps["blocked_ips"].read()[0]) == 1


def test_the_end_of_a_block_is_told_however_close_to_it_one_sweeps(stage: Stage) -> None:
    source = stage.source()
    source.snapshot()
    for number in range(10):
        stage.control.block(Prefix.parse(f"10.2.0.{number}"), for_s=0.01)
        while stage.listed():
            stage.control.sweep()
    kinds = [event.kind for event in source.snapshot().events]
    assert kinds == ["block", "block-end"] * 10


def test_writers_wait_for_each_other(stage: Stage) -> None:
    # GIVEN one who holds the lock while four verbs start
    with bpffs.locked(stage.instance.name):
        writers = [child("block", IFACE, f"10.2.0.{number}") for number in range(4)]
        time.sleep(0.5)
        assert [writer.poll() for writer in writers] == [None] * 4
        assert stage.listed() == set()

    # THEN each gets its turn, and nobody undoes what another did
    assert [writer.communicate(timeout=20)[1] for writer in writers] == [""] * 4
    assert [writer.returncode for writer in writers] == [0] * 4
    assert blocks().keys() == {f"10.2.0.{number}" for number in range(4)}
    assert len(stage.instance.maps["blocked_ips"].read()[0]) == 4


def test_a_writer_who_never_gets_his_turn_says_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpffs, "LOCK_PATIENCE_S", 0.05)
    with bpffs.locked(stage.instance.name):
        complaint = fails(stage, 1, "block", IFACE, "10.2.0.1")
    assert complaint == "another ebpftop keeps writing to this instance: try again"


def test_rows_ask_again_after_each_change_of_a_list(stage: Stage) -> None:
    generations = set()
    for verb in ("block", "unblock", "allow"):
        ebpftop(verb, IFACE, "10.2.0.1")
        stage.send("10.2.0.1")
        generations.add(stage.row("10.2.0.1")["policy"] >> 32)
    row = stage.row("10.2.0.1")
    assert len(generations) == 3
    assert row["policy"] & Rule.ALLOWED
    assert (row["passed_packets"], row["dropped_packets"]) == (2, 1)
