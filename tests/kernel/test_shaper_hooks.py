# SPDX-License-Identifier: Apache-2.0
"""What the shaper puts on an interface, beside what, and that it is all taken away again."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ebpftop.control.class_states import ClassRequest
from ebpftop.errors import NotFoundError, UsageError
from ebpftop.kernel import bpffs, libbpf
from ebpftop.kernel.netlink.links import netlink
from ebpftop.lab import Host
from ebpftop.model import ClassKey, Prefix, TrafficClass
from tests.kernel.shaping import (
    clear,
    filters,
    listed,
    make,
    owed_bytes,
    qdiscs,
    send,
    shaping,
    tc,
    tcx_programs,
)
from tests.kernel.stage import Stage, ebpftop, staged

pytestmark = [pytest.mark.kernel("bridge", "veth")]

PASSES = bytes.fromhex("b7000000ffffffff9500000000000000")  # r0 = TC_ACT_UNSPEC; exit
NOBODY = Prefix.parse("203.0.113.9")


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


def other_program() -> int:
    """Load another's TC program."""
    return libbpf.call("bpf_prog_load", 3, b"theirs", b"GPL", PASSES, 2, None)


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
