# SPDX-License-Identifier: Apache-2.0
"""The acts on VIPs and backends: what they do to flows, and that they are whole or nothing."""

from __future__ import annotations

import errno
import itertools
import threading
from collections import Counter
from typing import Any

import pytest

from ebpftop.bpf import balancer_records as convert
from ebpftop.bpf.layout import BACKENDS, VIPS, EventKind, Flag
from ebpftop.control.journal import Journal
from ebpftop.control.vip_events import MOST_EVENTS_AT_ONCE
from ebpftop.control.vip_rules import VipRequest
from ebpftop.errors import EbpftopError, KernelRefusedError, NotFoundError, UsageError
from ebpftop.model import Backend, HealthCheck, Service, Vip
from tests.kernel.balancing import DNS, VIP, VIP6, Controlled, servers
from tests.kernel.pipeline import Pipeline

pytestmark = pytest.mark.kernel

A, B, C = servers(3)
ONE, TWO, THREE = (str(service.address) for service in (A, B, C))


def ports(count: int) -> list[Service]:
    """Return so many services of one address."""
    return [Service.parse(f"10.0.1.1:{port}", "tcp") for port in range(1, count + 1)]


@pytest.fixture
def lb(pipeline: Pipeline) -> Controlled:
    return Controlled(pipeline)


def test_without_a_vip_nothing_is_balanced_and_with_one_it_is(lb: Controlled) -> None:
    assert not lb.flags() & Flag.VIPS
    lb.balance(VIP, A)
    assert lb.flags() & Flag.VIPS
    assert lb.send(1) == ONE
    lb.control.delete_vip(VIP)
    assert not lb.flags() & Flag.VIPS
    assert lb.send(1) == "198.51.100.10"
    lb.check_consistent()
    assert not lb.written()["backends"]


def test_a_vip_without_backends_drops_what_comes(lb: Controlled) -> None:
    lb.balance(VIP)
    assert lb.send(1) == "dropped"


@pytest.mark.parametrize(
    ("algorithm", "weights", "shares"),
    [("rr", (1, 5, 9), (4, 4, 4)), ("wrr", (1, 2, 3), (2, 4, 6)), ("least", (1, 2, 3), (2, 4, 6))],
)
def test_an_algorithm_shares_new_flows_out(
    lb: Controlled, algorithm: str, weights: tuple[int, ...], shares: tuple[int, ...]
) -> None:
    backends = [Backend(s, w) for s, w in zip((A, B, C), weights, strict=True)]
    lb.balance(VIP, *backends, algorithm=algorithm)
    lb.open(range(1, 13))
    assert lb.flows() == dict(zip((ONE, TWO, THREE), shares, strict=True))


def test_another_algorithm_keeps_flows_and_their_counts(lb: Controlled) -> None:
    lb.balance(VIP, A, B, C, algorithm="rr")
    placed, counts = lb.open(range(1, 31)), lb.flows()
    for algorithm in ("maglev", "least", "wrr", "rr"):
        lb.control.set_vip(VIP, {"algorithm": algorithm})
        assert {port: lb.send(port, flags="A") for port in placed} == placed
        assert lb.flows() == counts
        assert lb.control.vip(VIP).algorithm == algorithm


def test_maglev_moves_only_the_places_of_a_backend_that_leaves(lb: Controlled) -> None:
    lb.balance(VIP, A, B, C, algorithm="maglev")
    before = lb.ring()
    lb.control.set_backends(VIP, {B: {"state": "drain"}})
    gone = [x for x, y in zip(before, lb.ring(), strict=True) if x != y]
    assert set(gone) == {before[before.index(2)]}
    lb.control.set_backends(VIP, {B: {"state": "up"}})
    assert lb.ring().count(2) in (1364, 1365)


