# SPDX-License-Identifier: Apache-2.0
"""`ebpftop doctor`: what works here, what does not, and the command that mends it."""

from __future__ import annotations

import errno
import grp
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from ebpftop.config import AccessPolicy
from ebpftop.errors import EbpftopError, NotAttachedError, NotPermittedError
from ebpftop.kernel import attaching, bpffs, ethtool, libbpf, loading, tc_queues
from ebpftop.kernel.ethtool import driver
from ebpftop.kernel.instance import PIPELINE, find
from ebpftop.kernel.netlink.links import Link, driver_runs_xdp, netlink
from ebpftop.kernel.netlink.traffic_control import traffic_control

OLDEST_KERNEL = (5, 15)
READ_ONLY_KERNEL = (5, 19)
CAPABILITIES = {12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN", 39: "CAP_BPF"}
"""What attaching needs, by the numbers of linux/capability.h."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one check."""

    state: str
    """`ok`, `note` (works, with less) or `FAIL`."""
    what: str
    """What was looked at, and found."""
    remedy: str = ""
    """What to do about it."""


@click.command()
@click.argument("iface", metavar="[IFACE]", required=False)
def doctor(iface: str | None) -> int:
    """Check what ebpftop needs on this machine, and on an interface."""
    failed = False
    for finding in _findings(iface):
        click.echo(f"{finding.state:<4}  {finding.what}")
        if finding.remedy:
            click.echo(f"      -> {finding.remedy}")
        failed |= finding.state == "FAIL"
    return 1 if failed else 0


def _findings(iface: str | None) -> Iterator[Finding]:
    for check in (_rights, _kernel, _bcc, _headers, _libbpf, _bpffs, _group):
        yield _guarded(check)
    if iface:
        with netlink() as socket:
            link = socket.link(iface)
        yield _interface(link)
        yield _guarded(lambda: _hook(link))
        yield _merging(link)
        yield _queue(link)


def _guarded(check: Callable[[], Finding]) -> Finding:
    """Turn an error of a check into its finding."""
    try:
        return check()
    except EbpftopError as error:
        return Finding("FAIL", error.problem, error.remedy)


def _rights() -> Finding:
    if os.geteuid() == 0:
        held = _effective_capabilities()
        missing = [name for number, name in CAPABILITIES.items() if not held >> number & 1]
        if not missing:
            return Finding("ok", "root, with the capabilities that attaching needs")
        return Finding("FAIL", f"root without {', '.join(missing)}", "run it outside the container")
    return Finding("note", "not root: watching works, attaching does not", "use sudo to attach")


def _effective_capabilities() -> int:
    words = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", words, re.MULTILINE)
    return int(found[1], 16) if found else 0


def _kernel() -> Finding:
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if version < OLDEST_KERNEL:
        return Finding("FAIL", f"Linux {release}", "ebpftop needs Linux 5.15 or later")
    if version < READ_ONLY_KERNEL:
        return Finding("note", f"Linux {release}", "watching without root needs Linux 5.19")
    return Finding("ok", f"Linux {release}")


def _bcc() -> Finding:
    return Finding("ok", f"bcc {loading.probe()}")


def _headers() -> Finding:
    if Path("/usr/include/linux/bpf.h").exists():
        return Finding("ok", "the C library's kernel headers (linux-libc-dev)")
    return Finding("FAIL", "no kernel headers of the C library", loading.INSTALL_HEADERS)


def _libbpf() -> Finding:
    libbpf.library()
    return Finding("ok", f"libbpf.so.1, {libbpf.possible_cpus()} possible CPUs")


def _bpffs() -> Finding:
    bpffs.mount(lasting=True)
    try:
        probe = bpffs.BPFFS / f"probe-{os.getpid()}"
        if os.geteuid() == 0:
            probe.mkdir()
            probe.rmdir()
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        return Finding("FAIL", f"{bpffs.BPFFS}: {reason}", f"mount -o remount,rw {bpffs.BPFFS}")
    return Finding("ok", f"a bpffs on {bpffs.BPFFS}")


def _group() -> Finding:
    name = AccessPolicy().group
    try:
        members = grp.getgrnam(name).gr_mem
    except KeyError:
        return Finding("note", f"no group {name}: only root can watch", f"groupadd --system {name}")
    listed = ", ".join(members) or "nobody yet"
    return Finding("ok", f"group {name} may watch without root ({listed})")


def _interface(link: Link) -> Finding:
    state = "up" if link.up else "down"
    return Finding(
        "ok" if link.up else "note", f"{link.name} is {state}, driver {driver(link.name)}"
    )


def _hook(link: Link) -> Finding:
    """Say what is on the hook, and where it is free, which mode the driver allows."""
    if link.xdp_program:
        return _taken(link)
    native = driver_runs_xdp(link.index)
    if native is None:
        return Finding("ok", f"{link.name}: no XDP program; attaching will show which mode works")
    if native:
        return Finding("ok", f"{link.name}: no XDP program; the driver runs XDP (native mode)")
    return Finding("note", f"{link.name}: the driver has no XDP: generic mode, which costs more")


def _merging(link: Link) -> Finding:
    """Say whether the balancer would meet packets that no link takes."""
    if link.xdp_native or driver_runs_xdp(link.index) or not ethtool.merges(link.name):
        return Finding("ok", f"{link.name}: packets reach the program as they came")
    return Finding(
        "note", f"{link.name}: packets come merged (GRO), and the balancer cannot send such on",
        f"ethtool -K {link.name} gro off, where there is a VIP",
    )  # fmt: skip


def _queue(link: Link) -> Finding:
    """Say what can hold a traffic class to its rate on an interface."""
    with traffic_control(link.index) as tc:
        qdiscs = tc.qdiscs()
    root = tc_queues.root_of(qdiscs)
    name = f"{link.name}: root qdisc {root.kind if root else 'none'}"
    if tc_queues.has_paced(qdiscs):
        return Finding("ok", f"{name}: classes can be paced")
    if root is None or not root.handle or tc_queues.is_ours(root):
        return Finding("ok", f"{name}, the kernel's own or ours: classes can have queues (htb)")
    return Finding(
        "note", f"{name}, another's, which is left alone: classes can only be policed",
        "for queues remove it with the tool that made it",
    )  # fmt: skip


def _taken(link: Link) -> Finding:
    number = link.xdp_program
    try:
        find(link.name, read_only=True).close()
    except NotPermittedError as error:
        return Finding("note", error.problem, error.remedy)
    except NotAttachedError:
        return Finding(
            "FAIL", f"{link.name}: another XDP program is there, "
            f"{attaching.program_name(number)}, id {number}",
            f"bpftool prog show id {number} describes it; ebpftop leaves it alone",
        )  # fmt: skip
    return Finding("ok", f"{link.name}: {PIPELINE} of ebpftop is attached")
