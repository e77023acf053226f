# SPDX-License-Identifier: Apache-2.0
"""The guard of one's own access: who must not be dropped, and how that is found out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpftop.bpf import layout
from ebpftop.config import LimitPolicy, Policy, PositiveSeconds, Prefixes, Seconds
from ebpftop.control import operator
from ebpftop.lab import flood, joined
from ebpftop.model import Limits, Prefix
from tests.kernel.stage import IFACE, PROGRAM, Done, Stage, ebpftop, staged, until

pytestmark = pytest.mark.kernel

MANAGEMENT, GATEWAY, GATEWAY6 = "203.0.113.0/25", "198.18.0.254", "fd00:198:18:99::1"
POLICY = Policy(management=Prefixes((Prefix.parse(MANAGEMENT), Prefix.parse("2001:db8:9::/48"))))

# What a login looks like from below: a shell with SSH_CONNECTION, above it sshd, and between
# them and us sudo, which takes the environment away.
LAYER = """
import os, subprocess, sys
sys.exit(subprocess.run(sys.argv[1:], env={"PATH": os.environ["PATH"]}).returncode)
"""
SSHD = """
import os, socket, subprocess, sys
address, *words = sys.argv[1:]
open("/proc/self/comm", "w").write("sshd")
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.create_server((address, 2222), family=family)
print("listening", flush=True)
connection, _ = listener.accept()
done = subprocess.run(words, env={"PATH": os.environ["PATH"]})
sys.exit(done.returncode)
"""
CALL = "import socket, sys; socket.create_connection((sys.argv[1], 2222), 10).recv(1)"


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(POLICY, clients=1) as stage:
        stage.lab.server.ip(
            f"route add default nexthop via {GATEWAY} nexthop via 198.18.0.253",
            f"route add ::/0 via {GATEWAY6}",
        )
        stage.control.protect()
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Iterator[Stage]:
    yield attached
    for address in attached.listed():
        attached.control.unblock(Prefix.parse(address))
    attached.control.set_limits(Limits())


def protected(stage: Stage) -> dict[str, str]:
    """Return what the kernel's map protects, and why."""
    keys, codes = stage.instance.maps["protected"].read()
    return {
        str(Prefix.from_bytes(bytes(key["word"]), int(key["length"]))): layout.PROTECTED_WHY[code]
        for key, code in zip(keys, codes.tolist(), strict=True)
    }


def logged_in(connection: str, *words: str) -> Done:
    """Run a verb below a process that has SSH_CONNECTION, with an empty environment between."""
    done = subprocess.run(
        [sys.executable, "-c", LAYER, PROGRAM, *words],
        env={"PATH": os.environ["PATH"], "SSH_CONNECTION": connection},
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def guarded(done: Done) -> str:
    assert (done.status, done.out) == (4, "")
    assert done.err.count("\n") == 1
    assert done.err.endswith(": nothing was blocked; --override blocks it\n")
    return done.err.removeprefix("ebpftop: refused: ").partition(": ")[0]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (MANAGEMENT, f"{MANAGEMENT} is a management prefix"),
        ("203.0.113.7", f"203.0.113.7 is in {MANAGEMENT}, a management prefix"),
        ("203.0.113.64/26", f"203.0.113.64/26 is in {MANAGEMENT}, a management prefix"),
        ("203.0.112.0/23", f"203.0.112.0/23 holds {MANAGEMENT}, a management prefix"),
        ("2001:db8:9::1", "2001:db8:9::1 is in 2001:db8:9::/48, a management prefix"),
        (GATEWAY, f"{GATEWAY} is the default gateway"),
        ("198.18.0.253", "198.18.0.253 is the default gateway"),
        (GATEWAY6, f"{GATEWAY6} is the default gateway"),
        ("198.18.0.254/31", f"198.18.0.254/31 holds {GATEWAY}, the default gateway"),
        ("fd00::/16", f"fd00::/16 holds {GATEWAY6}, the default gateway"),
    ],
)
def test_a_block_of_what_is_protected_is_refused(stage: Stage, address: str, why: str) -> None:
    assert guarded(ebpftop("block", IFACE, address)) == why
    assert stage.listed() == set()


@pytest.mark.parametrize("address", ["0.0.0.0/0", "::/0"])
def test_a_block_of_everybody_is_refused(stage: Stage, address: str) -> None:
    assert guarded(ebpftop("block", IFACE, address)).startswith(f"{address} holds ")


def test_a_neighbour_of_what_is_protected_may_be_blocked(stage: Stage) -> None:
    for address in ("203.0.113.128/25", "198.18.0.252", "2001:db8:8::/48"):
        assert ebpftop("block", IFACE, address).status == 0


def test_an_override_blocks_what_is_protected(stage: Stage) -> None:
    assert ebpftop("block", IFACE, "203.0.113.7", "--override").status == 0
    stage.send("203.0.113.7", 3)
    row = stage.row("203.0.113.7")
    assert row["dropped_packets"] == 3


