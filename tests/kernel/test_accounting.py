# SPDX-License-Identifier: Apache-2.0
"""Every act is a line of the audit log, its intent before it is done; and it can be taken back."""

from __future__ import annotations

import getpass
import inspect
import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpftop import control as controls
from ebpftop.bpf.layout import Rule
from ebpftop.control import everything
from ebpftop.control.everything import InstanceControl
from ebpftop.errors import KernelRefusedError
from ebpftop.journal.log import PATH_VARIABLE
from ebpftop.kernel import variants
from ebpftop.model import (
    Backend,
    BlockRequest,
    ClassKey,
    HealthCheck,
    Limits,
    Prefix,
    Service,
    Vip,
)
from tests.kernel.stage import IFACE, PROGRAM, Done, Stage, ebpftop, staged, until

pytestmark = pytest.mark.kernel

ONE, TWO, NET = "10.4.0.1", "10.4.0.2", "10.5.0.0/16"
VIP = "198.51.100.10:80/tcp"
WEB1, WEB2, WEB3 = "10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=0, quiet=True) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage, audit_log: Path) -> Stage:
    control = InstanceControl(attached.instance)
    control.shaping.apply([])
    for service in control.balancing.state():
        control.balancing.delete_vip(Service.parse(service))
    attached.clear()
    # The log is rotated by moving it away: the next act begins a new one.
    audit_log.unlink()
    return attached


def acts() -> list[dict[str, Any]]:
    """Return what `acts --json` prints, oldest first."""
    listed: list[dict[str, Any]] = ebpftop("acts", IFACE, "--json").json()
    return listed[::-1]


def done(*words: str) -> Done:
    result = ebpftop(*words)
    assert result.status == 0, result
    return result


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_act_is_written_before_it_is_done_and_again_with_its_result(
    stage: Stage, audit_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    done("limit", IFACE, "--pps", "500")
    done("limit", IFACE, "--pps", "900", "--syn", "20")

    intent, whole = lines(audit_log)[-2:]
    assert (intent["result"], whole["result"]) == (None, "done")
    assert intent["id"] == whole["id"]
    assert intent["old"] == whole["old"]
    assert intent["new"] == {"pps": 900, "syn": 20}
    (_, act) = acts()
    assert (act["old"]["pps"], act["new"]["pps"], act["new"]["syn"]) == (500, 900, 20)
    assert act["user"] == "alice"
    assert (act["what"], act["result"], act["undone"]) == ("limit", "done", False)
    assert {"id", "time", "user", "terminal", "what", "target", "old", "new", "result",
            "undone"} <= act.keys()  # fmt: skip
    shown = done("acts", IFACE).out
    assert "pps 500 → 900" in shown
    assert "alice" in shown


def test_a_verb_tells_the_terminal_it_came_from(stage: Stage) -> None:
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    subprocess.run([PROGRAM, "allow", IFACE, ONE], stdin=slave, check=True, timeout=30)
    os.close(slave)
    os.close(master)
    done("disallow", IFACE, ONE)

    first, second = acts()
    assert first["terminal"] == name
    assert first["user"] == getpass.getuser()
    assert second["target"] == ONE


def test_only_root_and_the_readers_group_may_read_the_log(stage: Stage, audit_log: Path) -> None:
    done("allow", IFACE, ONE)
    status = audit_log.stat()
    assert status.st_mode & 0o777 == 0o640
    assert (status.st_uid, status.st_gid) == (0, stage.instance.folder.stat().st_gid)


def test_a_log_that_cannot_be_written_stops_the_act(stage: Stage, audit_log: Path) -> None:
    done("block", IFACE, ONE)
    audit_log.unlink()
    audit_log.mkdir()
    try:
        for words in (
            ["block", IFACE, TWO], ["unblock", IFACE, ONE], ["limit", IFACE, "--pps", "1"],
            ["allow", IFACE, TWO], ["class", "set", IFACE, "video", "--rate", "1mbit"],
            ["detach", IFACE], ["trace", IFACE, "--for", "0.1"],
        ):  # fmt: skip
            refused = ebpftop(*words)
            assert refused.status == 1
            assert refused.err.count("\n") == 1
            assert f"the audit log {audit_log} cannot be written" in refused.err
            assert "nothing was changed" in refused.err
        assert stage.listed() == {ONE}
        assert stage.listed(Rule.ALLOWED) == set()
        assert not ebpftop("limit", IFACE, "--json").json()["pps"]
        assert ebpftop("classes", IFACE, "--json").json() == []
        assert ebpftop("status", IFACE).status == 0
        assert not variants.room(stage.instance.folder).exists()
    finally:
        audit_log.rmdir()
        audit_log.touch()


def test_a_log_that_cannot_be_written_lets_nothing_be_attached(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "file" / "acts.jsonl"))
    refused = ebpftop("attach", "lo")
    assert refused.status == 1
    assert "cannot be written" in refused.err
    assert ebpftop("status", "lo").status == 5


