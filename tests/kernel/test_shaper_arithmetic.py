# SPDX-License-Identifier: Apache-2.0
"""The token bucket against an exact one: any rate, burst, lengths and idle times."""

from __future__ import annotations

import os
import threading
import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import Shaping
from ebpftop.kernel import libbpf
from tests.kernel.packets import frame, udp
from tests.kernel.shaper import SECOND_NS, START_NS, Shaper, loaded

pytestmark = pytest.mark.kernel

PACKET = frame("192.0.2.1", udp(b"x" * 18))
"""As short as they come; the context says how long it is on the wire."""
LINE_NS = Fraction(1, 1 << layout.TIME_SHIFT)
YEAR_NS = 365 * 86_400 * SECOND_NS
SLOWEST_BPS, FASTEST_BPS = 8_000, 100_000_000_000


class ExactBucket:
    """A token bucket in rational numbers.

    Args:
        rate_bps: Bits a second.
        burst_bytes: What it holds when full.
    """

    def __init__(self, rate_bps: int, burst_bytes: int) -> None:
        self._byte_ns = Fraction(8 * SECOND_NS, rate_bps)
        self._burst_ns = burst_bytes * self._byte_ns
        self._owed_ns = Fraction(0)
        self._spent_ns = Fraction(0)
        self._packets = 1

    @property
    def owed_ns(self) -> Fraction:
        """Line time that is owed."""
        return self._owed_ns

    @property
    def tolerance_ns(self) -> Fraction:
        """What the programs may be off by: half a unit a packet, and the rate's own rounding."""
        rounding = self._packets * LINE_NS / 2 + 2 * LINE_NS
        return rounding + (self._spent_ns + self._burst_ns) * Fraction(4, 10**7)

    def idle(self, span_ns: int) -> None:
        """Let time go by."""
        self._owed_ns = max(Fraction(0), self._owed_ns - span_ns)

    def margin_ns(self, length: int) -> Fraction:
        """Return how far a packet is within the rate; below zero it is over it."""
        cost = min(length * self._byte_ns, self._burst_ns)
        return self._burst_ns - cost - self._owed_ns

    def charge(self, length: int) -> None:
        """Put a packet on the bucket."""
        self._owed_ns += length * self._byte_ns
        self._spent_ns += length * self._byte_ns
        self._packets += 1


rates = st.integers(SLOWEST_BPS, FASTEST_BPS) | st.sampled_from(
    [SLOWEST_BPS, 1_000_000, 999_999_937, FASTEST_BPS]
)
lengths = st.integers(60, 65_536) | st.sampled_from([60, 1514, 65_536])
idles = (
    st.integers(0, 10 * SECOND_NS)
    | st.integers(0, 2000)
    | st.sampled_from([0, SECOND_NS, YEAR_NS, YEAR_NS - 1])
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rate_bps=rates,
    burst_bytes=st.integers(60, 1 << 21),
    steps=st.lists(st.tuples(idles, lengths), min_size=1, max_size=25),
    start_ns=st.sampled_from([START_NS, (1 << 55) - 3 * SECOND_NS]),
)
def test_every_verdict_and_every_balance_is_that_of_the_exact_bucket(
    shaper: Shaper,
    rate_bps: int,
    burst_bytes: int,
    steps: list[tuple[int, int]],
    start_ns: int,
) -> None:
    shaper.reset()
    shaper.now_ns = start_ns
    slot = shaper.add(rate_bps, burst_bytes, "198.51.100.1")
    exact = ExactBucket(rate_bps, burst_bytes)
    for idle_ns, length in steps:
        shaper.now_ns += idle_ns
        exact.idle(idle_ns)
        margin_ns = exact.margin_ns(length)
        passed = shaper.passes(PACKET, wire_len=length)
        if abs(margin_ns) > exact.tolerance_ns:
            assert passed == (margin_ns > 0), (margin_ns, exact.tolerance_ns)
        if passed:
            exact.charge(length)
        assert abs(shaper.owed(slot) * LINE_NS - exact.owed_ns) <= exact.tolerance_ns


