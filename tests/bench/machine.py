# SPDX-License-Identifier: Apache-2.0
"""The machine that was measured on, and which peers it has."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

from ebpftop.kernel.loading import SYSTEM_PYTHON

PEERS = {
    "xdp-filter": ("xdp-filter", "xdp-tools"),
    "nftables": ("nft", "nftables"),
    "HTB": ("tc", "iproute2"),
    "iftop": ("iftop", "iftop"),
    "btop": ("btop", "btop"),
    "bpftool": ("bpftool", "bpftool"),
    "wrk": ("wrk", "wrk"),
    "nginx": ("nginx", "nginx-light"),
}
"""The program of each peer and of what drives it, and the package that has it."""


def describe() -> dict[str, object]:
    """Return the kernel, the processor, the memory and the versions of what was measured."""
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in processors if "model name" in line), "")
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "kernel": platform.release(),
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_kb / 1e6),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "python": platform.python_version(),
        "packages": _versions(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _versions() -> dict[str, str]:
    packages = sorted({package for _, package in PEERS.values()} | {"python3-bpfcc", "libbpf1"})
    argv = ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *packages]
    try:
        shown = subprocess.run(argv, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return {}
    return dict(line.split() for line in shown.splitlines() if len(line.split()) == 2)


@cache
def lacks(peer: str) -> str:
    """Say why this machine has no such peer; empty where it has it."""
    if peer == "bcc":
        done = subprocess.run([SYSTEM_PYTHON, "-c", "import bcc"], capture_output=True)
        return "python3-bpfcc is not installed" if done.returncode else ""
    program, package = PEERS[peer]
    if shutil.which(program) is None:
        return f"{package} is not installed"
    if peer == "nftables" and (complaint := _nft_complaint()):
        return f"this kernel lacks nf_tables ({complaint})"
    return ""


def _nft_complaint() -> str:
    """Try nftables in a network namespace that is gone with the command."""
    rules = (
        "table ip t { chain c { type nat hook prerouting priority dstnat;"
        " tcp dport 80 dnat to numgen inc mod 2 map { 0 : 192.0.2.1, 1 : 192.0.2.2 }; }; }"
    )
    done = subprocess.run(
        ["unshare", "--net", "nft", "-f", "-"], input=rules, capture_output=True, text=True
    )
    return done.stderr.strip().splitlines()[0] if done.returncode else ""
