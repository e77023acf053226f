# SPDX-License-Identifier: Apache-2.0
"""The lab: what it builds, what it leaves behind, and whether its traffic is what it says."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ebpftop.errors import EbpftopError, KernelRefusedError, NotPermittedError
from ebpftop.lab import (
    Host,
    Lab,
    Namespace,
    flood,
    joined,
    network,
    request_http,
    send_udp,
    serve_http,
    start_demo_traffic,
)
from ebpftop.lab.namespace import NETNS_DIR
from ebpftop.lab.traffic import DISCARD_PORT

kernel = pytest.mark.kernel
with_lab = pytest.mark.kernel("bridge", "veth")

_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 3


def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait until `condition` holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "this never came true"
        time.sleep(0.005)


def namespaces_of(pid: int) -> set[str]:
    """The names of the namespaces that belong to labs of a process."""
    owned = {f"ebpftop-{pid}-", f"ebpftop-{pid}."}
    return {path.name for path in NETNS_DIR.glob("*") if path.name.startswith(tuple(owned))}


def links() -> set[str]:
    """The interfaces of the namespace that the thread is in."""
    return {name for _, name in socket.if_nameindex()}


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def counter(host: Host, direction: str) -> int:
    """Packets that a host's interface has received (`rx`) or sent (`tx`)."""
    shown = host.run(["ip", "-s", "-json", "link", "show", "dev", host.interface]).stdout
    return int(json.loads(shown)[0]["stats64"][direction]["packets"])


@contextmanager
def received(host: Host) -> Iterator[list[bytes]]:
    """Collect the frames that are addressed to a host's interface during the block."""
    frames: list[bytes] = []
    with joined(host):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    with tap:
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        tap.bind((host.interface, _ETH_P_ALL))
        tap.setblocking(False)
        yield frames
        with suppress(BlockingIOError):
            while True:
                frame, sender = tap.recvfrom(2048)
                if sender[2] == socket.PACKET_HOST:
                    frames.append(frame)


def ones_complement_sum(data: bytes) -> int:
    """The 16-bit sum of RFC 1071; 0xffff over data that holds its own true checksum."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksums_are_true(frame: bytes) -> bool:
    """Whether the IPv4 header (if it is IPv4) and the TCP or UDP checksum of a frame are right."""
    if frame[12:14] == b"\x08\x00":
        header, ends, protocol = frame[14:34], frame[26:34], frame[23]
        transport = frame[34 : 14 + int.from_bytes(frame[16:18], "big")]
        if ones_complement_sum(header) != 0xFFFF:
            return False
    else:
        ends, protocol = frame[22:54], frame[20]
        transport = frame[54 : 54 + int.from_bytes(frame[18:20], "big")]
    pseudo_header = ends + struct.pack("!II", len(transport), protocol)
    return ones_complement_sum(pseudo_header + transport) == 0xFFFF


@with_lab
def test_a_lab_builds_quickly_and_leaves_nothing_behind() -> None:
    # GIVEN a lab with a process in it that has a child of its own
    ours, machine = namespaces_of(os.getpid()), links()
    started_s = time.monotonic()
    lab = Lab(clients=2)
    built_s = time.monotonic() - started_s
    with lab:
        shell = lab.server.spawn(["sh", "-c", "sleep 600 & echo $!; wait"])
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        names = namespaces_of(os.getpid()) - ours
        assert {name.rpartition("-")[2] for name in names} == {
            "wire",
            "server",
            "client1",
            "client2",
            "attacker",
        }
        assert links() == machine
        kept = os.open(lab.server.netns_path, os.O_RDONLY)

    # THEN all is gone, the interfaces too, though something still holds the namespace
    assert namespaces_of(os.getpid()) == ours
    assert not is_running(shell.pid)
    assert not is_running(grandchild)
    inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{kept}", "ip", "link", "show", "eth0"]
    until(lambda: subprocess.run(inside, capture_output=True).returncode != 0)
    os.close(kept)
    lab.close()
    assert built_s < 1.0


@with_lab
def test_a_lab_that_fails_midway_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a kernel that refuses when two hosts are finished and two are not
    ours = namespaces_of(os.getpid())
    seen: list[set[str]] = []

    def refuse(interface: str) -> None:
        seen.append(namespaces_of(os.getpid()) - ours)
        if len(seen) == 3:
            raise OSError("refused")

    monkeypatch.setattr(network, "switch_off_tx_checksums", refuse)

    with pytest.raises(KernelRefusedError, match="the lab cannot be built: refused"):
        Lab(clients=2)

    assert len(seen[-1]) == 5
    assert namespaces_of(os.getpid()) == ours


def test_a_lab_without_root_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(NotPermittedError, match="use sudo"):
        Lab()


@with_lab
def test_what_a_killed_owner_leaves_is_swept() -> None:
    # GIVEN another process with a lab, and something at work in it
    script = """
