# SPDX-License-Identifier: Apache-2.0
"""The balancer's tables against packets that were counted when they were sent."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ebpftop import report
from ebpftop.bpf import balancer_records as convert
from ebpftop.bpf import layout
from ebpftop.filtering import Filter
from ebpftop.model import Backend, Clock, Connections, HealthCheck, Prefix, Service
from ebpftop.sources.balancing import SUM, Balanced, BalancingReader
from ebpftop.sources.invariants import TICKS_BEFORE_ALARM
from tests.kernel.balancer import LEAST, MAGLEV, RR, STATES, WRR, Balancer, End, Vip
from tests.kernel.frames import Shape
from tests.kernel.packets import UDP
from tests.kernel.pipeline import SECOND_NS, START_NS, Pipeline

pytestmark = pytest.mark.kernel

VIP = End("198.51.100.10", 80)
VIP6 = End("2001:db8::10", 443)
DNS = End("198.51.100.10", 53, UDP)
BACKENDS = [End(f"10.0.0.{number}", 8080) for number in (1, 2, 3)]
BACKENDS6 = [End(f"2001:db8:1::{number}", 8443) for number in (1, 2)]
RESOLVERS = [End("10.0.1.1", 5353, UDP), End("10.0.1.2", 5353, UDP)]


@pytest.fixture
def balancer(pipeline: Pipeline) -> Balancer:
    return Balancer(pipeline)


class Reading:
    """A reader on the pipeline under test, and the time by hand."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.reader = BalancingReader(balancer.maps)
        self.clock = balancer.pipeline

    def read(self, interval_s: float | None = None) -> Balanced:
        """Read everything, flows included, `interval_s` after the read before."""
        return self.reader.read(self.clock.now_ns, interval_s, want_connections=True)


@pytest.fixture
def reading(balancer: Balancer) -> Reading:
    return Reading(balancer)


def size(shape: Shape) -> int:
    return len(shape.to_bytes())


def service(end: End) -> Service:
    return convert.service(end.record()[0])


def flows(told: Balanced) -> Connections:
    assert told.connections is not None
    return told.connections


def opened(balancer: Balancer, vip: Vip, ports: range, client: str = "192.0.2.1") -> None:
    """Begin a flow from each port."""
    for port in ports:
        balancer.run(Shape(End(client, port, vip.end.protocol), vip.end, "S").to_bytes())


def test_without_a_vip_every_table_is_empty(reading: Reading) -> None:
    told = reading.read()

    assert (len(told.vips), len(told.backends), len(flows(told))) == (0, 0, 0)
    assert told.invariants == {}
    assert reading.reader.read(START_NS, 1.0).connections is None


def test_counts_of_both_directions_are_what_was_sent(balancer: Balancer, reading: Reading) -> None:
    chance = random.Random(7)
    vips = [
        balancer.vip(VIP, BACKENDS, weights=[3, 2, 1], algorithm=WRR),
        balancer.vip(VIP6, BACKENDS6),
        balancer.vip(DNS, RESOLVERS, algorithm=MAGLEV),
    ]
    sent: Counter[tuple[str, End, str]] = Counter()
    told = reading.read()
    assert told.invariants == {SUM: True}
    for port in range(1000, 1040):
        vip = chance.choice(vips)
        address = "2001:db8:9::1" if vip.end.version == 6 else "192.0.2.1"
        client = End(address, port, vip.end.protocol)
        for number in range(chance.randint(1, 6)):
            shape = Shape(client, vip.end, "A" if number else "S", b"x" * chance.randint(0, 900))
            to = balancer.placed(shape.to_bytes())
            (end,) = (e for e in vip.backends.values() if e.address == to)
            answer = Shape(end, client, "A", b"y" * chance.randint(0, 900))
            balancer.run(answer.to_bytes())
            for owner in (vip.end, end):
                sent["packets", owner, "to"] += 1
                sent["bytes", owner, "to"] += size(shape)
                sent["packets", owner, "from"] += 1
                sent["bytes", owner, "from"] += size(answer)
            sent["opened", end, "to"] += number == 0
            sent["opened", vip.end, "to"] += number == 0

    told = reading.read(2.0)

    held = told.vips
    assert [v.service for v in held.wanted] == [service(vip.end) for vip in vips]
    for row, vip in enumerate(vips):
        assert held.packets[row] == sent["packets", vip.end, "to"]
        assert held.bytes[row] == sent["bytes", vip.end, "to"]
        assert held.reply_packets[row] == sent["packets", vip.end, "from"]
        assert held.reply_bytes[row] == sent["bytes", vip.end, "from"]
        assert held.opened[row] == sent["opened", vip.end, "to"]
        both = held.packets[row] + held.reply_packets[row]
        assert held.pps[row] == both / 2.0
        assert held.bps[row] == (held.bytes[row] + held.reply_bytes[row]) * 8 / 2.0
        assert held.new_per_s[row] == held.opened[row] / 2.0
        backends = told.backends.rows_of(service(vip.end))
        assert [told.backends.wanted[r].service for r in backends] == [
            service(end) for end in vip.backends.values()
        ]
        assert told.backends.packets[backends].sum() == both
        for at, end in zip(backends, vip.backends.values(), strict=True):
            packets = sent["packets", end, "to"] + sent["packets", end, "from"]
            octets = sent["bytes", end, "to"] + sent["bytes", end, "from"]
            assert (told.backends.packets[at], told.backends.bytes[at]) == (packets, octets)
            assert told.backends.opened[at] == sent["opened", end, "to"]
            assert told.backends.connections[at] == sent["opened", end, "to"]
            assert told.backends.pps[at] == packets / 2.0
            assert told.backends.bps[at] == octets * 8 / 2.0
            assert told.backends.new_per_s[at] == told.backends.opened[at] / 2.0


