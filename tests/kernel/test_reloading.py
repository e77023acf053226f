# SPDX-License-Identifier: Apache-2.0
"""The policy file, read again by `reload` and on SIGHUP: what differs changes, flows stay."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpftop.control.everything import InstanceControl
from ebpftop.kernel.instance import Instance, find
from ebpftop.lab import Lab, joined
from ebpftop.model import Service
from tests.kernel.stage import IFACE, child, ebpftop, until
from tests.kernel.test_balancing_verbs import refused, send

pytestmark = pytest.mark.kernel

VIP, OTHER = "192.0.2.10:80/tcp", "192.0.2.11:53/udp"
FIRST = """
allow = ["10.1.0.0/16"]
management = ["203.0.113.0/24"]

[capacity]
sources = 1024
blocks = 64
prefixes = 64
connections = 65536

[limits]
pps = 1000

[balancer]
udp_idle = "30s"

[[vip]]
address = "192.0.2.10:80/tcp"
algorithm = "maglev"
check = { kind = "http", path = "/up", interval = "1s" }
[[vip.backend]]
address = "10.0.0.1:8080"
[[vip.backend]]
address = "10.0.0.2:8080"
weight = 2

[[vip]]
address = "192.0.2.11:53/udp"
[[vip.backend]]
address = "10.0.0.1:53"