def test_a_refused_act_is_in_the_log_with_the_reason(stage: Stage) -> None:
    assert ebpftop("unblock", IFACE, ONE).status == 3
    (act,) = acts()
    assert act["result"].startswith(f"refused: {ONE} is not blocked by itself")
    assert ebpftop("undo", IFACE).status == 3
    assert "was not done" in ebpftop("undo", IFACE, act["id"]).err


def test_torn_foreign_and_hostile_lines_are_passed_over(stage: Stage, audit_log: Path) -> None:
    done("block", IFACE, ONE, "--reason", "\x1b]0;owned\x07[red]")
    with audit_log.open("a") as log:
        log.write('not json\n[1]\n{"id": 5}\n\n{"id":"aa","time":1,"user":"x","what":"y"}\n{"id":"')
    done("block", IFACE, TWO)

    shown = ebpftop("acts", IFACE, "--json")
    assert [act["target"] for act in json.loads(shown.out)] == [TWO, ONE]
    # The torn line ended where the next act began.
    assert shown.err == "ebpftop: 4 lines of the audit log cannot be read\n"
    assert "\x1b" not in audit_log.read_text()
    assert "\x1b" not in ebpftop("acts", IFACE).out


def test_the_log_is_found_again_after_a_rotation(stage: Stage, audit_log: Path) -> None:
    source = stage.source()
    done("block", IFACE, ONE)
    assert [act.target for act in source.snapshot().acts or ()] == [ONE]
    audit_log.rename(audit_log.with_suffix(".1"))
    done("block", IFACE, TWO)
    assert [act.target for act in source.snapshot().acts or ()] == [ONE, TWO]
    assert [act["target"] for act in acts()] == [TWO]


def test_attach_and_detach_are_acts(tmp_path: Path, audit_log: Path) -> None:
    path = tmp_path / "other" / "acts.jsonl"
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[audit]\npath = "{path}"\n')
    done("attach", "lo", "--config", str(policy), "--mode", "generic")
    done("block", "lo", ONE)
    done("detach", "lo")

    assert [(line["what"], line["result"]) for line in lines(path)] == [
        ("attach", None), ("attach", "done"), ("block", None), ("block", "done"),
        ("detach", None), ("detach", "done"),
    ]  # fmt: skip
    assert len({line["instance"] for line in lines(path)[1:]}) == 1


def end(text: str) -> Service:
    return Service.parse(text, "tcp")


ACTS: dict[str, Callable[[InstanceControl], Any]] = {
    "block": lambda c: c.block(Prefix.parse(ONE), for_s=60),
    "unblock": lambda c: c.unblock(Prefix.parse(ONE)),
    "allow": lambda c: c.allow(Prefix.parse(TWO)),
    "disallow": lambda c: c.disallow(Prefix.parse(TWO)),
    "block_all": lambda c: c.block_all([BlockRequest(Prefix.parse(NET), None)]),
    "allow_all": lambda c: c.allow_all([Prefix.parse("10.9.0.1"), Prefix.parse("10.9.0.2")]),
    "set_limits": lambda c: c.set_limits(Limits(pps=77)),
    "undo": lambda c: c.undo(),
    "set_class": lambda c: c.shaping.set_class(ClassKey("video"), {"rate_bps": 10**6}),
    "assign": lambda c: c.shaping.assign(Prefix.parse(ONE), "video"),
    "unassign": lambda c: c.shaping.unassign(Prefix.parse(ONE)),
    "delete_class": lambda c: c.shaping.delete_class(ClassKey("video")),
    "add_vip": lambda c: c.balancing.add_vip(Vip(Service.parse(VIP))),
    "set_vip": lambda c: c.balancing.set_vip(Service.parse(VIP), {"check": HealthCheck("http")}),
    "add_backend": lambda c: c.balancing.add_backend(Service.parse(VIP), Backend(end(WEB1))),
    "set_backends": lambda c: c.balancing.set_backends(
        Service.parse(VIP), {end(WEB1): {"weight": 5}}
    ),
    "delete_backend": lambda c: c.balancing.delete_backend(Service.parse(VIP), end(WEB1)),
    "delete_vip": lambda c: c.balancing.delete_vip(Service.parse(VIP)),
    "confirm": lambda c: c.confirm(),
    "trace": lambda c: c.trace("", 1).stop(),
}
"""How each act of the controls is called, each after those before it."""
NO_ACTS = {"guarded", "shaping", "balancing", "reverting"}
"""What of the controls changes nothing by itself."""


