# SPDX-License-Identifier: Apache-2.0
"""What is not balanced as usual: fragments, options, last hops, ways not known, lost flows."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Flag
from tests.kernel.balancer import (
    DROP,
    LEAST,
    MAGLEV,
    PASS,
    REDIRECT,
    RR,
    TX,
    Balancer,
    End,
    Vip,
    backend_mac,
    destination,
)
from tests.kernel.frames import Shape
from tests.kernel.packets import (
    DESTINATION,
    FRAGMENT,
    UDP,
    Extension,
    frame,
    tcp,
)
from tests.kernel.pipeline import SECOND_NS, Pipeline

pytestmark = pytest.mark.kernel

VIP = End("198.51.100.10", 80)
VIP6 = End("2001:db8:f::10", 80)
BACKENDS = [End(f"10.0.0.{number}", 8080) for number in (1, 2)]
BACKENDS6 = [End(f"2001:db8:b::{number}", 8080) for number in (1, 2)]
CLIENT = End("192.0.2.1", 40000)
CLIENT6 = End("2001:db8:c::1", 40000)
NEIGHBOUR_MAC = "02:00:00:00:77:01"
_NEW_NET = 0x40000000


@pytest.fixture
def balancer(pipeline: Pipeline) -> Balancer:
    return Balancer(pipeline)


@pytest.fixture
def routed() -> Iterator[int]:
    """This thread in a network of its own that forwards; yields the number of its interface.

    Packets of test runs come in by the loopback there. Backends are behind `lan`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as home:
        assert libc.unshare(_NEW_NET) == 0
        try:
            for line in (
                "ip link set lo up",
                "ip link add lan mtu 1400 type veth peer name far",
                "ip addr add 10.0.0.254/24 dev lan", "ip addr add 192.0.2.254/24 dev lan",
                "ip addr add 2001:db8:b::ff/64 dev lan nodad",
                "ip addr add 2001:db8:c::ff/64 dev lan nodad",
                "ip link set lan up", "ip link set far up",
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
                f"ip neigh add 10.0.0.1 lladdr {NEIGHBOUR_MAC} dev lan nud permanent",
                f"ip neigh add 2001:db8:b::1 lladdr {NEIGHBOUR_MAC} dev lan nud permanent",
                f"ip neigh add 192.0.2.1 lladdr {NEIGHBOUR_MAC} dev lan nud permanent",
            ):  # fmt: skip
                subprocess.run(line.split(), check=True)
            show = subprocess.run(
                ["ip", "-o", "link", "show", "lan"], check=True, capture_output=True, text=True
            )
            yield int(show.stdout.split(":")[0])
        finally:
            libc.setns(home.fileno(), _NEW_NET)


def leave_by(balancer: Balancer, ifindex: int) -> None:
    """Let packets leave by an interface, as for those of the instance."""
    port = np.zeros(1, layout.PORT)
    port["ifindex"] = ifindex
    balancer.maps["ports"].put(ifindex, port)


def opened(balancer: Balancer) -> Vip:
    vip = balancer.vip(VIP, BACKENDS)
    balancer.ring(vip, [1])
    return vip


# Fragments and options

FRAGMENTS = [
    Shape(CLIENT, VIP, "A", b"x" * 64, fragment=0x2000),
    Shape(CLIENT, VIP, "A", b"x" * 64, fragment=0x2000 | 100),
    Shape(CLIENT, VIP, "A", b"x" * 64, fragment=100),
    Shape(BACKENDS[0], CLIENT, "A", b"x" * 64, fragment=0x2000),
    Shape(BACKENDS[0], CLIENT, "A", b"x" * 64, fragment=100),
]


@pytest.mark.parametrize("drops", [False, True])
def test_fragments_are_left_to_the_stack_or_dropped(balancer: Balancer, drops: bool) -> None:
    opened(balancer)
    balancer.run(Shape(CLIENT, VIP, "S").to_bytes())
    balancer.pipeline.configure([Flag.VIPS, *([Flag.DROP_FRAGMENTS] if drops else [])])
    for shape in FRAGMENTS:
        sent = shape.to_bytes()
        assert balancer.run(sent) == (DROP if drops else PASS, sent)
    counted = {"vip-fragment": len(FRAGMENTS)} if drops else {}
    assert balancer.pipeline.totals()["drops"] == counted
    assert balancer.handed() == ({} if drops else {"fragment": len(FRAGMENTS)})


