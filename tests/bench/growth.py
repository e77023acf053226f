# SPDX-License-Identifier: Apache-2.0
"""How the cost of a packet grows with what there is to remember; drawn as `growth.svg`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ebpftop.control.protection import ProtectionControl
from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import PIPELINE
from ebpftop.model import BlockRequest, Prefix
from tests.bench.balancing import CLIENT, from_ports
from tests.bench.figures import Row, over
from tests.bench.instances import FIRST_SOURCE, attached, fill_sources
from tests.bench.paths import XDP, XDP_DROP, XDP_PASS, XDP_TX, Path, empty_program, measure
from tests.bench.protection import FRESH, KNOWN, packets_from
from tests.bench.registry import Effort, measurement
from tests.bench.sources import at_random
from tests.kernel.balancer import LEAST, MAGLEV, Balancer, End
from tests.kernel.frames import Shape
from tests.kernel.packets import frame
from tests.kernel.pipeline import loaded

SOURCES = (10_000, 100_000, 1_000_000)
BLOCKS = (100, 1_000, 10_000, 100_000)
BACKENDS = (4, 40, 400)
CONNECTIONS = (1_000, 10_000, 100_000)


def _rows(name: str, effort: Effort, paths: dict[int, Path]) -> list[Row]:
    """Measure paths, by what there is of something, over an empty program run just so."""
    first = min(paths)
    packets = [frame(KNOWN)]
    empty = Path("empty", empty_program(XDP), packets, XDP_PASS, single=paths[first].single)
    measure([empty, *paths.values()], max(3, effort.rounds // 3))
    return [
        Row(f"{name}: {count:,}", "ns", over(path.samples, empty.samples),
            details={"line": name, "times": count // first})
        for count, path in paths.items()
    ]  # fmt: skip


def _sources(effort: Effort) -> list[Row]:
    answer: list[Row] = []
    with attached(sources=2 * max(SOURCES)) as (_, instance):
        for count in SOURCES:
            fill_sources(instance, count)
            program = instance.programs[PIPELINE]
            path = Path("known", program, at_random(count), XDP_PASS, single=True)
            answer += _rows("known sources, at random", effort, {count: path})
    return _from_the_first(answer, SOURCES)


def _blocks(effort: Effort) -> list[Row]:
    answer: list[Row] = []
    with attached() as (_, instance):
        for count in BLOCKS:
            low = (0xFFFF << 32) | FIRST_SOURCE
            requests = [BlockRequest(Prefix(0, low + n), None) for n in range(count)]
            ProtectionControl(instance).block_all(requests, override=True)
            program = instance.programs[PIPELINE]
            for packet in packets_from("10.0.0.0", count):
                libbpf.run_program(program, packet)
            path = Path("blocked", program, at_random(count), XDP_DROP, single=True)
            answer += _rows("blocked addresses, at random", effort, {count: path})
    return _from_the_first(answer, BLOCKS)


def _from_the_first(rows: Sequence[Row], counts: Sequence[int]) -> list[Row]:
    """Return rows that were measured apart, each told how many times the first it is."""
    return [
        replace(row, details={**row.details, "times": count // counts[0]})
        for row, count in zip(rows, counts, strict=True)
    ]


def _backends(effort: Effort) -> list[Row]:
    answer = []
    with loaded(test_clock=False, CONNECTIONS=1 << 19) as pipeline:
        balancer = Balancer(pipeline)
        for algorithm, word in ((LEAST, "least"), (MAGLEV, "maglev")):
            paths = {}
            for at, count in enumerate(BACKENDS):
                port = 9000 + 10 * algorithm + at
                ends = [End(f"10.1.{n >> 8}.{n & 255}", port) for n in range(count)]
                vip = balancer.vip(End(f"198.51.100.{10 * algorithm + at}", 80), ends,
                                   algorithm=algorithm)  # fmt: skip
                opening = Shape(replace(CLIENT, address="192.0.2.10"), vip.end, "S").to_bytes()
                paths[count] = Path(word, pipeline.program, from_ports(opening), XDP_TX,
                                    single=True)  # fmt: skip
            answer += _rows(f"new flow over backends, {word}", effort, paths)
    return answer


def _connections(effort: Effort) -> list[Row]:
    generator = np.random.default_rng(1)
    client = replace(CLIENT, address="192.0.2.10")
    with loaded(test_clock=False, CONNECTIONS=1 << 19) as pipeline:
        balancer = Balancer(pipeline)
        paths = {}
        for at, count in enumerate(CONNECTIONS):
            backend = End("10.0.0.1", 9100 + at)
            vip = balancer.vip(End(f"198.51.100.{50 + at}", 80), [backend])
            opening = from_ports(Shape(client, vip.end, "S").to_bytes())[:count]
            answer = Shape(backend, client, "SA").to_bytes()
            for packet in opening:
                balancer.run(packet)
                back = answer[:30] + packet[26:30] + answer[34:36] + packet[34:36] + answer[38:]
                balancer.run(back)
            talking = from_ports(Shape(client, vip.end, "A").to_bytes())[:count]
            chosen = [talking[n] for n in generator.integers(0, count, FRESH)]
            paths[count] = Path("flows", pipeline.program, chosen, XDP_TX, single=True)
        return _rows("established connections, at random", effort, paths)


@measurement(
    "growth",
    "How cost grows",
    place=70,
    note="Nanoseconds over an empty program, each packet a run of its own, from another of all the"
    " sources, blocks or connections there are: what grows is what the caches do not hold. Of many"
    " connections, each packet is the first of its flow for a second, which is stamped then.",
)
def growth(effort: Effort) -> Sequence[Row]:
    """Measure how packets cost more where there is more to remember."""
    return [*_sources(effort), *_blocks(effort), *_backends(effort), *_connections(effort)]
