# SPDX-License-Identifier: Apache-2.0
"""Draw each pane, as SVG, from the real program on the lab: `python -m tests.shots FOLDER`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from textual.pilot import Pilot

from ebpftop import lab as labs
from ebpftop.app import DashboardApp
from ebpftop.cli.demo import POLICY
from ebpftop.control import policy as policies
from ebpftop.control.everything import InstanceControl
from ebpftop.journal.log import PATH_VARIABLE
from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import Instance
from ebpftop.model import BlockRequest, Prefix
from ebpftop.sources.live import LiveSource

TRAFFIC_S = 20.0
"""How long the graphs fill before the pictures are taken."""
WIDE, NARROW = (120, 36), (80, 24)
PICTURES: dict[str, list[str]] = {
    "overview": ["1"],
    "talkers": ["2"],
    "block": ["b"],
    "blocks": ["escape", "3"],
    "acts": ["escape", "7"],
    "shaper": ["escape", "5"],
    "class": ["r"],
    "limits": ["escape", "l"],
    "help": ["escape", "question_mark"],
}
"""The keys that lead from each picture to the next."""


async def _draw(app: DashboardApp, size: tuple[int, int], folder: Path, suffix: str) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause(TRAFFIC_S)
        for name, keys in PICTURES.items():
            await _press(pilot, keys)
            app.save_screenshot(f"{name}{suffix}.svg", str(folder))
            print(folder / f"{name}{suffix}.svg")


async def _press(pilot: Pilot[None], keys: list[str]) -> None:
    for key in keys:
        await pilot.press(key)
        await pilot.pause(1.2)


def _prepare(control: InstanceControl) -> None:
    control.block_all(
        [
            BlockRequest(Prefix.parse("203.0.113.9"), 7200, "scans ports"),
            BlockRequest(Prefix.parse("198.51.100.0/24"), None, "botnet, ticket 4711"),
            BlockRequest(Prefix.parse("2001:db8:bad::/48"), 86_400, "SYN flood in July"),
        ]
    )
    control.allow(Prefix.parse("192.0.2.80"))


def main() -> None:
    """Build the lab, run the demo's traffic, draw."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    bpffs.mount(lasting=False)
    with TemporaryDirectory() as log:
        os.environ[PATH_VARIABLE] = f"{log}/acts.jsonl"
        _draw_all(folder)


def _draw_all(folder: Path) -> None:
    for size, suffix in ((WIDE, ""), (NARROW, "-80x24")):
        with labs.Lab() as lab, labs.joined(lab.server):
            instance = policies.attach(["eth0"], POLICY, mode="auto", path=None, pinned=False)
            control = InstanceControl(instance)
            _prepare(control)
            traffic = labs.start_demo_traffic(lab)
            source = LiveSource(Instance(instance.folder, read_only=False))
            try:
                app = DashboardApp(source, title="eth0", controls=control)
                asyncio.run(_draw(app, size, folder, suffix))
                traffic.stop()
            finally:
                instance.remove()


if __name__ == "__main__":
    main()
