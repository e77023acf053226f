# SPDX-License-Identifier: Apache-2.0
"""The shaper's programs on packets and their context: whom they hold to what, and how."""

from __future__ import annotations

import pytest

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import Shaping
from ebpftop.kernel import libbpf
from tests.kernel.packets import (
    ETHERTYPE_ARP,
    HOP_BY_HOP,
    QINQ,
    VLAN,
    Extension,
    ethernet,
    frame,
    icmpv6,
    tcp,
)
from tests.kernel.shaper import (
    BURST_BYTES,
    MARK_NS,
    RATE_BPS,
    SECOND_NS,
    START_NS,
    TO_V4,
    TO_V6,
    V4,
    V6,
    Shaper,
    until_dropped,
)

pytestmark = pytest.mark.kernel


def congested(packet: bytes, ecn: int) -> bytes:
    """Return a packet (no VLAN) with other ECN bits."""
    changed = bytearray(packet)
    if packet[12:14] == b"\x08\x00":
        changed[15] = changed[15] & ~3 | ecn
    else:
        changed[15] = changed[15] & ~0x30 | ecn << 4
    return bytes(changed)


def ecn_of(packet: bytes) -> int:
    """Return the ECN bits of a packet (no VLAN)."""
    return packet[15] & 3 if packet[12:14] == b"\x08\x00" else packet[15] >> 4 & 3


def test_the_programs_stay_within_the_verifiers_reach(shaper: Shaper) -> None:
    for program, name in zip(shaper.programs, layout.PROGRAMS, strict=True):
        info = libbpf.program_info(program)
        assert info.name == name
        assert 0 < info.verified_insns < 250_000


@pytest.mark.parametrize("vlans", [(), (VLAN,), (QINQ, VLAN)])
@pytest.mark.parametrize(
    ("packet_from", "prefix", "direction"),
    [
        ("192.0.2.1", "198.51.100.1", "egress"),
        ("192.0.2.1", "198.51.0.0/16", "egress"),
        ("192.0.2.1", "192.0.2.1", "ingress"),
        ("192.0.2.1", "192.0.2.0/24", "ingress"),
        ("2001:db8::1", "2001:db8:ffff::1", "egress"),
        ("2001:db8::1", "2001:db8::/64", "ingress"),
    ],
)
def test_the_source_counts_on_ingress_and_the_destination_on_egress(
    shaper: Shaper, packet_from: str, prefix: str, direction: str, vlans: tuple[int, ...]
) -> None:
    packet = frame(packet_from, vlans=vlans)
    slot = shaper.add(RATE_BPS, BURST_BYTES, prefix, direction=direction)
    other = "ingress" if direction == "egress" else "egress"

    assert shaper.passes(packet, direction)
    assert shaper.passes(packet, other)

    assert shaper.stats(slot)["packets"] == 1
    assert shaper.stats(slot)["bytes"] == len(packet)
    assert shaper.totals(direction)["classified"] == (1, len(packet))
    assert shaper.totals(other)["unclassified"] == (1, len(packet))


def test_the_longest_prefix_wins_and_a_change_holds_from_the_next_packet(shaper: Shaper) -> None:
    wide = shaper.add(RATE_BPS, BURST_BYTES, "0.0.0.0/0")
    narrow = shaper.add(RATE_BPS, BURST_BYTES, "198.51.100.0/24")

    assert shaper.passes(V4)
    assert (shaper.stats(wide)["packets"], shaper.stats(narrow)["packets"]) == (0, 1)

    shaper.assign("198.51.100.1", wide)
    assert shaper.passes(V4)
    assert (shaper.stats(wide)["packets"], shaper.stats(narrow)["packets"]) == (1, 1)


