# SPDX-License-Identifier: Apache-2.0
"""Classes that are changed while packets pass: no byte of the account is lost, or all stays."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import Shaping
from ebpftop.config import CapacityPolicy, Policy
from ebpftop.control.class_states import ClassRequest
from ebpftop.control.class_table import ClassTable
from ebpftop.errors import EbpftopError, KernelRefusedError
from ebpftop.kernel import libbpf
from ebpftop.lab import Host
from ebpftop.model import ClassKey, Prefix, TrafficClass
from tests.kernel.packets import frame, udp
from tests.kernel.shaper import SECOND_NS, Shaper
from tests.kernel.shaping import clear, owed_bytes, prefix, qdiscs, send, shaping
from tests.kernel.stage import Stage, ebpftop, staged

pytestmark = [pytest.mark.kernel("bridge", "veth")]

PACKET = frame("192.0.2.1", udp(b"x" * 18))
MBIT = 1_000_000
RATES = st.integers(8_000, 100_000_000_000)


class ClassUnderChange:
    """A class of the loaded shaper whose clock stands still, so that all that passes is owed.

    Args:
        shaper: The programs.
        rate_bps: At first.
        burst_bytes: What it holds.
    """

    def __init__(self, shaper: Shaper, rate_bps: int, burst_bytes: int = 1 << 30) -> None:
        self._shaper = shaper
        self._table = ClassTable(
            shaper.maps, shaper.programs[layout.PROGRAMS.index(layout.CONTROL)]
        )
        self._wanted = TrafficClass(ClassKey("changing"), rate_bps, burst_bytes, "police")
        self.slot = self._table.write(self._wanted, Shaping.POLICE)
        shaper.set_time(self.slot, shaper.now_ns << layout.TIME_SHIFT)
        shaper.assign("198.51.100.1", self.slot)

    def set_rate(self, rate_bps: int) -> None:
        """Change its rate."""
        self._wanted = replace(self._wanted, rate_bps=rate_bps)
        self._table.write(self._wanted, Shaping.POLICE)

    @property
    def owed_bytes(self) -> float:
        """What its bucket owes."""
        line_ns = self._shaper.owed(self.slot) / (1 << layout.TIME_SHIFT)
        return line_ns * self._wanted.rate_bps / 8 / SECOND_NS


def test_no_packet_is_lost_to_the_account_while_the_rate_changes(shaper: Shaper) -> None:
    # GIVEN a flood through a class, whose clock stands still
    held = ClassUnderChange(shaper, 8 * MBIT)
    ended = threading.Event()

    def flood() -> None:
        for _ in range(10):
            libbpf.run_program(shaper.programs[1], PACKET, repeat=200_000)
        ended.set()

    flooding = threading.Thread(target=flood)
    flooding.start()

    # WHEN its rate is changed all the while, by halves and doubles that no rounding spoils
    changes = 0
    while not ended.is_set():
        held.set_rate((4, 16, 8)[changes % 3] * MBIT)
        changes += 1
    flooding.join()

    # THEN it owes what has passed
    passed = shaper.stats(held.slot)["bytes"]
    assert passed == 10 * 200_000 * len(PACKET)
    assert shaper.stats(held.slot)["dropped_bytes"] == 0
    assert changes > 10
    assert held.owed_bytes == pytest.approx(passed, abs=len(PACKET) / 2)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(rates=st.lists(RATES, min_size=2, max_size=6), packets=st.integers(0, 20))
def test_a_bucket_owes_as_many_bytes_at_any_other_rate(
    shaper: Shaper, rates: list[int], packets: int
) -> None:
    shaper.reset()
    held = ClassUnderChange(shaper, rates[0])
    for _ in range(packets):
        assert shaper.passes(PACKET, wire_len=1500)

    for rate_bps in rates[1:]:
        held.set_rate(rate_bps)
        assert held.owed_bytes == pytest.approx(packets * 1500, rel=1e-5, abs=0.5)


def test_a_debt_that_a_slow_rate_would_pay_for_ever_stays_a_debt(shaper: Shaper) -> None:
    held = ClassUnderChange(shaper, 100_000 * MBIT, 40_960)
    owed = layout.line_time(1 << 30, 100_000 * MBIT)
    shaper.set_time(held.slot, (shaper.now_ns << layout.TIME_SHIFT) + owed)

    held.set_rate(8_000)

    # A gigabyte at 8 kbit/s takes eleven days, which is more than a bucket can owe
    assert shaper.owed(held.slot) == layout.MOST_OWED // 2
    assert not shaper.passes(PACKET)


# All or nothing


PREFIXES = 16


@pytest.fixture(scope="module")
def loaded_stage() -> Iterator[Stage]:
    """An instance with room for few prefixes, on a lab with two clients."""
    policy = Policy(capacity=CapacityPolicy(prefixes=PREFIXES))
    with staged(policy, clients=2) as stage:
        yield stage


@pytest.fixture
def stage(loaded_stage: Stage) -> Iterator[Stage]:
    """The same, without a class."""
    yield loaded_stage
    clear(loaded_stage)


def request(
    name: str, mbit: float, action: str, *members: Prefix, parent: str = "", way: str = "egress"
) -> ClassRequest:
    """Return a class as a policy would ask for it."""
    key = ClassKey(name, way)
    return ClassRequest(TrafficClass(key, round(mbit * MBIT), 40_960, action, 0, parent), members)


def tree() -> list[str]:
    """Return the HTB classes of the interface, as tc(8) tells of them."""
    argv = ["tc", "class", "show", "dev", "eth0"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return sorted(done.stdout.splitlines())


def told() -> list[dict[str, Any]]:
    """Return what `classes` says, without what time alone changes."""
    rows = ebpftop("classes", "eth0", "--json").json()
    return [{k: v for k, v in row.items() if k not in ("tokens_bytes", "bps")} for row in rows]


def too_many() -> list[Prefix]:
    """Return more prefixes than there is room for."""
    return [Prefix.parse(f"203.0.113.{number}") for number in range(PREFIXES + 1)]


REFUSED = [
    pytest.param(request("new", 5, "htb", *too_many()), "prefixes is full", id="a full table"),
    pytest.param(request("new", 5, "pace"), "other classes need htb", id="a queue in use"),
]


@pytest.mark.kernel("htb")
@pytest.mark.parametrize(("last", "words"), REFUSED)
def test_a_policy_that_is_refused_half_way_leaves_everything_as_it_was(
    stage: Stage, last: ClassRequest, words: str
) -> None:
    one, two = stage.lab.clients
    control = shaping(stage)
    # GIVEN a tree of classes, and one whose bucket is overdrawn
    control.apply(
        [
            request("up", 60, "htb"),
            request("child", 20, "auto", prefix(one), parent="up"),
            request("going", 8, "htb", Prefix.parse("192.0.2.1")),
            request("slow", 0.008, "police", prefix(two)),
            request("in", 8, "police", prefix(one), way="ingress"),
        ],
        "on",
    )
    send(stage, one, 5)
    send(stage, two, 35)
    before, tree_before, qdiscs_before = told(), tree(), qdiscs()
    owed_before = owed_bytes(stage, "slow")
    assert owed_before > 20_000

    # WHEN classes go, come, move and change, and the kernel refuses the last of it
    with pytest.raises(KernelRefusedError, match=words):
        control.apply(
            [
                request("child", 30, "htb", prefix(two)),
                request("slow", 0.012, "police", prefix(one)),
                request("first", 3, "htb"),
                last,
            ],
            "off",
        )

    # THEN all is as it was: classes, members, counters, tree, queues, and the debt
    assert told() == before
    assert tree() == tree_before
    assert qdiscs() == qdiscs_before
    assert owed_bytes(stage, "slow") == pytest.approx(owed_before, abs=3000)
    assert snapshot_sum_holds(stage)
    send(stage, one, 5)
    after = {row["class"]: row for row in told()}
    assert after["child"]["packets"] == 10
    assert after["child"]["dropped_packets"] == 0
    assert after["up"]["packets"] == 0


def snapshot_sum_holds(stage: Stage) -> bool:
    """Whether the classes' packets add up to all that were classified."""
    snapshot = stage.snapshot()
    return snapshot.sent is not None and all(snapshot.invariants.values())