[[class]]
name = "video"
rate = "8mbit"
action = "police"
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of an attached instance, in whose namespace this thread is."""
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(FIRST)
    with Lab(clients=0) as lab, joined(lab.server):
        assert ebpftop("attach", IFACE, "--config", str(path)).err == ""
        yield path
        assert ebpftop("detach", IFACE).status == 0


@pytest.fixture
def path(policy: Path) -> Path:
    """The same, as it was at first and in force."""
    policy.write_text(FIRST)
    reload()
    return policy


@pytest.fixture
def instance(path: Path) -> Iterator[Instance]:
    found = find(IFACE, read_only=False)
    yield found
    found.close()


def reload() -> None:
    answer = ebpftop("reload", IFACE)
    assert (answer.status, answer.err) == (0, "")


def listed(verb: str, *fields: str) -> Any:
    """What a verb lists, as tuples of these fields."""
    return sorted(tuple(row[f] for f in fields) for row in ebpftop(verb, IFACE, "--json").json())


def backends() -> Any:
    return listed("backends", "vip", "backend", "weight", "state")


def records(instance: Instance) -> dict[str, bytes]:
    """What user space has written, rings and all."""
    names = ("vips", "vip_slots", "checks", "backends", "endpoints", "balanced", "rings")
    return {name: instance.maps[name].read()[1].tobytes() for name in names}


def open_flows(instance: Instance, vip: str, count: int) -> dict[int, str]:
    """Begin so many flows; returns where each went, by its port."""
    return {port: send(instance, port, vip) for port in range(1000, 1000 + count)}


def still(instance: Instance, vip: str, placed: dict[int, str]) -> bool:
    """Whether flows are where they were."""
    return placed == {port: send(instance, port, vip, "A") for port in placed}


def test_a_policys_vips_are_in_force_from_the_start(instance: Instance) -> None:
    assert backends() == [
        (VIP, "10.0.0.1:8080", 1, "up"), (VIP, "10.0.0.2:8080", 2, "up"),
        (OTHER, "10.0.0.1:53", 1, "up"),
    ]  # fmt: skip
    wanted = InstanceControl(instance).balancing.vip(Service.parse(VIP))
    assert wanted.algorithm == "maglev"
    assert wanted.check is not None
    assert (wanted.check.path, wanted.check.interval_s) == ("/up", 1.0)
    assert int(instance.maps["config"].read()[1]["udp_idle_ns"][0]) == 30 * 10**9


def test_a_reload_without_a_difference_touches_nothing(instance: Instance) -> None:
    placed, before = open_flows(instance, VIP, 20), records(instance)
    flows = instance.maps["backend_flows"].read()[1].copy()
    reload()
    assert records(instance) == before
    assert still(instance, VIP, placed)
    assert (instance.maps["backend_flows"].read()[1] == flows).all()


def test_what_differs_changes_and_established_flows_survive(instance: Instance, path: Path) -> None:
    placed = open_flows(instance, VIP, 30)
    count = instance.maps["backend_flows"].read()[1].sum()
    path.write_text(
        FIRST.replace('"maglev"', '"rr"')
        .replace("weight = 2", 'weight = 5\nstate = "drain"')
        .replace('address = "10.0.0.1:53"', 'address = "10.0.0.3:53"')
        .replace("pps = 1000", "syn = 50")
        .replace("10.1.0.0/16", "10.2.0.0/16")
        .replace("203.0.113.0/24", "203.0.114.0/24")
        .replace('"30s"', '"45s"')
        .replace("8mbit", "9mbit")
    )
    reload()
    assert backends() == [
        (VIP, "10.0.0.1:8080", 1, "up"), (VIP, "10.0.0.2:8080", 5, "drain"),
        (OTHER, "10.0.0.3:53", 1, "up"),
    ]  # fmt: skip
    assert still(instance, VIP, placed)
    assert instance.maps["backend_flows"].read()[1].sum() == count
    status = ebpftop("status", IFACE, "--json").json()
    assert (status["limits"]["pps"], status["limits"]["syn"]) == (0, 50)
    assert listed("allowed", "address") == [("10.2.0.0/16",)]
    protected = {(each["address"], each["why"]) for each in status["protected"]}
    assert ("203.0.114.0/24", "management") in protected
    assert not [each for each in protected if each[0] == "203.0.113.0/24"]
    assert listed("classes", "class", "rate_bps") == [("video", 9_000_000)]
    assert int(instance.maps["config"].read()[1]["udp_idle_ns"][0]) == 45 * 10**9


def test_what_left_the_file_goes_and_what_was_made_by_hand_stays(
    instance: Instance, path: Path
) -> None:
    by_hand = "192.0.2.12:80/tcp"
    for words in (
        ["vip", "add", IFACE, by_hand], ["backend", "add", IFACE, by_hand, "10.0.0.7:80"],
        ["backend", "add", IFACE, VIP, "10.0.0.9:8080"], ["allow", IFACE, "10.7.0.0/16"],
    ):  # fmt: skip
        assert ebpftop(*words).status == 0
    without = FIRST[: FIRST.index('[[vip]]\naddress = "192.0.2.11')]
    path.write_text(without.replace('allow = ["10.1.0.0/16"]', ""))
    reload()
    assert backends() == [
        (VIP, "10.0.0.1:8080", 1, "up"), (VIP, "10.0.0.2:8080", 2, "up"),
        (VIP, "10.0.0.9:8080", 1, "up"), (by_hand, "10.0.0.7:80", 1, "up"),
    ]  # fmt: skip
    assert listed("allowed", "address") == [("10.7.0.0/16",)]
    assert listed("classes", "class") == []

    # What was deleted by hand, and is in the file, comes back.
    assert ebpftop("vip", "del", IFACE, VIP).status == 0
    reload()
    assert (VIP, "10.0.0.1:8080", 1, "up") in backends()
    for words in (["vip", "del", IFACE, by_hand], ["disallow", IFACE, "10.7.0.0/16"]):
        assert ebpftop(*words).status == 0


WRONG = {
    "no key": ("[[vip]]", "[[vyp]]", "vyp"),
    "no such algorithm": ('"maglev"', '"best"', "best"),
    "no VIP": ("192.0.2.11:53/udp", "192.0.2.11:53", "vip.address"),
    "no backend": ('"10.0.0.1:53"', '"10.0.0.1"', "vip.backend.address"),
    "other family": ('"10.0.0.1:53"', '"[2001:db8::1]:53"', "other IP version"),
    "at a VIP": ('"10.0.0.1:53"', '"192.0.2.10:53"', "at the address of the VIP"),
    "twice": ("192.0.2.11:53/udp", VIP, "two VIPs"),
    "backend twice": ("10.0.0.2:8080", "10.0.0.1:8080", "two backends"),
    "weight": ("weight = 2", "weight = -2", "vip.backend.weight"),
    "path": ('"/up"', '"up"', "begins with /"),
    "class": ("8mbit", "1bit", "8kbit"),
    "limit": ("pps = 1000", 'bps = "1bit"', "8kbit"),
    "no TOML": ("[[vip]]", "[[vip", "line"),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_a_file_with_a_fault_changes_nothing(instance: Instance, path: Path, wrong: str) -> None:
    old, new, words = WRONG[wrong]
    before = records(instance)
    changed = FIRST.replace("pps = 1000", "pps = 2000") if wrong != "limit" else FIRST
    assert old in changed
    path.write_text(changed.replace(old, new).replace("203.0.113.0/24", "203.0.115.0/24"))
    assert words in refused(2, "reload", IFACE)
    assert records(instance) == before
    status = ebpftop("status", IFACE, "--json").json()
    assert status["limits"]["pps"] == 1000
    assert "203.0.113.0/24" in {each["address"] for each in status["protected"]}
    assert listed("classes", "rate_bps") == [(8_000_000,)]


def test_a_file_that_is_gone_is_a_refusal(path: Path) -> None:
    path.unlink()
    assert "cannot be read" in refused(1, "reload", IFACE)


def test_sighup_reloads_a_service_and_a_fault_does_not_end_it(path: Path) -> None:
    service = child("attach", IFACE, "--serve")
    try:
        assert service.stdout is not None
        assert service.stderr is not None
        assert "joined" in service.stdout.readline()
        path.write_text("vyp = 1\n")
        service.send_signal(signal.SIGHUP)
        assert "vyp" in service.stderr.readline()
        path.write_text(FIRST.replace("weight = 2", "weight = 7"))
        service.send_signal(signal.SIGHUP)
        until(lambda: (VIP, "10.0.0.2:8080", 7, "up") in backends())
    finally:
        service.send_signal(signal.SIGTERM)
        _, err = service.communicate(timeout=30)
    assert (service.returncode, err) == (0, "")


def test_without_a_policy_file_there_is_nothing_to_reload() -> None:
    with Lab(clients=0) as lab, joined(lab.server):
        assert ebpftop("attach", IFACE).status == 0
        assert "without a policy file" in refused(2, "reload", IFACE)
        assert json.loads(ebpftop("backends", IFACE, "--json").out) == []
        assert ebpftop("detach", IFACE).status == 0
