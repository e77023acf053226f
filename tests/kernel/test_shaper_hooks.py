# SPDX-License-Identifier: Apache-2.0
"""What the shaper puts on an interface, beside what, and that it is all taken away again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpftop.config import Policy
from ebpftop.control import policy as policies
from ebpftop.control.class_states import ClassRequest
from ebpftop.control.shaping import ShapingControl
from ebpftop.errors import NotFoundError, UsageError
from ebpftop.kernel import bpffs, libbpf
from ebpftop.kernel.netlink.links import netlink
from ebpftop.lab import Host, Lab, joined, send_udp
from ebpftop.model import ClassKey, Prefix, TrafficClass
from tests.kernel.shaping import clear, listed, make, owed_bytes, qdiscs, shaping, tc
from tests.kernel.stage import Stage, ebpftop, staged, until

pytestmark = [pytest.mark.kernel("bridge", "veth")]

PASSES = bytes.fromhex("b7000000ffffffff9500000000000000")  # r0 = TC_ACT_UNSPEC; exit
NOBODY = Prefix.parse("203.0.113.9")
WAYS = [pytest.param("tcx", marks=pytest.mark.kernel("tcx")), "clsact"]


@pytest.fixture(scope="module")
def loaded_stage() -> Iterator[Stage]:
    """An instance on a lab with one client."""
    with staged(clients=1) as stage:
        yield stage


@pytest.fixture
def stage(loaded_stage: Stage) -> Iterator[Stage]:
    """The same, without a class."""
    yield loaded_stage
    clear(loaded_stage)


@pytest.fixture
def client(stage: Stage) -> Host:
    """A host that is sent to."""
    return stage.lab.clients[0]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way programs are attached; without TCX, as on a kernel before 6.6."""

    def refuse(program: int, ifindex: int, *, egress: bool) -> int:
        raise OSError(errno.EINVAL, "no such attach type")

    if request.param == "clsact":
        monkeypatch.setattr(libbpf, "attach_tcx", refuse)
    found: str = request.param
    return found


def other_program() -> int:
    """Load another's TC program."""
    return libbpf.call("bpf_prog_load", 3, b"theirs", b"GPL", PASSES, 2, None)


def tcx_programs() -> list[int]:
    """Return the programs on TCX of the server's interface."""
    with netlink() as socket:
        index = socket.link("eth0").index
    links = libbpf._links(libbpf.LINK_TYPE_TCX)
    return [program for _, program, ifindex in links if ifindex == index]


def filters(hook: str) -> list[dict[str, Any]]:
    """Return the filters of clsact in a direction."""
    argv = ["tc", "-json", "filter", "show", "dev", "eth0", hook]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [found for found in json.loads(done.stdout or "[]") if "options" in found]


def send(stage: Stage, host: Host, count: int = 50) -> None:
    """Send datagrams from the server to a host."""
    send_udp(stage.lab.server, host.ipv4, 2000, count=count, size_bytes=1000).wait(10)


def test_programs_and_queues_come_with_the_first_class_and_go_with_the_last(
    stage: Stage, client: Host, way: str
) -> None:
    before = qdiscs()

    make(stage, "out", "8mbit", client, action="police")
    assert len(tcx_programs()) == (1 if way == "tcx" else 0)
    assert [len(filters(h)) for h in ("ingress", "egress")] == [0, 1 if way == "clsact" else 0]
    make(stage, "in", "8mbit", client, direction="ingress")
    assert len(tcx_programs()) == (2 if way == "tcx" else 0)
    assert [len(filters(h)) for h in ("ingress", "egress")] == [way == "clsact"] * 2
    send(stage, client)
    assert listed("out")["packets"] == 50

    clear(stage)
    assert qdiscs() == before
    assert tcx_programs() == []


@pytest.mark.kernel("htb")
def test_the_kernels_own_root_is_back_when_the_tree_goes(stage: Stage, client: Host) -> None:
    before = qdiscs()

    make(stage, "out", "8mbit", client)
    assert listed("out")["action"] == "htb"
    assert "qdisc htb eb0f:" in qdiscs()
    send(stage, client, 5)

    assert ebpftop("class", "del", "eth0", "out").status == 0
    assert qdiscs() == before


def test_anothers_filters_see_every_packet_and_stay(
    stage: Stage, client: Host, way: str, tmp_path: object
) -> None:
    # GIVEN somebody else's filter and TCX program
    tc("qdisc", "add", "dev", "eth0", "clsact")
    theirs = other_program()
    with netlink() as socket:
        index = socket.link("eth0").index
    pin = bpffs.BPFFS / f"theirs-{os.getpid()}"
    libbpf.pin(theirs, pin)
    tc("filter", "add", "dev", "eth0", "egress", "bpf", "da", "pinned", str(pin))
    try:
        # WHEN ours come and go
        make(stage, "out", "8mbit", client, action="police")
        send(stage, client)
        assert listed("out")["packets"] == 50
        names = [found["options"]["bpf_name"] for found in filters("egress")]
        assert len(names) == (2 if way == "clsact" else 1)
        clear(stage)

        # THEN theirs are as they were
        assert len(filters("egress")) == 1
        assert "clsact" in qdiscs()
        assert index
    finally:
        tc("qdisc", "del", "dev", "eth0", "clsact")
        pin.unlink()
        os.close(theirs)


