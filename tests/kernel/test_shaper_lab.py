# SPDX-License-Identifier: Apache-2.0
"""Real TCP and UDP through traffic classes on the lab."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from ebpftop.lab import Host, Job, joined, send_udp, serve_bulk
from ebpftop.lab.namespace import set_sysctls
from ebpftop.lab.traffic import BULK_PORT
from ebpftop.model import ClassKey
from tests.kernel.packets import VLAN, frame
from tests.kernel.shaping import (
    clear,
    downloading,
    goodput_bps,
    listed,
    make,
    most_over_bytes,
    passed_samples,
    wire_bps,
)
from tests.kernel.stage import Stage, ebpftop, staged, until

pytestmark = [pytest.mark.kernel("bridge", "veth")]

QUEUED = [
    pytest.param("htb", marks=pytest.mark.kernel("htb")),
    pytest.param("pace", marks=pytest.mark.kernel("fq")),
]
EVERY = [*QUEUED, "police"]
MBIT = 1_000_000
OVER = 1.01
"""What may be on the wire, at the most, for a rate of 1."""


@pytest.fixture(scope="module")
def loaded_stage() -> Iterator[Stage]:
    """An instance on a lab with two clients."""
    with staged(clients=2) as stage:
        yield stage


@pytest.fixture
def stage(loaded_stage: Stage) -> Iterator[Stage]:
    """The same, without a class."""
    yield loaded_stage
    clear(loaded_stage)


@pytest.fixture
def client(stage: Stage) -> Host:
    """A host that downloads."""
    return stage.lab.clients[0]


@pytest.mark.parametrize("action", QUEUED)
@pytest.mark.parametrize("mbit", [20, 200])
def test_tcp_gets_nine_tenths_of_its_rate_and_never_a_hundredth_more(
    stage: Stage, client: Host, action: str, mbit: int
) -> None:
    make(stage, "bulk", f"{mbit}mbit", client, action=action)

    with downloading(stage, client) as (job,):
        on_wire = [wire_bps(client, 1.0) for _ in range(3)]
        goodput = goodput_bps(job)

    assert goodput >= 0.9 * mbit * MBIT
    assert max(on_wire) <= OVER * mbit * MBIT
    assert listed("bulk")["action"] == action


@pytest.mark.parametrize(("mbit", "burst_kb"), [(20, 200), (200, 2000)])
def test_police_passes_in_no_interval_more_than_rate_and_burst(
    stage: Stage, client: Host, mbit: int, burst_kb: int
) -> None:
    make(stage, "bulk", f"{mbit}mbit", client, action="police", burst=f"{burst_kb}kb")

    with downloading(stage, client):
        samples = passed_samples(stage, ClassKey("bulk"), 2.0)

    assert samples[-1][2] - samples[0][2] > 0.1 * mbit * MBIT / 8 * 2
    assert most_over_bytes(samples, mbit * MBIT) <= burst_kb << 10
    assert listed("bulk")["dropped_packets"] > 0


@pytest.mark.parametrize("action", EVERY)
def test_udp_gets_its_rate_within_two_hundredths(stage: Stage, client: Host, action: str) -> None:
    # GIVEN twice as much as the class may carry
    make(stage, "udp", "8mbit", client, action=action, burst="20kb")
    # and from two sockets, each of which is held back when its own buffer is full
    flows = [send_udp(stage.lab.server, client.ipv4, 750, size_bytes=1400) for _ in range(2)]
    for flow in flows:
        flow.wait_ready()
    time.sleep(1.5)

    rate_bps = wire_bps(client)
    for flow in flows:
        flow.stop()

    assert rate_bps == pytest.approx(8 * MBIT, rel=0.02)
    row = listed("udp")
    assert 0 < row["dropped_packets"] < row["packets"]
    assert row["dropped_bytes"] == pytest.approx(row["dropped_packets"] * 1442, rel=0.05)


def test_udp_that_comes_in_gets_its_rate_within_two_hundredths(stage: Stage, client: Host) -> None:
    make(stage, "in", "8mbit", client, direction="ingress", burst="20kb")
    assert ebpftop("assign", "eth0", client.ipv4, "in").status == 0
    flow = send_udp(client, stage.lab.server.ipv4, 1500, size_bytes=1400)
    flow.wait_ready()
    time.sleep(0.5)

    samples = passed_samples(stage, ClassKey("in", "ingress"), 2.0)
    flow.stop()

    seconds = samples[-1][0] - samples[0][0]
    assert (samples[-1][2] - samples[0][2]) * 8 / seconds == pytest.approx(8 * MBIT, rel=0.02)
    assert most_over_bytes(samples, 8 * MBIT) <= 20 << 10


def test_tcp_that_comes_in_is_held_to_its_rate(stage: Stage, client: Host) -> None:
    make(stage, "in", "40mbit", client, direction="ingress", burst="400kb")

    with downloading(stage, client, way="up"):
        samples = passed_samples(stage, ClassKey("in", "ingress"), 2.0)

    assert samples[-1][2] - samples[0][2] > 0.2 * 40 * MBIT / 8 * 2
    assert most_over_bytes(samples, 40 * MBIT) <= 400 << 10
    assert listed("in")["action"] == "police"


@pytest.mark.kernel("htb")
def test_two_classes_do_not_disturb_each_other(stage: Stage) -> None:
    one, two = stage.lab.clients
    make(stage, "one", "20mbit", one)
    make(stage, "two", "60mbit", two)

    with downloading(stage, one, two) as jobs:
        started_s = time.monotonic()
        on_wire = [wire_bps(one, 1.2), wire_bps(two, 1.2)]
        assert time.monotonic() - started_s < 10
        goodputs = [goodput_bps(job) for job in jobs]

    for rate, wire, goodput in zip((20, 60), on_wire, goodputs, strict=True):
        assert goodput >= 0.9 * rate * MBIT
        assert wire <= OVER * rate * MBIT


def test_two_policed_classes_do_not_disturb_each_other(stage: Stage) -> None:
    # GIVEN each sent twice what its class may carry
    hosts = stage.lab.clients
    for host, name, rate in zip(hosts, ("one", "two"), ("4mbit", "8mbit"), strict=True):
        make(stage, name, rate, host, action="police", burst="20kb")
    flows = [send_udp(stage.lab.server, host.ipv4, pps, size_bytes=1400)
             for host, pps in zip(hosts, (750, 1500), strict=True)]  # fmt: skip
    for flow in flows:
        flow.wait_ready()

    samples = [passed_samples(stage, ClassKey(name), 1.5) for name in ("one", "two")]
    for flow in flows:
        flow.stop()

    for (first, *_, last), mbit in zip(samples, (4, 8), strict=True):
        rate_bps = (last[2] - first[2]) * 8 / (last[0] - first[0])
        assert rate_bps == pytest.approx(mbit * MBIT, rel=0.02)


@pytest.mark.parametrize("mbit", [2, 6])
def test_a_new_rate_is_policed_within_a_second(stage: Stage, client: Host, mbit: int) -> None:
    make(stage, "udp", "4mbit", client, action="police", burst="20kb")
    flow = send_udp(stage.lab.server, client.ipv4, 1500, size_bytes=1400)
    flow.wait_ready()

    assert ebpftop("class", "set", "eth0", "udp", "--rate", f"{mbit}mbit").status == 0
    time.sleep(1.0)
    first, *_, last = passed_samples(stage, ClassKey("udp"), 1.0)
    flow.stop()

    rate_bps = (last[2] - first[2]) * 8 / (last[0] - first[0])
    assert rate_bps == pytest.approx(mbit * MBIT, rel=0.03)


@pytest.mark.kernel("htb")
def test_two_classes_share_their_parent_and_borrow_from_it(stage: Stage) -> None:
    one, two = stage.lab.clients
    make(stage, "uplink", "60mbit")
    make(stage, "one", "20mbit", one, parent="uplink")
    make(stage, "two", "40mbit", two, parent="uplink")

    with downloading(stage, one):
        alone = wire_bps(one, 1.5)
    with downloading(stage, one, two):
        both = wire_bps(two, 1.5), wire_bps(one, 1.5)

    assert 0.9 * 60 * MBIT <= alone <= OVER * 60 * MBIT
    assert both[0] == pytest.approx(40 * MBIT, rel=0.05)
    assert both[1] == pytest.approx(20 * MBIT, rel=0.05)


@pytest.mark.parametrize("action", QUEUED)
@pytest.mark.parametrize("mbit", [60, 5])
def test_a_new_rate_holds_within_a_second_for_a_transfer_that_runs(
    stage: Stage, client: Host, action: str, mbit: int
) -> None:
    make(stage, "bulk", "20mbit", client, action=action)

    with downloading(stage, client):
        assert wire_bps(client, 0.5) == pytest.approx(20 * MBIT, rel=0.1)
        assert ebpftop("class", "set", "eth0", "bulk", "--rate", f"{mbit}mbit").status == 0
        time.sleep(1.0)
        on_wire = wire_bps(client, 1.0)

    assert 0.9 * mbit * MBIT <= on_wire <= OVER * mbit * MBIT


def test_marks_are_seen_by_the_peer(stage: Stage, client: Host) -> None:
    for host in (stage.lab.server, client):
        with joined(host):
            set_sysctls({"ipv4/tcp_ecn": "1"})

    def marks_seen() -> int:
        lines = client.run(["cat", "/proc/net/netstat"]).stdout.splitlines()
        names, values = (line.split() for line in lines if line.startswith("IpExt:"))
        return int(values[names.index("InCEPkts")])

    make(stage, "bulk", "20mbit", client, action="police")
    with downloading(stage, client):
        until(marks_seen)

    assert listed("bulk")["marked_packets"] > 0


def test_what_is_sent_stands_beside_what_was_received(stage: Stage, client: Host) -> None:
    make(stage, "bulk", "20mbit", client)

    with downloading(stage, client):
        (row,) = (r for r in ebpftop("top", "eth0", "--json").json() if r["address"] == client.ipv4)

    assert row["sent_bps"] == pytest.approx(20 * MBIT, rel=0.2)
    assert row["sent_bytes"] > row["bytes"]
    assert row["sent_packets"] > 100


def test_sent_is_unknown_where_it_is_not_counted(stage: Stage, client: Host) -> None:
    assert ebpftop("count-sent", "eth0", "off").status == 0
    client.run(["ping", "-c", "1", stage.lab.server.ipv4], check=False)
    rows = ebpftop("top", "eth0", "--json").json()

    assert {row["sent_bytes"] for row in rows} <= {None}
    assert ebpftop("count-sent", "eth0", "auto").status == 0


def test_a_tag_in_the_metadata_hides_nothing_and_is_counted(stage: Stage, client: Host) -> None:
    # GIVEN tagged frames: the kernel moves the tag into the packet's metadata as they come in
    make(stage, "tagged", "8mbit", direction="ingress")
    assert ebpftop("assign", "eth0", client.ipv4, "tagged").status == 0
    packet = bytearray(frame(client.ipv4, vlans=(VLAN,)))
    packet[:6] = bytes.fromhex(stage.lab.server.mac.replace(":", ""))

    with joined(client), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as output:
        output.bind((client.interface, 0))
        for _ in range(10):
            output.send(packet)

    until(lambda: listed("tagged")["packets"] == 10)
    assert listed("tagged")["bytes"] == 10 * len(packet)


def test_ipv6_is_shaped_too(stage: Stage, client: Host) -> None:
    make(stage, "six", "20mbit")
    assert ebpftop("assign", "eth0", f"{client.ipv6[:-3]}::/64", "six").status == 0
    server = serve_bulk(stage.lab.server)
    server.wait_ready()
    job = Job(client, "bulk-client", server=stage.lab.server.ipv6, port=BULK_PORT, way="down")
    job.wait_ready()
    time.sleep(1.0)
    on_wire = wire_bps(client, 1.0)
    job.stop()
    server.stop()

    assert 0.9 * 20 * MBIT <= on_wire <= OVER * 20 * MBIT
