# SPDX-License-Identifier: Apache-2.0
"""What the balancer sends is what scapy would have built, byte for byte, both ways."""

from __future__ import annotations

import ipaddress
import itertools
import random
from dataclasses import replace

import pytest

from tests.kernel.balancer import (
    LOOPBACK,
    MAGLEV,
    OWN_MAC,
    PASS,
    RR,
    TX,
    Balancer,
    End,
    Vip,
    backend_mac,
)
from tests.kernel.frames import CLIENT_MAC, VIP_MAC, Shape
from tests.kernel.packets import TCP, UDP
from tests.kernel.pipeline import Pipeline

pytestmark = pytest.mark.kernel

VIPS = {
    (4, TCP): End("198.51.100.10", 80), (4, UDP): End("198.51.100.10", 53, UDP),
    (6, TCP): End("2001:db8:f::10", 80), (6, UDP): End("2001:db8:f::10", 53, UDP),
}  # fmt: skip
FLOWS = 10_000
"""Random ones, of all versions and tags together."""
CLIENT_BYTES, VIP_BYTES = (bytes.fromhex(mac.replace(":", "")) for mac in (CLIENT_MAC, VIP_MAC))


def backends(version: int, protocol: int) -> list[End]:
    base = "10.0.0.{}" if version == 4 else "2001:db8:b::{}"
    port = 8080 if protocol == TCP else 5353
    return [End(base.format(number), port, protocol) for number in (1, 2, 3)]


@pytest.fixture
def balancer(pipeline: Pipeline) -> Balancer:
    return Balancer(pipeline)


def add(balancer: Balancer, version: int, protocol: int, algorithm: int = RR) -> Vip:
    made = balancer.vip(VIPS[version, protocol], backends(version, protocol), algorithm=algorithm)
    if version == 6 or protocol == UDP:
        for slot in made.backends:
            balancer.write_backend(made, slot)
    return made


def client(version: int, protocol: int, number: int = 1, port: int = 40000) -> End:
    base = "192.0.2.{}" if version == 4 else "2001:db8:c::{:x}"
    return End(base.format(number), port, protocol)


def tagged(balancer: Balancer, vip: Vip, tags: tuple[int, ...]) -> None:
    """Let backends be reached by a VLAN like the packet's."""
    for slot in vip.backends:
        vlan = len(tags) << 12 | (tags[0] if tags else 0)
        balancer.write_backend(vip, slot, vlan=vlan)


def test_frames_are_what_scapys_layers_build() -> None:
    """The shapes of all tests, and payloads that bring the sum of UDP to 0."""
    chance = random.Random(1)
    for version, protocol, flags, number in itertools.product(
        (4, 6), (TCP, UDP), ("S", "A", "PA", "FA", "RA"), range(12)
    ):
        v4 = version == 4
        shape = Shape(
            client(version, protocol, number + 1, chance.randrange(1, 1 << 16)),
            VIPS[version, protocol], flags, chance.randbytes(chance.randrange(60)),
            [(), (42,), (42, 7)][number % 3], chance.randrange(1, 256),
            no_checksum=v4 and number % 4 == 0, fragment=(0, 0x2000, 7, 0x4000)[number % 4] * v4,
            options=v4 and number % 5 == 0,
        )  # fmt: skip
        assert shape.to_bytes() == shape.by_layers()
    empty = Shape(client(4, UDP), VIPS[4, UDP], payload=bytes(2))
    zero = replace(empty, payload=empty.to_bytes()[40:42])
    assert zero.to_bytes() == zero.by_layers()
    assert zero.to_bytes()[40:42] == b"\xff\xff"


@pytest.mark.parametrize("tags", [(), (42,), (42, 7)])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_both_directions_are_what_scapy_builds(
    balancer: Balancer, version: int, protocol: int, tags: tuple[int, ...]
) -> None:
    vip = add(balancer, version, protocol)
    tagged(balancer, vip, tags)
    slots = list(vip.backends)
    for turn, payload in enumerate((b"", b"odd", b"x" * 1000, b"\xff" * 999)):
        slot = slots[turn % 3]
        sent = Shape(client(version, protocol, port=50000 + turn), vip.end, "S", payload, tags)
        there = sent.to(vip.backends[slot], macs=(OWN_MAC, backend_mac(slot)))
        assert balancer.run(sent.to_bytes()) == (TX, there.to_bytes())
        answer = replace(sent.answer(vip.backends[slot], "SA", payload), hop_limit=63)
        back = answer.coming(vip.end, macs=(VIP_BYTES, CLIENT_BYTES))
        assert balancer.run(answer.to_bytes()) == (TX, back.to_bytes())