@pytest.mark.parametrize("change", [{"state": "drain"}, {"weight": 0}], ids=["drain", "weight 0"])
def test_a_backend_that_takes_no_new_flows_keeps_those_it_has(
    lb: Controlled, change: dict[str, Any]
) -> None:
    lb.balance(VIP, A, B, algorithm="rr")
    placed = lb.open(range(1, 11))
    lb.control.set_backends(VIP, {A: change})
    assert set(lb.open(range(11, 21)).values()) == {TWO}
    assert {port: lb.send(port, flags="A") for port in placed} == placed
    assert lb.flows() == {ONE: 5, TWO: 15}
    lb.control.set_backends(VIP, {A: {"state": "up", "weight": 1}})
    assert Counter(lb.open(range(21, 31)).values()) == {ONE: 5, TWO: 5}


def away(lb: Controlled, how: str) -> None:
    """Let backend A serve no longer."""
    if how == "down":
        lb.control.set_backends(VIP, {A: {"state": "down"}})
    elif how == "deleted":
        lb.control.delete_backend(VIP, A)
    else:
        lb.control.set_health(VIP, A, False)


@pytest.mark.parametrize("how", ["down", "deleted", "unhealthy"])
def test_flows_of_a_backend_that_is_gone_are_moved_at_their_next_packet(
    lb: Controlled, how: str
) -> None:
    lb.balance(VIP, A, B, algorithm="rr")
    lb.open(range(1, 11))
    away(lb, how)
    assert {lb.send(port, flags="A") for port in range(1, 11)} == {TWO}
    assert lb.flows() == {TWO: 10}
    assert set(lb.open(range(11, 15)).values()) == {TWO}
    lb.check_consistent()


def test_a_backend_that_is_well_again_gets_its_share(lb: Controlled) -> None:
    lb.balance(VIP, A, B, algorithm="rr")
    for healthy in (False, True):
        lb.control.set_health(VIP, A, healthy)
    assert Counter(lb.open(range(1, 11)).values()) == {ONE: 5, TWO: 5}


def test_where_no_backend_lives_the_policy_decides(lb: Controlled) -> None:
    lb.balance(VIP, A, B, algorithm="rr", check=HealthCheck())
    placed = lb.open(range(1, 5))
    for backend in (A, B):
        lb.control.set_health(VIP, backend, False)
    assert lb.send(9) == lb.send(1, flags="A") == "dropped"

    # All are used as if all lived: flows go back to where they were, and stay.
    lb.control.set_vip(VIP, {"no_backend": "all"})
    assert {port: lb.send(port, flags="A") for port in placed} == placed
    assert Counter(lb.open(range(11, 21)).values()) == {ONE: 5, TWO: 5}
    # What the operator took down is not used, and one that lives again is used alone.
    lb.control.set_backends(VIP, {B: {"state": "down"}})
    assert set(lb.open(range(21, 25)).values()) == {ONE}
    lb.control.set_backends(VIP, {B: {"state": "up"}})
    lb.control.set_health(VIP, B, True)
    assert set(lb.open(range(31, 35)).values()) == {TWO}


def test_without_a_check_nothing_is_known_of_health_any_more(lb: Controlled) -> None:
    lb.balance(VIP, A, B, check=HealthCheck())
    lb.control.set_health(VIP, A, False)
    lb.control.set_vip(VIP, {"algorithm": "rr"})
    assert lb.send(1) == lb.send(2) == TWO
    lb.control.set_vip(VIP, {"check": None})
    assert {lb.send(3), lb.send(4)} == {ONE, TWO}


def test_changes_of_state_and_health_are_told_and_what_is_no_news_is_not(lb: Controlled) -> None:
    lb.balance(VIP, A, B)
    lb.control.set_health(VIP, A, True)
    lb.control.set_health(VIP, A, False)
    lb.control.set_health(VIP, A, False)
    lb.control.set_health(VIP, A, True)
    lb.control.set_health(VIP, A, None)
    lb.control.set_backends(VIP, {B: {"state": "drain", "weight": 3}})
    lb.control.set_backends(VIP, {B: {"weight": 4}})
    told = [(event[0], event[4]) for event in lb.pipeline.events()]
    assert told == [
        (EventKind.BACKEND_DOWN, (8080, 0)), (EventKind.BACKEND_UP, (8080, 0)),
        (EventKind.BACKEND_STATE, (8080, 1)),
    ]  # fmt: skip
    texts = {bytes(text) for text in lb.maps["events"].read()[1]["text"] if text}
    assert texts == {b"198.51.100.10:80/tcp"}