import ebpftop.lab
lab = ebpftop.lab.Lab(clients=1)
print(lab.server.spawn(["sleep", "600"]).pid, flush=True)
input()
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        worker = int(owner.stdout.readline())
        names = namespaces_of(owner.pid)
        assert len(names) == 4

        # WHEN it lives, THEN nothing of it is touched
        Lab.sweep()
        assert namespaces_of(owner.pid) == names
        assert is_running(worker)

        # WHEN it is killed, THEN its processes die with it, and the sweep does the rest
        owner.kill()
        owner.wait()
        until(lambda: not is_running(worker))
        assert names <= set(Lab.sweep())
        assert not namespaces_of(owner.pid)


@kernel
@pytest.mark.parametrize(("alias", "swept"), [("1", True), ("", False)])
def test_a_process_that_got_the_owners_number_is_told_from_it(alias: str, swept: bool) -> None:
    # GIVEN a namespace by the number of a living process, which started at another time; or
    # one that says nothing of a time yet, as while it is built
    with subprocess.Popen(["sleep", "600"]) as process:
        namespace = Namespace(name="server", netns=f"ebpftop-{process.pid}-server")
        subprocess.run(["ip", "netns", "add", namespace.netns], check=True)
        if alias:
            namespace.ip(f"link set lo alias {alias}")

        assert (namespace.netns in Lab.sweep()) is swept

        assert namespace.netns_path.exists() is not swept
        process.kill()
        process.wait()
        Lab.sweep()
        assert not namespace.netns_path.exists()


@kernel
def test_names_that_are_not_a_labs_are_spared() -> None:
    name = f"ebpftop-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        assert name not in Lab.sweep()
        assert (NETNS_DIR / name).exists()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@kernel
def test_joining_a_namespace_ends_with_the_block(lab: Lab) -> None:
    machine = links()

    with joined(lab.server):
        inside = links()
        listener = socket.create_server((lab.server.ipv4, 8080))

    assert inside == {"lo", "eth0"}
    assert links() == machine
    # A socket stays where it was made.
    with listener, joined(lab.clients[0]):
        socket.create_connection((lab.server.ipv4, 8080), timeout=2).close()


