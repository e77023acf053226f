# SPDX-License-Identifier: Apache-2.0
"""Servers that fail and return under load, and who checks them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ebpftop.control.checking import InstancePatients
from ebpftop.control.health import HealthChecker
from ebpftop.lab import serve_http
from ebpftop.model import HealthCheck, Service
from tests.kernel.farm import NAMES, Farm, farming, until

pytestmark = pytest.mark.kernel("bridge", "veth")

CHECK = HealthCheck("http", interval_s=0.4, timeout_s=0.3, rise=2, fall=2)
BOUND_S = CHECK.fall * CHECK.interval_s + CHECK.timeout_s
LATE_S = 1.0
"""What a loaded machine may add to it."""
GOOD = dict.fromkeys(NAMES, True)


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """The same three servers for all tests."""
    with farming() as farm:
        yield farm


@pytest.fixture(autouse=True)
def _no_vips_stay(farm: Farm) -> Iterator[None]:
    yield
    farm.remove(*(vip.service for vip in farm.snapshot().vips.wanted))


@contextmanager
def checking(farm: Farm) -> Iterator[HealthChecker]:
    """Check the backends of a farm."""
    checker = HealthChecker(InstancePatients(farm.instance, farm.control.balancing.set_health))
    checker.start()
    try:
        yield checker
    finally:
        checker.stop()
    assert checker.error is None


def health(farm: Farm, vip: Service) -> dict[str, bool | None]:
    """What a reader is told."""
    return farm.of(vip, "healthy")


@contextmanager
def killed(farm: Farm, name: str) -> Iterator[float]:
    """Kill a server, say when, and bring it back."""
    farm.servers[name].kill()
    try:
        yield time.monotonic()
    finally:
        farm.servers[name] = serve_http(farm.lab.backends[NAMES.index(name)])
        farm.servers[name].wait_ready()


@pytest.mark.parametrize("version", [4, 6])
def test_a_killed_server_loses_what_was_on_it_and_in_time_its_traffic_and_gets_it_back(
    farm: Farm, version: int
) -> None:
    # GIVEN servers that are found healthy, under load
    vip = farm.add(version, algorithm="rr", check=CHECK)
    reader = farm.source()
    with checking(farm):
        until(lambda: health(farm, vip) == GOOD)
        load = farm.load(vip, parallel=60, requests=3, pause_s=0.05)
        until(lambda: min(farm.of(vip, "opened").values()) > 30)
        reader.snapshot()

        # WHEN one is killed
        with killed(farm, "backend2") as killed_s:
            # THEN it is out in time, and after that nothing fails
            until(lambda: farm.of(vip, "share")["backend2"] == 0)
            noticed_s = time.monotonic() - killed_s
            assert noticed_s < BOUND_S + LATE_S
            assert health(farm, vip) == GOOD | {"backend2": False}
            opened = farm.of(vip, "opened")
            until(lambda: sum(farm.of(vip, "opened").values()) > sum(opened.values()) + 300)
            assert farm.of(vip, "opened")["backend2"] == opened["backend2"]
            placed = farm.placed(vip)
            result = load.stop()
            assert result["failed"] > 0
            for failure in result["failures"]:
                assert placed[failure["port"]] == "backend2", failure
                assert failure["at_s"] - killed_s < noticed_s + LATE_S, failure
            assert farm.of(vip, "share") == {"backend1": 0.5, "backend2": 0.0, "backend3": 0.5}

        # AND WHEN it comes back, it gets its share
        until(lambda: health(farm, vip) == GOOD)
        result = farm.loaded(vip, parallel=60, count=300)
        assert result["failures"] == []
        assert result["servers"] == dict.fromkeys(NAMES, 100)
    told = [event for event in reader.snapshot().events if event.kind.startswith("backend")]
    assert [event.kind for event in told] == ["backend-down", "backend-up"]
    assert {event.address for event in told} == {str(farm.backend(vip, "backend2").address)}
    assert all(str(vip) in event.detail for event in told)
    until(lambda: farm.open_flows() == {})


def test_a_server_that_falls_silent_loses_what_it_had_begun_and_no_more(farm: Farm) -> None:
    # GIVEN servers that are found healthy, under load
    vip = farm.add(algorithm="rr", check=CHECK)
    with checking(farm):
        until(lambda: health(farm, vip) == GOOD)
        load = farm.load(vip, parallel=60, requests=3, pause_s=0.05)
        until(lambda: min(farm.of(vip, "opened").values()) > 30)

        # WHEN the link of one breaks, so that nothing refuses what is sent there
        farm.lab.wire.ip("link set backend2 down")
        broken_s = time.monotonic()
        try:
            # THEN it is out in time
            until(lambda: farm.of(vip, "share")["backend2"] == 0)
            assert time.monotonic() - broken_s < BOUND_S + LATE_S
            opened = sum(farm.of(vip, "opened").values())
            until(lambda: sum(farm.of(vip, "opened").values()) > opened + 300)
            result = load.stop()
        finally:
            farm.lab.wire.ip("link set backend2 up")
        # AND only connections that it had accepted are lost: others moved with their next packet
        assert result["failed"] > 0
        assert {failure["server"] for failure in result["failures"]} == {"backend2"}
        until(lambda: health(farm, vip) == GOOD)


def test_a_server_that_answers_wrongly_or_not_at_all_is_out_by_http_and_in_by_tcp(
    farm: Farm,
) -> None:
    asking = HealthCheck("http", interval_s=0.2, timeout_s=0.15, rise=1, fall=1, status=204)
    wrong = farm.add(check=asking)
    right = farm.add(check=HealthCheck("tcp", interval_s=0.2, timeout_s=0.15, rise=1, fall=1))
    with checking(farm):
        until(lambda: health(farm, wrong) == dict.fromkeys(NAMES, False))
        until(lambda: health(farm, right) == GOOD)


def test_checks_follow_what_is_changed_while_they_run(farm: Farm) -> None:
    quick = HealthCheck("tcp", interval_s=0.2, timeout_s=0.15, rise=1, fall=1)
    with checking(farm):
        vip = farm.add(check=quick)
        until(lambda: health(farm, vip) == GOOD)
        farm.control.balancing.set_vip(
            vip, {"check": HealthCheck("tcp", 0.2, 0.15, rise=1, fall=1, port=1)}
        )
        until(lambda: health(farm, vip) == dict.fromkeys(NAMES, False))
        farm.control.balancing.set_vip(vip, {"check": None})
        until(lambda: health(farm, vip) == dict.fromkeys(NAMES, None))
        assert sum(farm.of(vip, "share").values()) == pytest.approx(1)


def test_without_a_process_that_checks_health_is_unknown_and_who_was_bad_stays_out(
    farm: Farm,
) -> None:
    closed = HealthCheck("tcp", interval_s=0.2, timeout_s=0.15, rise=1, fall=1)
    vip = farm.add(check=closed)
    with killed(farm, "backend3"):
        with checking(farm):
            until(lambda: health(farm, vip) == GOOD | {"backend3": False})
        assert health(farm, vip) == dict.fromkeys(NAMES, None)
        assert farm.of(vip, "share") == {"backend1": 0.5, "backend2": 0.5, "backend3": 0.0}

    # Whoever checks next begins with what is known.
    with checking(farm):
        until(lambda: health(farm, vip) == GOOD)


def test_one_process_at_a_time_checks_and_the_next_takes_over(farm: Farm) -> None:
    farm.add(check=CHECK)
    set_health = farm.control.balancing.set_health
    first, second = (InstancePatients(farm.instance, set_health) for _ in range(2))
    try:
        assert len(first.begin_round()) == len(NAMES)
        assert second.begin_round() == {}
    finally:
        first.end()
    assert len(second.begin_round()) == len(NAMES)
    second.end()
