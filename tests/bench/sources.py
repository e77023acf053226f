# SPDX-License-Identifier: Apache-2.0
"""New sources, and a million of them at random: each packet a run of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from ebpftop.kernel.instance import PIPELINE
from tests.bench.figures import Row
from tests.bench.instances import FIRST_SOURCE, attached, fill_sources, xdp_filter
from tests.bench.paths import XDP, XDP_PASS, Path, empty_program, measure, rows
from tests.bench.protection import BLOCKED, FRESH, KNOWN, no_xdp_filter, packets_from
from tests.bench.registry import Effort, measurement
from tests.kernel.packets import frame

MANY = 1_000_000


def at_random(count: int, seed: int = 1) -> Iterator[bytes]:
    """Yield packets of sources that `fill_sources` made, without end."""
    packet, generator = frame(KNOWN), np.random.default_rng(seed)
    head, tail, pack = packet[:26], packet[30:], struct.Struct("!I").pack
    while True:
        for number in (FIRST_SOURCE + generator.integers(0, count, 4096)).tolist():
            yield head + pack(number) + tail


@measurement(
    "sources",
    "New sources, and many at random",
    place=12,
    note="Each packet is a run of its own, so that each comes from another source; an empty"
    " program that was given the same packets in the same way is taken off. Between two runs"
    " the caches are used by the caller, which a busy interface would not let happen.",
)
def sources(effort: Effort) -> Sequence[Row]:
    """Measure the first packets of sources, and packets of a million known ones."""
    with attached(sources=2 * MANY) as (lab, instance), xdp_filter(lab.clients[0], BLOCKED) as peer:
        program = instance.programs[PIPELINE]
        fill_sources(instance, MANY)
        empty = Path(
            "empty XDP program, singly", empty_program(XDP), at_random(MANY), XDP_PASS, single=True
        )
        hot = Path("one hot source, singly", program, [frame(KNOWN)], XDP_PASS, single=True)
        many = Path(f"{MANY:,} sources", program, at_random(MANY), XDP_PASS, single=True)
        new = Path(
            "new source", program, packets_from("100.64.0.0", FRESH), XDP_PASS, single=True
        )  # fmt: skip
        paths, peers = [hot, many, new], {}
        if peer is not None:
            given = at_random(MANY)
            passes = Path("xdp-filter, pass", peer, given, XDP_PASS, single=True)
            peers = {many.name: passes}
            paths.append(passes)
        measure([empty, *paths], effort.rounds)
        found = rows(empty, paths, peers=peers)
        return found if peer is not None else [*found, no_xdp_filter()]