def test_fragments_for_others_are_no_business_of_ours(balancer: Balancer) -> None:
    opened(balancer)
    balancer.pipeline.configure([Flag.VIPS, Flag.DROP_FRAGMENTS])
    other = End("198.51.100.99", 80)
    for fragment in (0x2000, 0x2001, 100):
        sent = Shape(CLIENT, other, "A", b"x" * 64, fragment=fragment).to_bytes()
        assert balancer.run(sent) == (PASS, sent)
    assert balancer.handed() == {}


@pytest.mark.parametrize("drops", [False, True])
def test_options_are_left_to_the_stack_or_dropped(balancer: Balancer, drops: bool) -> None:
    opened(balancer)
    balancer.run(Shape(CLIENT, VIP, "S").to_bytes())
    balancer.pipeline.configure([Flag.VIPS, *([Flag.DROP_OPTIONS] if drops else [])])
    for shape in (Shape(CLIENT, VIP, "A"), Shape(BACKENDS[0], CLIENT, "A")):
        sent = replace(shape, options=True).to_bytes()
        assert balancer.run(sent) == (DROP if drops else PASS, sent)
    assert balancer.pipeline.totals()["drops"] == ({"vip-options": 2} if drops else {})
    assert balancer.handed() == ({} if drops else {"options": 2})


@pytest.mark.parametrize("drops", [False, True])
def test_ipv6_extension_headers_count_as_options(balancer: Balancer, drops: bool) -> None:
    served = End("2001:db8:ffff::1", 80)
    balancer.vip(served, BACKENDS6)
    balancer.pipeline.configure([Flag.VIPS, *([Flag.DROP_OPTIONS] if drops else [])])
    sent = frame("2001:db8:c::1", tcp(), extensions=[Extension(DESTINATION)])
    assert balancer.run(sent) == (DROP if drops else PASS, sent)
    assert balancer.handed() == ({} if drops else {"options": 1})


def test_ipv6_fragments_are_known_by_address(balancer: Balancer) -> None:
    balancer.vip(End("2001:db8:ffff::1", 80), BACKENDS6)
    for offset in (0, 100):
        sent = frame("2001:db8:c::1", tcp(), extensions=[Extension(FRAGMENT, offset=offset)])
        assert balancer.run(sent) == (PASS, sent)
    assert balancer.handed() == {"fragment": 2}


# The way out


def test_a_hop_on_another_interface_is_a_redirect(balancer: Balancer, routed: int) -> None:
    vip = opened(balancer)
    balancer.write_backend(vip, 1, ifindex=routed)
    action, after = balancer.run(Shape(CLIENT, VIP, "S").to_bytes())
    assert (action, destination(after)) == (REDIRECT, "10.0.0.1")
    assert balancer.pipeline.totals()["others"] == 1


@pytest.mark.parametrize("version", [4, 6])
def test_without_a_hop_the_kernel_is_asked_for_the_way(
    balancer: Balancer, routed: int, version: int
) -> None:
    end, backends, client = (VIP, BACKENDS, CLIENT) if version == 4 else (VIP6, BACKENDS6, CLIENT6)
    vip = balancer.vip(end, backends, ifindex=0)
    balancer.ring(vip, [1])
    leave_by(balancer, routed)
    action, after = balancer.run(Shape(client, end, "S").to_bytes())
    assert (action, destination(after)) == (REDIRECT, backends[0].address)
    assert after[:6].hex(":") == NEIGHBOUR_MAC