@kernel
def test_a_process_that_enters_a_namespace_stays_there(lab: Lab) -> None:
    script = f"""
import socket, threading
from ebpftop.lab import Namespace, enter
enter(Namespace(name="server", netns={lab.server.netns!r}))
found = []
thread = threading.Thread(target=lambda: found.append(socket.if_nameindex()))
thread.start(); thread.join()
print([name for _, name in found[0]])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout == "['lo', 'eth0']\n"


@kernel
def test_entering_a_namespace_that_is_gone_is_an_error(lab: Lab) -> None:
    machine = links()

    with pytest.raises(EbpftopError, match="No such file"), joined(Namespace("x", "ebpftop-none")):
        pass

    assert links() == machine


@kernel
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_client_is_served(lab: Lab, family: str) -> None:
    server = serve_http(lab.server)
    server.wait_ready()

    with received(lab.server) as frames:
        client = request_http(lab.clients[0], getattr(lab.server, family), rate=100, count=23)
        result = client.wait(10)
        server.stop()

    assert (result["requests"], result["failed"]) == (23, 0)
    assert 0 < result["p50_ms"] <= result["p99_ms"] < 1000
    # Checksums are complete when they reach the server, not left to a card.
    protocol_at = 23 if family == "ipv4" else 20
    segments = [frame for frame in frames if frame[protocol_at] == socket.IPPROTO_TCP]
    assert len(segments) >= 23 * 4
    assert all(checksums_are_true(segment) for segment in segments)


@kernel
def test_a_client_without_a_server_reports_failures(lab: Lab) -> None:
    result = request_http(lab.clients[0], lab.server.ipv4, rate=100, count=7).wait(10)

    assert result == {"requests": 7, "failed": 7, "p50_ms": None, "p99_ms": None}


@kernel
def test_a_client_whose_packets_are_lost_fails_after_its_timeout(lab: Lab) -> None:
    # GIVEN a server that nothing reaches
    serve_http(lab.server).wait_ready()
    lab.wire.ip("link set server down")

    started_s = time.monotonic()
    client = request_http(lab.clients[0], lab.server.ipv4, rate=100, timeout_s=0.2, count=7)
    result = client.wait(10)

    # THEN a request that hangs does not delay the next
    assert (result["requests"], result["failed"]) == (7, 7)
    assert time.monotonic() - started_s < 7 * 0.2


@kernel
@pytest.mark.parametrize("mode", ["udp", "syn", "spoofed", "v6"])
def test_a_flood_is_what_it_says(lab: Lab, mode: str) -> None:
    packets_before = counter(lab.server, "rx")

    with received(lab.server) as frames:
        attack = flood(lab.attacker, lab.server, mode, pps=20_000, seconds=0.2, port=4242)
        result = attack.wait(10)
        packets = counter(lab.server, "rx") - packets_before

    # The count is true to the interface's own; the kernel's neighbour discovery adds a few.
    sent = result["sent_packets"]
    assert 0 < sent <= 20_000 * result["seconds"]
    assert sent <= packets < sent + 50
    at = 54 if mode == "v6" else 34
    flooding = [frame for frame in frames if frame[at + 2 : at + 4] == struct.pack("!H", 4242)]
    assert len(flooding) == sent
    assert all(checksums_are_true(frame) for frame in flooding)
    assert {frame[6:12].hex(":") for frame in flooding} == {lab.attacker.mac}
    kind = socket.IPPROTO_TCP if mode == "syn" else socket.IPPROTO_UDP
    assert {frame[20 if mode == "v6" else 23] for frame in flooding} == {kind}
    if mode == "syn":
        assert {frame[47] for frame in flooding} == {0x02}
    if mode == "spoofed":
        sources = {frame[26:30] for frame in flooding}
        assert len(sources) > 0.99 * sent
        assert {source[0] for source in sources} == {10}
    elif mode == "v6":
        assert {frame[22:38] for frame in flooding} == {
            socket.inet_pton(socket.AF_INET6, lab.attacker.ipv6)
        }
    else:
        assert {frame[26:30] for frame in flooding} == {socket.inet_aton(lab.attacker.ipv4)}


@kernel
def test_a_flood_ends_when_told_to(lab: Lab) -> None:
    attack = flood(lab.attacker, lab.server, "spoofed", seconds=600)
    attack.wait_ready()
    sent_before = counter(lab.attacker, "tx")
    until(lambda: counter(lab.attacker, "tx") > sent_before + 1000)

    result = attack.stop()

    assert result["sent_packets"] > 1000
    assert attack.stop() == result


@kernel
def test_a_job_that_fails_says_why(lab: Lab) -> None:
    attack = flood(lab.attacker, lab.server, "gentle", seconds=1)

    with pytest.raises(EbpftopError, match="'gentle' is not a valid Mode"):
        attack.wait_ready()


@kernel
def test_a_killed_job_is_no_result(lab: Lab) -> None:
    server = serve_http(lab.server)
    server.wait_ready()
    os.kill(lab.server.children[0].pid, signal.SIGKILL)

    with pytest.raises(EbpftopError, match=r"http-server in .* failed"):
        server.stop()


@kernel
def test_a_host_can_be_many_steady_sources(lab: Lab) -> None:
    client = lab.clients[0]
    with joined(lab.server):
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("", DISCARD_PORT))
    sink.setblocking(False)

    sources = client.add_addresses(5)
    result = send_udp(client, lab.server.ipv4, 1000, sources=sources, count=101).wait(10)

    arrived: Counter[str] = Counter()
    with sink, suppress(BlockingIOError):
        while True:
            arrived[sink.recvfrom(2048)[1][0]] += 1
    assert len(sources) == 5
    assert arrived == result["sent_packets_by_source"]
    assert arrived.total() == result["sent_packets"] == 101
    assert sorted(arrived.values()) == [20, 20, 20, 20, 21]


@kernel
def test_the_demos_traffic_is_real(lab: Lab) -> None:
    traffic = start_demo_traffic(lab)
    until(lambda: counter(lab.attacker, "tx") > 5000)

    report = traffic.stop()

    assert [client.address for client in report.clients] == [
        lab.clients[0].ipv4,
        lab.clients[1].ipv4,
        lab.clients[2].ipv6,
    ]
    for client in report.clients:
        assert client.requests > 10
        assert client.failed < client.requests
        assert client.p99_ms is not None
    assert report.flood.address == lab.attacker.ipv4
    assert report.flood.sent_packets > 4000
    assert traffic.stop() == report
    children = [child for host in lab.hosts for child in host.children]
    assert [child.poll() for child in children] == [0] * 7


@pytest.mark.parametrize("wrong", [{"backends": -1}, {"backends": 101}, {"arms": 0}, {"arms": 3}])
def test_a_lab_has_up_to_a_hundred_backends_on_one_arm_or_two(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="backends on 1 or 2 arms"):
        Lab(**wrong)


@with_lab
@pytest.mark.parametrize("arms", [1, 2])
def test_backends_are_on_a_network_of_their_own_whose_router_is_the_server(arms: int) -> None:
    with Lab(clients=1, backends=2, arms=arms) as lab:
        client, arm = lab.clients[0], "eth1" if arms == 2 else "eth0"
        for backend in lab.backends:
            for own, other in ((backend.ipv4, client.ipv4), (backend.ipv6, client.ipv6)):
                there = lab.server.run(["ip", "route", "get", own]).stdout
                back = backend.run(["ip", "route", "get", other]).stdout
                assert f"dev {arm}" in there
                assert "via" not in there
                assert "via" in back