@pytest.mark.kernel("tcx")
def test_anothers_tcx_program_stays(stage: Stage, client: Host) -> None:
    theirs = other_program()
    number = libbpf.program_info(theirs).id
    with netlink() as socket:
        link = libbpf.attach_tcx(theirs, socket.link("eth0").index, egress=True)
    try:
        make(stage, "out", "8mbit", client, action="police")
        assert len(tcx_programs()) == 2
        send(stage, client)
        assert listed("out")["packets"] == 50
        clear(stage)
        assert tcx_programs() == [number]
    finally:
        os.close(link)
        os.close(theirs)


@pytest.mark.kernel("htb")
def test_anothers_root_qdisc_is_never_replaced(stage: Stage, client: Host) -> None:
    tc("qdisc", "add", "dev", "eth0", "root", "handle", "7:", "tbf", "rate", "1gbit",
       "burst", "1mb", "latency", "10ms")  # fmt: skip
    try:
        before = qdiscs()
        make(stage, "out", "8mbit", client)
        assert listed("out")["action"] == "police"
        for action in ("htb", "pace"):
            done = ebpftop("class", "set", "eth0", "out", "--action", action)
            assert done.status == 1
            assert "another's root qdisc, tbf 7:" in done.err
        assert listed("out")["action"] == "police"
        assert "classes can only be policed" in ebpftop("doctor", "eth0").out
        clear(stage)
        assert qdiscs() == before
    finally:
        tc("qdisc", "del", "dev", "eth0", "root")
    assert "classes can have queues" in ebpftop("doctor", "eth0").out


def test_an_action_that_cannot_work_here_says_what_is_missing(stage: Stage, client: Host) -> None:
    make(stage, "out", "8mbit", client, action="police")
    before = listed("out")

    done = ebpftop("class", "set", "eth0", "out", "--action", "pace")
    if done.status == 0:
        assert listed("out")["action"] == "pace"
        assert "fq" in qdiscs()
    else:
        assert done.status == 1
        assert "has no fq, and this kernel does not know it: modprobe sch_fq" in done.err
        assert listed("out")["action"] == before["action"]


def test_what_is_wrong_changes_nothing(stage: Stage, client: Host) -> None:
    control = shaping(stage)
    make(stage, "out", "8mbit", client, action="police")
    before = listed("out")
    for words, status in (
        (("out", "--rate", "1kbit"), 2),
        (("out", "--burst", "100b"), 2),
        (("out", "--parent", "nobody"), 3),
        (("out", "--parent", "out"), 2),
        (("new",), 2),
        (("new", "--priority", "1"), 2),
        (("new", "--rate", "8mbit", "--direction", "ingress", "--action", "htb"), 2),
        (("../x", "--rate", "8mbit"), 2),
    ):
        assert ebpftop("class", "set", "eth0", *words).status == status, words
    with pytest.raises(NotFoundError):
        control.unassign(NOBODY)
    after = listed("out")
    assert {k: before[k] for k in before if k != "tokens_bytes"} == {
        k: after[k] for k in after if k != "tokens_bytes"
    }


def test_promises_fit_under_their_parent(stage: Stage) -> None:
    control = shaping(stage)
    up, one, two = (ClassKey(name) for name in ("up", "one", "two"))
    control.set_class(up, {"rate_bps": 50_000_000, "action": "police"})
    control.set_class(one, {"rate_bps": 30_000_000, "parent": "up"})
    for key, changes in (
        (two, {"rate_bps": 30_000_000, "parent": "up"}),
        (up, {"rate_bps": 20_000_000}),
        (up, {"parent": "one"}),
        (two, {"rate_bps": 10_000_000, "parent": "one"}),
    ):
        with pytest.raises(UsageError):
            control.set_class(key, changes)
    with pytest.raises(UsageError, match="ceiling over one"):
        control.delete_class(up)
    with pytest.raises(UsageError, match="ceiling over other classes"):
        control.assign(NOBODY, "up")
    assert [row["class"] for row in ebpftop("classes", "eth0", "--json").json()] == ["up", "one"]


def test_a_change_keeps_the_buckets_balance(stage: Stage, client: Host) -> None:
    # GIVEN a slow class that owes most of its burst
    make(stage, "slow", "8kbit", client, action="police", burst="40kb")
    send(stage, client, 35)
    before = owed_bytes(stage, "slow")
    assert before > 30_000

    # WHEN its rate is doubled
    assert ebpftop("class", "set", "eth0", "slow", "--rate", "16kbit").status == 0

    # THEN it owes as many bytes
    assert owed_bytes(stage, "slow") == pytest.approx(before, abs=3000)


def test_reading_a_policy_again_changes_only_what_differs(stage: Stage, client: Host) -> None:
    control = shaping(stage)

    def request(name: str, rate_bps: int, *members: str) -> ClassRequest:
        wanted = TrafficClass(ClassKey(name), rate_bps, 40_960, "police")
        return ClassRequest(wanted, [Prefix.parse(member) for member in members])

    control.apply([request("slow", 8000, client.ipv4), request("other", 10**6, "192.0.2.1")])
    send(stage, client, 35)
    before, counted = owed_bytes(stage, "slow"), listed("slow")["packets"]

    control.apply(
        [request("slow", 8000, client.ipv4), request("new", 10**6, "192.0.2.1", "192.0.2.0/24")]
    )

    assert owed_bytes(stage, "slow") == pytest.approx(before, abs=2000)
    assert listed("slow")["packets"] == counted
    rows = ebpftop("classes", "eth0", "--json").json()
    assert [row["class"] for row in rows] == ["slow", "new"]
    assert listed("new")["addresses"] == ["192.0.2.0/24", "192.0.2.1"]


# Lives and deaths


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
    until(lambda: "eb0f" in qdiscs() and (len(tcx_programs()) == 2 or filters("ingress")))

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