def test_of_many_backends_at_once_the_first_are_told(lb: Controlled) -> None:
    many = servers(40)
    lb.balance(VIP, *many)
    lb.control.set_backends(VIP, {service: {"state": "down"} for service in many})
    assert len(lb.pipeline.events()) == MOST_EVENTS_AT_ONCE


def test_a_deleted_vip_takes_its_flows_with_it_and_leaves_the_others(lb: Controlled) -> None:
    lb.balance(VIP, A, B)
    lb.balance(DNS, *servers(2, "udp"))
    lb.open(range(1, 201))
    lb.open(range(1, 11), DNS)
    lb.control.delete_vip(VIP)
    assert lb.entries() == 10
    assert sum(lb.flows().values()) == 10
    assert {lb.send(port, DNS) for port in range(1, 11)} == {ONE, TWO}
    lb.check_consistent()


def test_two_vips_share_a_server_and_each_answer_finds_its_own(lb: Controlled) -> None:
    other = Service.parse("198.51.100.11:80/tcp")
    lb.balance(VIP, A)
    lb.balance(other, A)
    endpoint = lb.maps["endpoints"].read()[1]
    assert endpoint["users"].tolist() == [2]
    lb.control.delete_vip(VIP)
    endpoint = lb.maps["endpoints"].read()[1]
    assert (endpoint["users"].tolist(), endpoint["vip_slot"].tolist()) == ([1], [1])
    lb.check_consistent()


def test_another_mode_is_refused_while_there_are_flows(lb: Controlled) -> None:
    server = Service.parse("10.0.0.9:80", "tcp")
    lb.balance(VIP, server)
    lb.send(1)
    before = lb.written()
    with pytest.raises(UsageError, match="has 1 flows, which another mode would cut"):
        lb.control.set_vip(VIP, {"mode": "dsr"})
    assert lb.written() == before
    lb.send(1, flags="R")
    lb.control.set_vip(VIP, {"mode": "dsr"})
    assert not lb.written()["endpoints"]
    assert lb.send(2) == "dropped", "no MAC is known, and it must not be rewritten"


BAD: list[tuple[str, type[EbpftopError], Any]] = [
    ("the VIP is there", UsageError, lambda c: c.add_vip(Vip(VIP))),
    ("no such VIP", NotFoundError, lambda c: c.set_vip(DNS, {"algorithm": "rr"})),
    ("no such VIP to delete", NotFoundError, lambda c: c.delete_vip(DNS)),
    ("no such backend", NotFoundError, lambda c: c.set_backends(VIP, {C: {"weight": 2}})),
    ("no such backend to delete", NotFoundError, lambda c: c.delete_backend(VIP, C)),
    ("health of no backend", NotFoundError, lambda c: c.set_health(VIP, C, True)),
    ("the backend is there", UsageError, lambda c: c.add_backend(VIP, Backend(A))),
    ("other family", UsageError,
     lambda c: c.add_backend(VIP, Backend(Service.parse("[2001:db8::7]:80", "tcp")))),
    ("other protocol", UsageError,
     lambda c: c.add_backend(VIP, Backend(Service.parse("10.0.0.7:80", "udp")))),
    ("at the VIP's address", UsageError,
     lambda c: c.add_backend(VIP, Backend(Service.parse("198.51.100.10:81", "tcp")))),
    ("a VIP at a backend's address", UsageError,
     lambda c: c.add_vip(Vip(Service.parse("10.0.0.1:9/udp")))),
    ("a weight below 0", UsageError, lambda c: c.set_backends(VIP, {A: {"weight": -1}})),
    ("a weight too large", UsageError, lambda c: c.set_backends(VIP, {A: {"weight": 65_536}})),
    ("no state", UsageError, lambda c: c.set_backends(VIP, {A: {"state": "up\x1b"}})),
    ("one of two is wrong", UsageError,
     lambda c: c.set_backends(VIP, {A: {"weight": 7}, B: {"state": "away"}})),
    ("no algorithm", UsageError, lambda c: c.set_vip(VIP, {"algorithm": "best"})),
    ("no mode", UsageError, lambda c: c.set_vip(VIP, {"mode": "tunnel"})),
    ("other ports in dsr", UsageError, lambda c: c.set_vip(VIP, {"mode": "dsr"})),
    ("a multicast VIP", UsageError, lambda c: c.add_vip(Vip(Service.parse("224.0.0.1:80/tcp")))),
    ("no path", UsageError, lambda c: c.set_vip(VIP, {"check": HealthCheck("http", path="x")})),
    ("a path with a line in it", UsageError,
     lambda c: c.set_vip(VIP, {"check": HealthCheck("http", path="/x\r\nHost: y")})),
    ("a path too long", UsageError,
     lambda c: c.set_vip(VIP, {"check": HealthCheck("http", path="/" * 128)})),
    ("no rise", UsageError, lambda c: c.set_vip(VIP, {"check": HealthCheck(rise=0)})),
    ("no interval", UsageError, lambda c: c.set_vip(VIP, {"check": HealthCheck(interval_s=0)})),
    ("two VIPs of one name", UsageError,
     lambda c: c.apply([VipRequest(Vip(VIP6), []), VipRequest(Vip(VIP6), [])])),
    ("two backends of one name", UsageError,
     lambda c: c.apply([VipRequest(Vip(VIP), [Backend(C), Backend(C)])])),
]  # fmt: skip


