# SPDX-License-Identifier: Apache-2.0
"""The verbs that change the balancer and explain it, on an attached instance."""

from __future__ import annotations

import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebpftop.bpf import balancer_records as convert
from ebpftop.bpf import layout
from ebpftop.config import CapacityPolicy, Policy
from ebpftop.control import explaining
from ebpftop.control.everything import InstanceControl
from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import PIPELINE, Instance
from ebpftop.model import HealthCheck, Limits, Prefix, Service
from tests.kernel.attached import NOBODY
from tests.kernel.balancer import DROP, End, destination
from tests.kernel.frames import Shape
from tests.kernel.packets import TCP, UDP
from tests.kernel.stage import IFACE, PROGRAM, Stage, ebpftop, staged

pytestmark = pytest.mark.kernel

VIP, DNS, VIP6 = "192.0.2.10:80/tcp", "192.0.2.10:53/udp", "[2001:db8::10]:80/tcp"
ONE, TWO = "10.0.0.1", "10.0.0.2"
SMALL = CapacityPolicy(sources=1024, blocks=64, prefixes=64, connections=65_536)
"""All maps are read again and again."""


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(Policy(capacity=SMALL), clients=0, quiet=True) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Iterator[Stage]:
    yield attached
    balancing = InstanceControl(attached.instance).balancing
    for key in attached.instance.maps["vips"].read()[0].copy():
        balancing.delete_vip(convert.service(key))
    attached.clear()


def done(*words: str) -> str:
    """Run a verb that must succeed without a word of complaint; returns its output."""
    answer = ebpftop(*words)
    assert (answer.status, answer.err) == (0, "")
    return answer.out


def refused(status: int, *words: str) -> str:
    """Run a verb that must fail so; returns its one line of complaint."""
    answer = ebpftop(*words)
    assert (answer.status, answer.out) == (status, "")
    assert answer.err.startswith("ebpftop: ")
    assert answer.err.count("\n") == 1
    return answer.err.removeprefix("ebpftop: ").rstrip()


def balance(vip: str, *backends: str, algorithm: str = "rr") -> None:
    done("vip", "add", IFACE, vip, "--algorithm", algorithm)
    for backend in backends:
        done("backend", "add", IFACE, vip, backend)


def send(instance: Instance, port: int, vip: str = VIP, flags: str = "S") -> str:
    """Give the attached program a packet to a VIP; returns where it went."""
    service = Service.parse(vip)
    protocol = TCP if service.protocol == "tcp" else UDP
    client = End("10.9.0.1" if service.address.is_ipv4 else "2001:db8:9::1", port, protocol)
    frame = Shape(client, End(str(service.address), service.port, protocol), flags).to_bytes()
    action, after, _ = libbpf.run_program(instance.programs[PIPELINE], frame)
    return "dropped" if action == DROP else destination(after)


def rows(vip: str = VIP) -> dict[str, dict[str, Any]]:
    """What `backends` says of a VIP's, by their addresses."""
    answer = ebpftop("backends", IFACE, "--json").json()
    return {row["backend"]: row for row in answer if row["vip"] == vip}


def everything(stage: Stage) -> dict[str, tuple[int, ...]]:
    """A sum of each map's keys and of its values."""
    maps = stage.instance.maps.items()
    return {
        name: tuple(zlib.crc32(part.tobytes()) for part in opened.read()) for name, opened in maps
    }


@pytest.mark.parametrize(
    ("vip", "backends"),
    [
        (VIP, ("10.0.0.1:8080", "10.0.0.2:8080")),
        (DNS, ("10.0.0.1:53", "10.0.0.2:5353")),
        (VIP6, ("[2001:db8:1::1]:80", "[2001:db8:1::2]:80")),
    ],
)
def test_a_vip_from_nothing_to_nothing(stage: Stage, vip: str, backends: tuple[str, str]) -> None:
    first, second = (str(Service.parse(text, "tcp").address) for text in backends)
    balance(vip, *backends)
    assert [send(stage.instance, port, vip) for port in range(1, 5)] == [
        first,
        second,
        first,
        second,
    ]
    done("backend", "set", IFACE, vip, backends[0], "--weight", "3")
    done("vip", "set", IFACE, vip, "--algorithm", "wrr")
    assert [rows(vip)[text]["share"] for text in backends] == [0.75, 0.25]
    assert [rows(vip)[text]["connections"] for text in backends] == [2, 2]
    done("backend", "set", IFACE, vip, backends[0], "--state", "drain")
    assert {send(stage.instance, port, vip) for port in range(11, 15)} == {second}
    assert rows(vip)[backends[0]]["state"] == "drain"
    done("backend", "del", IFACE, vip, backends[0])
    assert {send(stage.instance, port, vip, "A") for port in range(1, 5)} == {second}
    done("vip", "del", IFACE, vip)
    assert rows(vip) == {}
    assert send(stage.instance, 1, vip) == str(Service.parse(vip).address)


