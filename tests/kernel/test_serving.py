# SPDX-License-Identifier: Apache-2.0
"""`attach --serve`, a dashboard that joins, and nobody at all: what each does for the balancer."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ebpftop import config
from ebpftop.kernel.clock import coarse_ns
from ebpftop.lab import Job, Lab, joined, load_http, serve_http
from ebpftop.lab.farm import VIP4
from ebpftop.sources import roster
from tests.kernel.attached import EBPFTOP, Site, trying
from tests.kernel.farm import NAMES, until

pytestmark = pytest.mark.kernel("bridge", "veth")

README = Path(__file__).parents[2] / "README.md"
BALANCING = README.parent / "docs" / "balancing.md"
VIP = f"{VIP4}:80/tcp"
DIRECTOR = "192.0.2.1"
ANSWER_S = 20.0


@dataclass
class Service:
    """A director with a policy file, its program not attached yet."""

    lab: Lab
    site: Site
    policy: Path

    def write_policy(self, *weights: int) -> None:
        """Let the file have one VIP with these weights."""
        backends = "".join(
            f'[[vip.backend]]\naddress = "{host.ipv4}:80"\nweight = {weight}\n'
            for host, weight in zip(self.lab.backends, weights, strict=True)
        )
        self.policy.write_text(
            f'[[vip]]\naddress = "{VIP}"\n'
            '[vip.check]\ninterval = "200ms"\ntimeout = "100ms"\nrise = 1\nfall = 2\n' + backends
        )

    def backends(self, field: str) -> list[Any]:
        """A field of the verb's rows, backend by backend."""
        return [row[field] for row in self.site.ebpftop("backends", "eth0", "--json").json]

    def load(self, **options: Any) -> Job:
        """Load the VIP."""
        return load_http(self.lab.clients[0], VIP4, **options)

    def attach(self) -> None:
        """Attach, and leave nobody behind."""
        self.site.done("attach", "eth0", "--config", str(self.policy))

    def known_macs(self) -> list[str]:
        """The MAC address of each backend, as the maps have it."""
        with self.site.instance() as instance:
            records = instance.maps["backends"].read()[1]
        macs = records["hop"]["destination"][records["id"] != 0]
        return [bytes(mac).hex(":") for mac in macs]

    def ways_kept_until_ns(self) -> int:
        """Until when the programs trust them."""
        with self.site.instance() as instance:
            return int(instance.maps["config"].read()[1]["hops_until_ns"][0])

    def change_mac(self, number: int, mac: str) -> None:
        """Give a server another MAC address, until the director's kernel has learnt it."""
        host, director = self.lab.backends[number], self.lab.server
        entry = ["bridge", "fdb", "replace", mac, "dev", host.name, "master", "static"]
        self.lab.wire.run(entry)
        host.ip(f"link set {host.interface} address {mac}")
        with joined(host), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.connect((DIRECTOR, 9))

            def learnt() -> bool:
                with suppress(ConnectionRefusedError):
                    peer.send(b"hello")
                return mac in director.run(["ip", "neigh", "show", host.ipv4]).stdout

            until(learnt)

    @contextmanager
    def serving(self, *through: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the service, from when it says that it is ready; `through` is in front of it."""
        path = self.policy.parent / "notify"
        argv = [*through, *EBPFTOP, "attach", "eth0", "--config", str(self.policy), "--serve"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(path))
            manager.settimeout(60)
            child = subprocess.Popen(
                ["nsenter", f"--net={self.lab.server.netns_path}", *argv],
                env={**os.environ, "NOTIFY_SOCKET": str(path)},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                assert manager.recv(100) == b"READY=1"
                path.unlink()
                yield child
            finally:
                child.kill()
                child.communicate()


@pytest.fixture(scope="module")
def network() -> Iterator[Lab]:
    """Three servers behind a director, for all tests."""
    with Lab(clients=1, backends=len(NAMES)) as lab:
        servers = [serve_http(host) for host in lab.backends]
        for server in servers:
            server.wait_ready()
        yield lab


@pytest.fixture
def service(network: Lab, tmp_path: Path) -> Iterator[Service]:
    """A policy with equal weights; what was attached is gone afterwards."""
    with trying(network.server) as site:
        made = Service(network, site, tmp_path / "policy.toml")
        made.write_policy(1, 1, 1)
        yield made
        site.ebpftop("detach", "eth0")


def capabilities() -> str:
    """What the unit in the README leaves to the service, as setpriv(1) takes it."""
    (line,) = re.findall(r"^CapabilityBoundingSet=(.*)$", README.read_text(), re.MULTILINE)
    return ",".join(["-all", *(f"+{word.lower().removeprefix('cap_')}" for word in line.split())])


def test_a_service_checks_reloads_and_ends_with_the_rights_of_the_unit_in_the_readme(
    service: Service,
) -> None:
    # GIVEN the service, with no more rights than the unit gives it
    with service.serving("setpriv", f"--bounding-set={capabilities()}") as child:
        until(lambda: service.backends("healthy") == [True] * 3)
        held = service.load(parallel=30, count=30, requests=2, pause_s=60)
        until(lambda: service.backends("connections") == [10, 10, 10])

        # WHEN the file changes and it is told
        service.write_policy(4, 2, 2)
        child.send_signal(signal.SIGHUP)

        # THEN what differs is in force, and flows stay
        until(lambda: service.backends("weight") == [4, 2, 2])
        assert service.backends("share") == [0.5, 0.25, 0.25]
        assert service.backends("connections") == [10, 10, 10]
        assert service.load(parallel=40, count=400).wait(60)["failures"] == []
        assert service.backends("new") == [210, 110, 110]

        # AND WHEN a wrong file is read, all stays as it is
        service.policy.write_text("[[vip]]\naddress = 7\n")
        child.send_signal(signal.SIGHUP)
        output = child.stdout
        assert output is not None
        until(lambda: b"vip.address" in output.readline())
        assert service.backends("weight") == [4, 2, 2]

        # AND WHEN it is told to end, it does, and the balancer stays; nobody checks any more
        child.terminate()
        assert child.wait(ANSWER_S) == 0
    assert service.backends("healthy") == [None] * 3
    result = held.stop()
    assert (result["connections"], result["failures"]) == (30, [])
    assert service.load(parallel=40, count=40).wait(60)["failures"] == []
    until(lambda: service.backends("connections") == [0, 0, 0])

    # AND one that is started again joins what is there
    service.write_policy(4, 2, 2)
    with service.serving():
        until(lambda: service.backends("healthy") == [True] * 3)
        assert sum(service.backends("new")) == 470


def test_a_dashboard_that_joined_and_is_killed_under_load_leaves_a_balancer_that_counts_exactly(
    service: Service,
) -> None:
    # GIVEN an attached instance, a dashboard that joined it and checks, and load
    service.attach()
    dashboard = service.site.dashboard("eth0", "--interval", "0.5")
    dashboard.wait_for("eth0", "native")
    until(lambda: service.backends("healthy") == [True] * 3)
    load = service.load(parallel=200, requests=4, pause_s=0.05)
    until(lambda: sum(service.backends("new")) > 400)

    # WHEN it is killed in the middle
    dashboard.signal(signal.SIGKILL)
    assert dashboard.wait() == -signal.SIGKILL
    opened = sum(service.backends("new"))

    # THEN without any process of ours traffic goes on, and what nobody checks is not known
    until(lambda: sum(service.backends("new")) > opened + 400)
    until(lambda: service.backends("healthy") == [None] * 3)
    result = load.stop()
    assert result["failures"] == []
    assert sum(result["servers"].values()) == sum(service.backends("new"))

    # AND when the load is over every count is back at nothing
    until(lambda: service.backends("connections") == [0, 0, 0])
    with service.site.instance() as instance:
        assert not instance.maps["backend_flows"].read()[1].any()

    # AND a server that gets another MAC address is found, once nobody has seen to it for a while
    assert service.known_macs() == [host.mac for host in service.lab.backends]
    old, new = service.lab.backends[1].mac, "02:00:00:00:99:05"
    service.change_mac(1, new)
    try:
        until(lambda: service.ways_kept_until_ns() < coarse_ns())
        result = service.load(parallel=30, count=30).wait(60)
        assert (result["failures"], set(result["servers"].values())) == ([], {10})
        # What the killed one wrote is still there, and not used.
        assert service.known_macs()[1] == old
    finally:
        service.change_mac(1, old)


def test_a_dashboard_that_joins_a_service_leaves_the_checks_to_it_and_takes_over_when_it_ends(
    service: Service,
) -> None:
    with service.serving() as child:
        until(lambda: service.backends("healthy") == [True] * 3)
        (checks,) = (name for name in service.site.left() if name.endswith(".checks"))
        dashboard = service.site.dashboard("eth0", "--interval", "0.5")
        dashboard.wait_for("eth0", "native")
        assert f"process {child.pid}" in Path("/run/ebpftop", checks).read_text()

        child.kill()
        child.wait()
        until(
            lambda: f"process {dashboard.process.pid}" in Path("/run/ebpftop", checks).read_text()
        )
    until(lambda: service.backends("healthy") == [True] * 3)
    dashboard.press("q")
    assert dashboard.wait() == 0


def test_the_page_of_the_readme_leads_to_a_balanced_vip_by_verbs_and_by_file(
    service: Service,
) -> None:
    # GIVEN the page, for the addresses of this network
    page = BALANCING.read_text()
    page = page.replace("198.51.100.10", VIP4)
    for number, host in enumerate(service.lab.backends, 11):
        page = page.replace(f"192.0.2.{number}:", f"{host.ipv4}:")
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    lines = re.findall(r"^ebpftop (?:vip|backend) .*$", page, re.MULTILINE)
    (drain,) = (line for line in lines if "--state drain" in line)
    (undrain,) = (line for line in lines if "--state up" in line)

    # WHEN its verbs are followed
    service.site.done("attach", "eth0")
    for line in lines[: lines.index(drain)]:
        service.site.done(*line.split()[1:])

    # THEN there is what its file says, and it balances
    service.policy.write_text(text)
    (vip,) = config.load(service.policy).vips
    with service.site.instance() as instance:
        known = roster.read(instance.maps, roster.Roster.empty())
    assert list(known.vips) == [vip.vip()]
    assert list(known.backends) == vip.wanted_backends()
    result = service.load(parallel=20, count=80).wait(60)
    assert (result["failures"], result["servers"]) == (
        [], {"backend1": 40, "backend2": 20, "backend3": 20},
    )  # fmt: skip

    # AND a server is out and in again as it says
    service.site.done(*drain.split()[1:])
    assert service.backends("share") == pytest.approx([2 / 3, 0, 1 / 3], abs=1e-3)
    service.site.done(*undrain.split()[1:])
    assert service.backends("share") == [0.5, 0.25, 0.25]