def test_what_cannot_be_is_refused_and_changes_nothing(lb: Controlled) -> None:
    lb.balance(VIP, A, B, check=HealthCheck())
    before = lb.written()
    for what, kind, act in BAD:
        with pytest.raises(EbpftopError) as refusal:
            act(lb.control)
        assert type(refusal.value) is kind, what
        assert "\n" not in str(refusal.value)
        assert "\x1b" not in str(refusal.value)
        assert lb.written() == before, what


def test_more_vips_or_backends_than_there_is_room_for_are_refused(lb: Controlled) -> None:
    vips = [Service.parse(f"198.51.{n >> 8}.{n & 255}:80/tcp") for n in range(VIPS)]
    lb.control.apply([VipRequest(Vip(service), []) for service in vips[1:]])
    lb.control.add_vip(Vip(VIP6))
    before = lb.written()
    with pytest.raises(KernelRefusedError, match="there are 256 VIPs already"):
        lb.control.add_vip(Vip(VIP))
    assert lb.written() == before

    many = ports(BACKENDS)
    lb.control.apply([VipRequest(Vip(vips[1]), [Backend(service) for service in many[:-1]])])
    with pytest.raises(KernelRefusedError, match="there are 1,023 backends already"):
        lb.control.add_backend(vips[1], Backend(many[-1]))
    lb.check_consistent()


def test_the_slot_of_a_deleted_backend_brings_none_of_its_flows_to_another(
    lb: Controlled,
) -> None:
    lb.control.apply([VipRequest(Vip(VIP, "rr"), [Backend(A), *map(Backend, ports(BACKENDS - 2))])])
    assert lb.send(1) == ONE
    lb.control.delete_backend(VIP, A)
    assert lb.flows() == {"::": 1}, "it counts until it is moved"
    other = Service.parse("198.51.100.11:80/tcp")
    lb.balance(other, B)
    assert lb.flows() == {}

    assert lb.send(1, flags="A") == "10.0.1.1"
    assert lb.send(1, other) == TWO
    assert lb.flows() == {"10.0.1.1": 1, TWO: 1}


def test_ids_are_never_used_twice(lb: Controlled) -> None:
    seen: list[int] = []
    for _ in range(3):
        lb.balance(VIP, A)
        seen += lb.maps["vip_slots"].read()[1]["id"][:1].tolist()
        seen += [i for i in lb.maps["backends"].read()[1]["id"].tolist() if i]
        lb.control.delete_vip(VIP)
    assert len(set(seen)) == len(seen) == 6


