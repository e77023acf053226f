# SPDX-License-Identifier: Apache-2.0
"""What `backends`, `connections` and `status` print of the balancer, to root and to others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from ebpftop.bpf import layout
from ebpftop.config import AccessPolicy, Policy
from ebpftop.kernel.instance import PIPELINE
from tests.kernel.attached import AS_USER, EBPFTOP
from tests.kernel.balancer import WRR, Balancer, End
from tests.kernel.frames import Shape
from tests.kernel.stage import IFACE, Stage, ebpftop, staged

pytestmark = pytest.mark.kernel

VIP, VIP6 = End("198.51.100.10", 80), End("2001:db8::10", 443)
BACKENDS = [End(f"10.0.0.{number}", 8080) for number in (1, 2)]
CLIENTS = [End("192.0.2.1", 1000 + number) for number in range(6)]


class Attached:
    """An attached instance, as the balancer's tests take it."""

    def __init__(self, stage: Stage) -> None:
        self.maps = stage.instance.maps
        self.program = stage.instance.programs[PIPELINE]

    def configure(self, flags: list[layout.Flag], **fields: int) -> None:
        """Change `config`."""
        config = self.maps["config"].read()[1].copy()
        config["flags"] |= sum(flags)
        for name, value in fields.items():
            config[name] = value
        self.maps["config"].put(0, config)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """An instance with two VIPs, one without backends, and six flows."""
    with staged(Policy(access=AccessPolicy(group="nogroup")), clients=1, quiet=True) as stage:
        instance: Any = Attached(stage)
        balancer = Balancer(instance)
        vip = balancer.vip(VIP, BACKENDS, weights=[2, 1], algorithm=WRR)
        balancer.vip(VIP6, [])
        for client in CLIENTS:
            to = End(balancer.placed(Shape(client, vip.end, "S").to_bytes()), 8080)
            balancer.run(Shape(to, client, "SA").to_bytes())
        yield stage


def test_backends_has_every_promised_field(stage: Stage) -> None:
    first, second = ebpftop("backends", IFACE, "--json").json()

    length = len(Shape(CLIENTS[0], VIP, "S").to_bytes())
    assert first == {
        "vip": "198.51.100.10:80/tcp", "backend": "10.0.0.1:8080", "protocol": "tcp",
        "algorithm": "wrr", "mode": "nat", "weight": 2, "state": "up", "healthy": None,
        "reachable": True, "share": pytest.approx(2 / 3, abs=1e-6), "measured_share": None,
        "connections": 4, "new": 4, "new_per_s": 0.0, "packets": 8, "bytes": 8 * length,
        "pps": 0.0, "bps": 0.0,
    }  # fmt: skip
    assert (second["backend"], second["weight"], second["connections"]) == ("10.0.0.2:8080", 1, 2)


def test_backends_is_a_table_for_people(stage: Stage) -> None:
    heading, first, second = ebpftop("backends", IFACE).out.splitlines()

    assert heading.split()[:6] == ["VIP", "BACKEND", "STATE", "HEALTH", "WEIGHT", "SHARE"]
    assert first.split()[:6] == [
        "198.51.100.10:80/tcp", "10.0.0.1:8080", "up", "–", "2", "66.7%",
    ]  # fmt: skip
    assert second.split()[5] == "33.3%"


def test_connections_has_every_flow_and_every_promised_field(stage: Stage) -> None:
    listed = ebpftop("connections", IFACE, "--json").json()

    assert {row["client"] for row in listed} == {f"192.0.2.1:{1000 + n}" for n in range(6)}
    row = next(row for row in listed if row["client"] == "192.0.2.1:1000")
    assert 0 <= row["idle_s"] <= row["age_s"]
    del row["idle_s"], row["age_s"]
    assert row == {
        "client": "192.0.2.1:1000", "vip": "198.51.100.10:80/tcp", "backend": "10.0.0.1:8080",
        "protocol": "tcp", "state": "syn-received", "packets": 2,
        "bytes": 2 * len(Shape(CLIENTS[0], VIP, "S").to_bytes()),
    }  # fmt: skip


def test_connections_are_filtered_and_cut(stage: Stage) -> None:
    def clients(*words: str) -> set[str]:
        return {row["client"] for row in ebpftop("connections", IFACE, *words, "--json").json()}

    assert clients("--filter", "backend:10.0.0.2:8080") == {"192.0.2.1:1001", "192.0.2.1:1004"}
    assert clients("--filter", "client:192.0.2.0/24 state:closed") == set()
    assert len(clients("-n", "4")) == 4
    wrong = ebpftop("connections", IFACE, "--filter", "nosuch:1")
    assert (wrong.status, wrong.err.count("\n")) == (2, 1)
    assert "there is no field 'nosuch'" in wrong.err


def test_connections_is_a_table_for_people(stage: Stage) -> None:
    lines = ebpftop("connections", IFACE, "-n", "1").out.splitlines()

    assert len(lines) == 2
    assert lines[0].split() == [
        "CLIENT", "VIP", "BACKEND", "STATE", "PACKETS", "BYTES", "AGE", "IDLE",
    ]  # fmt: skip
    assert lines[1].split()[1] == "198.51.100.10:80/tcp"


def test_status_counts_the_maps_and_names_the_sum(stage: Stage) -> None:
    status = ebpftop("status", IFACE, "--json").json()

    fills = {row["name"]: row["entries"] for row in status["maps"]}
    assert {name: fills[name] for name in ("vips", "backends", "endpoints", "connections")} == {
        "vips": 2, "backends": 2, "endpoints": 2, "connections": 12,
    }  # fmt: skip
    assert status["invariants"]["backends = VIPs"] is True


def test_flows_are_read_only_when_they_are_wanted(stage: Stage) -> None:
    source = stage.source()
    assert source.snapshot().connections is None
    source.wants = frozenset({"connections"})
    wanted = source.snapshot().connections
    assert wanted is not None
    assert len(wanted) == 6
    source.wants = frozenset()
    assert source.snapshot().connections is None


@pytest.mark.parametrize("verb", ["backends", "connections"])
def test_who_may_only_watch_sees_the_same(stage: Stage, verb: str) -> None:
    group = os.stat(stage.instance.folder).st_gid
    as_member = (*AS_USER, "--reuid", "65534", "--regid", str(group), "--clear-groups")
    argv = [*as_member, *EBPFTOP, verb, IFACE, "--json"]
    done = stage.lab.server.run(argv, check=False, timeout_s=60)
    assert done.returncode == 0, done
    known = ebpftop(verb, IFACE, "--json").out
    for moving in ("age_s", "idle_s"):
        assert done.stdout.count(moving) == known.count(moving)
    still = [line for line in known.splitlines() if "_s" not in line]
    assert [line for line in done.stdout.splitlines() if "_s" not in line] == still


def test_nothing_attached_is_said_by_both_verbs(stage: Stage) -> None:
    for verb in ("backends", "connections"):
        done = ebpftop(verb, "lo")
        assert (done.status, done.out) == (5, "")