def test_the_first_read_knows_counts_and_no_rates(balancer: Balancer, reading: Reading) -> None:
    opened(balancer, balancer.vip(VIP, BACKENDS), range(1000, 1003))

    told = reading.read()

    assert told.backends.packets.tolist() == [1, 1, 1]
    assert np.isnan(told.backends.pps).all()
    assert np.isnan(told.vips.new_per_s).all()
    assert np.isnan(told.backends.measured_share).all()


def test_what_the_operator_wants_is_read_as_it_was_written(
    balancer: Balancer, reading: Reading
) -> None:
    vip = balancer.vip(VIP, BACKENDS, weights=[5, 1, 0], algorithm=MAGLEV, dsr=True)
    check = HealthCheck("http", 0.5, 0.25, 3, 4, 8081, "/health", "www.example", 204)
    balancer.maps["checks"].put(vip.slot, convert.check_record(check).reshape(1))
    for slot, state, health in ((1, 0, 1), (2, 1, 2), (3, 2, 0)):
        record = balancer.maps["backends"].get(slot)
        assert record is not None
        record["state"], record["health"], record["first_weight"] = state, health, 7
        record["hop"]["ifindex"] = 0 if slot == 3 else 1
        balancer.maps["backends"].put(slot, record)
    balancer.maps["checker"].put(0, np.array([START_NS], layout.U64))

    told = reading.read()

    (wanted,) = told.vips.wanted
    assert (wanted.algorithm, wanted.mode, wanted.check) == ("maglev", "dsr", check)
    assert told.backends.wanted == [
        Backend(service(end), weight, state)
        for end, weight, state in zip(BACKENDS, (5, 1, 0), ("up", "drain", "down"), strict=True)
    ]
    assert told.backends.healthy == [True, False, None]
    assert told.backends.reachable == [True, True, False]
    assert told.backends.first_weight.tolist() == [7, 7, 7]
    # WHEN nobody is there to check any more, THEN what was found last is not known to hold
    balancer.pipeline.advance(layout.CHECKER_SILENT_S)
    assert reading.read(1.0).backends.healthy == [None, None, None]
    # AND WHEN nobody sees to the ways either
    balancer.pipeline.configure(hops_until_ns=balancer.pipeline.now_ns + 1)
    assert reading.read(1.0).backends.reachable == [True, True, False]
    balancer.pipeline.configure(hops_until_ns=balancer.pipeline.now_ns)
    assert reading.read(1.0).backends.reachable == [False, False, False]


