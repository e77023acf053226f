# SPDX-License-Identifier: Apache-2.0
"""How long classes live, and that nothing of theirs is left on an interface."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpftop.config import Policy
from ebpftop.control import policy as policies
from ebpftop.control.shaping import ShapingControl
from ebpftop.kernel import bpffs
from ebpftop.lab import Host, Lab, joined
from ebpftop.model import ClassKey
from tests.kernel.shaping import (
    filters,
    listed,
    qdiscs,
    tc,
    tcx_programs,
)
from tests.kernel.stage import ebpftop, until

pytestmark = [pytest.mark.kernel("bridge", "veth")]


POLICY = """
[[class]]
name = "video"
rate = "8mbit"
action = "police"
burst = "40kb"
addresses = ["198.18.0.11"]

[[class]]
name = "in"
direction = "ingress"
rate = "8mbit"
addresses = ["198.18.0.0/15"]
"""


@pytest.fixture
def host() -> Iterator[Host]:
    """A host without an instance, which this thread is on."""
    with Lab(clients=1) as lab, joined(lab.server):
        yield lab.server


def is_clean(before: str) -> bool:
    """Whether nothing of ours is on the interface."""
    return qdiscs() == before and not tcx_programs()


def test_a_policys_classes_are_there_from_the_start_and_follow_the_file(
    host: Host, way: str, tmp_path: Path
) -> None:
    before = qdiscs()
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    assert ebpftop("attach", "eth0", "--config", str(path)).status == 0
    assert listed("video")["addresses"] == ["198.18.0.11"]
    assert listed("in")["direction"] == "ingress"

    path.write_text(POLICY.replace('"8mbit"\naction', '"9mbit"\naction'))
    assert ebpftop("reload", "eth0").status == 0
    assert listed("video")["rate_bps"] == 9_000_000

    path.write_text(POLICY.replace("[[class]]", "[[klass]]"))
    done = ebpftop("reload", "eth0")
    assert done.status == 2
    assert "klass" in done.err
    assert listed("video")["rate_bps"] == 9_000_000

    assert ebpftop("detach", "eth0").status == 0
    assert is_clean(before)


def test_a_policy_whose_classes_do_not_work_attaches_nothing(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.replace('burst = "40kb"', 'parent = "nobody"'))

    done = ebpftop("attach", "eth0", "--config", str(path))

    assert done.status == 3
    assert "nobody" in done.err
    assert ebpftop("status", "eth0").status == 5


@pytest.mark.kernel("htb")
def test_detaching_restores_the_queues(host: Host, way: str) -> None:
    before = qdiscs()
    assert ebpftop("attach", "eth0").status == 0
    assert ebpftop("class", "set", "eth0", "out", "--rate", "8mbit").status == 0
    assert ebpftop("class", "set", "eth0", "in", "--rate", "8mbit", "--direction",
                   "ingress").status == 0  # fmt: skip
    assert not is_clean(before)

    assert ebpftop("detach", "eth0").status == 0

    assert is_clean(before)


@pytest.mark.kernel("htb")
def test_what_a_killed_holder_left_is_cleaned_at_the_next_start(host: Host, way: str) -> None:
    before = qdiscs()
    # GIVEN a process that holds an instance, whose classes need a tree and programs
    holder = os.fork()
    if holder == 0:
        instance = policies.attach(["eth0"], Policy(), mode="auto", path=None, pinned=False)
        with contextlib.suppress(BaseException):
            control = ShapingControl(instance)
            control.set_class(ClassKey("out"), {"rate_bps": 8_000_000})
            control.set_class(ClassKey("in", "ingress"), {"rate_bps": 8_000_000})
            time.sleep(60)
        os._exit(1)
    try:
        until(
            lambda: "eb0f" in qdiscs() and (len(tcx_programs()) == 2 or filters("ingress")),
            timeout_s=60,
        )
    finally:
        # WHEN it is killed
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)

    # THEN its links went with it, and the rest goes when anything of ours starts here
    until(lambda: not tcx_programs())
    until(lambda: ebpftop("status", "eth0").status == 5 and is_clean(before))


@pytest.mark.kernel("htb")
def test_leftovers_without_a_folder_go_when_attaching(host: Host) -> None:
    before = qdiscs()
    tc("qdisc", "add", "dev", "eth0", "root", "handle", "eb0f:", "htb")

    assert ebpftop("attach", "eth0").status == 0

    assert qdiscs() == before
    assert ebpftop("detach", "eth0").status == 0


def test_of_two_interfaces_one_can_leave(host: Host, way: str) -> None:
    host.ip("link add two type veth peer name other", "link set two up", "link set other up")
    before = qdiscs("eth0"), qdiscs("two")
    assert ebpftop("attach", "eth0", "two").status == 0
    done = ebpftop("class", "set", "eth0", "out", "--rate", "8mbit", "--action", "htb")
    assert done.status == 1
    assert "each of eth0, two" in done.err
    assert ebpftop("class", "set", "eth0", "out", "--rate", "8mbit").status == 0
    assert listed("out")["action"] == "police"

    assert ebpftop("detach", "eth0").status == 0
    assert qdiscs("eth0") == before[0]
    assert not tcx_programs()
    (row,) = ebpftop("classes", "two", "--json").json()
    assert row["class"] == "out"
    assert ebpftop("detach", "two").status == 0
    assert qdiscs("two") == before[1]


def test_a_verbs_class_lives_as_long_as_the_instance_that_another_holds(host: Host) -> None:
    before = qdiscs()
    instance = policies.attach(["eth0"], Policy(), mode="auto", path=None, pinned=False)
    assert ebpftop("class", "set", "eth0", "out", "--rate", "8mbit", "--action",
                   "police").status == 0  # fmt: skip
    if tcx_programs():
        assert (instance.folder / f"tc_egress_{instance.meta.attachments[0].index}").exists()
    with bpffs.locked(instance.name):
        instance.remove()
    assert is_clean(before)
