# SPDX-License-Identifier: Apache-2.0
"""The root qdiscs that hold classes to their rates: whose is used, given, and put back.

Which qdisc heeds a departure time makes no difference to whose it is: where the kernel lacks
fq, `pfifo` stands in for it here, on real devices all the same.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from ebpftop.bpf.shaper_layout import Shaping
from ebpftop.control import class_queues
from ebpftop.kernel import tc_queues
from ebpftop.kernel.netlink.links import netlink
from ebpftop.kernel.netlink.traffic_control import OUR_ROOTS, kernel_knows, traffic_control
from ebpftop.lab import Host, Lab, joined
from tests.kernel.shaping import clear, listed, make, qdiscs, send, tc
from tests.kernel.stage import Done, Stage, ebpftop, staged

pytestmark = [pytest.mark.kernel("bridge", "veth")]


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


def take_for_paced(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Have ebpftop take another qdisc for the one that heeds a departure time."""
    monkeypatch.setattr(tc_queues, "PACED", kind)
    monkeypatch.setitem(class_queues.QUEUES, Shaping.PACE, kind)
    monkeypatch.setitem(OUR_ROOTS, kind, OUR_ROOTS["fq"])


@pytest.fixture(params=[pytest.param("fq", marks=pytest.mark.kernel("fq")), "pfifo"])
def paced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The qdisc that is taken for the one that heeds a departure time."""
    kind: str = request.param
    take_for_paced(monkeypatch, kind)
    return kind


DEVICES = {
    "single": "link add single numtxqueues 1 type veth peer name other",
    "several": "link add several numtxqueues 2 type veth peer name others",
    "tap": "tuntap add tap mode tap multi_queue",
}
"""Devices by their names: with one queue, with two, and with the kernel's own mq."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host with every device, and an instance on each."""
    with Lab(clients=1) as lab, joined(lab.server):
        for name, words in DEVICES.items():
            lab.server.ip(words, f"link set {name} up")
            assert ebpftop("attach", name).status == 0
        yield lab.server
        for name in DEVICES:
            assert ebpftop("detach", name).status == 0


@pytest.fixture
def device(request: pytest.FixtureRequest, host: Host) -> Iterator[str]:
    """The name of a device without a class, and with the root qdisc that it came with."""
    name: str = request.param
    yield name
    with joined(host):
        ebpftop("class", "del", name, "out")
        subprocess.run(["tc", "qdisc", "del", "dev", name, "root"], capture_output=True)


def set_class(device: str, action: str) -> Done:
    """Make a class on a device."""
    return ebpftop("class", "set", device, "out", "--rate", "8mbit", "--action", action)


def action_at_work(device: str) -> str:
    """Return what holds the class on a device."""
    (row,) = ebpftop("classes", device, "--json").json()
    return str(row["action"])


@pytest.mark.parametrize("action", ["auto", "pace"])
@pytest.mark.parametrize("device", ["single", "several", "tap"], indirect=True)
def test_a_device_without_fq_is_given_one_and_loses_it_again(
    device: str, paced: str, action: str
) -> None:
    before = qdiscs(device)

    assert set_class(device, action).status == 0

    assert action_at_work(device) == "pace"
    with netlink() as socket, traffic_control(socket.link(device).index) as tc_of_device:
        queues = tc_of_device.queues()
    given = qdiscs(device)
    if queues == 1:
        assert f"qdisc {paced} eb10: root" in given
    else:
        assert "qdisc mq eb11: root" in given
        leaves = [line for line in given.splitlines() if " parent eb11:" in line]
        assert leaves
        assert all(line.startswith(f"qdisc {paced} ") for line in leaves)

    assert ebpftop("class", "del", device, "out").status == 0
    assert qdiscs(device) == before


@pytest.mark.parametrize("action", ["auto", "pace"])
@pytest.mark.parametrize("device", ["several"], indirect=True)
@pytest.mark.parametrize("root", [True, False])
def test_fq_that_is_there_is_used_as_it_is(
    device: str, paced: str, action: str, root: bool
) -> None:
    # GIVEN it as another's root, or under another's mq for each queue
    if root:
        tc("qdisc", "add", "dev", device, "root", "handle", "7:", paced)
    else:
        tc("qdisc", "add", "dev", device, "root", "handle", "7:", "mq")
        for queue in (1, 2):
            tc("qdisc", "add", "dev", device, "parent", f"7:{queue}", paced)
    before = qdiscs(device)

    assert set_class(device, action).status == 0

    assert action_at_work(device) == "pace"
    assert qdiscs(device) == before
    assert ebpftop("class", "del", device, "out").status == 0
    assert qdiscs(device) == before


@pytest.mark.parametrize("device", ["several"], indirect=True)
def test_anothers_mq_with_a_queue_without_fq_is_left_alone(device: str, paced: str) -> None:
    tc("qdisc", "add", "dev", device, "root", "handle", "7:", "mq")
    tc("qdisc", "add", "dev", device, "parent", "7:1", paced)
    before = qdiscs(device)

    done = set_class(device, "pace")

    assert done.status == 1
    assert "another's root qdisc, mq 7:, which is left alone" in done.err
    assert set_class(device, "auto").status == 0
    assert action_at_work(device) == "police"
    assert qdiscs(device) == before


@pytest.mark.parametrize("device", ["single", "several", "tap"], indirect=True)
def test_where_the_kernel_lacks_it_no_queue_is_touched(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_for_paced(monkeypatch, "nosuch")
    before = qdiscs(device)
    assert not kernel_knows("nosuch")

    done = set_class(device, "pace")

    assert done.status == 1
    assert (
        f"{device} has no nosuch, and this kernel does not know it: modprobe sch_nosuch" in done.err
    )
    assert qdiscs(device) == before


@pytest.mark.kernel("htb")
def test_the_kernels_own_root_is_back_when_the_tree_goes(stage: Stage, client: Host) -> None:
    before = qdiscs()

    make(stage, "out", "8mbit", client)
    assert listed("out")["action"] == "htb"
    assert "qdisc htb eb0f:" in qdiscs()
    send(stage, client, 5)

    assert ebpftop("class", "del", "eth0", "out").status == 0
    assert qdiscs() == before


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
