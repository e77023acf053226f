# SPDX-License-Identifier: Apache-2.0
"""A network on one machine: namespaces, veth pairs, real servers and real traffic.

`ebpftop demo` and the kernel tests stand on it. Nothing in it touches an interface of the
machine itself. It needs root, iproute2 and util-linux.
"""

from ebpftop.lab.demo import (
    DEMO_BACKENDS,
    DOWNLOADER,
    BalancedReport,
    ClientReport,
    DownloadReport,
    FloodReport,
    Traffic,
    TrafficReport,
    demo_lab,
    start_demo_traffic,
)
from ebpftop.lab.farm import VIP4
from ebpftop.lab.hosts import Backend, Host
from ebpftop.lab.namespace import Namespace, enter, joined
from ebpftop.lab.network import Lab
from ebpftop.lab.traffic import (
    Job,
    Outages,
    flood,
    load_http,
    request_http,
    send_udp,
    serve_bulk,
    serve_http,
    transfer_bulk,
)

__all__ = [
    "DEMO_BACKENDS",
    "DOWNLOADER",
    "VIP4",
    "Backend",
    "BalancedReport",
    "ClientReport",
    "DownloadReport",
    "FloodReport",
    "Host",
    "Job",
    "Lab",
    "Namespace",
    "Outages",
    "Traffic",
    "TrafficReport",
    "demo_lab",
    "enter",
    "flood",
    "joined",
    "load_http",
    "request_http",
    "send_udp",
    "serve_bulk",
    "serve_http",
    "start_demo_traffic",
    "transfer_bulk",
]