def test_no_act_of_the_controls_forgets_its_line(stage: Stage) -> None:
    protocols = [
        getattr(controls, name) for name in dir(controls) if name.endswith("Controls")
    ]  # fmt: skip
    offered = {
        name
        for protocol in protocols
        for name, _ in inspect.getmembers(protocol)
        if not name.startswith("_")
    }
    control = everything.InstanceControl(stage.instance)
    assert offered - NO_ACTS == set(ACTS)
    for name, act in ACTS.items():
        before = len(acts())
        if name == "confirm":
            control.reverting(60).allow(Prefix.parse(TWO))
            before += 1
        act(control)
        assert len(acts()) == before + 1, name


def blocked(address: str) -> dict[str, Any] | None:
    rows = ebpftop("blocks", IFACE, "--json").json()
    return next((row for row in rows if row["address"] == address), None)


def test_a_block_is_undone(stage: Stage) -> None:
    done("block", IFACE, ONE, "--for", "10m", "--reason", "flood")
    assert f"undone: block {ONE}" in done("undo", IFACE).out
    assert blocked(ONE) is None
    undone, undo = acts()
    assert undone["undone"]
    assert undo["undoes"] == undone["id"]
    assert "no act to undo" in ebpftop("undo", IFACE).err


def test_a_changed_block_gets_its_earlier_end_and_reason_back(stage: Stage) -> None:
    done("block", IFACE, NET, "--for", "20m", "--reason", "first")
    done("block", IFACE, NET, "--for", "forever", "--reason", "second")
    done("undo", IFACE)
    row = blocked(NET)
    assert row is not None
    assert row["reason"] == "first"
    assert 1150 < row["expires_in_s"] <= 1200


def test_an_unblock_is_undone_with_what_was_left_of_its_time(stage: Stage) -> None:
    done("block", IFACE, ONE, "--for", "10m", "--reason", "flood")
    done("unblock", IFACE, ONE)
    done("undo", IFACE)
    row = blocked(ONE)
    assert row is not None
    assert (row["reason"], row["source"]) == ("flood", "manual")
    assert 560 < row["expires_in_s"] <= 600


def test_an_unblock_whose_time_is_over_cannot_be_undone(stage: Stage) -> None:
    stage.control.block(Prefix.parse(ONE), for_s=2)
    ends_s = time.time() + 2
    stage.control.unblock(Prefix.parse(ONE))
    until(lambda: time.time() > ends_s)
    refused = ebpftop("undo", IFACE)
    assert refused.status == 3
    assert "would have ended by now" in refused.err


def test_the_end_of_an_automatic_block_is_undone_by_one_of_our_own(stage: Stage) -> None:
    done("limit", IFACE, "--pps", "10", "--burst", "100ms", "--grace", "0", "--block-for", "10m")
    stage.send(ONE, 2000)
    row = blocked(ONE)
    assert row is not None
    assert row["source"] == "auto"
    done("unblock", IFACE, ONE)
    done("undo", IFACE)
    row = blocked(ONE)
    assert row is not None
    assert (row["source"], row["reason"]) == ("manual", "pps limit")
    assert 500 < row["expires_in_s"] <= 600


