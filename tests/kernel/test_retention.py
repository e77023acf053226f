# SPDX-License-Identifier: Apache-2.0
"""A flood of ever new sources must not push those out that really send."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
import pytest

from ebpftop.bpf import layout
from ebpftop.config import (
    CapacityPolicy,
    LimitPolicy,
    Policy,
    PositiveSeconds,
    ProtectionPolicy,
    Seconds,
)
from ebpftop.lab import flood, send_udp
from ebpftop.model import Prefix
from tests.kernel.observing import columns_of
from tests.kernel.stage import Stage, staged, until

pytestmark = pytest.mark.kernel

SOURCES_A_HOST = 250
FLOOD_S = 4.0
LIMIT_PPS, BURST_S = 50, 0.5
ACTIVE_NS = 2 * 10**9


def fill(stage: Stage) -> None:
    """Fill the table with sources that will not send again."""
    table = stage.instance.maps["ip_tracker"]
    keys = np.zeros(table.max_entries, layout.ADDRESS)
    keys["low"] = Prefix.parse("172.16.0.0").low + np.arange(len(keys))
    rows = np.zeros(len(keys), layout.SOURCE)
    rows["first_ns"] = rows["last_ns"] = time.monotonic_ns()
    table.put_all(keys, rows)


def rows_of(stage: Stage, addresses: list[str]) -> dict[str, np.ndarray]:
    """Return the rows of these sources; one that has none is all zeros."""
    keys, rows = stage.instance.maps["ip_tracker"].read()
    at = {int(low): number for number, low in enumerate(keys["low"].tolist())}
    found = np.zeros(len(addresses), layout.SOURCE)
    for number, address in enumerate(addresses):
        if (row := at.get(Prefix.parse(address).low)) is not None:
            found[number] = rows[row]
    return columns_of(found)


@pytest.mark.parametrize(
    ("sources", "mode", "over_budget"),
    [(CapacityPolicy().sources, "native", "pass"), (16_384, "generic", "drop")],
)
def test_who_sends_keeps_row_and_limit_through_a_spoofed_flood(
    sources: int, mode: str, over_budget: Literal["pass", "drop"]
) -> None:
    policy = Policy(
        limits=LimitPolicy(pps=LIMIT_PPS, burst_s=PositiveSeconds(BURST_S), block_for_s=Seconds(0)),
        capacity=CapacityPolicy(sources=sources),
        protection=ProtectionPolicy(over_budget=over_budget),
    )
    with staged(policy, mode=mode, clients=4) as stage:
        # GIVEN a full table, steady senders, and one of them far over its limit
        server, (*steady, loud) = stage.lab.server, stage.lab.clients
        fill(stage)
        innocent = []
        for host in steady:
            added = host.add_addresses(SOURCES_A_HOST)
            send_udp(host, server.ipv4, 2 * SOURCES_A_HOST, sources=added)
            innocent += added
        send_udp(loud, server.ipv4, 4 * LIMIT_PPS)
        until(lambda: (rows_of(stage, [*innocent, loud.ipv4])["first_ns"] > 0).all())
        before, totals_before = rows_of(stage, innocent), stage.snapshot().totals
        loud_before = stage.row(loud.ipv4)

        # WHEN new sources come as fast as one core can make them up
        sent = flood(stage.lab.attacker, server, "spoofed", seconds=FLOOD_S).wait(30)
        ended_ns = time.monotonic_ns()
        after, totals = rows_of(stage, innocent), stage.snapshot().totals
        loud_after = stage.row(loud.ipv4)

        # THEN the rows of all who sent lately are the same rows, and the limit went on
        active = after["last_ns"] + np.uint64(ACTIVE_NS) > ended_ns
        kept = (after["first_ns"] == before["first_ns"]) & active
        over_budget_drops = totals.drops["new-source"] - totals_before.drops["new-source"]
        print(
            f"\n{sources:,} rows, {mode}: {sent['sent_packets']:,} spoofed packets at "
            f"{sent['sent_packets'] / sent['seconds']:,.0f} a second; {kept.sum()} of "
            f"{len(innocent)} active sources kept their rows, {over_budget_drops:,} packets "
            "were over the budget"
        )
        assert kept.sum() >= 0.99 * len(innocent)
        assert (after["passed_packets"][kept] > before["passed_packets"][kept]).all()
        assert after["dropped_packets"][kept].sum() == 0
        assert loud_after["first_ns"] == loud_before["first_ns"]
        lasted_s = (loud_after["last_ns"] - loud_after["first_ns"]) / 1e9
        allowed = LIMIT_PPS * (lasted_s + BURST_S)
        assert loud_after["passed_packets"] == pytest.approx(allowed, rel=0.05)
        assert loud_after["dropped_packets"] > loud_after["passed_packets"]

        # AND what was over the budget for new ones is counted as what became of it
        received = totals.received.packets - totals_before.received.packets
        assert received >= sent["sent_packets"] * 0.98
        dropped = totals.verdicts["dropped"].packets - totals_before.verdicts["dropped"].packets
        limited = loud_after["dropped_packets"] - loud_before["dropped_packets"]
        assert dropped == pytest.approx(over_budget_drops + limited, abs=50)
        if over_budget == "drop":
            assert over_budget_drops > 0.8 * sent["sent_packets"]
        else:
            assert over_budget_drops == 0