def test_a_check_is_set_changed_and_taken_away(stage: Stage) -> None:
    def held() -> HealthCheck | None:
        return InstanceControl(stage.instance).balancing.vip(Service.parse(VIP)).check

    done("vip", "add", IFACE, VIP, "--check", "http", "--check-path", "/up", "--check-fall", "2")
    assert held() == HealthCheck("http", path="/up", fall=2)
    done("vip", "set", IFACE, VIP, "--check-interval", "1500ms", "--check-status", "204")
    assert held() == HealthCheck("http", path="/up", fall=2, interval_s=1.5, status=204)
    done("vip", "set", IFACE, VIP, "--algorithm", "maglev")
    assert held() is not None
    done("vip", "set", IFACE, VIP, "--check", "off")
    assert held() is None
    assert "say --check tcp" in refused(2, "vip", "set", IFACE, VIP, "--check-rise", "2")
    assert "for ever" in refused(
        2, "vip", "set", IFACE, VIP, "--check", "tcp", "--check-timeout", "forever"
    )


REFUSED = [
    (3, "vip set IFACE 192.0.2.99:80/tcp --algorithm rr", "no VIP 192.0.2.99:80/tcp"),
    (3, "vip del IFACE 192.0.2.99:80/tcp", f"there is {VIP}"),
    (3, "backend add IFACE 192.0.2.99:80/tcp 10.0.0.1:1", "no VIP"),
    (3, f"backend set IFACE {VIP} 10.0.0.9:8080 --weight 1", "has no backend 10.0.0.9:8080"),
    (3, f"backend del IFACE {VIP} 10.0.0.9:8080", "there is 10.0.0.1:8080"),
    (3, "explain IFACE 10.9.0.1:5 192.0.2.99:80/tcp", "no VIP"),
    (3, f"vip add nosuch {VIP}", "no interface nosuch"),
    (5, f"vip add lo {VIP}", "not attached to lo"),
    (5, f"explain lo 10.9.0.1:5 {VIP}", "not attached to lo"),
    (2, f"vip add IFACE {VIP}", "already"),
    (2, "vip add IFACE 192.0.2.10:80", "no VIP"),
    (2, "vip add IFACE 192.0.2.10/tcp", "no VIP"),
    (2, "vip add IFACE [192.0.2.10]:80/tcp", "no VIP"),
    (2, "vip add IFACE 192.0.2.11:0/tcp", "no VIP"),
    (2, "vip add IFACE 192.0.2.11:80/sctp", "no VIP"),
    (2, "vip add IFACE 192.0.2.11:80/tcp --algorithm best", "best"),
    (2, f"vip set IFACE {VIP}", "changes nothing"),
    (2, f"vip set IFACE {VIP} --mode dsr", "the VIP's port"),
    (2, f"backend add IFACE {VIP} 10.0.0.1:8080", "already"),
    (2, f"backend add IFACE {VIP} 10.0.0.3:8080/tcp", "no address and port"),
    (2, f"backend add IFACE {VIP} [2001:db8::1]:80", "other IP version"),
    (2, f"backend add IFACE {VIP} 192.0.2.10:81", "at the address of the VIP"),
    (2, f"backend set IFACE {VIP} 10.0.0.1:8080", "changes nothing"),
    (2, f"backend set IFACE {VIP} 10.0.0.1:8080 --weight 65536", "weight"),
    (2, f"backend set IFACE {VIP} 10.0.0.1:8080 --state gone", "gone"),
    (2, f"explain IFACE 10.9.0.1 {VIP}", "no address and port"),
    (2, f"explain IFACE [2001:db8::1]:5 {VIP}", "other IP version"),
]