@pytest.mark.parametrize(
    ("algorithm", "shares"),
    [(RR, [1 / 3] * 3), (WRR, [4 / 7, 2 / 7, 1 / 7]), (LEAST, [1 / 3] * 3)],
)
def test_a_share_is_the_part_of_the_ring_in_force(
    balancer: Balancer, reading: Reading, algorithm: int, shares: list[float]
) -> None:
    balancer.vip(VIP6, BACKENDS6)
    vip = balancer.vip(VIP, BACKENDS, weights=[4, 2, 1], algorithm=algorithm)

    told = reading.read()

    assert told.backends.share.tolist() == pytest.approx([0.5, 0.5, *shares])
    # WHEN one is taken out of the ring, THEN the others have its part
    balancer.ring(vip, [1 + 2, 2 + 2])
    after = reading.read(1.0).backends.share.tolist()
    expected = [2 / 3, 1 / 3, 0] if algorithm == WRR else [0.5, 0.5, 0]
    assert after == pytest.approx([0.5, 0.5, *expected])
    # WHEN two changes bring back the same half of the ring
    vip.weights[3] = 6
    balancer.write_backend(vip, 3)
    balancer.ring(vip, [3, 4])
    balancer.ring(vip, [3, 4])
    expected = [3 / 4, 1 / 4, 0] if algorithm == WRR else [0.5, 0.5, 0]
    assert reading.read(1.0).backends.share.tolist() == pytest.approx([0.5, 0.5, *expected])


def test_a_maglev_share_is_within_a_place_of_its_weight(
    balancer: Balancer, reading: Reading
) -> None:
    balancer.vip(VIP, BACKENDS, weights=[4, 2, 1], algorithm=MAGLEV)

    share = reading.read().backends.share

    assert share.tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=1 / 4093)
    assert share.sum() == pytest.approx(1.0)


def test_no_backend_in_the_ring_has_a_share(balancer: Balancer, reading: Reading) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    balancer.ring(vip, [])

    assert reading.read().backends.share.tolist() == [0, 0, 0]


def test_a_share_is_measured_over_the_last_ten_seconds(
    balancer: Balancer, reading: Reading
) -> None:
    vip = balancer.vip(VIP, BACKENDS, weights=[3, 1, 1], algorithm=WRR)
    opened(balancer, vip, range(1000, 1005))
    assert np.isnan(reading.read().backends.measured_share).all()
    opened(balancer, vip, range(2000, 2005))
    balancer.pipeline.advance(1)
    assert reading.read(1.0).backends.measured_share.tolist() == [0.6, 0.2, 0.2]
    # WHEN the weights change, THEN what was before is forgotten after ten seconds
    vip.weights[1] = 1
    balancer.ring(vip, [1, 2])
    for second in range(12):
        opened(balancer, vip, range(3000 + 2 * second, 3002 + 2 * second))
        balancer.pipeline.advance(1)
        told = reading.read(1.0)
    assert told.backends.measured_share.tolist() == [0.5, 0.5, 0]
    # WHEN nothing is opened for ten seconds, THEN nothing is known
    for _ in range(12):
        balancer.pipeline.advance(1)
        told = reading.read(1.0)
    assert np.isnan(told.backends.measured_share).all()


# Connections


def told_flows(told: Balanced, pipeline: Pipeline) -> dict[str, dict[str, object]]:
    held = flows(told)
    clock = Clock(pipeline.now_ns, 1e9)
    listed = report.connections(held, clock, range(len(held)))
    return {f"{row['client']} {row['vip']}": row for row in listed}


def test_a_flow_is_one_row_of_both_directions(
    balancer: Balancer, reading: Reading, pipeline: Pipeline
) -> None:
    web = balancer.vip(VIP, BACKENDS)
    dns = balancer.vip(DNS, RESOLVERS)
    six = balancer.vip(VIP6, BACKENDS6)
    client, other = End("192.0.2.1", 4000), End("2001:db8:9::9", 4001)
    syn = Shape(client, web.end, "S")
    balancer.run(syn.to_bytes())
    answer = Shape(BACKENDS[0], client, "SA", b"z" * 100)
    balancer.run(answer.to_bytes())
    pipeline.advance(5)
    balancer.run(Shape(client, web.end, "A").to_bytes())
    question = Shape(replace(client, protocol=UDP), dns.end, payload=b"q" * 30)
    balancer.run(question.to_bytes())
    balancer.run(Shape(other, six.end, "S").to_bytes())
    pipeline.advance(2)

    rows = told_flows(reading.read(), pipeline)

    assert set(rows) == {
        "192.0.2.1:4000 198.51.100.10:80/tcp",
        "192.0.2.1:4000 198.51.100.10:53/udp",
        "[2001:db8:9::9]:4001 [2001:db8::10]:443/tcp",
    }
    row = rows["192.0.2.1:4000 198.51.100.10:80/tcp"]
    assert row == {
        "client": "192.0.2.1:4000",
        "vip": "198.51.100.10:80/tcp",
        "backend": "10.0.0.1:8080",
        "protocol": "tcp",
        "state": "established",
        "packets": 3,
        "bytes": size(syn) + size(answer) + size(Shape(client, web.end, "A")),
        "age_s": 7.0,
        "idle_s": 2.0,
    }
    udp = rows["192.0.2.1:4000 198.51.100.10:53/udp"]
    assert (udp["backend"], udp["state"], udp["protocol"]) == ("10.0.1.1:5353", "udp", "udp")
    assert (udp["packets"], udp["bytes"], udp["age_s"]) == (1, size(question), 2.0)
    assert rows["[2001:db8:9::9]:4001 [2001:db8::10]:443/tcp"]["backend"] == "[2001:db8:1::1]:8443"