def test_while_acts_go_on_no_packet_is_lost_and_none_goes_astray(lb: Controlled) -> None:
    other = Service.parse("198.51.100.11:80/tcp")
    lb.balance(VIP, A, B, algorithm="rr")
    lb.balance(other, Service.parse("10.0.9.9:8080", "tcp"))
    lb.pipeline.unpin()
    done = threading.Event()
    went: Counter[str] = Counter()

    def traffic() -> None:
        for port in itertools.cycle(range(1, 500)):
            for flags in ("S", "A", "R"):
                went[lb.send(port, flags=flags)] += 1
            if done.is_set():
                return

    sender = threading.Thread(target=traffic)
    sender.start()
    try:
        for turn in range(4):
            for algorithm in ("maglev", "wrr", "least", "rr"):
                lb.control.set_vip(VIP, {"algorithm": algorithm})
                lb.control.set_backends(VIP, {A: {"weight": turn + 1}})
            lb.control.add_backend(VIP, Backend(C))
            lb.control.set_health(VIP, B, False)
            lb.control.set_backends(VIP, {A: {"state": "down"}})
            lb.control.set_health(VIP, B, True)
            lb.control.delete_backend(VIP, C)
            lb.control.set_backends(VIP, {A: {"state": "up"}})
    finally:
        done.set()
        sender.join()
    assert went.keys() == {ONE, TWO, THREE}
    assert went.total() > 300
    assert sum(lb.flow_table.read().open_flows()) == sum(lb.flows().values()) == 0


# All or nothing

ACTS: dict[str, Any] = {
    "add_vip": lambda c: c.add_vip(Vip(VIP6, check=HealthCheck())),
    "add_backend": lambda c: c.add_backend(VIP, Backend(C)),
    "set_backends": lambda c: c.set_backends(VIP, {A: {"weight": 9}, B: {"state": "down"}}),
    "delete_backend": lambda c: c.delete_backend(VIP, A),
    "delete_vip": lambda c: c.delete_vip(VIP),
    "apply": lambda c: c.apply([VipRequest(Vip(VIP6), []),
                                VipRequest(Vip(VIP), [Backend(C, 2), Backend(A)])]),
}  # fmt: skip


def refusing(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the kernel refuse the write that follows so many."""
    writes = itertools.count()
    for name in ("put", "delete"):
        real = getattr(Journal, name)

        def write(self: Journal, *arguments: Any, real: Any = real) -> None:
            if next(writes) == after:
                raise OSError(errno.EIO, "no luck")
            real(self, *arguments)

        monkeypatch.setattr(Journal, name, write)


@pytest.mark.parametrize("act", list(ACTS))
def test_an_act_that_the_kernel_refuses_half_way_changes_nothing(
    lb: Controlled, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    lb.balance(VIP, A, B, algorithm="rr")
    placed, before = lb.open(range(1, 9)), lb.written()
    for after in range(100):
        with monkeypatch.context() as patch:
            refusing(patch, after)
            try:
                ACTS[act](lb.control)
                break
            except KernelRefusedError:
                pass
        assert lb.written() == before, after
        assert {port: lb.send(port, flags="A") for port in placed} == placed
    assert after > 3
    assert lb.written() != before


@pytest.mark.parametrize("act", list(ACTS))
def test_what_a_killed_writer_left_is_mended_by_the_next_act(
    lb: Controlled, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    lb.balance(VIP, A, B, algorithm="rr")
    for after in range(100):
        with monkeypatch.context() as patch:
            refusing(patch, after)
            patch.setattr(Journal, "undo", lambda self: None)
            try:
                ACTS[act](lb.control)
                killed = False
            except EbpftopError:
                killed = True
        lb.control.sweep()
        for service in (VIP, VIP6):
            if service in map(convert.service, lb.maps["vips"].read()[0]):
                lb.control.set_vip(service, {"algorithm": "wrr"})
        lb.check_consistent()
        if not killed:
            break
        lb.control.apply([])
        for service in [convert.service(key) for key in lb.maps["vips"].read()[0].copy()]:
            lb.control.delete_vip(service)
        lb.check_consistent()
        lb.balance(VIP, A, B, algorithm="rr")
    assert after > 3