def test_a_direction_has_classes_of_its_own(shaper: Shaper) -> None:
    egress = shaper.add(RATE_BPS, BURST_BYTES, "0.0.0.0/0")
    ingress = shaper.add(RATE_BPS, BURST_BYTES, "192.0.2.1", direction="ingress")

    assert shaper.passes(V4)
    assert shaper.passes(V4, "ingress")

    assert shaper.stats(egress)["packets"] == shaper.stats(ingress)["packets"] == 1


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_arp_and_neighbour_discovery_are_exempt(shaper: Shaper, direction: str) -> None:
    slots = [shaper.add(8000, 60, p, direction=direction) for p in ("0.0.0.0/0", "::/0")]
    arp = ethernet(bytes(46), ETHERTYPE_ARP)
    solicitation = frame("2001:db8::1", icmpv6(135), hop_limit=255)

    for _ in range(10):
        assert shaper.passes(arp, direction)
        assert shaper.passes(solicitation, direction)

    assert shaper.totals(direction)["exempt"][0] == 20
    assert [shaper.stats(slot)["packets"] for slot in slots] == [0, 0]


def test_forged_neighbour_discovery_is_shaped(shaper: Shaper) -> None:
    slot = shaper.add(RATE_BPS, BURST_BYTES, "::/0")

    assert shaper.passes(frame("2001:db8::1", icmpv6(135), hop_limit=64))
    assert shaper.passes(frame("2001:db8::1", icmpv6(128), hop_limit=255))

    assert shaper.stats(slot)["packets"] == 2


@pytest.mark.parametrize(
    "packet",
    [
        frame("2001:db8::1", extensions=[Extension(HOP_BY_HOP)]),
        frame("2001:db8::1", tcp()),
        V6,
    ],
)
def test_what_follows_an_address_does_not_matter(shaper: Shaper, packet: bytes) -> None:
    slot = shaper.add(RATE_BPS, BURST_BYTES, TO_V6)

    assert shaper.passes(packet)

    assert shaper.stats(slot)["packets"] == 1


@pytest.mark.parametrize(
    "packet", [ethernet(bytes(46), 0x88B5), V4[:30].ljust(60, b"\0"), ethernet(bytes(46), 0x0800)]
)
def test_what_has_no_address_is_counted_and_passed(shaper: Shaper, packet: bytes) -> None:
    shaper.add(8000, 60, "::/0")
    # A truncated header still has its addresses where they belong or none at all.
    assert shaper.passes(packet)

    totals = shaper.totals()
    assert totals["unclassified"][0] + totals["classified"][0] == 1


def test_nothing_is_counted_where_nothing_is_shaped(shaper: Shaper) -> None:
    shaper.configure(flags=0)

    assert shaper.passes(V4)

    assert shaper.totals()["unclassified"] == (0, 0)


# How a class is held to its rate


