# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand sources in the dashboard, worked by its keys."""

from __future__ import annotations

from time import process_time

from tests.tui.driving import dashboard
from tests.tui.fakes import FakeControls, attack, many_sources, snapshot

COUNT = 100_000
MOST_CPU_S = 2.0
"""Time on a core in which a key is answered or a tick drawn: twenty times what it takes."""


async def test_a_hundred_thousand_sources_are_searched_sorted_marked_and_blocked(
    controls: FakeControls,
) -> None:
    crowd = many_sources(COUNT)
    loudest = crowd.address(int(crowd.pps.argmax()))
    async with dashboard(snapshot(sources=crowd), size=(120, 30), controls=controls) as running:
        await running.press("2")
        assert running.addresses[0] == str(loudest)
        steps = (("s",), ("S",), ("G",), ("pageup",), ("F",), ("F",), ("/", *"pps:>1k", "enter"),
                 ("escape",), ("g", "v"), ("down", "v"), ("enter",), ("escape",))  # fmt: skip
        for keys in steps:
            began_s = process_time()
            await running.press(*keys)
            assert process_time() - began_s < MOST_CPU_S * len(keys), keys
        assert "100,000 sources" in running.lines[1]
        for sequence in (1, 2):
            began_s = process_time()
            await running.tick(attack(sequence, sources=many_sources(COUNT, seed=sequence)))
            assert process_time() - began_s < MOST_CPU_S
        await running.press("b", "enter")
        await running.until(lambda: controls.calls)
        assert len(controls.calls[0][1]) == 2
