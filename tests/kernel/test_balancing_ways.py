# SPDX-License-Identifier: Apache-2.0
"""The ways to backends, found and kept fresh by netlink on real neighbours."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from ebpftop.bpf import layout
from ebpftop.control import ways
from ebpftop.control.everything import InstanceControl
from ebpftop.control.sweeping import Sweeper
from ebpftop.control.ways import WayKeeper
from ebpftop.kernel.clock import coarse_ns
from ebpftop.kernel.instance import find
from ebpftop.kernel.netlink.neighbours import neighbours
from ebpftop.lab import Host, Lab, joined
from ebpftop.model import Backend, Prefix, Service, Vip
from tests.kernel.stage import IFACE, Stage, ebpftop, staged, until

pytestmark = pytest.mark.kernel

VIP, VIP6 = Service.parse("192.0.2.10:80/tcp"), Service.parse("[2001:db8::10]:80/tcp")
PATIENCE_S = 40.0


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=2) as stage:
        balancing = InstanceControl(stage.instance).balancing
        balancing.add_vip(Vip(VIP))
        balancing.add_vip(Vip(VIP6))
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Iterator[Stage]:
    yield attached
    balancing = InstanceControl(attached.instance).balancing
    for vip in (VIP, VIP6):
        balancing.delete_vip(vip)
        balancing.add_vip(Vip(vip))


@pytest.fixture
def keeper(stage: Stage) -> Iterator[WayKeeper]:
    with closing(InstanceControl(stage.instance).keep_ways()) as keeper:
        yield keeper


def backend(stage: Stage, address: str) -> None:
    """Put a backend behind the VIP of its family."""
    vip = VIP6 if ":" in address else VIP
    host = f"[{address}]" if ":" in address else address
    wanted = Backend(Service.parse(f"{host}:8080", "tcp"))
    InstanceControl(stage.instance).balancing.add_backend(vip, wanted)


def hops(stage: Stage) -> dict[str, tuple[int, str, str, int, int]]:
    """The way to each backend: interface, its neighbour's and its own MAC, VLAN and MTU."""
    found = {}
    for record in stage.instance.maps["backends"].read()[1]:
        if record["id"]:
            address = record["service"]["address"]
            hop = record["hop"]
            found[str(Prefix(int(address["high"]), int(address["low"])))] = (
                int(hop["ifindex"]), bytes(hop["destination"]).hex(":"),
                bytes(hop["source"]).hex(":"), int(record["vlan"]), int(record["mtu"]),
            )  # fmt: skip
    return found


def heard(keeper: WayKeeper, met: Any) -> None:
    """See to changes as they are heard of, and to nothing else, until a condition is met."""
    ends_s = time.monotonic() + PATIENCE_S
    while not met():
        assert select.select([keeper.fileno()], [], [], ends_s - time.monotonic())[0], "not heard"
        keeper.refresh(only_changes=True)


def kept(keeper: WayKeeper, met: Any) -> None:
    """Do what the sweeper does until a condition is met."""
    ends_s = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < ends_s
        told = select.select([keeper.fileno()], [], [], 0.2)[0]
        keeper.refresh(only_changes=bool(told))


def kept_until_ns(stage: Stage) -> int:
    return int(stage.instance.maps["config"].read()[1]["hops_until_ns"][0])


UNKNOWN = (0, "00:00:00:00:00:00", "00:00:00:00:00:00", 0, 0)


def way(stage: Stage, mac: str, mtu: int = 1500, vlan: int = 0) -> tuple[int, str, str, int, int]:
    index = stage.instance.meta.attachments[0].index
    return (index, mac, stage.lab.server.mac, vlan, mtu)


