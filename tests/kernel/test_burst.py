# SPDX-License-Identifier: Apache-2.0
"""The burst in force: the operator's, or what the limits need at the least."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ebpftop.bpf import layout
from ebpftop.model import Limits
from tests.kernel.stage import Stage, staged

pytestmark = pytest.mark.kernel

SECOND = 10**9 << layout.LIMITER_SHIFT


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(clients=0) as attached:
        yield attached


@pytest.mark.parametrize(
    ("limits", "burst"),
    [
        (Limits(pps=1000, burst_s=1.0), SECOND),
        (Limits(pps=1, burst_s=1.0), 3 * SECOND),
        (Limits(syn=2, burst_s=0.5), 3 * SECOND // 2),
        (Limits(bps=8000, burst_s=1.0), 3 * 1514 * SECOND // 1000),
        (Limits(pps=10**9, burst_s=1e-6), round(2 * time.clock_getres(6) * SECOND)),
    ],
)
def test_a_burst_holds_three_packets_and_two_ticks_at_the_least(
    stage: Stage, limits: Limits, burst: int
) -> None:
    stage.control.set_limits(limits)

    config = stage.instance.maps["config"].read()[1]
    assert int(config["burst"][0]) == pytest.approx(burst, rel=1e-6)
    # AND the operator reads what he wrote
    assert layout.limits(config).burst_s == limits.burst_s
