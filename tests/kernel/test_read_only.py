# SPDX-License-Identifier: Apache-2.0
"""Watching without root: what a member of the group sees, and what the kernel refuses him."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import MAPS, PROGRAMS, find
from ebpftop.lab import Lab, joined
from tests.kernel.attached import AS_USER, EBPFTOP, NOBODY, Result, Site, run_tool, trying

pytestmark = pytest.mark.kernel

GROUP = f"ebpftop-test-{os.getpid()}"
MEMBER = f"ebpftop-member-{os.getpid()}"
AS_MEMBER = (*AS_USER, "--reuid", MEMBER, "--regid", MEMBER, "--init-groups")

ATTEMPTS = r"""
import ctypes, json, sys
from pathlib import Path
import numpy as np
from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import MAPS
from ebpftop.kernel.maps import Map

def attempt(act, *arguments, **options):
    try:
        act(*arguments, **options)
        return 0
    except OSError as error:
        return error.errno

folder, programs, answer = Path(sys.argv[1]), json.loads(sys.argv[2]), {}
for name, (key, value) in MAPS.items():
    answer[f"write {name}"] = attempt(libbpf.open_pin, folder / name)
    opened = Map(libbpf.open_pin(folder / name, read_only=True), key, value)
    answer[f"read {name}"] = attempt(opened.read)
    some_key, some_value = np.zeros(1, opened.key), np.zeros(1, opened.value)
    answer[f"put {name}"] = attempt(opened.put, some_key[0], some_value)
    answer[f"put_all {name}"] = attempt(opened.put_all, some_key, some_value)
    answer[f"take {name}"] = attempt(
        libbpf.call, "bpf_map_lookup_and_delete_elem", opened.fd,
        ctypes.c_void_p(some_key.ctypes.data), ctypes.c_void_p(some_value.ctypes.data),
    )
    answer[f"delete {name}"] = attempt(opened.delete, some_key[0])
    answer[f"pin {name}"] = attempt(libbpf.pin, opened.fd, folder / "mine")
for path in folder.iterdir():
    if path.name.startswith(("prog_", "link_")):
        answer[f"open {path.name}"] = attempt(libbpf.open_pin, path)
        answer[f"open to read {path.name}"] = attempt(libbpf.open_pin, path, read_only=True)
for number in programs:
    answer[f"program by number {number}"] = attempt(libbpf.program_fd, number)
print(json.dumps(answer))
"""
"""Everything that could write, tried; prints the error number of each, 0 for none."""


@dataclass(frozen=True)
class Watched:
    """An instance that a group may read, with one source and one block in it."""

    site: Site
    source: str

    def member(self, *arguments: str) -> Result:
        """Run one command line as a member of the group."""
        return self.site.child(*AS_MEMBER, *EBPFTOP, *arguments)

    def outsider(self, *arguments: str) -> Result:
        """Run one command line as somebody who is in no group."""
        return self.site.child(*NOBODY, *EBPFTOP, *arguments)


@pytest.fixture(scope="module")
def member() -> Iterator[None]:
    """A group, and an unprivileged user in it."""
    with ExitStack() as undo:
        run_tool("groupadd", "--system", GROUP)
        undo.callback(run_tool, "groupdel", GROUP)
        run_tool("useradd", "--system", "--no-create-home", "--groups", GROUP, MEMBER)
        undo.callback(run_tool, "userdel", MEMBER)
        yield


@pytest.fixture(scope="module")
def policy(member: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that lets the group watch."""
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(f'[access]\ngroup = "{GROUP}"\n[capacity]\nsources = 1024\n')
    return path


@pytest.fixture(scope="module")
def watched(policy: Path) -> Iterator[Watched]:
    with Lab(clients=0) as lab, trying(lab.server) as site:
        site.done("attach", "eth0", "--config", str(policy))
        site.done("block", "eth0", "192.0.2.1", "--reason", "flood from here")
        with joined(lab.attacker), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", (lab.server.ipv4, 9))
        yield Watched(site, lab.attacker.ipv4)


def test_a_member_sees_all_but_what_root_alone_knows(watched: Watched) -> None:
    told = watched.member("status", "eth0", "--json").json
    known = watched.site.status()

    run_time = ("run_count", "run_ns")
    assert [program[name] for program in told["programs"] for name in run_time] == [None] * 2 * len(
        PROGRAMS
    )
    assert None not in [program[name] for program in known["programs"] for name in run_time]
    for program in known["programs"]:
        program.update(dict.fromkeys(run_time))
    same = ("interfaces", "attached", "programs", "limits")
    assert {name: told[name] for name in same} == {name: known[name] for name in same}
    assert [row["memory_bytes"] for row in told["maps"]] == [
        row["memory_bytes"] for row in known["maps"]
    ]
    assert told["packets"]["total"] > 0


def test_a_member_sees_the_sources_and_the_blocks(watched: Watched) -> None:
    top = watched.member("top", "eth0", "--json").json
    blocks = watched.member("blocks", "eth0", "--json").json

    assert watched.source in [row["address"] for row in top]
    assert [(row["address"], row["reason"]) for row in blocks] == [("192.0.2.1", "flood from here")]


