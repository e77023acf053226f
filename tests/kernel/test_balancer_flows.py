# SPDX-License-Identifier: Apache-2.0
"""Where new flows go, what becomes of them, and how many each backend has."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from ebpftop.bpf.layout import Flag
from tests.kernel.balancer import (
    DROP,
    LEAST,
    MAGLEV,
    RR,
    STATES,
    TX,
    WRR,
    Balancer,
    End,
    Vip,
    destination,
)
from tests.kernel.frames import Shape
from tests.kernel.packets import UDP
from tests.kernel.pipeline import SECOND_NS, Pipeline

pytestmark = pytest.mark.kernel

VIP = End("198.51.100.10", 80)
BACKENDS = [End(f"10.0.0.{number}", 8080) for number in (1, 2, 3)]
UDP_VIP = replace(VIP, protocol=UDP)
UDP_BACKENDS = [replace(end, protocol=UDP) for end in BACKENDS]


@pytest.fixture
def balancer(pipeline: Pipeline) -> Balancer:
    return Balancer(pipeline)


class Talk:
    """One client's flow with a VIP, packet by packet."""

    def __init__(self, balancer: Balancer, vip: Vip, port: int, client: str = "192.0.2.1") -> None:
        self.balancer, self.vip, self.port = balancer, vip, port
        self.client = End(client, port, vip.end.protocol)
        self.backend: End | None = None

    def send(self, flags: str = "A") -> str:
        """Send to the VIP; returns the address of the backend it went to."""
        to = self.balancer.placed(Shape(self.client, self.vip.end, flags).to_bytes())
        (self.backend,) = {end for end in self.vip.backends.values() if end.address == to}
        return to

    def answer(self, flags: str = "A") -> int:
        """Answer from the backend; returns the action."""
        assert self.backend is not None
        return self.balancer.run(Shape(self.backend, self.client, flags).to_bytes())[0]

    def open(self) -> str:
        """Shake hands."""
        to = self.send("S")
        assert self.answer("SA") == TX
        assert self.send("A") == to
        return to

    @property
    def state(self) -> str:
        return self.balancer.state(self.port)

    @property
    def slot(self) -> int:
        (slot,) = [s for s, end in self.vip.backends.items() if end == self.backend]
        return slot


