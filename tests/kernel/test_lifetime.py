# SPDX-License-Identifier: Apache-2.0
"""How long what is attached lives: as long as a dashboard, or until it is detached."""

from __future__ import annotations

import signal
import socket
import subprocess
import time

import pytest

from ebpftop.kernel import bpffs
from ebpftop.lab import Lab, joined
from tests.kernel.attached import EBPFTOP, Site
from tests.kernel.terminal import PATIENCE_S, Terminal

pytestmark = pytest.mark.kernel

WATCHING = ("eth0", "native", "q quit")
"""What a dashboard shows that has its first figures."""


def opened(site: Site, *arguments: str) -> Terminal:
    """Open a dashboard, and wait for its first figures."""
    dashboard = site.dashboard("--interval", "0.2", *arguments)
    dashboard.wait_for(*WATCHING)
    return dashboard


def quit_of(dashboard: Terminal) -> int:
    """Press q; returns the exit status."""
    dashboard.press("q")
    return dashboard.wait()


def folders(site: Site) -> list[str]:
    """Return the names of the folders of all instances there."""
    return [name for name in site.left() if "." not in name]


def test_quitting_a_dashboard_leaves_nothing(site: Site) -> None:
    dashboard = opened(site, "eth0")
    assert site.program_on()

    assert quit_of(dashboard) == 0

    assert site.is_clean()


def test_sigterm_is_like_quitting_at_once(site: Site) -> None:
    dashboard = opened(site, "eth0", "--interval", "10")
    told_s = time.monotonic()

    # As systemd does it, so that a stopped process hears it too.
    dashboard.signal(signal.SIGTERM)
    dashboard.signal(signal.SIGCONT)

    assert dashboard.wait() == 0
    # The next snapshot, 10 s away, is not waited for.
    assert time.monotonic() - told_s < 5
    assert site.is_clean()


def test_a_lost_connection_is_like_quitting_and_keeps_what_is_to_be_kept(site: Site) -> None:
    dashboard = opened(site, "eth0", "--keep")
    program = site.program_on()

    dashboard.hang_up()

    assert dashboard.wait() == 0
    assert site.program_on() == program
    assert site.status()["attached"]


def test_a_killed_dashboard_frees_the_interface_and_the_next_verb_sweeps(site: Site) -> None:
    dashboard = opened(site, "eth0")
    (name,) = folders(site)

    # Under its lock no other process can sweep it.
    with bpffs.locked(name):
        dashboard.signal(signal.SIGKILL)
        assert dashboard.wait() == -signal.SIGKILL
        assert not site.program_on()
        assert folders(site) == [name]

    site.ebpftop("status", "eth0").refused(5)
    assert site.is_clean()


def test_a_dashboard_that_keeps_leaves_programs_and_maps_at_work(site: Site, lab: Lab) -> None:
    dashboard = opened(site, "eth0", "--keep")
    program = site.program_on()

    assert quit_of(dashboard) == 0

    assert site.program_on() == program
    with joined(lab.attacker), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", (lab.server.ipv4, 9))
    deadline_s = time.monotonic() + PATIENCE_S
    while site.status()["protocols"]["udp"] != 1:
        assert time.monotonic() < deadline_s
    site.done("detach", "eth0")
    assert site.is_clean()


def test_a_dashboard_that_joined_leaves_all_as_it_was(site: Site) -> None:
    site.add_interface("eth1")
    site.done("attach", "eth0")
    program = site.program_on()

    dashboard = opened(site, "eth0", "eth1")
    dashboard.wait_for("not attached to eth1")
    assert quit_of(dashboard) == 0

    assert site.program_on() == program
    assert site.status()["attached"]
    assert not site.program_on("eth1")


def test_detaching_ends_what_a_joined_dashboard_shows(site: Site) -> None:
    site.done("attach", "eth0")
    dashboard = opened(site, "eth0")

    site.done("detach", "eth0")

    dashboard.wait_for("SOURCE LOST", "ebpftop was detached from eth0")
    assert quit_of(dashboard) == 1
    assert "ebpftop: ebpftop was detached from eth0" in dashboard.shown
    assert site.is_clean()


def test_a_dashboard_that_lost_what_it_attached_leaves_alone_what_came_after(site: Site) -> None:
    dashboard = opened(site, "eth0")
    site.done("detach", "eth0")
    site.done("attach", "eth0")
    program = site.program_on()

    dashboard.wait_for("SOURCE LOST")
    assert quit_of(dashboard) == 1

    assert site.program_on() == program
    assert site.status()["attached"]


def test_the_second_dashboard_watches_and_says_who_has_control(site: Site) -> None:
    first = opened(site, "eth0")
    second = opened(site, "eth0")

    second.wait_for("READ-ONLY", f"process {first.process.pid} has control")
    assert "READ-ONLY" not in first.shown

    # WHEN the first goes, with what it attached
    assert quit_of(first) == 0
    second.wait_for("SOURCE LOST")
    assert quit_of(second) == 1
    assert site.is_clean()


def serve(site: Site) -> subprocess.Popen[bytes]:
    """Start `attach --serve`, and wait until it is attached."""
    server = site.host.spawn([*EBPFTOP, "attach", "eth0", "--serve"], stderr=subprocess.PIPE)
    assert server.stdout is not None
    assert b"attached to eth0 (native)" in server.stdout.readline()
    return server


def test_a_service_leaves_all_attached_and_the_next_one_joins(site: Site) -> None:
    for _ in range(2):
        server = serve(site)
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0
        assert site.status()["attached"]


def test_a_service_ends_when_what_it_serves_is_detached(site: Site) -> None:
    server = serve(site)

    site.done("detach", "eth0")

    complaint = server.communicate(timeout=PATIENCE_S)[1].decode()
    assert server.returncode == 1
    assert complaint.startswith("ebpftop: ebpftop was detached from eth0")
    assert site.is_clean()


def test_a_dashboard_outlives_its_interface_and_leaves_nothing(site: Site) -> None:
    site.add_interface("eth7")
    dashboard = site.dashboard("eth7", "--interval", "0.2", "--keep")
    dashboard.wait_for("eth7", "native", "q quit")

    site.host.ip("link delete eth7")

    dashboard.wait_for("SOURCE LOST", "eth7 was deleted")
    assert quit_of(dashboard) == 1
    assert "ebpftop: eth7 was deleted" in dashboard.shown
    assert "Traceback" not in dashboard.shown
    assert site.is_clean()


def test_a_dashboard_shows_that_the_interface_is_down_and_goes_on(site: Site) -> None:
    dashboard = opened(site, "eth0")

    site.host.ip("link set eth0 down")
    dashboard.wait_for(" DOWN ")
    site.host.ip("link set eth0 up")
    dashboard.wait_until(lambda shown: " DOWN " not in shown, "the badge did not go away")

    assert "SOURCE LOST" not in dashboard.shown
    assert quit_of(dashboard) == 0
    assert site.is_clean()