@pytest.mark.parametrize("idle_ns", [SECOND_NS, YEAR_NS])
@pytest.mark.parametrize("rate_bps", [SLOWEST_BPS, 10**9, FASTEST_BPS])
def test_idleness_fills_the_bucket_to_its_burst_and_no_further(
    shaper: Shaper, rate_bps: int, idle_ns: int
) -> None:
    # GIVEN a bucket of ten packets (a second's worth at the slowest rate) that is empty
    slot = shaper.add(rate_bps, 1000, "198.51.100.1")
    assert shaper.passes(PACKET, wire_len=1000)
    assert not shaper.passes(PACKET, wire_len=100)

    # WHEN nothing comes for a long time
    shaper.now_ns += idle_ns

    # THEN it gives its burst once
    assert [shaper.passes(PACKET, wire_len=100) for _ in range(11)] == [True] * 10 + [False]
    assert shaper.owed(slot) == pytest.approx(layout.line_time(1000, rate_bps), abs=10)


def test_a_class_polled_by_a_flood_still_earns_its_rate(shaper: Shaper) -> None:
    # GIVEN 125,000 bytes a second, of which a packet of a flood of 200 kpps earns 0.6 bytes
    slot = shaper.add(1_000_000, 1500, "198.51.100.1")
    packets, apart_ns = 30_000, 5_000

    # WHEN the flood goes on
    passed = 0
    for _ in range(packets):
        passed += shaper.passes(PACKET, wire_len=100)
        shaper.now_ns += apart_ns

    # THEN what passes is the rate, and the burst once
    seconds = packets * apart_ns / SECOND_NS
    assert passed * 100 == pytest.approx(125_000 * seconds + 1500, abs=100)
    assert shaper.stats(slot)["dropped_packets"] == packets - passed


def test_a_packet_larger_than_the_burst_takes_the_balance_below_zero_once(shaper: Shaper) -> None:
    slot = shaper.add(8_000_000, 10_000, "198.51.100.1")

    assert shaper.passes(PACKET, wire_len=64_000)
    assert shaper.owed(slot) == layout.line_time(64_000, 8_000_000)
    assert not shaper.passes(PACKET, wire_len=64_000)
    shaper.now_ns += 54 * SECOND_NS // 1000  # a byte takes 1 us; 10,000 are owed still
    assert not shaper.passes(PACKET, wire_len=60)
    shaper.now_ns += 10 * SECOND_NS // 1000
    assert shaper.passes(PACKET, wire_len=64_000)


def test_on_two_cores_a_class_passes_its_rate_and_no_more() -> None:
    with loaded(test_clock=False) as shaper:
        # GIVEN an empty bucket that holds a second's worth, so that none of it overflows while
        # the cores do something else
        rate_bps, burst_bytes = 400_000_000, 50_000_000
        slot = shaper.add(rate_bps, burst_bytes, "198.51.100.1")

        def pound(cpu: int) -> None:
            os.sched_setaffinity(0, {cpu})
            for _ in range(10):
                libbpf.run_program(shaper.programs[1], PACKET, repeat=300_000)

        started_ns = time.monotonic_ns()
        shaper.set_time(slot, (started_ns + SECOND_NS) << layout.TIME_SHIFT)
        cores = [threading.Thread(target=pound, args=(c,)) for c in os.sched_getaffinity(0)]
        for core in cores:
            core.start()
        for core in cores:
            core.join()
        seconds = (time.monotonic_ns() - started_ns) / 1e9

        counted = shaper.stats(slot)
        passed = counted["bytes"] - counted["dropped_bytes"]
        assert counted["packets"] == len(cores) * 10 * 300_000
        assert counted["dropped_packets"] > counted["packets"] / 2
        # The last core ends a little before the clock is read.
        assert 0.97 * rate_bps / 8 * seconds <= passed
        assert passed <= rate_bps / 8 * seconds + len(cores) * len(PACKET)


def test_pacing_lets_a_burst_go_and_spaces_what_follows_by_the_rate(shaper: Shaper) -> None:
    shaper.add(1_000_000, 1250, "198.51.100.1", shaping=Shaping.PACE)

    leaves = [shaper.run(PACKET, wire_len=1014).tstamp - START_NS for _ in range(4)]

    # 1014 bytes at 125,000 bytes a second take 8,112,000 ns; the burst is 10 ms.
    assert leaves == [0, 6_224_000, 14_336_000, 22_448_000]
