# SPDX-License-Identifier: Apache-2.0
"""A VIP on a lab's server with real web servers behind it, by ebpftop or by nftables."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from ebpftop import lab as labs
from ebpftop.bpf.layout import Flag
from ebpftop.config import Policy
from ebpftop.control import policy as policies
from ebpftop.kernel import bpffs, libbpf
from ebpftop.kernel.instance import Instance
from ebpftop.kernel.netlink.links import netlink
from tests.bench.paths import XDP, empty_program
from tests.kernel.balancer import Balancer, End

VIP = "198.18.0.100"
"""Where clients come to; an address of the server's interface too, which answers ARP for it."""
CONNECTIONS = 32
_NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 80 backlog=4096; location / {{ return 200 "a page of some words\\n"; }} }} }}
"""
_SYSCTLS = {
    "ipv4/ip_forward": "1",
    # Backends must answer through the server, and not be told of a shorter way.
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/eth0/send_redirects": "0",
}


@contextmanager
def web_servers(lab: labs.Lab) -> Iterator[Sequence[labs.Host]]:
    """Run a web server on each client host but the first, whose answers to it pass the server."""
    backends = lab.clients[1:]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for host in backends:
            own = Path(folder, host.name)
            own.mkdir(mode=0o777)
            settings = own / "nginx.conf"
            settings.write_text(_NGINX.format(folder=own))
            host.ip(f"route add {lab.clients[0].ipv4}/32 via {lab.server.ipv4}")
            host.spawn(["nginx", "-c", str(settings)])
        lab.server.ip(f"address add {VIP}/32 dev eth0")
        with labs.joined(lab.server):
            for path, value in _SYSCTLS.items():
                Path("/proc/sys/net", path).write_text(value)
        _wait_for(lab.clients[0], [host.ipv4 for host in backends])
        yield backends


def _wait_for(client: labs.Host, addresses: Sequence[str]) -> None:
    for address in addresses:
        script = f"until (exec 3<>/dev/tcp/{address}/80) 2>/dev/null; do sleep 0.05; done"
        client.run(["bash", "-c", script], timeout_s=10)


@contextmanager
def by_ebpftop(lab: labs.Lab, backends: Sequence[labs.Host]) -> Iterator[None]:
    """Balance by the programs, in the driver of the veth pair."""
    # veth sends out what a program sends back only where the other end has a program too.
    with labs.joined(lab.wire), netlink() as socket:
        port = socket.link(lab.server.name).index
        link = libbpf.attach_xdp(empty_program(XDP), port, native=True)
    # The programs take the next hop from what the kernel knows.
    neighbours = [lab.clients[0], *backends]
    lab.server.ip(
        *(f"neighbour replace {host.ipv4} lladdr {host.mac} dev eth0" for host in neighbours)
    )
    with labs.joined(lab.server):
        instance = policies.attach(["eth0"], Policy(), mode="native", path=None, pinned=False)
        try:
            ends = [End(host.ipv4, 80) for host in backends]
            Balancer(cast(Any, _Attached(instance))).vip(End(VIP, 80), ends, ifindex=0)
            yield
        finally:
            with bpffs.locked(instance.name):
                instance.remove()
            os.close(link)


@contextmanager
def by_nftables(lab: labs.Lab, backends: Sequence[labs.Host]) -> Iterator[None]:
    """Balance by destination NAT, in turn."""
    targets = ", ".join(f"{at} : {host.ipv4}" for at, host in enumerate(backends))
    rules = (
        "table ip balance { chain pre { type nat hook prerouting priority dstnat;"
        f" ip daddr {VIP} tcp dport 80 dnat to numgen inc mod {len(backends)} map"
        f" {{ {targets} }}; }}; }}"
    )
    lab.server.run(["nft", rules])
    yield


class _Attached:
    """An attached instance, as far as `Balancer` asks for a loaded pipeline."""

    def __init__(self, instance: Instance) -> None:
        self.maps = instance.maps

    def configure(self, flags: Sequence[Flag], **fields: int) -> None:
        """Add flags to the configuration, and set fields of it."""
        config = self.maps["config"].read()[1].copy()
        config["flags"] |= np.uint64(sum(flags))
        for name, value in fields.items():
            config[name] = value
        config["generation"] += 1
        self.maps["config"].put(0, config)


def requests_per_s(client: labs.Host, address: str, seconds: int, *, keep_alive: bool) -> float:
    """Load a web server as fast as it goes; return the answers a second.

    Raises:
        RuntimeError: Some were not answered.
    """
    argv = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s"]
    argv += [] if keep_alive else ["-H", "Connection: close"]
    shown = client.run([*argv, f"http://{address}/"], timeout_s=seconds + 15).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", shown)
    if found is None or "Socket errors" in shown or "Non-2xx" in shown:
        raise RuntimeError(f"requests were not answered: {shown}")
    return float(found[1])
