# SPDX-License-Identifier: Apache-2.0
"""The last minute of the sources: exact for who sends most, one row for the rest."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpftop.model import Clock, Prefix, Snapshot
from ebpftop.screens.source_history import KEPT_S, MOST_ROWS, SourceHistory, in_prefix
from tests.tui.fakes import Talker, many_sources, snapshot, sources

A, B = Prefix.parse("10.0.0.1"), Prefix.parse("10.0.0.2")


def at(second: float, *talkers: Talker, interval_s: float | None = 1.0) -> Snapshot:
    clock = Clock(round((1000 + second) * 1e9), 1.75e9 + second)
    return snapshot(
        round(second * 100), sources=sources(talkers), interval_s=interval_s, clock=clock
    )


def test_a_source_has_its_rates_of_each_tick_and_0_where_it_was_silent() -> None:
    history = SourceHistory()
    for second, pps in ((1, 100.0), (2, 0.0), (3, 300.0)):
        history = history.extended(at(second, Talker("10.0.0.1", pps=pps, dropped_pps=pps / 2)))
    series = history.of(A)
    assert series.pps.tolist() == [100.0, 0.0, 300.0]
    assert series.dropped_pps.tolist() == [50.0, 0.0, 150.0]
    assert history.of(B).pps.tolist() == [0.0, 0.0, 0.0]


def test_a_prefix_is_the_sum_of_what_lies_within() -> None:
    history = SourceHistory().extended(
        at(1, Talker("10.0.0.1", pps=1), Talker("10.0.0.2", pps=2), Talker("10.0.1.1", pps=4))
    )
    assert history.of(Prefix.parse("10.0.0.0/24")).pps.tolist() == [3.0]
    assert history.of(Prefix.parse("10.0.0.0/8")).pps.tolist() == [7.0]


def test_means_weigh_ticks_by_their_lengths() -> None:
    history = SourceHistory()
    for second, pps, length_s in ((1, 100.0, 1.0), (4, 400.0, 3.0), (5, 0.0, 1.0)):
        history = history.extended(at(second, Talker("10.0.0.1", pps=pps), interval_s=length_s))
    series = history.of(A)
    assert series.mean(series.pps, 60.0) == pytest.approx((100 + 1200 + 0) / 5)
    assert series.mean(series.pps, 2.0) == pytest.approx((1200 + 0) / 4)
    assert series.mean(series.pps, 1.0) == 0.0
    empty = SourceHistory().of(A)
    assert empty.mean(empty.pps, 10.0) is None


def test_what_is_older_than_a_minute_goes() -> None:
    history = SourceHistory()
    for second in range(1, 100):
        history = history.extended(at(second, Talker("10.0.0.1")))
    assert len(history.ticks) == KEPT_S


def test_a_first_snapshot_and_a_hurried_one_have_no_tick() -> None:
    history = SourceHistory().extended(at(1, Talker("10.0.0.1"), interval_s=None))
    assert not history.extended(at(1.01, Talker("10.0.0.1"), interval_s=0.01)).ticks


def test_a_snapshot_that_comes_twice_counts_once() -> None:
    history = SourceHistory().extended(at(1, Talker("10.0.0.1")))
    assert len(history.extended(at(1, Talker("10.0.0.1"))).ticks) == 1


def test_the_busiest_have_rows_and_all_others_are_one_sum() -> None:
    many = snapshot(sources=many_sources(3 * MOST_ROWS), interval_s=1.0)
    (tick,) = SourceHistory().extended(many).ticks
    assert len(tick.pps) == MOST_ROWS
    total = float(np.nansum(many.sources.pps))
    assert float(tick.pps.sum()) + tick.rest[0] == pytest.approx(total, rel=1e-5)
    others = np.sort(np.nan_to_num(many.sources.pps))[:-MOST_ROWS]
    assert float(tick.pps.min()) >= float(others.max())


def test_quick_ticks_keep_fewer_rows_so_that_memory_is_bounded() -> None:
    many = snapshot(sources=many_sources(3 * MOST_ROWS), interval_s=0.1)
    (tick,) = SourceHistory().extended(many).ticks
    assert len(tick.pps) == MOST_ROWS // 5


@given(
    st.integers(0, 128),
    st.lists(st.ip_addresses(v=6).map(str), min_size=1, max_size=20),
    st.integers(0, 19),
)
def test_in_prefix_agrees_with_ipaddress(length: int, texts: list[str], pick: int) -> None:
    base = ipaddress.IPv6Address(texts[pick % len(texts)])
    network = ipaddress.ip_network((base, length), strict=False)
    value = int(network.network_address)
    prefix = Prefix(value >> 64, value & (1 << 64) - 1, length)
    numbers = [int(ipaddress.IPv6Address(text)) for text in texts]
    high = np.array([n >> 64 for n in numbers], np.uint64)
    low = np.array([n & (1 << 64) - 1 for n in numbers], np.uint64)
    found = in_prefix(high, low, prefix).tolist()
    assert found == [ipaddress.IPv6Address(text) in network for text in texts]