@pytest.mark.parametrize("tags", [(), (42,)])
@pytest.mark.parametrize("version", [4, 6])
def test_random_flows_are_right_in_both_directions(
    balancer: Balancer, version: int, tags: tuple[int, ...]
) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    made = {protocol: add(balancer, version, protocol, MAGLEV) for protocol in (TCP, UDP)}
    for vip in made.values():
        tagged(balancer, vip, tags)
    for _ in range(FLOWS // 4):
        protocol = chance.choice((TCP, UDP))
        vip = made[protocol]
        net = (0x0A640000, 16) if version == 4 else (0x2001_0DB8_00C0 << 80, 80)
        own = ipaddress.ip_address(net[0] | chance.getrandbits(net[1]))
        sent = Shape(
            End(str(own), chance.randrange(1, 1 << 16), protocol), vip.end,
            chance.choice(("S", "A", "PA")), chance.randbytes(chance.randrange(40)), tags,
            hop_limit=chance.randrange(2, 256),
            no_checksum=version == 4 and chance.random() < 0.2,
        )  # fmt: skip
        action, after = balancer.run(sent.to_bytes())
        slot = after[5]
        there = sent.to(vip.backends[slot], macs=(OWN_MAC, backend_mac(slot)))
        assert (action, after) == (TX, there.to_bytes()), f"seed {seed}: {sent}"
        answer = sent.answer(vip.backends[slot], "A", chance.randbytes(chance.randrange(40)))
        back = answer.coming(vip.end, macs=(VIP_BYTES, CLIENT_BYTES))
        assert balancer.run(answer.to_bytes()) == (TX, back.to_bytes()), f"seed {seed}: {sent}"


@pytest.mark.parametrize("version", [4, 6])
def test_every_udp_checksum_survives_the_rewriting(balancer: Balancer, version: int) -> None:
    """GIVEN payloads that make the checksum take every value THEN it is right after it."""
    vip = add(balancer, version, UDP)
    balancer.ring(vip, [1])
    for value in range(0, 1 << 16, 97):
        sent = Shape(client(version, UDP), vip.end, payload=value.to_bytes(2, "big"))
        there = sent.to(vip.backends[1], macs=(OWN_MAC, backend_mac(1)))
        assert balancer.run(sent.to_bytes())[1] == there.to_bytes()


def test_a_udp_checksum_that_comes_to_zero_is_sent_as_all_ones(balancer: Balancer) -> None:
    vip = add(balancer, 4, UDP)
    balancer.ring(vip, [1])
    sent = Shape(client(4, UDP), vip.end, payload=bytes(2))
    there = sent.to(vip.backends[1], macs=(OWN_MAC, backend_mac(1)))
    # What a sum lacks to all ones is its checksum: as payload it makes the next one zero.
    sent = replace(sent, payload=there.to_bytes()[40:42])
    there = sent.to(vip.backends[1], macs=(OWN_MAC, backend_mac(1)))
    assert there.to_bytes()[40:42] == b"\xff\xff"
    assert balancer.run(sent.to_bytes()) == (TX, there.to_bytes())


def test_padding_behind_the_packet_stays(balancer: Balancer) -> None:
    vip = add(balancer, 4, TCP)
    balancer.ring(vip, [1])
    sent = Shape(client(4, TCP), vip.end, "S")
    there = sent.to(vip.backends[1], macs=(OWN_MAC, backend_mac(1)))
    assert balancer.run(sent.to_bytes() + b"pad")[1] == there.to_bytes() + b"pad"


def test_packets_for_no_vip_are_untouched(balancer: Balancer) -> None:
    vip = add(balancer, 4, TCP)
    for end in (replace(vip.end, port=81), replace(vip.end, protocol=UDP),
                replace(vip.end, address="198.51.100.11")):  # fmt: skip
        frame = Shape(replace(client(4, TCP), protocol=end.protocol), end, "S").to_bytes()
        assert balancer.run(frame) == (PASS, frame)


def test_a_vlan_is_changed_where_the_backend_is_in_another(balancer: Balancer) -> None:
    vip = add(balancer, 4, TCP)
    balancer.ring(vip, [1])
    balancer.write_backend(vip, 1, vlan=1 << 12 | 99)
    sent = Shape(client(4, TCP), vip.end, "S", vlans=(42,))
    there = replace(sent.to(vip.backends[1], macs=(OWN_MAC, backend_mac(1))), vlans=(99,))
    assert balancer.run(sent.to_bytes()) == (TX, there.to_bytes())
    answer = replace(sent.answer(vip.backends[1], "SA"), vlans=(99,))
    back = replace(answer.coming(vip.end, macs=(VIP_BYTES, CLIENT_BYTES)), vlans=(42,))
    assert balancer.run(answer.to_bytes()) == (TX, back.to_bytes())


def test_dsr_changes_mac_addresses_alone(balancer: Balancer) -> None:
    end = VIPS[4, TCP]
    vip = balancer.vip(end, [replace(end, address="10.0.0.1")], dsr=True, ifindex=LOOPBACK)
    sent = Shape(client(4, TCP), vip.end, "S", b"odd")
    there = replace(sent, macs=(OWN_MAC.hex(":"), backend_mac(1).hex(":")))
    assert balancer.run(sent.to_bytes()) == (TX, there.to_bytes())


def test_bytes_on_the_wire_are_counted_for_vip_and_backend(balancer: Balancer) -> None:
    vip = add(balancer, 4, TCP)
    balancer.ring(vip, [2])
    sent = Shape(client(4, TCP), vip.end, "S", b"hello")
    answer = sent.answer(vip.backends[2], "SA", b"hi")
    frames = sent.to_bytes(), answer.to_bytes()
    for frame in frames:
        balancer.run(frame)
    counted = {
        "packets": 1, "bytes": len(frames[0]), "reply_packets": 1, "reply_bytes": len(frames[1]),
        "opened": 1,
    }  # fmt: skip
    assert balancer.counts("vip_stats", vip.slot) == counted
    assert balancer.counts("backend_stats", 2) == counted