def test_a_member_watches_on_the_dashboard(watched: Watched) -> None:
    dashboard = watched.site.dashboard("eth0", "--read-only", through=AS_MEMBER)

    shown = dashboard.wait_for("READ-ONLY", watched.source, "q quit")
    assert "p pause" in shown
    assert "l limits" not in shown, "an act is offered"
    dashboard.press("q")

    assert dashboard.wait() == 0
    assert watched.site.status()["attached"]


def test_without_root_the_dashboard_must_be_asked_to_watch_only(watched: Watched) -> None:
    dashboard = watched.site.dashboard("eth0", through=AS_MEMBER)

    assert dashboard.wait() == 4
    assert "ebpftop eth0 --read-only" in dashboard.shown


def test_the_kernel_refuses_a_member_every_way_to_write(watched: Watched) -> None:
    with watched.site.instance() as instance:
        folder, meta = instance.folder, instance.meta
    programs = [program.id for program in meta.programs]

    argv = (*AS_MEMBER, sys.executable, "-c", ATTEMPTS, str(folder), json.dumps(programs))
    answer = watched.site.child(*argv).json

    errors = defaultdict(list)
    for what, error in answer.items():
        errors[what.split()[0]].append(error)
    maps, pins = len(MAPS), len(PROGRAMS) + len(meta.attachments)
    assert errors == {
        "read": [0] * maps,
        # What was opened for reading is no way to write,
        **{act: [errno.EPERM] * maps for act in ("put", "put_all", "take", "delete")},
        # for writing nothing can be opened,
        "write": [errno.EACCES] * maps,
        "pin": [errno.EACCES] * maps,
        # and a program that cannot be opened cannot be run.
        "open": [errno.EACCES] * 2 * pins,
        "program": [errno.EPERM] * len(programs),
    }


def test_the_kernel_refuses_root_too_through_what_was_opened_for_reading(
    watched: Watched,
) -> None:
    with joined(watched.site.host):
        instance = find("eth0", read_only=True)
    try:
        assert not instance.programs
        before = instance.maps["config"].read()[1].copy()
        with pytest.raises(PermissionError):
            instance.maps["config"].put(0, np.zeros_like(before))
        assert np.array_equal(instance.maps["config"].read()[1], before)
    finally:
        instance.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("block", "eth0", "192.0.2.9"),
        ("limit", "eth0", "--pps", "1"),
        ("attach", "lo"),
        ("detach", "eth0"),
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_a_verb_that_writes_is_refused_before_the_kernel_must(
    watched: Watched, arguments: Sequence[str]
) -> None:
    before = watched.site.done("blocks", "eth0"), watched.site.status()["limits"]

    watched.member(*arguments).refused(4, "needs root: run it with sudo")

    assert (watched.site.done("blocks", "eth0"), watched.site.status()["limits"]) == before


def test_who_is_not_in_the_group_is_told_which(watched: Watched) -> None:
    for verb in ("status", "top"):
        watched.outsider(verb, "eth0").refused(4, f"be a member of group {GROUP}, or use sudo")


def test_what_is_closed_is_not_said_of_an_interface_that_is_free(watched: Watched) -> None:
    watched.outsider("status", "lo").refused(5, "not attached to lo")


def test_the_doctor_tells_a_closed_instance_from_somebody_elses_program(watched: Watched) -> None:
    inside, outside = watched.member("doctor", "eth0"), watched.outsider("doctor", "eth0")

    assert "ok    eth0: xdp_pipeline of ebpftop is attached" in inside.out
    assert "note  what is attached to eth0 is closed to you" in outside.out
    assert f"be a member of group {GROUP}" in outside.out


def test_watching_only_never_attaches(site: Site) -> None:
    dashboard = site.dashboard("eth0", "--read-only")

    assert dashboard.wait() == 5
    assert "ebpftop is not attached to eth0: sudo ebpftop attach eth0" in dashboard.shown
    assert site.is_clean()


def test_a_member_does_not_mistake_what_a_killed_dashboard_left(site: Site, policy: Path) -> None:
    dashboard = site.dashboard("eth0", "--config", str(policy))
    dashboard.wait_for("native", "q quit")
    (name,) = {name.partition(".")[0] for name in site.left()}

    # Under its lock no other process can sweep it.
    with bpffs.locked(name):
        dashboard.signal(signal.SIGKILL)
        dashboard.wait()
        result = site.child(*AS_MEMBER, *EBPFTOP, "status", "eth0")

    result.refused(5, "not attached to eth0")


def test_a_member_sees_the_classes_their_buckets_and_their_queues(watched: Watched) -> None:
    site = watched.site
    site.done("class", "set", "eth0", "video", "--rate", "8mbit", "--burst", "64kb")
    try:
        (seen,) = watched.member("classes", "eth0", "--json").json
        (known,) = site.ebpftop("classes", "eth0", "--json").json
        assert seen == known
        assert seen["tokens_bytes"] == 65_536
        watched.member("class", "set", "eth0", "video", "--rate", "9mbit").refused(4, "root")
        with site.instance() as instance:
            links = [path for path in instance.folder.iterdir() if path.name.startswith("tc_")]
        assert {path.stat().st_mode & 0o077 for path in links} <= {0}
    finally:
        site.done("class", "del", "eth0", "video")