@pytest.mark.parametrize("version", [4, 6])
def test_a_hop_that_nobody_keeps_any_more_gives_way_to_the_route(
    balancer: Balancer, routed: int, version: int
) -> None:
    end, backends, client = (VIP, BACKENDS, CLIENT) if version == 4 else (VIP6, BACKENDS6, CLIENT6)
    balancer.ring(balancer.vip(end, backends), [1])
    leave_by(balancer, routed)
    sent = Shape(client, end, "S").to_bytes()

    def way() -> tuple[int, str]:
        action, after = balancer.run(sent)
        assert destination(after) == backends[0].address
        return action, after[:6].hex(":")

    kept, found = (TX, backend_mac(1).hex(":")), (REDIRECT, NEIGHBOUR_MAC)
    until_ns = balancer.pipeline.now_ns + 10 * SECOND_NS
    balancer.pipeline.configure(hops_until_ns=until_ns)
    assert way() == kept
    balancer.pipeline.now_ns = until_ns - 1
    assert way() == kept
    # WHEN the process that saw to it is gone for too long
    balancer.pipeline.now_ns = until_ns
    assert way() == found
    # AND WHEN there is one again
    balancer.pipeline.configure(hops_until_ns=until_ns + SECOND_NS)
    assert way() == kept


def test_an_unknown_neighbour_gets_the_rewritten_packet_to_the_stack(
    balancer: Balancer, routed: int
) -> None:
    vip = balancer.vip(VIP, BACKENDS, ifindex=0)
    leave_by(balancer, routed)
    balancer.ring(vip, [2])
    sent = Shape(CLIENT, VIP, "S")
    there = replace(sent, destination=vip.backends[2])
    assert balancer.run(sent.to_bytes()) == (PASS, there.to_bytes())
    assert balancer.handed() == {"neighbour": 1}
    assert balancer.counts("backend_stats", 2)["packets"] == 1


def test_an_interface_that_is_not_ours_is_left_to_the_stack(
    balancer: Balancer, routed: int
) -> None:
    vip = balancer.vip(VIP, BACKENDS, ifindex=0)
    balancer.ring(vip, [1])
    sent = Shape(CLIENT, VIP, "S")
    there = replace(sent, destination=vip.backends[1])
    assert balancer.run(sent.to_bytes()) == (PASS, there.to_bytes())


def test_with_dsr_and_no_way_a_packet_is_dropped(balancer: Balancer, routed: int) -> None:
    vip = balancer.vip(VIP, [replace(VIP, address="10.0.0.2")], dsr=True, ifindex=0)
    leave_by(balancer, routed)
    sent = Shape(CLIENT, VIP, "S").to_bytes()
    assert balancer.run(sent) == (DROP, sent)
    assert balancer.pipeline.totals()["drops"] == {"no-next-hop": 1}
    assert balancer.counts("vip_stats", vip.slot)["dropped"] == 1
    assert "packets" not in balancer.counts("backend_stats", 1)


def test_tags_that_do_not_fit_are_left_to_the_stack(balancer: Balancer) -> None:
    vip = opened(balancer)
    sent = Shape(CLIENT, VIP, "S", vlans=(42,))
    there = replace(sent, destination=vip.backends[1])
    assert balancer.run(sent.to_bytes()) == (PASS, there.to_bytes())


def test_replies_take_the_route_once_there_is_one(balancer: Balancer, routed: int) -> None:
    opened(balancer)
    leave_by(balancer, routed)
    assert balancer.run(Shape(CLIENT, VIP, "S").to_bytes())[0] == TX
    action, after = balancer.run(Shape(BACKENDS[0], CLIENT, "SA").to_bytes())
    assert (action, after[:6].hex(":")) == (REDIRECT, NEIGHBOUR_MAC)


def test_a_reply_that_is_too_large_leaves_the_question_to_the_next(
    balancer: Balancer, routed: int
) -> None:
    opened(balancer)
    leave_by(balancer, routed)
    assert balancer.run(Shape(CLIENT, VIP, "S").to_bytes())[0] == TX
    large = Shape(BACKENDS[0], CLIENT, payload=b"x" * 1450, fragment=0x4000)
    assert balancer.run(large.to_bytes())[0] == TX
    assert balancer.answered() == {"too-big": 1}
    action, after = balancer.run(Shape(BACKENDS[0], CLIENT).to_bytes())
    assert (action, after[:6].hex(":")) == (REDIRECT, NEIGHBOUR_MAC)


