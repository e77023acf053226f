# SPDX-License-Identifier: Apache-2.0
"""Where a kernel test can run, and the network it runs on.

A test marked `kernel` needs root. Where that, or a tool, is missing it is skipped with the
reason, but under CI=true it fails: there, a skipped test would be a test that nobody runs.
What the running kernel itself lacks is skipped everywhere; tests name it in the mark, as in
`@pytest.mark.kernel("tcx")`, and `FEATURES` knows how to find out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from ebpftop.journal.log import PATH_VARIABLE
from ebpftop.kernel import libbpf
from ebpftop.lab import Lab
from tests.kernel.attached import Site, trying
from tests.kernel.pipeline import Pipeline, loaded
from tests.kernel.shaper import Shaper
from tests.kernel.shaper import loaded as loaded_shaper_programs

WAYS = [pytest.param("tcx", marks=pytest.mark.kernel("tcx")), "clsact"]
"""Ways to attach a program to TC."""

TOOLS = {
    "bridge": "iproute2",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""What kernel tests call, and the package it is in."""

LAB_FEATURES = ("bridge", "veth")
"""What the `lab` fixture asks of the kernel."""


def _refusal(*argv: str) -> str | None:
    """Run a command in a new network namespace; return its complaint, if any."""
    done = subprocess.run(["unshare", "--net", *argv], capture_output=True, text=True)
    return (done.stderr.strip() or f"{argv[0]} failed") if done.returncode else None


def _tcx_refusal() -> str | None:
    """Ask which programs are on lo's TCX ingress: a kernel without TCX does not know the question.

    6.6 brought it, as attach type 46 of linux/bpf.h.
    """
    flags, count, ids = ctypes.c_uint32(), ctypes.c_uint32(64), (ctypes.c_uint32 * 64)()
    query = ctypes.CDLL("libbpf.so.1").bpf_prog_query
    error = -query(1, 46, 0, ctypes.byref(flags), ids, ctypes.byref(count))
    return os.strerror(error) if error else None


_VLAN = "ip link add v type veth && ip link add link v name v.4 type vlan id 4"

FEATURES: dict[str, Callable[[], str | None]] = {
    "bridge": cache(lambda: _refusal("ip", "link", "add", "br0", "type", "bridge")),
    "fq": cache(lambda: _refusal("tc", "qdisc", "add", "dev", "lo", "root", "fq")),
    "htb": cache(lambda: _refusal("tc", "qdisc", "add", "dev", "lo", "root", "htb")),
    "tcx": cache(_tcx_refusal),
    "vlan": cache(lambda: _refusal("sh", "-c", _VLAN)),
    "veth": cache(lambda: _refusal("ip", "link", "add", "probe", "type", "veth")),
}
"""Everything that a kernel may lack and a test may need: each probe returns what the kernel
says against it, None where it is there."""


@cache
def obstacle() -> str | None:
    """Say why no kernel test can run here; None where they can."""
    if os.geteuid() != 0:
        return "kernel tests need root"
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            return f"kernel tests need `{tool}`, from {package}"
    refusal = _refusal("true")
    return f"kernel tests need network namespaces: {refusal}" if refusal else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    marks = list(item.iter_markers("kernel"))
    if not marks:
        return
    reason = obstacle()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)
    needed = {name for mark in marks for name in mark.args}
    if "lab" in getattr(item, "fixturenames", ()):
        needed.update(LAB_FEATURES)
    for name in sorted(needed):
        refusal = FEATURES[name]()
        if refusal:
            pytest.skip(f"this kernel lacks {name}: {refusal}")


@pytest.fixture(scope="session", autouse=True)
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The audit log of every instance that a test attaches, instead of the machine's."""
    path = tmp_path_factory.mktemp("audit") / "acts.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PATH_VARIABLE, str(path))
        yield path


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A server, three clients and an attacker, in namespaces of their own."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def site(lab: Lab) -> Iterator[Site]:
    """The lab's server, for the program to be tried on; nothing of the program is left there."""
    with trying(lab.server) as site:
        yield site


@pytest.fixture(scope="session")
def loaded_pipeline() -> Iterator[Pipeline]:
    """The pipeline with a clock by hand, loaded once."""
    with loaded() as pipeline:
        yield pipeline


@pytest.fixture
def pipeline(loaded_pipeline: Pipeline) -> Iterator[Pipeline]:
    """The same, emptied, and run on one processor."""
    loaded_pipeline.reset()
    loaded_pipeline.pin_to(0)
    yield loaded_pipeline
    loaded_pipeline.unpin()


@pytest.fixture(scope="session")
def loaded_shaper() -> Iterator[Shaper]:
    """The shaper with a clock by hand, loaded once."""
    with loaded_shaper_programs() as shaper:
        yield shaper


@pytest.fixture
def shaper(loaded_shaper: Shaper) -> Shaper:
    """The same, emptied."""
    loaded_shaper.reset()
    return loaded_shaper


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way programs are attached; without TCX, as on a kernel before 6.6."""

    def refuse(program: int, ifindex: int, *, egress: bool) -> int:
        raise OSError(errno.EINVAL, "no such attach type")

    if request.param == "clsact":
        monkeypatch.setattr(libbpf, "attach_tcx", refuse)
    found: str = request.param
    return found
