# SPDX-License-Identifier: Apache-2.0
"""The trace in the programs pane: asked for by a filter, shown as it comes, ended by Esc."""

from __future__ import annotations

import threading

import pytest

from ebpftop.errors import KernelRefusedError
from ebpftop.model import Service, TracedPacket
from ebpftop.screens.trace_screen import KEPT, TraceScreen
from tests.kernel.packets import frame, udp
from tests.tui.driving import Dashboard, dashboard, steers_terminal
from tests.tui.fakes import HOSTILE, FakeControls

SENDER = "10.1.2.3"


def packet(number: int = 0, data: bytes | None = None) -> TracedPacket:
    return TracedPacket(
        time_s=1.75e9 + number, interface=2, length=100 + number,
        data=frame(SENDER, udp()) if data is None else data, protocol="udp",
        verdict="dropped", reason="limit-pps", backend=Service.parse("10.9.9.9:80/tcp"),
        left_out=0,
    )  # fmt: skip


async def opened(running: Dashboard) -> TraceScreen:
    await running.press("8", "T")
    screen = running.app.screen
    assert isinstance(screen, TraceScreen)
    return screen


async def begun(running: Dashboard, controls: FakeControls, expression: str = "") -> None:
    await opened(running)
    await running.type(expression)
    await running.press("enter")
    await running.until(lambda: controls.traces)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_t_asks_for_a_filter_and_shows_packets_with_their_verdict(
    size: tuple[int, int],
) -> None:
    controls = FakeControls()
    async with dashboard(controls=controls, size=size) as running:
        await begun(running, controls, "verdict:dropped")
        assert controls.calls == [("trace", "verdict:dropped", 20)]
        controls.traces[0].packets = [packet()]
        controls.traces[0].left_out = 4321
        await running.until(lambda: "4,321 left out" in running.text)
        for words in (SENDER, "udp", "1 shown", "at most 20/s", "FILTER verdict:dropped"):
            assert words in running.text, words
        assert "limit-pps" in "".join(running.text.split("\n"))


async def test_escape_ends_the_trace() -> None:
    controls = FakeControls()
    async with dashboard(controls=controls) as running:
        await begun(running, controls)
        await running.until(lambda: "every packet" in running.text)
        assert not controls.traces[0].stopped.is_set()
        await running.press("escape")
        await running.until(controls.traces[0].stopped.is_set)
        assert running.app.screen is running.app.main


async def test_leaving_the_dashboard_ends_the_trace() -> None:
    controls = FakeControls()
    async with dashboard(controls=controls) as running:
        await begun(running, controls)
        await running.press("ctrl+c")
    assert controls.traces[0].stopped.is_set()


async def test_a_trace_that_is_left_before_it_is_on_is_ended_once_it_is() -> None:
    controls = FakeControls()
    controls.may_act = threading.Event()
    async with dashboard(controls=controls) as running:
        await opened(running)
        await running.press("enter", "escape")
        await running.until(lambda: running.app.screen is running.app.main)
        controls.may_act.set()
        await running.until(lambda: controls.traces and controls.traces[0].stopped.is_set())


async def test_a_mistake_in_the_filter_is_shown_where_it_is_and_begins_nothing() -> None:
    controls = FakeControls()
    async with dashboard(controls=controls) as running:
        await opened(running)
        await running.type("protocol:tcp verdict:drop")
        lines = running.lines
        typed = next(line for line in lines if "verdict:drop" in line)
        arrow = next(line for line in lines if "▲" in line)
        assert arrow.index("▲") == typed.index("verdict:drop") + len("verdict:")
        await running.press("enter")
        assert controls.traces == []


async def test_another_filter_can_be_asked_for_while_the_trace_is_on() -> None:
    controls = FakeControls()
    async with dashboard(controls=controls) as running:
        await begun(running, controls, "tcp")
        await running.until(lambda: "FILTER tcp" in running.text)
        await running.press("slash", "backspace", "backspace", "backspace")
        await running.type("udp")
        await running.press("enter")
        await running.until(lambda: "FILTER udp" in running.text)
        assert controls.traces[0].asked == ["tcp", "udp"]
        assert len(controls.traces) == 1


async def test_what_is_refused_is_said_and_can_be_tried_again() -> None:
    controls = FakeControls()
    controls.refusal = KernelRefusedError("a trace is on already: bob", "end that first")
    async with dashboard(controls=controls) as running:
        await opened(running)
        await running.press("enter")
        await running.until(lambda: "a trace is on already: bob" in running.text)
        controls.refusal = None
        await running.press("enter")
        await running.until(lambda: controls.traces)


async def test_the_end_of_a_trace_elsewhere_is_said() -> None:
    controls = FakeControls()
    async with dashboard(controls=controls) as running:
        await begun(running, controls)
        controls.traces[0].error = KernelRefusedError("the trace was ended", "begin it again")
        await running.until(lambda: "the trace was ended" in running.text)


async def test_lines_are_bounded_newest_last_and_hostile_bytes_never_reach_the_screen() -> None:
    controls = FakeControls()
    async with dashboard(controls=controls, size=(120, 40)) as running:
        await begun(running, controls)
        controls.traces[0].packets = [packet(n) for n in range(KEPT + 10)]
        await running.until(lambda: f"{100 + KEPT + 9} bytes" in running.text)
        hostile = (HOSTILE.encode() * 4)[:128]
        controls.traces[0].packets = [packet(1000, data=hostile[:12] + kind + hostile[12:])
                                      for kind in (b"", b"\x08\x00E", b"\x86\xdd`")]  # fmt: skip
        await running.until(lambda: f"{KEPT + 13:,} shown" in running.text)
        assert not any(map(steers_terminal, running.lines))


async def test_who_may_only_watch_is_not_offered_a_trace() -> None:
    async with dashboard() as running:
        await running.press("8", "T")
        assert running.app.screen is running.app.main