@pytest.mark.kernel("htb")
def test_a_class_that_is_refused_half_way_is_as_it_was(stage: Stage) -> None:
    one, _ = stage.lab.clients
    control = shaping(stage)
    control.apply(
        [request("up", 60, "htb"), request("child", 20, "auto", prefix(one), parent="up")]
    )
    before, tree_before = told(), tree()
    # GIVEN another's HTB class where ours would be, so that the kernel refuses it
    tc_class = ["tc", "class", "add", "dev", "eth0", "parent", "eb0f:2", "classid", "eb0f:3",
                "htb", "rate", "1mbit"]  # fmt: skip
    subprocess.run(tc_class, check=True, capture_output=True)

    with pytest.raises(EbpftopError):
        control.set_class(ClassKey("other"), {"rate_bps": MBIT, "action": "htb"})

    assert told() == before
    assert [line for line in tree() if "eb0f:3" not in line] == tree_before


def test_what_a_new_class_overwrites_is_put_back(stage: Stage) -> None:
    one: Host = stage.lab.clients[0]
    control = shaping(stage)
    control.apply([request("old", 0.008, "police", prefix(one))])
    send(stage, one, 35)
    before, owed_before = told(), owed_bytes(stage, "old")

    # WHEN its place is given to another, and then something is refused
    with pytest.raises(KernelRefusedError, match="is full"):
        control.apply([request("new", 8, "police", prefix(one), *too_many())])

    assert told() == before
    assert owed_bytes(stage, "old") == pytest.approx(owed_before, abs=3000)