# Lost flows


def test_a_reply_of_no_flow_is_dropped(balancer: Balancer, routed: int) -> None:
    opened(balancer)
    leave_by(balancer, routed)
    sent = Shape(BACKENDS[0], CLIENT, "A").to_bytes()
    assert balancer.run(sent) == (DROP, sent)
    assert balancer.pipeline.totals()["drops"] == {"reply-no-flow": 1}


def test_a_reply_for_this_machine_itself_passes(balancer: Balancer, routed: int) -> None:
    opened(balancer)
    sent = Shape(BACKENDS[0], End("10.0.0.254", 50000), "SA").to_bytes()
    assert balancer.run(sent) == (PASS, sent)


def test_packets_of_a_vip_are_those_of_its_backends_and_those_that_never_got_there(
    balancer: Balancer, routed: int
) -> None:
    vip = opened(balancer)
    direct = replace(VIP, port=81)
    direct_vip = balancer.vip(direct, [replace(direct, address="10.0.0.9")], dsr=True, ifindex=0)
    request = Shape(CLIENT, VIP, payload=b"x" * 64)
    answer = Shape(BACKENDS[0], CLIENT, payload=b"x" * 64)
    rare = [
        replace(request, options=True), replace(request, fragment=0x2000),
        replace(answer, options=True), replace(answer, fragment=0x2000),
    ]  # fmt: skip
    common = [
        request, answer, replace(request, hop_limit=1), replace(request, destination=direct),
        replace(answer, destination=End("192.0.2.77", 9)),
    ]  # fmt: skip
    for shape in (*common, *rare):
        balancer.run(shape.to_bytes())
    balancer.pipeline.configure([Flag.VIPS, Flag.DROP_OPTIONS, Flag.DROP_FRAGMENTS])
    for shape in rare:
        balancer.run(shape.to_bytes())

    told = balancer.counts("vip_stats", vip.slot)
    assert (told["packets"], told["dropped"], told["handed"]) == (6, 3, 2)
    # What backends send is no packet of the VIP's, whatever becomes of it.
    assert (told["reply_dropped"], told["reply_handed"]) == (3, 2)
    for each in (vip, direct_vip):
        told = balancer.counts("vip_stats", each.slot)
        got = sum(balancer.counts("backend_stats", s).get("packets", 0) for s in each.backends)
        assert told["packets"] == got + told["dropped"] + told.get("handed", 0)


def test_in_a_flood_replies_need_no_flow(balancer: Balancer, routed: int) -> None:
    opened(balancer)
    leave_by(balancer, routed)
    balancer.pipeline.configure(new_flows=0)
    assert balancer.run(Shape(CLIENT, VIP, "S").to_bytes())[0] == TX
    assert balancer.connections() == []
    action, after = balancer.run(Shape(BACKENDS[0], CLIENT, "SA").to_bytes())
    assert action == REDIRECT
    there = replace(
        Shape(VIP, CLIENT, "SA"), hop_limit=63, macs=(after[6:12].hex(":"), NEIGHBOUR_MAC)
    )
    assert after == there.to_bytes()
    # WHEN it is long over THEN they do again
    balancer.pipeline.advance(61)
    assert balancer.run(Shape(BACKENDS[0], CLIENT, "SA").to_bytes())[0] == DROP


def test_in_a_flood_no_reply_is_guessed_of_a_backend_of_two_vips(
    balancer: Balancer, routed: int
) -> None:
    opened(balancer)
    balancer.vip(replace(VIP, port=81), BACKENDS)
    leave_by(balancer, routed)
    balancer.pipeline.configure(new_flows=0)
    assert balancer.run(Shape(CLIENT, VIP, "S").to_bytes())[0] == TX
    assert balancer.run(Shape(BACKENDS[0], CLIENT, "SA").to_bytes())[0] == DROP
    assert balancer.pipeline.totals()["drops"] == {"reply-no-flow": 1}


# Explaining


@contextmanager
def nothing_written(balancer: Balancer, *, rings: bool = False) -> Iterator[None]:
    """No map changes meanwhile; the rings, which take long to read, are looked at on demand."""
    before = contents(balancer, rings=rings)
    yield
    assert contents(balancer, rings=rings) == before