def test_wrong_words_and_missing_things_have_their_exit_status_and_change_nothing(
    stage: Stage,
) -> None:
    balance(VIP, "10.0.0.1:8080")
    before = everything(stage)
    for status, line, words in REFUSED:
        assert words in refused(status, *line.replace("IFACE", IFACE).split()), line
        assert everything(stage) == before, line


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (f"vip add {IFACE} {DNS}", "changing anything"),
        (f"vip set {IFACE} {VIP} --algorithm rr", "changing anything"),
        (f"vip del {IFACE} {VIP}", "changing anything"),
        (f"backend add {IFACE} {VIP} 10.0.0.9:80", "changing anything"),
        (f"backend set {IFACE} {VIP} 10.0.0.1:8080 --weight 0", "changing anything"),
        (f"backend del {IFACE} {VIP} 10.0.0.1:8080", "changing anything"),
        (f"reload {IFACE}", "changing anything"),
        (f"explain {IFACE} 10.9.0.1:5 {VIP}", "running a program"),
    ],
)
def test_a_user_without_rights_is_told_to_become_root(stage: Stage, line: str, what: str) -> None:
    balance(VIP, "10.0.0.1:8080")
    answer = subprocess.run(
        [*NOBODY, PROGRAM, *line.split()], capture_output=True, text=True, timeout=30
    )
    assert (answer.returncode, answer.stdout) == (4, "")
    assert answer.stderr == f"ebpftop: {what} needs root: run it with sudo\n"
    assert list(rows()) == ["10.0.0.1:8080"]


# Explain


def explained(client: str = "10.9.0.1:7000", vip: str = VIP) -> dict[str, Any]:
    answer: dict[str, Any] = ebpftop("explain", IFACE, client, vip, "--json").json()
    assert answer["client"] == client
    assert answer["vip"] == vip
    return answer


def test_the_words_of_placement_are_those_of_the_program() -> None:
    source = Path(layout.__file__).with_name("placement.h").read_text()
    body = source[source.index("enum placement {") :].partition("}")[0]
    names = [word.strip() for word in body.partition("{")[2].split(",")]
    assert names == [f"PLACED_{each.name}" for each in explaining.Placement]


def test_explain_says_what_then_happens_and_changes_no_map(stage: Stage) -> None:
    balance(VIP, "10.0.0.1:8080", "10.0.0.2:8080")
    for algorithm, placement in (("rr", "turn"), ("wrr", "turn"), ("least", "least"),
                                 ("maglev", "hash")):  # fmt: skip
        done("vip", "set", IFACE, VIP, "--algorithm", algorithm)
        for port in range(7000, 7006):
            before = everything(stage)
            told = explained(f"10.9.0.1:{port}")
            assert everything(stage) == before
            assert told["placement"] == placement
            assert told["backend"] == f"{send(stage.instance, port)}:8080"
            assert told["backend"] in told["why"]
            send(stage.instance, port, flags="R")


def test_explain_knows_flows_drains_and_moves(stage: Stage) -> None:
    balance(VIP, "10.0.0.1:8080", "10.0.0.2:8080")
    send(stage.instance, 7000)
    done("backend", "set", IFACE, VIP, "10.0.0.1:8080", "--state", "drain")
    told = explained()
    assert (told["placement"], told["backend"]) == ("flow", "10.0.0.1:8080")
    assert "its flow is known" in told["why"]
    assert explained("10.9.0.1:7001")["backend"] == "10.0.0.2:8080"
    done("backend", "set", IFACE, VIP, "10.0.0.1:8080", "--state", "down")
    told = explained()
    assert (told["placement"], told["backend"]) == ("moved", "10.0.0.2:8080")
    assert told["verdict"] == "passed"
    assert "this host's stack" in told["why"]


def test_explain_says_why_a_packet_is_dropped(stage: Stage) -> None:
    done("vip", "add", IFACE, VIP)
    told = explained()
    assert (told["verdict"], told["reason"], told["backend"]) == ("dropped", "no-backend", None)
    done("backend", "add", IFACE, VIP, "10.0.0.1:8080")
    done("block", IFACE, "10.9.0.1")
    told = explained()
    assert (told["verdict"], told["reason"], told["backend"]) == ("dropped", "blocked", None)
    assert "its address is blocked" in told["why"]
    done("limit", IFACE, "--dry-run", "on")
    told = explained()
    assert (told["reason"], told["backend"]) == ("blocked", "10.0.0.1:8080")
    assert told["why"].startswith(
        "it would be dropped, but for the dry run: its address is blocked"
    )
    shown = done("explain", IFACE, "10.9.0.1:7000", VIP)
    assert "blocked" in shown
    assert "10.0.0.1:8080" in shown


