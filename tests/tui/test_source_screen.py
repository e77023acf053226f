# SPDX-License-Identifier: Apache-2.0
"""The detail view of a source: kept up to date, honest about what is not known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ebpftop.model import Clock, Connections, Prefix, Sent, Service, Snapshot, SourceState
from tests.tui.driving import dashboard
from tests.tui.fakes import START_NS, Shaped, Talker, classes, snapshot, sources

LOUD = Prefix.parse("10.0.0.1")


def second(number: int, pps: float, **changes: Any) -> Snapshot:
    talker = Talker(
        "10.0.0.1", pps=pps, state=SourceState.LIMITED, packets=1000, dropped=400,
        dropped_pps=pps / 2,
    )  # fmt: skip
    clock = Clock(START_NS + number * 10**9, 1.75e9 + number)
    return snapshot(number, sources=sources([talker]), clock=clock, interval_s=1.0, **changes)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_view_has_averages_the_peak_and_the_totals(size: tuple[int, int]) -> None:
    async with dashboard(second(0, 0.0), size=size) as running:
        for number in range(1, 51):
            pps = 900.0 if number == 20 else 100.0 if number <= 48 else 300.0
            await running.tick(second(number, pps))
        await running.press("2", "enter")
        rows = {line.split()[1]: line.split()[2:] for line in running.lines if "s  " in line
                and len(line.split()) > 3}  # fmt: skip
        assert "10.0.0.1" in running.text
        assert "limited" in running.text
        packets = rows["packets/s"]
        # 2 s: 300; 10 s: two of 300, eight of 100; 40 s: one of 900, two of 300, the rest of 100.
        assert packets[:4] == ["300", "140", "130", "900"]
        assert rows["drops/s"][:4] == ["150", "70", "65", "450"]
        for words in ("received", "1,000", "dropped", "400", "passed", "600"):
            assert words in running.text


async def test_the_view_goes_on_while_it_is_open_and_survives_its_source() -> None:
    async with dashboard(second(0, 100.0)) as running:
        await running.press("2", "enter")
        await running.tick(second(1, 777.0))
        assert "777" in running.text
        gone = snapshot(2, sources=sources([Talker("10.0.0.9")]), interval_s=1.0)
        await running.tick(gone)
        assert "not tracked any more" in running.text
        await running.press("escape")
        assert len(running.app.screen_stack) == 1


async def test_the_view_says_what_holds_for_the_source() -> None:
    held = classes([Shaped("wide", members=("10.0.0.0/8",)), Shaped("own", members=("10.0.0.1",))])
    one = np.array([12], np.uint64)
    sent = Sent(one, one * 1000, np.array([8.0]))
    async with dashboard(second(0, 100.0, classes=held, sent=sent)) as running:
        await running.press("2", "enter")
        assert "class own (egress)" in running.text
        assert "class wide" not in running.text
        assert "sent to it" in running.text
        await running.press("escape")
        await running.tick(second(1, 100.0))
        await running.press("enter")
        assert "no block, no allowance and no class" in running.text


async def test_its_flows_through_vips_are_asked_for_and_shown() -> None:
    vip, server = Service.parse("192.0.2.80:443/tcp"), Service.parse("10.1.0.7:8443/tcp")
    u64 = np.array([LOUD.low, LOUD.low + 1], np.uint64)
    flows = Connections(
        high=np.zeros(2, np.uint64), low=u64, port=np.array([51_000, 52_000], np.uint64),
        vip=np.zeros(2, np.uint16), backend=np.zeros(2, np.uint16),
        state=np.array([3, 3], np.uint8), packets=u64, bytes=np.array([5_000_000, 1], np.uint64),
        first_ns=u64, last_ns=u64, vips=(vip,), backends=(server,),
    )  # fmt: skip
    async with dashboard(second(0, 100.0), size=(100, 40)) as running:
        await running.press("2", "enter")
        await running.until(lambda: "connections" in running.source.wants)
        await running.tick(second(1, 100.0, connections=flows))
        line = next(line for line in running.lines if ":51000" in line)
        for words in (str(vip), server.endpoint, "established", "5.00 MB"):
            assert words in line
        assert ":52000" not in running.text
        await running.press("escape")
        await running.until(lambda: "connections" not in running.source.wants)