def test_a_list_of_blocks_is_undone_as_a_whole(stage: Stage, tmp_path: Path) -> None:
    done("block", IFACE, ONE, "--for", "1h", "--reason", "before")
    path = tmp_path / "list"
    path.write_text(f"{ONE}\n" + "\n".join(f"10.6.0.{n}" for n in range(40)))
    done("block", IFACE, "--from", str(path), "--reason", "list")
    assert acts()[-1]["target"] == "41 addresses"
    done("undo", IFACE)
    assert stage.listed() == {ONE}
    row = blocked(ONE)
    assert row is not None
    assert row["reason"] == "before"


def test_allowing_and_disallowing_are_undone(stage: Stage) -> None:
    done("allow", IFACE, NET)
    done("disallow", IFACE, NET)
    done("undo", IFACE)
    assert stage.listed(Rule.ALLOWED) == {NET}
    done("undo", IFACE)
    assert stage.listed(Rule.ALLOWED) == set()


def test_limits_are_undone_all_together(stage: Stage) -> None:
    done("limit", IFACE, "--pps", "500", "--grace", "2s", "--dry-run", "on")
    before = ebpftop("limit", IFACE, "--json").json()
    done("limit", IFACE, "--pps", "0", "--bps", "9mbit", "--dry-run", "off", "--burst", "50ms")
    done("undo", IFACE)
    assert ebpftop("limit", IFACE, "--json").json() == before


def one_class() -> dict[str, Any]:
    (row,) = ebpftop("classes", IFACE, "--json").json()
    names = ("class", "direction", "rate_bps", "burst_bytes", "priority", "parent", "addresses")
    return {name: row[name] for name in names}


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_acts_on_a_class_are_undone(stage: Stage, direction: str) -> None:
    words = ["class", "set", IFACE, "video", "--direction", direction, "--action", "police"]
    done(*words, "--rate", "8mbit", "--burst", "64kb", "--priority", "3")
    done("assign", IFACE, ONE, "video")
    done("assign", IFACE, NET, "video")
    before = one_class()
    # A change,
    done(*words, "--rate", "1mbit", "--burst", "32kb", "--priority", "0")
    done("undo", IFACE)
    assert one_class() == before
    # its end, with its members,
    done("class", "del", IFACE, "video", "--direction", direction)
    done("undo", IFACE)
    assert one_class() == before
    # who is in it,
    done("unassign", IFACE, ONE)
    done("undo", IFACE)
    assert one_class() == before
    done("undo", IFACE)
    assert one_class()["addresses"] == [ONE]
    done("undo", IFACE)
    assert one_class()["addresses"] == []
    # and its beginning.
    done("undo", IFACE)
    assert ebpftop("classes", IFACE, "--json").json() == []


def test_a_class_under_a_ceiling_comes_back_under_it(stage: Stage) -> None:
    done("class", "set", IFACE, "uplink", "--rate", "20mbit", "--action", "police")
    done("class", "set", IFACE, "video", "--rate", "5mbit", "--parent", "uplink")
    done("class", "del", IFACE, "video")
    done("undo", IFACE)
    rows = {row["class"]: row for row in ebpftop("classes", IFACE, "--json").json()}
    assert rows["video"]["parent"] == "uplink"


def test_counting_what_is_sent_and_a_reload_are_undone(stage: Stage) -> None:
    control = InstanceControl(stage.instance)
    done("count-sent", IFACE, "on")
    done("undo", IFACE)
    assert control.shaping.counting_sent() == "auto"
    done("class", "set", IFACE, "video", "--rate", "8mbit", "--action", "police")
    done("assign", IFACE, ONE, "video")
    before = one_class()
    control.shaping.apply([])
    assert acts()[-1]["what"] == "reload"
    done("undo", IFACE)
    assert one_class() == before


def test_an_undo_is_an_act_that_can_be_undone(stage: Stage) -> None:
    done("block", IFACE, ONE, "--reason", "flood")
    done("undo", IFACE)
    done("undo", IFACE, acts()[-1]["id"][:4])
    row = blocked(ONE)
    assert row is not None
    assert row["reason"] == "flood"
    assert [(act["what"], act["undone"]) for act in acts()] == [
        ("block", False), ("undo", True), ("undo", False),
    ]  # fmt: skip


