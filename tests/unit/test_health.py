# SPDX-License-Identifier: Apache-2.0
"""Health checks without a network: when health changes, and who is asked how often."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest

from ebpftop.control import health
from ebpftop.control.health import HealthChecker, Tally, Target
from ebpftop.control.probing import request
from ebpftop.errors import KernelRefusedError, NotFoundError
from ebpftop.model import HealthCheck, Service

WAIT_S = 10.0
VIP = Service.parse("192.0.2.1:80/tcp")
CHECK = HealthCheck(interval_s=0.02, timeout_s=0.01, rise=2, fall=3)


def backend(number: int) -> Service:
    return Service.parse(f"198.51.100.{number}:80", "tcp")


def target(number: int, check: HealthCheck = CHECK) -> Target:
    return Target(VIP, backend(number), check)


class Ward:
    """Patients in memory."""

    def __init__(self, *targets: Target) -> None:
        self.health: dict[Target, bool | None] = dict.fromkeys(targets)
        self.changes: list[tuple[str, bool]] = []
        self.rounds = 0
        self.ended = False
        self.errors: list[Exception] = []
        self.round_errors: list[Exception] = []

    def begin_round(self) -> Mapping[Target, bool | None]:
        self.rounds += 1
        if self.round_errors:
            raise self.round_errors.pop()
        return dict(self.health)

    def set_health(self, vip: Service, backend: Service, healthy: bool) -> None:
        if self.errors:
            raise self.errors.pop()
        (found,) = (t for t in self.health if (t.vip, t.backend) == (vip, backend))
        self.health[found] = healthy
        self.changes.append((backend.endpoint, healthy))

    def end(self) -> None:
        self.ended = True


class Answers:
    """Stands for the network: which backends live, and when each was asked."""

    def __init__(self) -> None:
        self.living: dict[Service, bool | None] = {}
        self.asked: Counter[Service] = Counter()
        self.at_s: list[float] = []
        self.hangs = False
        self.under_way = self.most_under_way = 0

    async def probe(self, backend: Service, check: HealthCheck) -> bool | None:
        self.asked[backend] += 1
        self.at_s.append(time.monotonic())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(600 if self.hangs else 0.001)
        self.under_way -= 1
        return self.living.get(backend, True)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    network = Answers()
    monkeypatch.setattr(health, "probe", network.probe)
    monkeypatch.setattr(HealthChecker, "ROUND_S", 0.02)
    return network


@pytest.fixture
def begin() -> Iterator[Callable[[Ward], HealthChecker]]:
    begun: list[HealthChecker] = []

    def start(ward: Ward) -> HealthChecker:
        begun.append(HealthChecker(ward))
        begun[-1].start()
        return begun[-1]

    yield start
    for checker in begun:
        checker.stop()


Begin = Callable[[Ward], HealthChecker]


def until(met: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < deadline_s, "this did not come about"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("known", "answers", "changes"),
    [
        (None, "++", [None, True]),
        (None, "---", [None, None, False]),
        (None, "+-+-+", [None] * 5),
        (True, "--+---", [None, None, None, None, None, False]),
        (False, "+-++", [None, None, None, True]),
        (True, "+++", [None] * 3),
        (False, "----", [None] * 4),
    ],
)
def test_health_changes_after_rise_good_or_fall_bad_answers_in_a_row(
    known: bool | None, answers: str, changes: list[bool | None]
) -> None:
    tally = Tally(CHECK, known)
    assert [tally.add(answer == "+") for answer in answers] == changes


def test_a_change_that_was_not_noted_is_due_again_at_the_next_answer() -> None:
    tally = Tally(CHECK, True)
    assert [tally.add(False) for _ in range(4)] == [None, None, False, False]


def test_backends_fall_and_rise_with_what_they_answer(answers: Answers, begin: Begin) -> None:
    ward = Ward(target(1), target(2))
    answers.living[backend(2)] = False
    begin(ward)

    until(lambda: len(ward.changes) == 2)
    assert sorted(ward.changes) == [("198.51.100.1:80", True), ("198.51.100.2:80", False)]
    assert answers.asked[backend(2)] >= CHECK.fall

    answers.living[backend(2)] = True
    until(lambda: ward.changes[2:] == [("198.51.100.2:80", True)])


def test_an_answer_that_says_nothing_changes_nothing(answers: Answers, begin: Begin) -> None:
    ward = Ward(target(1))
    answers.living[backend(1)] = None
    begin(ward)

    until(lambda: answers.asked[backend(1)] > 2 * CHECK.fall)
    assert ward.changes == []


def test_who_comes_goes_or_is_to_be_asked_otherwise_is_noticed(
    answers: Answers, begin: Begin
) -> None:
    ward = Ward(target(1))
    begin(ward)
    until(lambda: answers.asked[backend(1)])

    ward.health = {target(2): None}
    until(lambda: answers.asked[backend(2)])
    asked = answers.asked[backend(1)]
    rounds = ward.rounds
    until(lambda: ward.rounds > rounds + 3)
    assert answers.asked[backend(1)] <= asked + 1

    slower = HealthCheck(interval_s=600, timeout_s=1)
    ward.health = {target(2, slower): None}
    rounds = ward.rounds
    until(lambda: ward.rounds > rounds + 2)
    asked = answers.asked[backend(2)]
    until(lambda: ward.rounds > rounds + 8)
    assert answers.asked[backend(2)] <= asked + 1


def test_health_that_others_forgot_is_found_out_anew(answers: Answers, begin: Begin) -> None:
    # A backend that is taken out and put back within a round has no health, and one watch.
    ward = Ward(target(1))
    begin(ward)
    until(lambda: ward.health[target(1)])

    ward.health[target(1)] = None

    until(lambda: ward.health[target(1)])
    assert ward.changes == [("198.51.100.1:80", True)] * 2


def test_a_change_is_noted_once_however_many_answers_agree(
    answers: Answers, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HealthChecker, "ROUND_S", 600.0)
    ward = Ward(target(1))
    begin(ward)
    until(lambda: answers.asked[backend(1)] > 10)
    assert ward.changes == [("198.51.100.1:80", True)]


def test_a_change_that_cannot_be_noted_is_tried_again(answers: Answers, begin: Begin) -> None:
    ward = Ward(target(1))
    ward.errors = [KernelRefusedError("another writes"), NotFoundError("it is gone")]
    checker = begin(ward)

    until(lambda: ward.changes == [("198.51.100.1:80", True)])
    assert checker.error is None


def test_first_checks_are_spread_and_go_on_in_their_interval(
    answers: Answers, begin: Begin
) -> None:
    check = HealthCheck(interval_s=0.5, timeout_s=0.1)
    begun_s = time.monotonic()
    begin(Ward(*(target(number, check) for number in range(1, 101))))

    until(lambda: len(answers.at_s) >= 300)
    offsets = [at_s - begun_s for at_s in answers.at_s[:100]]
    assert sum(offset < 0.25 for offset in offsets) < 90
    # The third check of each comes two intervals after its first.
    assert answers.at_s[299] - begun_s >= 2 * check.interval_s


def test_no_more_checks_than_that_are_under_way(
    answers: Answers, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HealthChecker, "AT_ONCE", 7)
    begin(Ward(*(target(number) for number in range(1, 101))))
    until(lambda: len(answers.at_s) > 300)
    assert answers.most_under_way == 7


def test_a_thousand_backends_are_one_thread(answers: Answers, begin: Begin) -> None:
    slow = HealthCheck(interval_s=1.0, timeout_s=1.0)
    ports = range(1, 1001)
    services = [Service.parse(f"198.51.100.1:{port}", "tcp") for port in ports]
    begin(Ward(*(Target(VIP, service, slow) for service in services)))

    until(lambda: len(answers.asked) == len(ports))
    mine = [t for t in threading.enumerate() if t.name.startswith(("ebpftop-health", "asyncio"))]
    assert len(mine) < 10


@pytest.mark.parametrize("hangs", [False, True])
def test_it_stops_in_a_moment_also_in_the_middle_of_checks(
    answers: Answers, begin: Begin, hangs: bool
) -> None:
    answers.hangs = hangs
    ward = Ward(*(target(number) for number in range(1, 51)))
    checker = begin(ward)
    until(lambda: len(answers.asked) == 50)

    told_s = time.monotonic()
    checker.stop()

    assert not checker.is_alive()
    assert time.monotonic() - told_s < 2
    assert ward.ended
    asked = answers.asked.total()
    checker.stop()
    assert answers.asked.total() == asked


def test_one_that_never_ran_can_be_stopped() -> None:
    HealthChecker(Ward()).stop()


@pytest.mark.parametrize("error", [KernelRefusedError("it is gone"), OSError(1, "no")])
def test_it_ends_where_nobody_can_be_read_and_says_why(
    answers: Answers, begin: Begin, error: Exception
) -> None:
    ward = Ward(target(1))
    checker = begin(ward)
    until(lambda: ward.rounds > 1)

    ward.round_errors = [error]

    until(lambda: not checker.is_alive())
    assert checker.error is not None
    assert ward.ended


def test_a_request_names_path_and_host_and_nothing_can_be_added_to_it() -> None:
    check = HealthCheck("http", path="/live?a=b&c=%20", host="shop.example")
    assert request(backend(1), check).decode().split("\r\n") == [
        "GET /live?a=b&c=%20 HTTP/1.1", "Host: shop.example", "User-Agent: ebpftop",
        "Connection: close", "", "",
    ]  # fmt: skip
    hostile = HealthCheck("http", path="/ HTTP/1.1\r\nX: y\r\n\r\n", host="a\r\nX: y")
    lines = request(backend(1), hostile).split(b"\r\n")
    assert len(lines) == 6
    assert lines[0].count(b" ") == 2
    v6 = Service.parse("[2001:db8::1]:80", "tcp")
    assert b"Host: [2001:db8::1]:8080\r\n" in request(v6, HealthCheck("http", port=8080))
