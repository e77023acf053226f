# SPDX-License-Identifier: Apache-2.0
"""The Balancer and Connections panes on a terminal, against a real instance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import PIPELINE
from ebpftop.lab import Lab
from tests.kernel.attached import Site, trying
from tests.kernel.balancer import End
from tests.kernel.frames import Shape

pytestmark = pytest.mark.kernel

VIP = End("198.51.100.10", 80)
WORDS = "198.51.100.10:80/tcp"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """An attached host with a VIP, two backends and six flows."""
    with Lab(clients=0) as lab, trying(lab.server) as site:
        site.done("attach", "eth0")
        site.done("vip", "add", "eth0", WORDS)
        for number in (1, 2):
            site.done("backend", "add", "eth0", WORDS, f"10.0.0.{number}:8080")
        with site.instance() as instance:
            for port in range(1000, 1006):
                frame = Shape(End("192.0.2.1", port), VIP, "S").to_bytes()
                libbpf.run_program(instance.programs[PIPELINE], frame)
        yield site


def first(site: Site) -> dict[str, Any]:
    """Return the first backend."""
    row: dict[str, Any] = site.ebpftop("backends", "eth0", "--json").json[0]
    return row


def test_a_weight_is_staged_foreseen_and_written(site: Site) -> None:
    dashboard = site.dashboard("eth0")
    dashboard.wait_for("q quit", "Overview")
    dashboard.press("4")
    dashboard.wait_for("10.0.0.1:8080", "50.0%")
    dashboard.press("+")
    dashboard.wait_for("1→2", "→66.7%", "→33.3%", "STAGED 10.0.0.1:8080 weight 2")
    assert (first(site)["weight"], first(site)["share"]) == (1, 0.5)
    dashboard.press("\r")

    # What the ring is, is what was foreseen.
    dashboard.wait_for("66.7%   66.7%", "33.3%   33.3%")
    assert (first(site)["weight"], first(site)["share"]) == (2, pytest.approx(2 / 3, abs=1e-6))
    dashboard.press("o")
    dashboard.wait_for("2→1")
    dashboard.press("\r")
    dashboard.wait_for("50.0%   50.0%")
    assert first(site)["weight"] == 1
    dashboard.press("q")
    assert dashboard.wait() == 0


def test_read_only_shows_flows_and_backends_and_changes_neither(site: Site) -> None:
    before = first(site)
    dashboard = site.dashboard("eth0", "--read-only")
    dashboard.wait_for("READ-ONLY", "q quit")
    dashboard.press("4")
    dashboard.wait_for("10.0.0.1:8080", "f flows")
    dashboard.press("+0d\r")
    dashboard.press("f")

    shown = dashboard.wait_for("192.0.2.1:1000", "3 shown of 6 flows")
    assert "192.0.2.1:1001" not in shown
    dashboard.press("t")
    dashboard.wait_for("▸ 192.0.2.1")
    dashboard.press("q")
    assert dashboard.wait() == 0
    now = first(site)
    assert (now["weight"], now["state"]) == (before["weight"], before["state"]) == (1, "up")