def test_explain_takes_udp_and_ipv6(stage: Stage) -> None:
    balance(DNS, "10.0.0.1:53")
    balance(VIP6, "[2001:db8:1::1]:80")
    assert explained("10.9.0.1:5", DNS)["backend"] == "10.0.0.1:53"
    assert explained("[2001:db8:9::1]:5", VIP6)["backend"] == "[2001:db8:1::1]:80"


def test_every_reason_that_a_first_packet_can_meet_has_words() -> None:
    others = {
        "", "unparsed", "vip-fragment", "vip-options", "reply-no-flow", "too-big", "hop-limit",
    }  # fmt: skip
    assert set(layout.REASONS) - others == explaining.REASON_WORDS.keys()


# Backends as sources


def protected(stage: Stage) -> dict[str, str]:
    keys, codes = stage.instance.maps["protected"].read()
    return {
        str(Prefix.from_bytes(bytes(key["word"]), int(key["length"]))): layout.PROTECTED_WHY[code]
        for key, code in zip(keys, codes.tolist(), strict=True)
    }


def test_backends_are_not_limited_for_what_they_answer(stage: Stage) -> None:
    stage.control.set_limits(Limits(pps=10, burst_s=0.1, grace_s=0.0, block_for_s=60.0))
    balance(VIP, "10.0.0.1:8080")
    for address in (ONE, TWO):
        stage.send(address, 500)
    spared, limited = stage.row(ONE), stage.row(TWO)
    assert spared["dropped_packets"] == 0
    assert limited["dropped_packets"] > 400
    shown = {p["address"]: p["why"] for p in ebpftop("status", IFACE, "--json").json()["protected"]}
    assert shown[ONE] == "backend"

    # THEN not by any other writer, but with the backend, the exception goes
    stage.control.protect([Prefix.parse("198.51.100.0/24")])
    assert protected(stage)[ONE] == "backend"
    done("backend", "del", IFACE, VIP, "10.0.0.1:8080")
    assert ONE not in protected(stage)
    assert protected(stage)["198.51.100.0/24"] == "management"
    stage.send(ONE, 500)
    assert stage.row(ONE)["dropped_packets"] > 400


def test_a_backend_is_blocked_by_hand_only_with_an_override(stage: Stage) -> None:
    balance(VIP, "10.0.0.1:8080")
    assert refused(4, "block", IFACE, ONE) == (
        "refused: 10.0.0.1 is a backend of a VIP: nothing was blocked; --override blocks it"
    )
    done("block", IFACE, ONE, "--override")


def test_what_is_a_backend_and_more_stays_protected_for_the_other_reason(stage: Stage) -> None:
    balance(VIP, "10.0.0.1:8080")
    stage.control.protect([Prefix.parse(ONE)])
    assert protected(stage)[ONE] == "management"
    done("backend", "set", IFACE, VIP, "10.0.0.1:8080", "--weight", "2")
    assert protected(stage)[ONE] == "management"
    done("backend", "del", IFACE, VIP, "10.0.0.1:8080")
    assert protected(stage)[ONE] == "management"
    balance(DNS, "10.0.0.1:53")
    stage.control.protect([])
    assert protected(stage)[ONE] == "backend"


def test_flows_are_tracked_from_the_first_packet_on(stage: Stage) -> None:
    balance(VIP, "10.0.0.1:8080")
    config = stage.instance.maps["config"].read()[1]
    cpus = libbpf.possible_cpus()
    assert int(config["new_flows"][0]) == round(65_536 / 2 / 8 / cpus / 8)
    idle = [int(config[f"{name}_ns"][0]) for name in ("tcp_idle", "tcp_opening", "udp_idle")]
    assert idle == [7440 * 10**9, 60 * 10**9, 120 * 10**9]
    ports = stage.instance.maps["ports"].read()
    attachment = stage.instance.meta.attachments[0]
    assert ports[0].tolist() == [attachment.index]
    assert ports[1].tolist() == [(attachment.index, 0)]
    send(stage.instance, 1)
    assert np.count_nonzero(stage.instance.maps["backend_flows"].read()[1]) == 1
