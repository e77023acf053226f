# SPDX-License-Identifier: Apache-2.0
"""What the last minute would have met: the dialogs that say it, and how it is reckoned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ebpftop.format import size
from ebpftop.model import ClassKey, Prefix, Sent, Snapshot
from ebpftop.screens.class_history import Samples
from ebpftop.screens.foresight import verdict, what_if
from tests.tui.driving import Dashboard, dashboard
from tests.tui.fakes import FakeControls
from tests.tui.shaping import fill, minute, shaped


async def test_the_dialog_shows_what_the_last_minute_would_have_met(
    controls: FakeControls,
) -> None:
    async with dashboard(shaped(), size=(120, 30), controls=controls) as running:
        await running.press("5")
        await minute(running)
        await running.press("down", "r")
        # 16 Mbit/s came to a class of 8, which drops what is over
        await running.until(lambda: "goes at once" in running.text)
        assert "brought 120 MB:" in running.text
        assert "50.0% dropped" in running.text
        await fill(running, "rate", "20mbit")
        await running.until(lambda: "100% goes at once, 0% dropped" in running.text)
        assert "an estimate: TCP would have slowed down" in running.text
        await fill(running, "rate", "4mbit")
        await running.until(lambda: "75.0% dropped" in running.text)
        # 120 MB in a minute at 8 Mbit/s: a burst of 60 MB is all that was missing
        await fill(running, "rate", "8mbit")
        await fill(running, "burst", "60mb")
        await running.until(lambda: "100% goes at once, 0% dropped" in running.text)


def talking(sequence: int, *, sent_bps: float | None = None, **changes: Any) -> Snapshot:
    """Build a snapshot in which 10.0.0.1 talks."""
    counts = np.array([1, 1], np.uint64)
    sent = None if sent_bps is None else Sent(counts, counts, np.array([sent_bps, 0.0]))
    return shaped(sequence, interval_s=20.0, sent=sent, **changes)


async def talk(running: Dashboard, sent_bps: float | None = None) -> None:
    """Let a minute go by in which an address talks."""
    for second in (21, 41, 61):
        await running.tick(talking(second, sent_bps=sent_bps))


async def test_a_new_class_shows_what_its_addresss_last_minute_would_have_met(
    controls: FakeControls,
) -> None:
    async with dashboard(shaped(), size=(120, 34), controls=controls) as running:
        await talk(running, sent_bps=8_000_000)
        await running.press("5", "n")
        assert "foresight" in running.text
        await fill(running, "class-name", "office")
        await fill(running, "class-rate", "4mbit")
        await running.until(lambda: "nobody is in it yet: say an address" in running.text)
        await fill(running, "class-address", "10.0.0.1")
        await fill(running, "class-action", "police")
        await running.until(lambda: "brought 60.0 MB:" in running.text)
        assert "49.8% dropped" in running.text  # 0.4 MB are the burst
        assert "TCP would have slowed down" in running.text
        await fill(running, "class-rate", "8mbit")
        await running.until(lambda: "100% goes at once, 0% dropped" in running.text)

        # What comes in is another thing than what goes out
        await fill(running, "class-way", "ingress")
        received = f"brought {size(sum_received())}"
        await running.until(lambda: received in running.text)
        await running.press("enter")
        await running.until(lambda: controls.calls)
        changes = {"rate_bps": 8_000_000, "burst_bytes": 0, "action": "police", "parent": ""}
        key = ClassKey("office", "ingress")
        assert controls.calls == [("set_class", key, changes, Prefix.parse("10.0.0.1"))]


def sum_received() -> float:
    """Return the bytes that 10.0.0.1 sends in the minute of `talk`."""
    return float(talking(0).sources.bps[0]) / 8 * 60


async def test_what_is_not_counted_is_not_foreseen(controls: FakeControls) -> None:
    async with dashboard(shaped(), size=(120, 34), controls=controls) as running:
        await talk(running, sent_bps=None)
        await running.press("2", "c")
        await running.until(lambda: "unknown: what is sent is not counted" in running.text)


async def test_assigning_shows_what_the_address_would_have_met_beside_the_others(
    controls: FakeControls,
) -> None:
    async with dashboard(shaped(), size=(120, 34), controls=controls) as running:
        await talk(running, sent_bps=8_000_000)
        await running.press("2")
        # GIVEN 10.0.0.1, which is in `video` already: 60 MB fit into its 20 Mbit/s
        await running.press("c")
        await running.until(lambda: "brought 60.0 MB:" in running.text)
        assert "100% goes at once, 0% dropped" in running.text
        # WHEN it is to go to `backup`, which has 120 MB of its own and passes 60 MB
        await fill(running, "class-name", "backup")
        await running.until(lambda: "brought 180 MB with what backup has" in running.text)
        assert "66.6% dropped" in running.text
        assert "TCP would have slowed down" in running.text
        await fill(running, "class-name", "")
        await running.until(lambda: "nothing holds it then" in running.text)


async def test_foresight_goes_on_while_the_dialog_is_open(controls: FakeControls) -> None:
    async with dashboard(shaped(), size=(120, 34), controls=controls) as running:
        await running.press("2", "c")
        await running.until(lambda: "what is sent is not counted" in running.text)
        await talk(running, sent_bps=8_000_000)
        await running.until(lambda: "brought 60.0 MB" in running.text)


@pytest.mark.parametrize("key", ["n", "c", "r"])
async def test_a_dialog_with_foresight_fits_into_a_small_terminal(
    controls: FakeControls, key: str
) -> None:
    async with dashboard(shaped(), size=(80, 24), controls=controls) as running:
        await talk(running, sent_bps=8_000_000)
        await running.press("5", key)
        if key == "n":
            await fill(running, "class-name", "office")
            await fill(running, "class-rate", "4mbit")
            await fill(running, "class-address", "10.0.0.1")
        elif key == "c":
            await fill(running, "address", "10.0.0.1")
        await running.until(lambda: "dropped" in running.text)
        assert "goes at once" in running.text
        assert "an estimate" in running.text
        assert "Esc" in running.text


def steady(bps: float, seconds: int = 60) -> Samples:
    """Return a minute of an even rate."""
    ones = np.ones(seconds)
    return Samples(np.arange(seconds, dtype=float), ones, ones * bps / 8, ones * bps)


def test_what_fits_passes_at_once() -> None:
    found = what_if(steady(10_000_000), 10_000_000, 10_000, queued=False)

    assert found.seconds == 60
    assert (found.at_once, found.dropped) == (1.0, 0.0)


def test_a_bucket_without_a_queue_drops_what_is_over_rate_and_burst() -> None:
    found = what_if(steady(10_000_000), 5_000_000, 1_000_000, queued=False)

    # 75 MB came; 37.5 MB pass by the rate and 1 MB by the burst
    assert found.at_once == pytest.approx(38.5 / 75)
    assert found.dropped == pytest.approx(36.5 / 75)
    assert found.longest_wait_s == 0


def test_a_queue_holds_back_a_peak_and_drops_what_it_cannot_hold() -> None:
    seconds = np.ones(3)
    peak = Samples(np.arange(3.0), seconds, np.array([1_000_000, 1_150_000, 500_000.0]), seconds)

    found = what_if(peak, 8_000_000, 0, queued=True)

    assert found.dropped == 0
    assert found.longest_wait_s == pytest.approx(0.15)
    assert what_if(steady(16_000_000), 8_000_000, 0, queued=True).dropped == pytest.approx(
        0.5, abs=0.01
    )


def test_foresight_without_traffic_says_so() -> None:
    nothing = what_if(Samples.none(), 1000, 1000, queued=True)
    silence = what_if(steady(0), 1000, 1000, queued=True)

    assert verdict(nothing, queued=True)[0] == "nothing has been seen of it yet"
    assert verdict(silence, queued=True)[0] == "nothing came in its last 60 s"