def test_a_list_that_holds_somebody_protected_blocks_nobody(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("10.4.0.1\n203.0.113.9\n10.4.0.2\n")
    why = guarded(ebpftop("block", IFACE, "--from", str(path)))
    assert why == f"203.0.113.9 is in {MANAGEMENT}, a management prefix"
    assert stage.listed() == set()
    assert ebpftop("block", IFACE, "--from", str(path), "--override").status == 0
    assert len(stage.listed()) == 3


def test_the_peer_of_ones_own_login_is_found_above_a_clean_environment(stage: Stage) -> None:
    peer, login = "192.0.2.44", "192.0.2.44 50000 198.18.0.1 22"
    why = guarded(logged_in(login, "block", IFACE, peer))
    assert why == f"{peer} is where your own connection comes from"
    assert protected(stage)[peer] == "operator"
    assert logged_in(login, "block", IFACE, peer, "--override").status == 0


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_the_peer_of_an_sshd_above_is_found_by_its_socket(stage: Stage, family: str) -> None:
    # GIVEN a process called sshd, a connection to it, and nothing in the environment
    client, server = stage.lab.clients[0], getattr(stage.lab.server, family)
    peer = getattr(client, family)
    sshd = subprocess.Popen(
        [sys.executable, "-c", SSHD, server, PROGRAM, "block", IFACE, f"{peer}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert sshd.stdout is not None
    assert sshd.stdout.readline() == "listening\n"
    caller = client.spawn([sys.executable, "-c", CALL, server])
    _, err = sshd.communicate(timeout=20)
    caller.wait(10)

    assert sshd.returncode == 4
    assert f"{peer} is where your own connection comes from" in err
    assert stage.listed() == set()


def test_another_operator_stays_protected_for_as_long_as_he_is_connected(stage: Stage) -> None:
    # GIVEN an operator with a connection, who acted once
    client, server = stage.lab.clients[0], stage.lab.server
    sshd = server.spawn([sys.executable, "-c", SSHD, server.ipv4, "sleep", "60"])
    assert sshd.stdout is not None
    assert sshd.stdout.readline() == b"listening\n"
    caller = client.spawn([sys.executable, "-c", CALL, server.ipv4])
    until(lambda: Prefix.parse(client.ipv4) in operator.connected())
    logged_in(f"{client.ipv4} 5 198.18.0.1 22", "limit", IFACE, "--syn", "0")
    assert protected(stage)[client.ipv4] == "operator"

    # WHEN another acts, he stays
    logged_in("192.0.2.90 5 198.18.0.1 22", "limit", IFACE, "--syn", "0")
    assert protected(stage).keys() >= {client.ipv4, "192.0.2.90"}
    why = guarded(logged_in("192.0.2.90 5 198.18.0.1 22", "block", IFACE, client.ipv4))
    assert why == f"{client.ipv4} is where another operator's connection comes from"

    # THEN once he is gone, and only then, he is let go
    caller.kill()
    os.killpg(sshd.pid, signal.SIGKILL)
    until(lambda: Prefix.parse(client.ipv4) not in operator.connected())
    logged_in("192.0.2.91 5 198.18.0.1 22", "limit", IFACE, "--syn", "0")
    assert client.ipv4 not in protected(stage)
    assert protected(stage).keys() >= {MANAGEMENT, GATEWAY, GATEWAY6, "192.0.2.91"}


def test_an_operator_far_over_the_limit_is_neither_limited_nor_blocked(stage: Stage) -> None:
    attacker, server = stage.lab.attacker, stage.lab.server
    ebpftop("limit", IFACE, "--pps", "100", "--burst", "50ms", "--grace", "0", "--block-for", "1m")
    logged_in(f"{attacker.ipv4} 5 198.18.0.1 22", "limit", IFACE, "--syn", "0")
    sent = flood(attacker, server, "udp", pps=10_000, seconds=0.5).wait(20)["sent_packets"]
    until(lambda: stage.received(attacker.ipv4) == sent)

    row = stage.row(attacker.ipv4)
    assert (row["passed_packets"], row["dropped_packets"]) == (sent, 0)
    assert ebpftop("blocks", IFACE, "--json").json() == []
    with joined(server):
        shown = {p["address"]: p["why"] for p in
                 ebpftop("status", IFACE, "--json").json()["protected"]}  # fmt: skip
    assert shown[attacker.ipv4] == "operator"
    assert shown[MANAGEMENT] == "management"


def test_those_of_the_policy_are_exempt_from_the_first_packet_on() -> None:
    policy = Policy(
        management=Prefixes((Prefix.parse("10.9.0.0/16"),)),
        limits=LimitPolicy(pps=10, burst_s=PositiveSeconds(0.1), grace_s=Seconds(0)),
    )
    with staged(policy, clients=0) as stage:
        assert protected(stage)["10.9.0.0/16"] == "management"
        for address in ("10.9.0.1", "10.8.0.1"):
            stage.send(address, 1000)
        spared, limited = stage.row("10.9.0.1"), stage.row("10.8.0.1")
        assert (spared["passed_packets"], spared["dropped_packets"]) == (1000, 0)
        assert limited["dropped_packets"] > 900
