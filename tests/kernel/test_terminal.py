# SPDX-License-Identifier: Apache-2.0
"""The whole program as an operator meets it: in a terminal, on a real flood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebpftop.lab import Lab, flood

pytestmark = pytest.mark.kernel

EBPFTOP = Path(sys.executable).with_name("ebpftop")
PATIENCE_S = 20.0


class Terminal:
    """A tmux of its own, with one window of 80x24."""

    def __init__(self) -> None:
        self._name = f"ebpftop-test-{os.getpid()}"

    def _tmux(self, *words: str) -> str:
        argv = ["tmux", "-L", self._name, "-f", "/dev/null", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def run(self, command: str) -> None:
        """Start a command; the window stays when it ends."""
        self._tmux("new-session", "-d", "-x", "80", "-y", "24", f"{command}; echo left; sleep 600")

    def press(self, *keys: str) -> None:
        """Type keys, by tmux's names."""
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        """Return what is to be read on the screen."""
        return self._tmux("capture-pane", "-p")

    def wait(self, holds: Callable[[str], object], what: str) -> str:
        """Wait until the screen is as expected; returns it."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            screen = self.screen()
            if holds(screen):
                return screen
            time.sleep(0.1)
        raise AssertionError(f"{what} never came; the screen is\n{screen}")

    def close(self) -> None:
        """End it and all in it."""
        subprocess.run(["tmux", "-L", self._name, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


def dropped(screen: str, address: str) -> float:
    """Return the drops a second on the row of a source, 0 where it has none yet."""
    row = next((line for line in screen.splitlines() if address in line), "")
    rates = re.findall(r"(\d[\d.]*)([kM]?)", row.partition("blocked")[2])
    if not rates:
        return 0.0
    number, unit = rates[-1]
    return float(number) * {"": 1, "k": 1e3, "M": 1e6}[unit]


def test_the_flood_appears_and_b_blocks_it_and_its_drops_rise(lab: Lab, terminal: Terminal) -> None:
    # GIVEN the dashboard in a terminal of 80x24, and a flood
    terminal.run(f"nsenter --net={lab.server.netns_path} {EBPFTOP} eth0")
    terminal.wait(lambda screen: "2 Talk" in screen, "the dashboard")
    attack = flood(lab.attacker, lab.server, "udp", pps=5000, seconds=60)
    attack.wait_ready()

    # WHEN its source has appeared on the overview, and is looked for among the talkers
    terminal.wait(
        lambda screen: re.search(rf"{lab.attacker.ipv4} .*passed .*k ", screen), "the flood"
    )
    terminal.press("2")
    terminal.wait(
        lambda screen: re.search(rf"{lab.attacker.ipv4} .*passed .*k ", screen), "the flood's row"
    )

    # THEN `b` and Enter block it, and its drops rise on the same row
    terminal.press("b")
    terminal.wait(lambda screen: f"Block {lab.attacker.ipv4}" in screen, "the dialog")
    terminal.press("Enter")
    terminal.wait(
        lambda screen: re.search(rf"{lab.attacker.ipv4} +\S+ blocked ", screen), "the block"
    )
    terminal.wait(lambda screen: dropped(screen, lab.attacker.ipv4) > 1000, "rising drops")

    # AND quitting leaves the interface as it was
    terminal.press("q")
    terminal.wait(lambda screen: "left" in screen, "the end")
    details = lab.server.run(["ip", "link", "show", "eth0"]).stdout
    assert "xdp" not in str(details)
    attack.stop()