def test_turns_go_round(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    placed = [Talk(balancer, vip, 1000 + i).send("S") for i in range(9)]
    assert placed == [end.address for end in BACKENDS] * 3
    assert balancer.flows() == {1: 3, 2: 3, 3: 3}


def test_weighted_turns_keep_their_weights(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS, weights=[5, 1, 1], algorithm=WRR)
    placed = Counter(Talk(balancer, vip, 1000 + i).send("S") for i in range(70))
    assert placed == {"10.0.0.1": 50, "10.0.0.2": 10, "10.0.0.3": 10}


def test_the_fewest_flows_for_the_weight_get_the_next(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS, weights=[2, 1, 1], algorithm=LEAST)
    talks = [Talk(balancer, vip, 1000 + i) for i in range(40)]
    placed = Counter(talk.send("S") for talk in talks)
    assert placed == {"10.0.0.1": 20, "10.0.0.2": 10, "10.0.0.3": 10}
    # WHEN one backend's flows end THEN it gets the next ones
    for talk in talks:
        if talk.backend == BACKENDS[1]:
            talk.send("R")
    assert balancer.flows() == {1: 20, 3: 10}
    assert {Talk(balancer, vip, 2000 + i).send("S") for i in range(9)} == {"10.0.0.2"}


def test_maglev_places_by_the_client_alone(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS, algorithm=MAGLEV)
    first = [Talk(balancer, vip, port).send("S") for port in range(1, 1001)]
    balancer.maps["connections"].delete_all(balancer.maps["connections"].read()[0].copy())
    assert [Talk(balancer, vip, port).send("S") for port in range(1, 1001)] == first
    shares = Counter(first)
    assert all(shares[end.address] == pytest.approx(333, abs=60) for end in BACKENDS)


def test_taking_one_of_three_out_of_maglev_moves_its_flows_alone(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS, algorithm=MAGLEV)
    first = [Talk(balancer, vip, port).send("S") for port in range(1, 1001)]
    balancer.maps["connections"].delete_all(balancer.maps["connections"].read()[0].copy())
    balancer.ring(vip, [1, 3], previous=True)
    second = [Talk(balancer, vip, port).send("S") for port in range(1, 1001)]
    assert {b for a, b in zip(first, second, strict=True) if a == "10.0.0.2"} == {
        "10.0.0.1", "10.0.0.3",
    }  # fmt: skip
    assert all(a == b for a, b in zip(first, second, strict=True) if a != "10.0.0.2")


def test_ten_thousand_flows_through_maglev_keep_the_weights_and_one_of_five_moves_a_fifth(
    balancer: Balancer,
) -> None:
    weights, flows = [4, 2, 1, 1, 2], 10_000
    ends = [End(f"10.0.0.{number}", 8080) for number in range(1, 6)]
    vip = balancer.vip(VIP, ends, weights=weights, algorithm=MAGLEV)
    addresses = [end.address for end in ends]

    def placed() -> list[str]:
        table = balancer.maps["connections"]
        table.delete_all(table.read()[0].copy())
        return [
            balancer.placed(Shape(End(f"192.0.{2 + at % 7}.{at % 250}", 1024 + at), VIP, "S")
                            .to_bytes())
            for at in range(flows)
        ]  # fmt: skip

    # THEN shares are within 2 % of the weights
    first = placed()
    counted = Counter(first)
    for address, weight in zip(addresses, weights, strict=True):
        assert counted[address] / flows == pytest.approx(weight / sum(weights), abs=0.02), counted
    # AND WHEN one with a fifth of the weight is taken out, THEN a fifth moves and nothing else
    balancer.ring(vip, [1, 2, 3, 4], previous=True)
    second = placed()
    moved = [was for was, now in zip(first, second, strict=True) if was != now]
    assert set(moved) == {addresses[4]}
    assert len(moved) / flows == pytest.approx(1 / 5, abs=0.02)
    counted = Counter(second)
    for address, weight in zip(addresses, weights[:4], strict=False):
        assert counted[address] / flows == pytest.approx(weight / 8, abs=0.02), counted
    # AND WHEN it is back, only what it takes moves
    balancer.ring(vip, [1, 2, 3, 4, 5], previous=True)
    third = placed()
    assert {now for was, now in zip(second, third, strict=True) if was != now} == {addresses[4]}


def test_a_flow_keeps_its_backend_when_the_ring_changes(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talks = [Talk(balancer, vip, 1000 + i) for i in range(6)]
    before = [talk.open() for talk in talks]
    balancer.ring(vip, [1])
    assert [talk.send() for talk in talks] == before
    assert Talk(balancer, vip, 2000).open() == "10.0.0.1"


CLIENT, SERVER = "client", "server"
OPENED = [(CLIENT, "S", "syn-sent"), (SERVER, "SA", "syn-received"), (CLIENT, "A", "established")]


@pytest.mark.parametrize(
    "closing",
    [
        [(CLIENT, "FA", "fin-client"), (SERVER, "A", "fin-client"), (SERVER, "FA", "closed")],
        [(SERVER, "FA", "fin-backend"), (CLIENT, "A", "fin-backend"), (CLIENT, "FA", "closed")],
        [(CLIENT, "FA", "fin-client"), (CLIENT, "FA", "fin-client"), (SERVER, "FA", "closed")],
        [(SERVER, "FA", "fin-backend"), (SERVER, "FA", "fin-backend"), (CLIENT, "FA", "closed")],
        [(CLIENT, "R", "closed")],
        [(SERVER, "RA", "closed")],
        [(CLIENT, "FA", "fin-client"), (SERVER, "R", "closed")],
        [(CLIENT, "PA", "established"), (SERVER, "PA", "established"), (CLIENT, "RA", "closed")],
    ],
)
def test_tcp_states_and_the_count_end_exactly_once(
    balancer: Balancer, closing: list[tuple[str, str, str]]
) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    for who, flags, state in [*OPENED, *closing]:
        if who == CLIENT:
            talk.send(flags)
        else:
            assert talk.answer(flags) == TX
        assert talk.state == state
        assert balancer.flows() == ({} if state == "closed" else {1: 1})
    # Whatever comes late changes nothing.
    for flags in ("A", "FA", "R", "FA"):
        assert talk.send(flags) == "10.0.0.1"
        assert talk.answer(flags) == TX
    assert talk.state == "closed"
    assert balancer.flows() == {}
    assert balancer.counts("backend_stats", 1)["opened"] == 1
    assert balancer.counts("backend_stats", 1)["closed"] == 1


def test_a_client_alone_cannot_establish(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    talk.send("S")
    talk.send("A")
    assert talk.state == "syn-sent"


def test_a_retransmitted_request_stays_one_flow(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    assert {talk.send("S") for _ in range(5)} == {"10.0.0.1"}
    assert balancer.flows() == {1: 1}


def test_a_port_that_is_used_again_is_a_new_flow(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    talk.open()
    talk.send("R")
    assert talk.send("S") == "10.0.0.2"
    assert talk.state == "syn-sent"
    assert balancer.flows() == {2: 1}
    assert talk.answer("SA") == TX
    assert balancer.counts("vip_stats", 0)["opened"] == 2


def test_dsr_follows_the_client_alone(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, [replace(VIP, address=end.address) for end in BACKENDS], dsr=True)
    frames = [
        Shape(End("192.0.2.1", 1000), VIP, flags).to_bytes() for flags in ("S", "A", "FA", "A")
    ]
    states = []
    for frame in frames:
        action, after = balancer.run(frame)
        assert (action, destination(after)) == (TX, VIP.address)
        states.append(balancer.state(1000))
    assert states == ["syn-sent", "established", "closed", "closed"]
    assert balancer.flows() == {}
    assert len(balancer.connections()) == 1
    assert balancer.counts("vip_stats", vip.slot)["packets"] == 4


def test_the_middle_of_an_unknown_flow_is_placed_by_its_hash(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    placed = {port: Talk(balancer, vip, port).send("A") for port in range(1000, 1050)}
    assert len(set(placed.values())) == 3
    balancer.maps["connections"].delete_all(balancer.maps["connections"].read()[0].copy())
    assert {port: Talk(balancer, vip, port).send("A") for port in placed} == placed
    assert balancer.state(1000) == "established"


@pytest.mark.parametrize("flags", ["R", "RA", "FA"])
def test_an_end_without_a_beginning_leaves_no_entry(balancer: Balancer, flags: str) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    Talk(balancer, vip, 1000).send(flags)
    assert balancer.connections() == []
    assert balancer.flows() == {}


# Backends that leave


def test_a_draining_backend_keeps_its_flows_and_gets_no_new_one(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talks = [Talk(balancer, vip, 1000 + i) for i in range(6)]
    before = [talk.open() for talk in talks]
    balancer.ring(vip, [2, 3])
    assert [talk.send() for talk in talks] == before
    assert {Talk(balancer, vip, 2000 + i).send("S") for i in range(10)} == {"10.0.0.2", "10.0.0.3"}


def test_flows_of_a_backend_that_is_down_move_at_their_next_packet(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talks = [Talk(balancer, vip, 1000 + i) for i in range(6)]
    before = [talk.open() for talk in talks]
    balancer.ring(vip, [2, 3])
    balancer.write_backend(vip, 1, serves=False)
    old = [talk.backend for talk in talks]
    after = [talk.send() for talk in talks]
    assert all(a == b for a, b in zip(before, after, strict=True) if a != "10.0.0.1")
    assert "10.0.0.1" not in after
    assert balancer.flows() == {2: 3, 3: 3}
    # What the dead one still says is nobody's; the new one's answers reach the client.
    frame = Shape(BACKENDS[0], talks[0].client, "A").to_bytes()
    assert old[0] == BACKENDS[0]
    assert len([1 for c in balancer.connections() if c[2] == "reply"]) == 6
    assert talks[0].answer() == TX
    assert balancer.run(frame)[0] != TX


def test_the_count_is_zero_after_moved_flows_end(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talks = [Talk(balancer, vip, 1000 + i) for i in range(9)]
    for talk in talks:
        talk.open()
    balancer.ring(vip, [2, 3])
    balancer.write_backend(vip, 1, serves=False)
    for talk in talks:
        talk.send("PA")
        talk.send("FA")
        talk.answer("FA")
    assert balancer.flows() == {}
    for slot in (1, 2, 3):
        counted = balancer.counts("backend_stats", slot)
        assert counted["opened"] == counted["closed"] > 0


def test_without_a_living_backend_packets_are_dropped_and_counted(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    talk.open()
    balancer.ring(vip, [])
    for slot in (1, 2, 3):
        balancer.write_backend(vip, slot, serves=False)
    for flags in ("A", "S"):
        frame = Shape(End("192.0.2.1", 1000 if flags == "A" else 1001), VIP, flags).to_bytes()
        assert balancer.run(frame)[0] == DROP
    assert balancer.pipeline.totals()["drops"] == {"no-backend": 2}
    assert balancer.counts("vip_stats", 0)["dropped"] == 2
    assert balancer.counts("vip_stats", 0)["stranded"] == 2


def test_a_ring_of_all_where_none_lives_keeps_flows(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    to = talk.open()
    balancer.ring(vip, [1, 2, 3], reset=True)
    assert talk.send() == to
    assert Talk(balancer, vip, 1001).send("S") == "10.0.0.2"
    assert balancer.counts("vip_stats", 0)["stranded"] == 2


# Budgets and capacities


def test_over_the_budget_flows_are_placed_by_hash_and_answered(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    balancer.pipeline.configure(new_flows=2)
    talks = [Talk(balancer, vip, 1000 + i) for i in range(50)]
    placed = [talk.send("S") for talk in talks]
    assert [talk.send("S") for talk in talks] == placed
    assert sum(balancer.flows().values()) == 2
    assert len(balancer.connections()) == 4
    assert balancer.pipeline.shared()["stateless_ns"] == balancer.pipeline.now_ns
    # WHEN the window is over THEN there is room for more, and the middle of a flow is taken up
    balancer.pipeline.advance(0.125)
    assert [talk.send("A") for talk in talks] == placed
    assert sum(balancer.flows().values()) == 4


def test_the_budget_does_not_touch_flows_that_are_known(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    to = talk.open()
    balancer.pipeline.configure(new_flows=0)
    assert talk.send() == to
    assert talk.answer("PA") == TX


def test_a_reply_entry_that_was_lost_comes_back_with_the_client(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    talk.open()
    keys, values = balancer.maps["connections"].read()
    lost = keys[values["word"] & 255 == 8].copy()
    balancer.maps["connections"].delete_all(lost)
    balancer.pipeline.advance(1)
    talk.send()
    assert talk.answer() == TX


def test_two_vips_with_the_same_backend_are_kept_apart(balancer: Balancer) -> None:
    first = balancer.vip(VIP, BACKENDS[:1])
    other = replace(VIP, address="198.51.100.20")
    second = balancer.vip(other, BACKENDS[:1])
    Talk(balancer, first, 1000).open()
    Talk(balancer, second, 1001).open()
    # The backend could not tell this flow from the first one, and there is no other.
    frame = Shape(End("192.0.2.1", 1000), other, "S").to_bytes()
    assert balancer.explain(frame)[::2] == (DROP, "flow-collision")
    assert balancer.run(frame)[0] == DROP
    assert balancer.pipeline.totals()["drops"] == {"flow-collision": 1}
    # WHEN the first one ends THEN it can begin
    Talk(balancer, first, 1000).send("R")
    Talk(balancer, second, 1000).open()


def test_a_flow_that_lost_its_reply_entry_does_not_take_another_vips(balancer: Balancer) -> None:
    first = Talk(balancer, balancer.vip(VIP, BACKENDS[:1]), 1000)
    second = Talk(balancer, balancer.vip(replace(VIP, port=443), BACKENDS[:1]), 1000)
    first.open()
    keys, values = balancer.maps["connections"].read()
    balancer.maps["connections"].delete_all(keys[values["word"] & 255 == STATES.index("reply")])
    second.open()
    balancer.pipeline.advance(2)
    first.send()
    answer = Shape(BACKENDS[0], second.client).to_bytes()
    _, after = balancer.run(answer)
    assert int.from_bytes(after[34:36], "big") == 443


@pytest.mark.parametrize("algorithm", [RR, WRR, LEAST, MAGLEV])
def test_a_flow_that_a_backend_could_not_tell_apart_goes_to_another(
    balancer: Balancer, algorithm: int
) -> None:
    vips = [
        balancer.vip(replace(VIP, address=f"198.51.100.{10 + n}"), BACKENDS, algorithm=algorithm)
        for n in range(len(BACKENDS) + 1)
    ]
    for port in range(1000, 1040):
        # One client's port talks to as many VIPs as there are backends: each gets its own.
        talks = [Talk(balancer, vip, port) for vip in vips]
        places = [talk.open() for talk in talks[:-1]]
        assert sorted(places) == [end.address for end in BACKENDS]
        assert all(talk.answer() == TX for talk in talks[:-1])
        # One VIP more finds none.
        assert balancer.run(Shape(talks[-1].client, vips[-1].end, "S").to_bytes())[0] == DROP
    assert balancer.pipeline.totals()["drops"] == {"flow-collision": 40}


def test_a_flow_that_moves_avoids_a_backend_that_could_not_tell_it_apart(
    balancer: Balancer,
) -> None:
    first = balancer.vip(VIP, BACKENDS)
    second = balancer.vip(replace(VIP, address="198.51.100.20"), BACKENDS)
    balancer.ring(first, [2])
    assert Talk(balancer, first, 1000).open() == "10.0.0.2"
    balancer.ring(second, [4])
    talk = Talk(balancer, second, 1000)
    assert talk.open() == "10.0.0.1"
    balancer.ring(second, [5, 6])
    balancer.write_backend(second, 4, serves=False)
    assert talk.send() == "10.0.0.3"
    assert talk.answer() == TX


def test_least_keeps_many_backends_level_and_fills_idle_ones_first(balancer: Balancer) -> None:
    """GIVEN more backends than are compared for one flow."""
    many = [End(f"10.0.{number >> 7}.{number & 127}", 8080) for number in range(1, 101)]
    vip = balancer.vip(VIP, many, algorithm=LEAST)
    talks = [Talk(balancer, vip, 1000 + n) for n in range(1000)]
    for talk in talks:
        talk.send("S")
    assert set(balancer.flows().values()) == {10}
    # WHEN ten of them lose their flows THEN at least 32 of 100 new flows are theirs, in turn
    idle = set(many[40:50])
    for talk in talks:
        if talk.backend in idle:
            talk.send("R")
    theirs = {end.address for end in idle}
    placed = [Talk(balancer, vip, 3000 + n).send("S") for n in range(100)]
    assert sum(address in theirs for address in placed) >= 32
    counts = [balancer.flows().get(slot, 0) for slot, end in vip.backends.items() if end in idle]
    assert max(counts) - min(counts) <= 1


def test_what_the_balancer_drops_counts_as_dropped_on_the_sources_row(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    frame = Shape(End("192.0.2.1", 1000), VIP, "S").to_bytes()
    for dry_run in (False, True):
        balancer.pipeline.configure([Flag.VIPS, *([Flag.DRY_RUN] if dry_run else [])])
        balancer.ring(vip, [1])
        balancer.run(frame)
        balancer.ring(vip, [])
        balancer.write_backend(vip, 1, serves=False)
        assert [balancer.run(frame)[0] for _ in range(3)] == [DROP] * 3
        balancer.write_backend(vip, 1)
    row, totals = balancer.pipeline.row("192.0.2.1"), balancer.pipeline.totals()
    assert (row["passed_packets"], row["dropped_packets"]) == (2, 6)
    assert (row["passed_bytes"], row["dropped_bytes"]) == (2 * len(frame), 6 * len(frame))
    assert row["would_drop_packets"] == 0
    assert totals["received"] == (8, 8 * len(frame))
    assert (totals["dropped"], totals["others"]) == ((6, 6 * len(frame)), 2)
    assert totals["drops"] == {"no-backend": 6}
    assert totals["would_drop"] == {}


def test_ids_are_not_mistaken_when_a_slot_is_used_again(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    talk.open()
    # GIVEN the VIP was taken out and another one got its slot
    slot = balancer.maps["vip_slots"].get(0)
    assert slot is not None
    slot["id"] = 4000
    balancer.maps["vip_slots"].put(0, slot)
    assert talk.answer() != TX


# UDP, and the sweep


def test_udp_flows_are_counted_until_the_sweep_ends_them(balancer: Balancer) -> None:
    vip = balancer.vip(UDP_VIP, UDP_BACKENDS)
    talks = [Talk(balancer, vip, 1000 + i) for i in range(3)]
    for talk in talks:
        talk.send()
        assert talk.answer() == TX
    assert balancer.flows() == {1: 1, 2: 1, 3: 1}
    balancer.pipeline.advance(30)
    talks[1].send()
    ids = [("192.0.2.1", talk.port, vip.id) for talk in talks]
    assert balancer.end_flows(balancer.pipeline.now_ns - 20 * SECOND_NS, ids) == 2
    assert balancer.flows() == {2: 1}
    assert [c[1:3] for c in balancer.connections()] == [(1001, "reply"), (1001, "udp")]
    # Asked again, it finds nothing.
    assert balancer.end_flows(balancer.pipeline.now_ns - 20 * SECOND_NS, ids) == 0


def test_the_sweep_removes_closed_flows_without_counting_them_again(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    talk = Talk(balancer, vip, 1000)
    talk.open()
    talk.send("R")
    assert balancer.end_flows(balancer.pipeline.now_ns, [("192.0.2.1", 1000, vip.id)]) == 1
    assert balancer.connections() == []
    assert balancer.flows() == {}


def test_a_reply_alone_keeps_a_flow_young(balancer: Balancer) -> None:
    vip = balancer.vip(UDP_VIP, UDP_BACKENDS)
    talk = Talk(balancer, vip, 1000)
    talk.send()
    balancer.pipeline.advance(30)
    assert talk.answer() == TX
    ids = [("192.0.2.1", 1000, vip.id)]
    assert balancer.end_flows(balancer.pipeline.now_ns - 20 * SECOND_NS, ids) == 0


def test_the_sweep_corrects_a_count(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    Talk(balancer, vip, 1000).open()
    # GIVEN the entries were evicted, which nobody is told of
    balancer.maps["connections"].delete_all(balancer.maps["connections"].read()[0].copy())
    assert balancer.flows() == {1: 1}
    assert balancer.correct(1, 1) == 1
    assert balancer.flows() == {}
    assert balancer.counts("backend_stats", 1)["closed"] == 1


def test_sums_hold(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS, weights=[3, 2, 1], algorithm=WRR)
    for port in range(1000, 1100):
        talk = Talk(balancer, vip, port)
        talk.open()
        talk.send("PA")
        talk.answer("PA")
    backends = [balancer.counts("backend_stats", slot) for slot in vip.backends]
    whole = balancer.counts("vip_stats", vip.slot)
    for name in ("packets", "bytes", "reply_packets", "reply_bytes", "opened"):
        assert sum(counted[name] for counted in backends) == whole[name]
    totals = balancer.pipeline.totals()
    assert whole["packets"] + whole["reply_packets"] == totals["received"][0] == 500
    assert totals["others"] == 500


def test_protection_comes_first(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    balancer.pipeline.block("192.0.2.66")
    frame = Shape(End("192.0.2.66", 1000), VIP, "S").to_bytes()
    assert balancer.run(frame) == (DROP, frame)
    assert balancer.connections() == []
    assert balancer.pipeline.totals()["drops"] == {"blocked": 1}
    assert "packets" not in balancer.counts("vip_stats", vip.slot)
    assert Talk(balancer, vip, 1000).open() == "10.0.0.1"


def test_without_the_flag_nothing_is_balanced(balancer: Balancer) -> None:
    balancer.vip(VIP, BACKENDS)
    balancer.pipeline.configure([])
    frame = Shape(End("192.0.2.1", 1000), VIP, "S").to_bytes()
    assert balancer.run(frame)[1] == frame
    assert balancer.connections() == []