def test_one_of_several_acts_is_undone_by_its_name(stage: Stage) -> None:
    for address in (ONE, TWO, NET):
        done("block", IFACE, address)
    done("undo", IFACE, acts()[1]["id"])
    assert stage.listed() == {ONE, NET}
    again = ebpftop("undo", IFACE, acts()[1]["id"])
    assert again.status == 2
    assert "undone already" in again.err
    assert ebpftop("undo", IFACE, "zz").status == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["limit", IFACE, "--pps", "500"], ["limit", IFACE, "--bps", "9mbit"]),
        (["block", IFACE, ONE, "--for", "10m"], ["block", IFACE, ONE, "--for", "20m"]),
        (["allow", IFACE, ONE], ["disallow", IFACE, ONE]),
    ],
    ids=["limits", "block", "allow"],
)
def test_what_has_changed_since_is_not_undone_without_force(
    stage: Stage, first: list[str], second: list[str]
) -> None:
    done(*first)
    done(*second)
    name = acts()[0]["id"]
    refused = ebpftop("undo", IFACE, name)
    assert refused.status == 4
    assert "has been changed since: --force takes it back anyway" in refused.err
    state = ebpftop("limit", IFACE, "--json").json(), stage.listed(), stage.listed(Rule.ALLOWED)
    done("undo", IFACE, name, "--force")
    after = ebpftop("limit", IFACE, "--json").json(), stage.listed(), stage.listed(Rule.ALLOWED)
    assert after == ({**state[0], "pps": 0, "bps": 0}, set(), set())


def test_an_act_that_a_crash_cut_off_is_unknown(stage: Stage, audit_log: Path) -> None:
    done("block", IFACE, ONE)
    content = audit_log.read_text().splitlines()
    audit_log.write_text(content[0] + "\n")
    (act,) = acts()
    assert act["result"] == "unknown"
    done("undo", IFACE, act["id"])
    assert stage.listed() == set()


