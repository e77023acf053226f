# SPDX-License-Identifier: Apache-2.0
"""Classes under a ceiling, and what is remembered of addresses."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import ShaperFlag, Shaping
from ebpftop.model import Prefix
from tests.kernel.packets import (
    frame,
)
from tests.kernel.shaper import (
    BURST_BYTES,
    RATE_BPS,
    SECOND_NS,
    START_NS,
    TO_V4,
    TO_V6,
    V4,
    V6,
    Shaper,
    until_dropped,
)

pytestmark = pytest.mark.kernel


def family(shaper: Shaper, shaping: Shaping) -> tuple[int, int]:
    """Make a ceiling of 10,000 bytes over two classes; a byte takes 1 us on it, 2 on them.

    Returns:
        The slots of the ceiling and of the first class.
    """
    above = shaper.add(RATE_BPS, BURST_BYTES, shaping=shaping)
    half = layout.RESERVE_SHARES // 2
    fields: dict[str, Any] = {"parent": above + 1, "reserve": half, "shaping": shaping}
    one = shaper.add(RATE_BPS // 2, BURST_BYTES // 2, "198.51.100.0/24", **fields)
    shaper.add(RATE_BPS // 2, BURST_BYTES // 2, "2001:db8::/32", **fields)
    return above, one


def test_a_class_borrows_what_is_left_of_its_parent_and_leaves_the_others_theirs(
    shaper: Shaper,
) -> None:
    above, one = family(shaper, Shaping.POLICE)

    # WHEN one sends all it can at once: its own burst is 5 packets, and then nothing is to lend
    first = until_dropped(shaper, V4, wire_len=1000)
    assert len(first) == 5
    # THEN the other still has its own
    assert len(until_dropped(shaper, V6, wire_len=1000)) == 5
    # AND the ceiling holds for both together
    assert shaper.owed(above) == 10_000 * 1000 << 8

    # WHEN it alone goes on for a second, faster than its own half
    shaper.now_ns += SECOND_NS
    passed = 0
    for _ in range(2000):
        passed += shaper.passes(V4, wire_len=1000)
        shaper.now_ns += SECOND_NS // 2000
    # THEN it has the whole of the parent's rate
    assert passed == pytest.approx(1000, abs=11)
    assert shaper.stats(one)["borrowed_bytes"] == pytest.approx(500_000, rel=0.05)


def test_two_greedy_classes_share_their_ceiling_by_what_they_were_promised(shaper: Shaper) -> None:
    family(shaper, Shaping.POLICE)
    passed = {V4: 0, V6: 0}

    for _ in range(2000):
        for packet in (V4, V4, V6):
            passed[packet] += shaper.passes(packet, wire_len=1000)
        shaper.now_ns += SECOND_NS // 1000

    # Two seconds at 1,000 packets a second, and the burst once
    assert sum(passed.values()) == pytest.approx(2010, abs=3)
    assert passed[V6] == pytest.approx(1000, rel=0.02)


def test_paced_classes_share_a_ceiling_too(shaper: Shaper) -> None:
    family(shaper, Shaping.PACE)

    leaves = [shaper.run(V4, wire_len=1000).tstamp - START_NS for _ in range(8)]
    other = [shaper.run(V6, wire_len=1000).tstamp - START_NS for _ in range(5)]

    # Its own five at once, then one each 2 ms; the other's five meet a ceiling that owes 3,000
    assert leaves == [0] * 5 + [2_000_000, 4_000_000, 6_000_000]
    assert other == [0, 0, 1_000_000, 2_000_000, 3_000_000]


# What is sent


def sent(shaper: Shaper, text: str) -> tuple[int, int] | None:
    """Return the packets and bytes that were sent to an address, None where it has no row."""
    prefix = Prefix.parse(text)
    found = shaper.maps["sent_to"].get((prefix.high, prefix.low))
    return None if found is None else (int(found["packets"][0]), int(found["bytes"][0]))


def test_what_is_sent_to_each_address_is_counted_behind_a_switch(shaper: Shaper) -> None:
    shaper.configure(flags=0)
    assert shaper.passes(V4)
    assert sent(shaper, TO_V4) is None

    shaper.configure(flags=ShaperFlag.COUNT_SENT)
    for _ in range(3):
        assert shaper.passes(V4)
        assert shaper.passes(V6)
    assert sent(shaper, TO_V4) == (3, 3 * len(V4))
    assert sent(shaper, TO_V6) == (3, 3 * len(V6))


def test_what_is_dropped_is_not_counted_as_sent(shaper: Shaper) -> None:
    shaper.add(RATE_BPS, BURST_BYTES, TO_V4)
    shaper.configure(flags=ShaperFlag.EGRESS | ShaperFlag.COUNT_SENT)

    passed = until_dropped(shaper, V4, wire_len=1000)

    assert sent(shaper, TO_V4) == (len(passed), len(passed) * 1000)


def test_strangers_are_not_remembered_on_ingress(shaper: Shaper) -> None:
    shaper.add(RATE_BPS, BURST_BYTES, "192.0.2.0/24", direction="ingress")
    for number in range(50):
        shaper.passes(frame(str(ipaddress.ip_address(0x0A000000 + number))), "ingress")
    shaper.passes(V4, "ingress")

    assert len(shaper.maps["ingress_cache"].read()[0]) == 1