def test_police_marks_what_can_be_marked_before_it_drops(shaper: Shaper) -> None:
    # GIVEN a class that marks from half of its burst on
    half = (BURST_BYTES // 2) * 1000 << 8  # at 1 us a byte
    slot = shaper.add(RATE_BPS, BURST_BYTES, TO_V4, mark=half)

    # WHEN a sender that knows ECN goes on
    outcomes = until_dropped(shaper, congested(V4, 1), wire_len=1000)

    # THEN the first half is left alone, the second is marked, and then it is dropped
    assert [ecn_of(outcome.packet) for outcome in outcomes] == [1] * 5 + [3] * 5
    assert shaper.stats(slot)["marked_packets"] == 5
    assert shaper.stats(slot)["dropped_packets"] == 1


@pytest.mark.parametrize(("ecn", "marked"), [(0, 0), (3, 0), (2, 5)])
@pytest.mark.parametrize("packet", [V4, V6])
def test_only_what_can_be_marked_is_marked(
    shaper: Shaper, packet: bytes, ecn: int, marked: int
) -> None:
    half = (BURST_BYTES // 2) * 1000 << 8
    slot = shaper.add(RATE_BPS, BURST_BYTES, TO_V4, TO_V6, mark=half)

    outcomes = until_dropped(shaper, congested(packet, ecn), wire_len=1000)

    assert len(outcomes) == 10
    assert shaper.stats(slot)["marked_packets"] == marked
    assert {ecn_of(o.packet) for o in outcomes} == ({ecn, 3} if marked else {ecn})


def test_htb_names_the_class_and_drops_nothing(shaper: Shaper) -> None:
    slot = shaper.add(8000, 60, TO_V4, shaping=Shaping.HTB, htb=0xEB0F0007)

    outcomes = [shaper.run(V4, wire_len=1500) for _ in range(5)]

    assert {(o.passed, o.priority, o.tstamp) for o in outcomes} == {(True, 0xEB0F0007, 0)}
    assert shaper.stats(slot)["packets"] == 5
    assert shaper.stats(slot)["bytes"] == 7500


def test_what_is_not_classified_keeps_its_priority_and_its_time(shaper: Shaper) -> None:
    shaper.add(8000, 60, "203.0.113.0/24", shaping=Shaping.HTB, htb=0xEB0F0001)

    outcome = shaper.run(V4, priority=5, tstamp=77)

    assert (outcome.passed, outcome.priority, outcome.tstamp) == (True, 5, 77)


def test_the_wire_length_is_what_a_class_is_charged(shaper: Shaper) -> None:
    slot = shaper.add(RATE_BPS, BURST_BYTES, TO_V4)

    assert shaper.passes(V4, wire_len=9000, gso_segs=6, gso_size=1448)

    assert shaper.owed(slot) == 9000 * 1000 << 8
    assert shaper.stats(slot)["packets"] == 6


def test_on_ingress_the_headers_of_merged_segments_count(shaper: Shaper) -> None:
    # GIVEN three segments that the interface merged into one packet
    slot = shaper.add(RATE_BPS, BURST_BYTES, "192.0.2.1", direction="ingress")
    merged = frame("192.0.2.1", tcp(payload=bytes(3 * 400)))

    assert shaper.passes(merged, "ingress", gso_segs=3, gso_size=400)

    # THEN it is charged as the three that came over the wire: 54 bytes of headers each
    assert shaper.stats(slot)["bytes"] == 3 * (54 + 400)
    assert shaper.stats(slot)["packets"] == 3


def test_pace_marks_what_waits_long_and_drops_what_would_wait_too_long(shaper: Shaper) -> None:
    # GIVEN a packet takes 100 ms, the mark is 5 ms and the horizon 2 s
    slot = shaper.add(80_000, 1000, TO_V4, shaping=Shaping.PACE)

    outcomes = until_dropped(shaper, congested(V4, 2), wire_len=1000)

    # THEN each leaves 100 ms after the one before, up to the horizon
    assert [o.tstamp - START_NS for o in outcomes] == [100_000_000 * n for n in range(21)]
    assert [ecn_of(o.packet) for o in outcomes] == [2] + [3] * 20
    assert shaper.stats(slot)["dropped_packets"] == 1
    # A dropped packet takes no place.
    shaper.now_ns += SECOND_NS // 10
    assert shaper.run(V4, wire_len=1000).tstamp == START_NS + 2 * SECOND_NS + SECOND_NS // 10


def test_pace_honours_a_later_time_that_tcp_asked_for(shaper: Shaper) -> None:
    shaper.add(RATE_BPS, BURST_BYTES, TO_V4, shaping=Shaping.PACE)
    later = START_NS + MARK_NS

    assert shaper.run(V4, tstamp=later).tstamp == later
    assert shaper.run(V4, tstamp=START_NS - 5).tstamp == START_NS


def test_pace_does_not_believe_a_time_of_another_clock(shaper: Shaper) -> None:
    shaper.add(RATE_BPS, BURST_BYTES, TO_V4, shaping=Shaping.PACE)
    wall_ns = 1_750_000_000 * SECOND_NS

    assert shaper.run(V4, tstamp=wall_ns).tstamp == START_NS