def test_the_log_says_who_even_where_the_act_fails_in_the_kernel(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = InstanceControl(stage.instance)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ebpftop.control.rules.RuleTable.write", fail)
    with pytest.raises(KernelRefusedError):
        control.block(Prefix.parse(ONE), for_s=None)
    assert acts()[-1]["result"].startswith("refused: [Errno 28]")


def balanced() -> Any:
    """Return all VIPs and backends as a script sees them, without what moves by itself."""
    names = ("vip", "backend", "weight", "state", "algorithm", "mode", "share")
    rows = ebpftop("backends", IFACE, "--json").json()
    return [{name: row[name] for name in names} for row in rows]


@pytest.fixture
def vip(stage: Stage) -> str:
    """Make a VIP with two backends, one of which has another weight than at first."""
    control = InstanceControl(stage.instance).balancing
    service = Service.parse(VIP)
    control.add_vip(Vip(service, "maglev", no_backend="all", check=HealthCheck("http", fall=7)))
    control.add_backend(service, Backend(end(WEB1), 2))
    control.add_backend(service, Backend(end(WEB2)))
    control.set_backends(service, {end(WEB1): {"weight": 6}})
    return VIP


@pytest.mark.parametrize(
    "words",
    [
        ["vip", "add", IFACE, "198.51.100.11:53/udp", "--algorithm", "rr"],
        ["vip", "set", IFACE, VIP, "--algorithm", "wrr", "--no-backend", "drop"],
        ["vip", "set", IFACE, VIP, "--check", "off"],
        ["vip", "set", IFACE, VIP, "--mode", "nat", "--check-path", "/up", "--check-rise", "9"],
        ["vip", "del", IFACE, VIP],
        ["backend", "add", IFACE, VIP, WEB3, "--weight", "3"],
        ["backend", "set", IFACE, VIP, WEB1, "--weight", "1"],
        ["backend", "set", IFACE, VIP, WEB1, "--state", "drain"],
        ["backend", "del", IFACE, VIP, WEB1],
    ],
    ids=lambda words: " ".join(words[:2] + words[4:]),
)
def test_acts_on_the_balancer_are_written_with_both_values_and_undone(
    stage: Stage, vip: str, words: list[str]
) -> None:
    control = InstanceControl(stage.instance).balancing
    before, shown = control.state(), balanced()
    done(*words)
    after = control.state()
    assert after != before
    act = acts()[-1]
    assert (act["what"], act["result"]) == (" ".join(words[:2]), "done")
    assert act["old"] != act["new"]
    assert act["target"].startswith(words[3])
    done("undo", IFACE)
    assert control.state() == before
    assert balanced() == shown
    done("undo", IFACE, acts()[-1]["id"])
    assert control.state() == after


def test_the_acts_on_backends_say_what_they_changed(stage: Stage, vip: str) -> None:
    done("backend", "set", IFACE, VIP, WEB1, "--weight", "1")
    act = acts()[-1]
    assert (act["old"][WEB1]["weight"], act["new"][WEB1]["weight"]) == (6, 1)
    assert act["target"] == f"{VIP} {WEB1}"
    done("vip", "set", IFACE, VIP, "--check-fall", "3")
    told = done("acts", IFACE).out
    assert "weight 6, up → weight 1, up" in told
    assert re.search("check http[^→]* fall 7[^→]* → http[^→]* fall 3", told)


def test_backends_that_were_changed_at_once_are_undone_at_once(stage: Stage, vip: str) -> None:
    control = InstanceControl(stage.instance).balancing
    before = control.state()
    control.set_backends(
        Service.parse(VIP), {end(WEB1): {"state": "down"}, end(WEB2): {"weight": 9}}
    )
    assert acts()[-1]["target"] == f"{VIP} 2 backends"
    done("undo", IFACE)
    assert control.state() == before


def test_a_vip_that_has_backends_since_is_not_undone_without_force(stage: Stage) -> None:
    done("vip", "add", IFACE, VIP)
    name = acts()[-1]["id"]
    done("backend", "add", IFACE, VIP, WEB1)
    refused = ebpftop("undo", IFACE, name)
    assert refused.status == 4
    assert "has got backends since" in refused.err
    assert len(balanced()) == 1
    done("undo", IFACE, name, "--force")
    assert InstanceControl(stage.instance).balancing.state() == {}


def test_a_backend_that_was_changed_since_is_not_undone_without_force(
    stage: Stage, vip: str
) -> None:
    done("backend", "set", IFACE, VIP, WEB1, "--weight", "1")
    name = acts()[-1]["id"]
    done("backend", "set", IFACE, VIP, WEB2, "--weight", "8")
    done("backend", "set", IFACE, VIP, WEB1, "--weight", "2")
    refused = ebpftop("undo", IFACE, name)
    assert refused.status == 4
    assert "has been changed since" in refused.err
    done("undo", IFACE, name, "--force")
    assert [row["weight"] for row in balanced()] == [6, 8]


def test_what_checks_find_and_what_a_sweep_ends_are_no_acts(stage: Stage, vip: str) -> None:
    before = len(acts())
    control = InstanceControl(stage.instance)
    control.balancing.set_health(Service.parse(VIP), end(WEB1), False)
    control.sweep()
    control.protect()
    assert len(acts()) == before


def test_a_reload_is_one_act_which_says_what_it_changed(tmp_path: Path, audit_log: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[limits]\npps = 500\n")
    done("attach", "lo", "--config", str(policy), "--mode", "generic")
    try:
        policy.write_text(
            '[limits]\npps = 700\n[[vip]]\naddress = "198.51.100.10:80/tcp"\n'
            '[[class]]\nname = "video"\nrate = "8mbit"\naction = "police"\n'
        )
        done("reload", "lo")
        told = [line for line in lines(audit_log) if line["what"] == "reload"]
        assert [line["result"] for line in told] == [None, "done"]
        old, new = told[-1]["old"], told[-1]["new"]
        assert (old["limits"]["pps"], new["limits"]["pps"]) == (500, 700)
        assert (old["vips"], list(new["vips"])) == ({}, [VIP])
        assert (old["classes"], list(new["classes"])) == ({}, ["video"])
        assert str(policy).startswith(told[-1]["target"].rstrip("…"))
        assert len(told[-1]["target"]) > 40
        refused = ebpftop("undo", "lo", told[-1]["id"])
        assert refused.status == 2
        assert "reload cannot be undone" in refused.err
    finally:
        done("detach", "lo")
