# SPDX-License-Identifier: Apache-2.0
"""A network on one machine: namespaces, veth pairs, real servers and real traffic.

`ebpftop demo` and the kernel tests stand on it. Nothing in it touches an interface of the
machine itself. It needs root, iproute2 and util-linux.
"""

from ebpftop.lab.demo import (
    DOWNLOADER,
    ClientReport,
    DownloadReport,
    FloodReport,
    Traffic,
    TrafficReport,
    start_demo_traffic,
)
from ebpftop.lab.hosts import Backend, Host
from ebpftop.lab.namespace import Namespace, enter, joined
from ebpftop.lab.network import Lab
from ebpftop.lab.traffic import (
    Job,
    flood,
    load_http,
    request_http,
    send_udp,
    serve_bulk,
    serve_http,
    transfer_bulk,
)

__all__ = [
    "DOWNLOADER",
    "Backend",
    "ClientReport",
    "DownloadReport",
    "FloodReport",
    "Host",
    "Job",
    "Lab",
    "Namespace",
    "Traffic",
    "TrafficReport",
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