def replace_mac(stage: Stage, host: Host, mac: str) -> None:
    """Give a host another Ethernet address without a word to anybody."""
    stage.lab.wire.run(["bridge", "fdb", "replace", mac, "dev", host.name, "master", "static"])
    host.run(["sysctl", "-q", "-w", "net.ipv4.conf.eth0.arp_notify=0"])
    host.run(["sysctl", "-q", "-w", "net.ipv6.conf.eth0.ndisc_notify=0"])
    host.ip("link set eth0 down", f"link set eth0 address {mac}", "link set eth0 up",
            f"address replace {host.ipv6}/48 dev eth0 nodad")  # fmt: skip


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_neighbour_that_nobody_knows_is_asked_for_and_then_known(
    stage: Stage, keeper: WayKeeper, family: str
) -> None:
    host = stage.lab.clients[0]
    address = getattr(host, family)
    stage.lab.server.run(["ip", "neigh", "flush", "dev", IFACE])
    backend(stage, address)
    assert hops(stage)[address] == UNKNOWN
    keeper.refresh()
    heard(keeper, lambda: hops(stage)[address] == way(stage, host.mac))


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_another_mac_is_found_out_without_a_word_from_its_host(
    stage: Stage, keeper: WayKeeper, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(ways, "PROBE_EVERY_S", 0.5)
    host = stage.lab.clients[1]
    address = getattr(host, family)
    backend(stage, address)
    kept(keeper, lambda: hops(stage)[address] != UNKNOWN)
    fresh = "02:00:00:00:99:04" if family == "ipv4" else "02:00:00:00:99:06"
    replace_mac(stage, host, fresh)
    kept(keeper, lambda: hops(stage)[address] == way(stage, fresh))


def test_a_neighbour_that_says_its_new_mac_is_believed_at_once(
    stage: Stage, keeper: WayKeeper
) -> None:
    host = stage.lab.clients[0]
    backend(stage, host.ipv4)
    kept(keeper, lambda: hops(stage)[host.ipv4] != UNKNOWN)
    # As a gratuitous ARP does.
    stage.lab.server.ip(f"neigh replace {host.ipv4} lladdr 02:00:00:00:77:01 dev {IFACE}")
    heard(keeper, lambda: hops(stage)[host.ipv4] == way(stage, "02:00:00:00:77:01"))
    stage.lab.server.ip(f"neigh del {host.ipv4} dev {IFACE}")


def test_a_neighbour_that_is_gone_is_sent_nothing_more(
    stage: Stage, keeper: WayKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "PROBE_EVERY_S", 0.5)
    host = stage.lab.attacker
    backend(stage, host.ipv4)
    kept(keeper, lambda: hops(stage)[host.ipv4] != UNKNOWN)
    host.ip("link set eth0 down")
    kept(keeper, lambda: hops(stage)[host.ipv4] == UNKNOWN)
    host.ip("link set eth0 up")
    kept(keeper, lambda: hops(stage)[host.ipv4] == way(stage, host.mac))


def test_a_backend_behind_a_gateway_has_the_gateways_mac_and_the_routes_mtu(
    stage: Stage, keeper: WayKeeper
) -> None:
    host = stage.lab.clients[0]
    backend(stage, "10.5.0.1")
    keeper.refresh()
    assert hops(stage)["10.5.0.1"] == UNKNOWN
    stage.lab.server.ip(f"route add 10.5.0.0/16 via {host.ipv4} mtu 1400")
    mac = [host.mac]
    kept(keeper, lambda: hops(stage)["10.5.0.1"] != UNKNOWN)
    assert hops(stage)["10.5.0.1"] == way(stage, mac[0], mtu=1400)
    stage.lab.server.ip("route change 10.5.0.0/16 via 198.18.0.250")
    heard(keeper, lambda: hops(stage)["10.5.0.1"] == UNKNOWN)
    stage.lab.server.ip("route del 10.5.0.0/16")


@pytest.mark.kernel("vlan")
def test_a_vlan_on_the_interface_is_a_way_out(stage: Stage, keeper: WayKeeper) -> None:
    server, index = stage.lab.server, stage.instance.meta.attachments[0].index
    server.ip(
        f"link add link {IFACE} name eth0.42 type vlan id 42", "link set eth0.42 up",
        "address add 10.42.0.1/24 dev eth0.42",
        "neigh replace 10.42.0.9 lladdr 02:00:00:00:42:09 dev eth0.42 nud permanent",
    )  # fmt: skip
    backend(stage, "10.42.0.9")
    keeper.refresh()
    tagged = 1 << layout.VLAN_TAGS_SHIFT | 42
    assert hops(stage)["10.42.0.9"] == way(stage, "02:00:00:00:42:09", vlan=tagged)
    assert sorted(stage.instance.maps["ports"].read()[1].tolist()) == [(index, 0), (index, tagged)]
    server.ip("link del eth0.42")
    heard(keeper, lambda: hops(stage)["10.42.0.9"] == UNKNOWN)
    assert stage.instance.maps["ports"].read()[1].tolist() == [(index, 0)]


def test_an_interface_without_the_program_is_no_way_out(stage: Stage, keeper: WayKeeper) -> None:
    stage.lab.server.ip(
        "link add other type veth peer name another", "link set other up", "link set another up",
        "address add 10.43.0.1/24 dev other",
        "neigh replace 10.43.0.9 lladdr 02:00:00:00:43:09 dev other nud permanent",
    )  # fmt: skip
    backend(stage, "10.43.0.9")
    backend(stage, stage.lab.clients[0].ipv4)
    kept(keeper, lambda: hops(stage)[stage.lab.clients[0].ipv4] != UNKNOWN)
    assert hops(stage)["10.43.0.9"] == UNKNOWN
    assert len(stage.instance.maps["ports"].read()[0]) == 1
    stage.lab.server.ip("link del other")


def test_an_interface_that_is_taken_out_is_no_way_out_any_more() -> None:
    with Lab(clients=0) as lab, joined(lab.server):
        lab.server.ip(
            "link add eth1 type veth peer name far", "link set eth1 up", "link set far up"
        )
        assert ebpftop("attach", IFACE, "eth1", "--mode", "generic").status == 0
        with closing(find(IFACE, read_only=False)) as instance:
            ports = instance.maps["ports"]
            assert len(ports.read()[0]) == 2
            with closing(WayKeeper(instance)) as keeper:
                keeper.refresh()
                assert len(ports.read()[0]) == 2
                assert ebpftop("detach", "eth1").status == 0
                kept(keeper, lambda: len(ports.read()[0]) == 1)
        assert ebpftop("detach", IFACE).status == 0


def test_the_sweeper_keeps_ways_and_leaves_them_to_the_kernel_at_its_end(stage: Stage) -> None:
    host = stage.lab.clients[0]
    backend(stage, host.ipv6)
    sweeper = Sweeper(InstanceControl(stage.instance))
    sweeper.start()
    until(lambda: hops(stage)[host.ipv6] == way(stage, host.mac), timeout_s=PATIENCE_S)
    # Each sweep says anew for how long they are good.
    first_ns = kept_until_ns(stage)
    assert 0 < first_ns - coarse_ns() <= ways.KEPT_FOR_S * 1e9
    until(lambda: kept_until_ns(stage) > first_ns, timeout_s=PATIENCE_S)
    sweeper.stop()
    assert kept_until_ns(stage) == 0
    assert sweeper.error is None
    assert hops(stage)[host.ipv6] == UNKNOWN


def test_an_act_on_a_backend_keeps_the_way_to_it(stage: Stage, keeper: WayKeeper) -> None:
    host = stage.lab.clients[0]
    backend(stage, host.ipv6)
    kept(keeper, lambda: hops(stage)[host.ipv6] != UNKNOWN)
    before = hops(stage)
    service = Service.parse(f"[{host.ipv6}]:8080", "tcp")
    InstanceControl(stage.instance).balancing.set_backends(VIP6, {service: {"weight": 9}})
    assert hops(stage) == before


def test_the_neighbour_table_is_read_as_ip_shows_it(stage: Stage) -> None:
    stage.lab.server.ip(
        f"neigh replace 198.18.0.200 lladdr 02:00:00:00:00:c8 dev {IFACE} nud permanent",
        f"neigh replace fd00:198:18:c8::1 lladdr 02:00:00:00:00:c9 dev {IFACE} nud stale",
    )
    index = stage.instance.meta.attachments[0].index
    found = neighbours()
    first = found[index, Prefix.parse("198.18.0.200")]
    second = found[index, Prefix.parse("fd00:198:18:c8::1")]
    assert (first.mac.hex(":"), first.is_valid, first.may_change) == (
        "02:00:00:00:00:c8", True, False,
    )  # fmt: skip
    assert (second.mac.hex(":"), second.is_valid, second.may_change) == (
        "02:00:00:00:00:c9", True, True,
    )  # fmt: skip
    stage.lab.server.ip(f"neigh flush dev {IFACE}", f"neigh del 198.18.0.200 dev {IFACE}")