def test_directions_stay_together_while_others_come_and_go(
    balancer: Balancer, reading: Reading, pipeline: Pipeline
) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    held: dict[int, tuple[str, int]] = {}
    chance = random.Random(3)
    ports = iter(range(10_000, 60_000))
    for _ in range(6):
        for port in (next(ports) for _ in range(150)):
            client, answers = End("192.0.2.1", port), chance.randint(0, 3)
            to = balancer.placed(Shape(client, vip.end, "S").to_bytes())
            backend = End(to, 8080)
            for _ in range(answers):
                balancer.run(Shape(backend, client, "SA").to_bytes())
            held[port] = to, 1 + answers
        for port in chance.sample(sorted(held), 60):
            assert balancer.end_flows(pipeline.now_ns, [("192.0.2.1", port, vip.id)]) == 1
            del held[port]
        table = flows(reading.read(1.0))
        told = {
            int(table.port[row]): (
                str(table.backends[table.backend[row]].address),
                int(table.packets[row]),
            )
            for row in range(len(table))
        }
        assert told == held


def test_flows_of_what_was_taken_away_are_told_apart(balancer: Balancer, reading: Reading) -> None:
    vip, other = balancer.vip(VIP, BACKENDS[:2]), balancer.vip(VIP6, BACKENDS6)
    opened(balancer, vip, range(1000, 1002))
    opened(balancer, other, range(2000, 2001), "2001:db8:9::1")
    # WHEN a backend's slot is free, and another VIP's backend takes it
    balancer.maps["backends"].put(1, np.zeros(1, layout.BACKEND))
    table = flows(reading.read())
    backends = {int(p): table.backends[b] for p, b in zip(table.port, table.backend, strict=True)}
    assert backends[1000] is None
    assert backends[1001] == service(BACKENDS[1])
    other.backends[1], other.weights[1], other.ids[1] = End("2001:db8:1::9", 1), 1, 99
    balancer.write_backend(other, 1)
    table = flows(reading.read(1.0))
    backends = {int(p): table.backends[b] for p, b in zip(table.port, table.backend, strict=True)}
    assert backends[1000] is None
    listed = report.connections(table, Clock(1, 1), range(len(table)))
    assert [row["backend"] for row in listed if row["client"].endswith(":1000")] == [None]
    # WHEN the VIP is gone too, THEN its flows are no flows
    balancer.maps["vip_slots"].put(vip.slot, np.zeros(1, layout.VIP_SLOT))
    assert flows(reading.read(1.0)).port.tolist() == [2000]


def test_an_entry_that_is_being_removed_is_no_flow(balancer: Balancer, reading: Reading) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    opened(balancer, vip, range(1000, 1002))
    keys, values = balancer.maps["connections"].read()
    ended = np.flatnonzero((keys["port"] & 0xFFFF == 1000) & (values["word"] & 255 != 8))[0]
    key, value = keys[ended].copy(), values[ended : ended + 1].copy()
    value["word"] = (value["word"] & ~np.uint64(255)) | STATES.index("ended")
    balancer.maps["connections"].put(key, value)

    assert flows(reading.read()).port.tolist() == [1001]


