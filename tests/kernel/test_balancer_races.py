# SPDX-License-Identifier: Apache-2.0
"""Two processors at once: turns stay exact, flows end once, counts return to zero."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from ebpftop.bpf import layout
from ebpftop.kernel import libbpf
from tests.kernel.balancer import LEAST, RR, TX, WRR, Balancer, End, Vip, destination
from tests.kernel.frames import Shape
from tests.kernel.pipeline import Pipeline, loaded
from tests.kernel.test_concurrency import on_two_processors

pytestmark = pytest.mark.kernel

VIP = End("198.51.100.10", 80)
BACKENDS = [End(f"10.0.0.{number}", 8080) for number in (1, 2, 3)]
FLOWS = 4000


@pytest.fixture(scope="module")
def loaded_by_real_clock() -> Iterator[Pipeline]:
    with loaded(test_clock=False) as pipeline:
        yield pipeline


@pytest.fixture
def balancer(loaded_by_real_clock: Pipeline) -> Balancer:
    loaded_by_real_clock.reset()
    return Balancer(loaded_by_real_clock)


def client(number: int, worker: int = 0) -> End:
    return End(f"192.0.{2 + worker}.{number >> 12}", number & 0xFFF | 0x1000)


def frames(ends: list[End], flags: str) -> list[bytes]:
    return [Shape(end, VIP, flags).to_bytes() for end in ends]


def opened_and_closed(balancer: Balancer, slots: list[int]) -> tuple[int, int]:
    counts = [balancer.counts("backend_stats", slot) for slot in slots]
    return (
        sum(counted.get("opened", 0) for counted in counts),
        sum(counted.get("closed", 0) for counted in counts),
    )


@pytest.mark.parametrize(
    ("algorithm", "weights", "off"),
    [(RR, (1, 1, 1), 1), (WRR, (2, 1, 1), 1), (LEAST, (1, 1, 1), 2), (LEAST, (2, 1, 1), 2)],
)
def test_new_flows_are_shared_out_right_on_two_processors(
    balancer: Balancer, algorithm: int, weights: tuple[int, ...], off: int
) -> None:
    """By turns that is exact; by flows, each processor may not see the other's newest."""
    vip = balancer.vip(VIP, BACKENDS, weights=weights, algorithm=algorithm)
    requests = [frames([client(n, w) for n in range(FLOWS)], "S") for w in (0, 1)]

    def work(number: int) -> None:
        for frame in requests[number]:
            libbpf.run_program(balancer.pipeline.program, frame)

    on_two_processors(work)
    assert sum(balancer.flows().values()) == 2 * FLOWS
    for slot, weight in zip(vip.backends, weights, strict=True):
        exact = 2 * FLOWS * weight / sum(weights)
        assert abs(balancer.flows()[slot] - exact) <= off


def test_the_same_flows_on_two_processors_are_opened_once(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    requests = frames([client(n) for n in range(FLOWS)], "S")

    def work(number: int) -> bytes:
        """The last byte of where each went, short enough for the pipe between us."""
        sent = (libbpf.run_program(balancer.pipeline.program, frame)[1] for frame in requests)
        return bytes(int(destination(after).rpartition(".")[2]) for after in sent)

    first, second = on_two_processors(work)
    assert first == second
    assert sum(balancer.flows().values()) == FLOWS
    assert opened_and_closed(balancer, list(vip.backends)) == (FLOWS, 0)
    placed = Counter(f"10.0.0.{byte}" for byte in first)
    assert {end.address: balancer.flows()[s] for s, end in vip.backends.items()} == placed


def test_flows_that_both_ends_close_at_once_end_once(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS, algorithm=LEAST)
    ends = [client(n) for n in range(FLOWS)]
    placed = {}
    for end, frame in zip(ends, frames(ends, "S"), strict=True):
        placed[end] = next(e for e in BACKENDS if e.address == balancer.placed(frame))
    closing = (
        frames(ends, "FA"),
        [Shape(placed[end], end, "FA").to_bytes() for end in ends],
    )

    def work(number: int) -> None:
        for frame in closing[number]:
            assert libbpf.run_program(balancer.pipeline.program, frame)[0] == TX

    on_two_processors(work)
    assert balancer.flows() == {}
    assert opened_and_closed(balancer, list(vip.backends)) == (FLOWS, FLOWS)
    assert {state for _, _, state, _ in balancer.connections()} == {"closed", "reply"}


def test_counts_return_to_zero_whatever_happens_in_whatever_order(balancer: Balancer) -> None:
    """GIVEN few ports that both processors use THEN opened - closed is the count, and ends at 0."""
    vip = balancer.vip(VIP, BACKENDS)
    ends = [client(n) for n in range(20)]
    pool = [
        *(frame for flags in ("S", "S", "A", "FA", "R") for frame in frames(ends, flags)),
        *(
            Shape(backend, end, flags).to_bytes()
            for backend in BACKENDS for end in ends for flags in ("SA", "FA", "RA")
        ),
    ]  # fmt: skip

    def work(number: int) -> None:
        chance = random.Random(number)
        for _ in range(20_000):
            libbpf.run_program(balancer.pipeline.program, chance.choice(pool))

    on_two_processors(work)
    open_flows = sum(state not in ("closed", "reply") for _, _, state, _ in balancer.connections())
    opened, closed = opened_and_closed(balancer, list(vip.backends))
    assert sum(balancer.flows().values()) == open_flows == opened - closed
    assert opened > 1000
    for frame in frames(ends, "R"):
        balancer.run(frame)
    assert balancer.flows() == {}


def test_flows_move_once_and_end_once_while_backends_change(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    ends = [client(n) for n in range(200)]
    for frame in frames(ends, "S"):
        balancer.run(frame)
    acks = frames(ends, "A")

    def work(number: int) -> None:
        for turn in range(60):
            if number == 0:
                out = turn % 3 + 1
                balancer.ring(vip, [slot for slot in (1, 2, 3) if slot != out])
                for slot in (1, 2, 3):
                    balancer.write_backend(vip, slot, serves=slot != out)
            for frame in acks:
                libbpf.run_program(balancer.pipeline.program, frame)

    on_two_processors(work)
    assert sum(balancer.flows().values()) == len(ends)
    opened, closed = opened_and_closed(balancer, list(vip.backends))
    assert opened - closed == len(ends)
    assert opened > 2 * len(ends)
    for frame in frames(ends, "R"):
        balancer.run(frame)
    assert balancer.flows() == {}


def test_the_sweep_and_the_traffic_end_a_flow_once(balancer: Balancer) -> None:
    vip: Vip = balancer.vip(VIP, BACKENDS)
    ends = [client(n) for n in range(2000)]
    for frame in frames(ends, "S"):
        balancer.run(frame)
    resets = frames(ends, "R")
    ids = [(end.address, end.port, vip.id) for end in ends]

    def work(number: int) -> int:
        if number == 0:
            for frame in resets:
                libbpf.run_program(balancer.pipeline.program, frame)
            return 0
        return sum(
            balancer.end_flows(1 << 62, ids[at : at + layout.FLOWS_AT_ONCE])
            for at in range(0, len(ids), layout.FLOWS_AT_ONCE)
        )

    _, ended = sorted(on_two_processors(work))
    assert ended == len(ends)
    assert balancer.flows() == {}
    assert opened_and_closed(balancer, list(vip.backends)) == (2000, 2000)