def contents(balancer: Balancer, *, rings: bool) -> dict[str, bytes]:
    """Everything in every map, in the order of its keys."""
    held = {}
    for name, opened_map in balancer.maps.items():
        if name == "rings" and not rings:
            continue
        keys, values = opened_map.read()
        if opened_map.type.endswith("array"):
            held[name] = values.tobytes()
        else:
            rows = zip([k.tobytes() for k in keys], [v.tobytes() for v in values], strict=True)
            held[name] = b"".join(key + value for key, value in sorted(rows))
    return held


@pytest.mark.parametrize("algorithm", [RR, LEAST, MAGLEV])
def test_explain_says_what_happens_next_and_changes_nothing(
    balancer: Balancer, algorithm: int
) -> None:
    balancer.vip(VIP, BACKENDS, algorithm=algorithm)
    balancer.pipeline.limit(Flag.VIPS, Flag.DROP_NEW, pps=1000, block_for_s=60)
    for port in range(1, 20):
        sent = Shape(replace(CLIENT, port=port), VIP, "S").to_bytes()
        with nothing_written(balancer, rings=port == 1):
            action, placement, reason, backend = balancer.explain(sent)
        assert (action, reason) == (TX, "")
        assert placement == {RR: 2, LEAST: 3, MAGLEV: 4}[algorithm]
        assert balancer.placed(sent) == BACKENDS[backend - 1].address
        with nothing_written(balancer):
            assert balancer.explain(sent) == (TX, 1, "", backend)


def test_explain_names_the_reason_of_a_drop(balancer: Balancer) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    balancer.pipeline.block("192.0.2.66")
    blocked = Shape(End("192.0.2.66", 1), VIP, "S").to_bytes()
    with nothing_written(balancer):
        assert balancer.explain(blocked)[::2] == (DROP, "blocked")
    balancer.ring(vip, [])
    assert balancer.explain(Shape(CLIENT, VIP, "S").to_bytes()) == (DROP, 2, "no-backend", 0)
    assert balancer.explain(Shape(CLIENT, replace(VIP, port=81), "S").to_bytes()) == (
        PASS,
        0,
        "",
        0,
    )


def test_explain_meets_every_path_and_writes_nothing(balancer: Balancer, routed: int) -> None:
    vip = balancer.vip(VIP, BACKENDS)
    udp = balancer.vip(replace(VIP, protocol=UDP), [replace(e, protocol=UDP) for e in BACKENDS])
    leave_by(balancer, routed)
    balancer.pipeline.limit(Flag.VIPS, pps=1, burst_s=1, grace_s=0, block_for_s=60)
    for flags in ("S", "A"):
        balancer.run(Shape(CLIENT, VIP, flags).to_bytes())
    balancer.write_backend(vip, 1, serves=False)
    balancer.pipeline.advance(5)
    shapes = [
        *(Shape(CLIENT, VIP, flags) for flags in ("S", "A", "FA", "R")),
        *(Shape(BACKENDS[0], CLIENT, flags) for flags in ("SA", "A", "FA", "R")),
        Shape(BACKENDS[1], CLIENT, "A"), Shape(replace(CLIENT, port=1), VIP, "S", hop_limit=1),
        *FRAGMENTS, Shape(CLIENT, VIP, options=True), Shape(replace(CLIENT, protocol=UDP), udp.end),
        Shape(CLIENT6, VIP6),
    ]  # fmt: skip
    for number, shape in enumerate(shapes):
        with nothing_written(balancer, rings=number == 0):
            told = [balancer.explain(shape.to_bytes()) for _ in range(3)]
        assert told[0] == told[1] == told[2]


def test_an_ipv6_packet_to_a_mapped_address_is_for_no_vip(balancer: Balancer) -> None:
    opened(balancer)
    mapped = replace(VIP, address=f"::ffff:{VIP.address}")
    sent = Shape(CLIENT6, mapped, "S").to_bytes()
    assert balancer.run(sent) == (PASS, sent)