def test_flows_are_filtered_and_sorted_by_what_they_are(
    balancer: Balancer, reading: Reading
) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    for number in range(1, 7):
        client = End(f"192.0.2.{number}", 1000 + number)
        for flags in ["S", *"A" * number]:
            balancer.run(Shape(client, vip.end, flags).to_bytes())
    held, clock = flows(reading.read()), Clock(START_NS, 1e9)

    def chosen(expression: str, count: int | None = None) -> list[int]:
        only = Filter.parse(expression, report.CONNECTION_FIELDS)
        rows = report.chosen_connections(held, clock, count=count, only=only)
        return [int(held.port[row]) for row in rows]

    assert chosen("") == [1006, 1005, 1004, 1003, 1002, 1001]
    assert chosen("", 2) == [1006, 1005]
    assert chosen("client:192.0.2.4/31") == [1005, 1004]
    assert chosen("backend:10.0.0.2:8080") == [1005, 1002]
    assert chosen("packets:>5 protocol:tcp") == [1006, 1005]
    assert chosen("port:1003") == [1003]
    assert chosen("state:closed") == []
    assert held.row_of(held.flow(3)) == 3
    assert held.row_of(replace(held.flow(3), vip=service(DNS))) is None
    assert held.flow(3).client.address == Prefix(int(held.high[3]), int(held.low[3]))


# Sums and fills


def test_packets_that_never_came_to_a_vip_break_the_sum_after_three_reads(
    balancer: Balancer, reading: Reading
) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    opened(balancer, vip, range(1000, 1010))
    assert reading.read().invariants == {SUM: True}
    for slot in (1, 2):
        stored = balancer.maps["backend_stats"].get(slot)
        assert stored is not None
        stored["packets"] += np.uint64(100)
        balancer.maps["backend_stats"].put(slot, stored)
    answers = [reading.read(1.0).invariants[SUM] for _ in range(TICKS_BEFORE_ALARM)]
    assert answers == [True] * (TICKS_BEFORE_ALARM - 1) + [False]


def test_packets_of_a_vip_that_no_backend_got_break_the_sum(
    balancer: Balancer, reading: Reading
) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    reading.read()
    stored = balancer.maps["vip_stats"].get(vip.slot)
    assert stored is not None
    stored["packets"] += np.uint64(100)
    balancer.maps["vip_stats"].put(vip.slot, stored)
    for _ in range(TICKS_BEFORE_ALARM):
        told = reading.read(1.0)
    assert told.invariants == {SUM: False}
    # WHEN they were dropped, THEN nothing is missing
    stored["dropped"] += np.uint64(100)
    balancer.maps["vip_stats"].put(vip.slot, stored)
    assert reading.read(1.0).invariants == {SUM: True}
    # AND WHEN a backend got them all the same, THEN there are too many
    counted = balancer.maps["backend_stats"].get(1)
    assert counted is not None
    counted["packets"] += np.uint64(100)
    balancer.maps["backend_stats"].put(1, counted)
    for _ in range(TICKS_BEFORE_ALARM):
        told = reading.read(1.0)
    assert told.invariants == {SUM: False}


def test_the_sum_holds_whoever_comes_and_goes(balancer: Balancer, reading: Reading) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    for second in range(8):
        opened(balancer, vip, range(1000 + 20 * second, 1020 + 20 * second))
        balancer.run(Shape(End("192.0.2.1", 9), vip.end, options=True).to_bytes())
        if second == 3:
            gone = {name: np.zeros(1, balancer.maps[name].value)
                    for name in ("backends", "backend_stats")}  # fmt: skip
            balancer.ring(vip, [2, 3])
            for name, nothing in gone.items():
                balancer.maps[name].put(1, nothing)
        assert reading.read(1.0).invariants == {SUM: True}
        balancer.pipeline.advance(1)


def test_the_fill_of_each_map_is_counted(balancer: Balancer, reading: Reading) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    opened(balancer, vip, range(1000, 1005))

    fills = reading.reader.read(START_NS, None).fills

    assert fills == {
        "vips": 1, "vip_slots": 1, "backends": 3, "endpoints": 3, "balanced": 4, "ports": 0,
        "connections": 10,
    }  # fmt: skip


def test_a_rate_needs_a_backend_that_was_there_before(balancer: Balancer, reading: Reading) -> None:
    vip = balancer.vip(VIP, BACKENDS[:2])
    opened(balancer, vip, range(1000, 1002))
    reading.read()
    # WHEN a slot's next backend begins at 0
    for name in ("backends", "backend_stats"):
        balancer.maps[name].put(1, np.zeros(1, balancer.maps[name].value))
    vip.backends[1], vip.ids[1] = BACKENDS[2], 77
    balancer.write_backend(vip, 1)
    opened(balancer, vip, range(2000, 2002))
    told = reading.read(1.0).backends
    assert [math.isnan(value) for value in told.pps] == [True, False]
    balancer.pipeline.now_ns = START_NS + SECOND_NS
    assert reading.read(1.0).backends.pps.tolist() == [0, 0]
