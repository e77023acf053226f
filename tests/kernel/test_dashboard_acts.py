# SPDX-License-Identifier: Apache-2.0
"""Acts from the dashboard on the live kernel: guarded, confirmed, undone, and its sudden end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ebpftop.kernel import bpffs
from ebpftop.lab import Lab
from tests.kernel.attached import Site, trying
from tests.kernel.stage import until
from tests.kernel.terminal import Terminal

pytestmark = pytest.mark.kernel

ADDRESS = "198.51.100.9"


@pytest.fixture(scope="module")
def attached() -> Iterator[Site]:
    with Lab(clients=0) as lab, trying(lab.server) as site:
        site.done("attach", "eth0")
        yield site
        site.done("detach", "eth0")
        assert site.is_clean()


@pytest.fixture
def site(attached: Site) -> Iterator[Site]:
    yield attached
    for row in blocks(attached):
        attached.done("unblock", "eth0", row["address"])


def blocks(site: Site) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = site.ebpftop("blocks", "eth0", "--json").json
    return rows


def acts(site: Site) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = site.ebpftop("acts", "eth0", "--json").json
    return rows


def block_for_now(dashboard: Terminal, revert_in: str) -> None:
    """Block the address by typing it, and with it when it reverts."""
    dashboard.wait_for("q quit")
    dashboard.press("3")
    dashboard.wait_for("n new block")
    while not filled_in(dashboard, revert_in):
        dashboard.press("\x1b")
        dashboard.wait_until(lambda shown: "New block" not in shown, "the dialog stayed")
    dashboard.press("\r")


def filled_in(dashboard: Terminal, revert_in: str) -> bool:
    """Fill the dialog in; False where a key was faster than the focus."""
    dashboard.press("n")
    dashboard.wait_for("New block")
    dashboard.press(ADDRESS)
    dashboard.wait_for(f"address    {ADDRESS}")
    for _ in range(3):
        dashboard.press("\t")
        time.sleep(0.3)
    dashboard.press(revert_in)
    dashboard.wait_until(lambda shown: revert_in in shown, "what was typed was not shown")
    return f"revert in  {revert_in} " in dashboard.shown


def test_a_block_that_waits_reverts_although_the_dashboard_was_killed(site: Site) -> None:
    dashboard = site.dashboard("eth0")
    block_for_now(dashboard, "4s")
    dashboard.wait_for("REVERTS IN", "Y confirms")
    assert [row["address"] for row in blocks(site)] == [ADDRESS]

    dashboard.signal(signal.SIGKILL)
    dashboard.wait()

    until(lambda: blocks(site) == [], 30.0)
    until(lambda: acts(site)[0]["what"] == "revert" and acts(site)[0]["result"] == "done")
    assert acts(site)[1]["undone"]


def test_a_block_that_was_confirmed_stays_although_the_dashboard_was_killed(site: Site) -> None:
    dashboard = site.dashboard("eth0")
    block_for_now(dashboard, "9s")
    dashboard.wait_for("REVERTS IN")
    dashboard.press("Y")
    dashboard.wait_until(lambda shown: "REVERTS" not in shown, "the countdown did not go")
    dashboard.signal(signal.SIGKILL)
    dashboard.wait()

    (name,) = {name.partition(".")[0] for name in site.left()}
    assert bpffs.pending_files(name) == []
    assert [act["what"] for act in acts(site)[:2]] == ["confirm", "block"]
    assert [row["address"] for row in blocks(site)] == [ADDRESS]


def test_z_undoes_the_last_act_whoever_did_it(site: Site) -> None:
    dashboard = site.dashboard("eth0")
    site.done("block", "eth0", ADDRESS, "--reason", "from a script")
    dashboard.wait_for("z undo last")
    dashboard.press("z")
    dashboard.wait_for(f"Undo block {ADDRESS}", "from a script")
    dashboard.press("\r")
    until(lambda: blocks(site) == [], 30.0)
    dashboard.press("7")
    dashboard.wait_for("undone", "undo", "from a script")
    dashboard.press("q")
    assert dashboard.wait() == 0
    assert acts(site)[0]["terminal"].startswith("/dev/pts/")


def test_a_second_dashboard_only_watches_and_says_who_writes(site: Site) -> None:
    first = site.dashboard("eth0")
    first.wait_for("q quit")
    second = site.dashboard("eth0")
    who = f"READ-ONLY: root, process {first.process.pid} has control"
    second.wait_until(lambda shown: who in shown.splitlines()[0], "who has control was not said")
    site.done("block", "eth0", ADDRESS)
    second.press("3")
    second.wait_for(ADDRESS)
    assert "u unblock" not in second.shown
    second.press("uzyn")
    second.press("7")
    second.wait_for(acts(site)[0]["id"])
    # What the second may not do, the first does, and the second sees it.
    first.press("7")

    def is_done(shown: str) -> bool:
        # Read between its two lines in the log, an act is there and not done yet.
        rows = [line for line in shown.splitlines() if ADDRESS in line]
        return bool(rows) and "block" in rows[0].split() and "done" in rows[0]

    first.wait_until(is_done, "the act was not seen as done")
    first.press("z")
    first.wait_for(f"Undo block {ADDRESS}")
    first.press("\r")
    second.wait_for("undone")
    for dashboard in (second, first):
        dashboard.press("q")
        assert dashboard.wait() == 0
    # The next one has control again.
    third = site.dashboard("eth0")
    third.wait_for("q quit")
    assert "READ-ONLY" not in third.shown
    third.press("q")
    assert third.wait() == 0
