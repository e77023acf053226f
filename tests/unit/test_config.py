# SPDX-License-Identifier: Apache-2.0
"""Policy files: what is read from a right one, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpftop.config import (
    AccessPolicy,
    BalancerPolicy,
    CapacityPolicy,
    Policy,
    PositiveSeconds,
    ProtectionPolicy,
    VipPolicy,
    load,
)
from ebpftop.config.balancing import CheckPolicy
from ebpftop.config.values import ServiceText
from ebpftop.errors import EbpftopError, KernelRefusedError, UsageError
from ebpftop.model import Backend, Limits, Prefix, Service, Vip
from ebpftop.model import balancing as checks

EXAMPLE = Path(__file__).parents[1] / "data" / "policy.toml"


def test_the_example_policy_is_read_whole() -> None:
    policy = load(EXAMPLE)

    assert [str(prefix) for prefix in policy.allow] == ["192.0.2.0/24", "2001:db8:1::/48"]
    assert policy.management == (
        Prefix.parse("198.51.100.7"),
        Prefix.parse("2001:db8:ffff::7"),
    )
    assert policy.limits.limits() == Limits(
        pps=100_000,
        bps=500_000_000,
        syn=1000,
        burst_s=1.5,
        grace_s=2.0,
        block_for_s=300.0,
        dry_run=True,
    )
    assert policy.protection == ProtectionPolicy(
        over_budget="drop", new_sources_per_core_s=8192, unparsed="drop", flood_pps=5000
    )
    assert policy.access == AccessPolicy(group="netops")
    assert policy.capacity == CapacityPolicy(
        sources=262_144, blocks=50_000, prefixes=4096, connections=65_536
    )
    assert policy.balancer == BalancerPolicy(
        new_flows_per_core_s=4000, tcp_idle_s=PositiveSeconds(3600),
        tcp_opening_s=PositiveSeconds(30), udp_idle_s=PositiveSeconds(20), fragments="drop",
        options="drop",
    )  # fmt: skip


def test_the_vips_of_the_example_are_read_as_the_model_has_them() -> None:
    first, second = load(EXAMPLE).vips

    assert first.vip() == Vip(
        Service.parse("198.51.100.10:80/tcp"), "maglev", "dsr", "all",
        checks.HealthCheck("http", 0.5, 0.2, 1, 4, 8080, "/health", "www.example.net", 204),
    )  # fmt: skip
    assert first.wanted_backends() == [
        Backend(Service.parse("192.0.2.11:80", "tcp"), 3, "drain"),
        Backend(Service.parse("192.0.2.12:80", "tcp"), 1, "up"),
    ]
    assert second.vip() == Vip(Service.parse("[2001:db8::10]:53/udp"))
    assert second.wanted_backends() == []


def test_what_a_vip_does_not_say_is_the_default_of_the_model() -> None:
    policy = VipPolicy(address=ServiceText("192.0.2.1:80/tcp"), check=CheckPolicy())
    service = Service.parse("192.0.2.1:80/tcp")
    assert policy.vip() == Vip(service, check=checks.HealthCheck())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[vip]]\nadress = "192.0.2.1:80/tcp"', "did you mean vip.address?"),
        ("[[vip]]", "vip: object missing required field address"),
        ('[[vip]]\naddress = "192.0.2.1:80"', "vip.address: '192.0.2.1:80' is no VIP"),
        ('[[vip]]\naddress = 80', "vip.address: '80' is no VIP"),
        ('[[vip]]\naddress = "192.0.2.1:80/tcp"\nalgorithm = "best"', "rr, wrr, least, maglev"),
        ('[[vip]]\naddress = "192.0.2.1:80/tcp"\ncheck = 1', "check = {...}"),
        ('[[vip]]\naddress = "192.0.2.1:80/tcp"\ncheck = {kind="icmp"}', "none of tcp, http"),
        ('[[vip]]\naddress = "192.0.2.1:80/tcp"\ncheck = {interval="0"}', "more than 0"),
        ('[[vip]]\naddress = "192.0.2.1:80/tcp"\n[[vip.backend]]\naddress = "x"',
         "vip.backend.address: 'x' is no address and port"),
        ('[[vip]]\naddress = "192.0.2.1:80/tcp"\n[[vip.backend]]\naddress = "192.0.2.2:1"\n'
         "weight = 65536", "vip.backend.weight"),
        ('[balancer]\nudp_idle = "forever"', "balancer.udp_idle"),
        ('[balancer]\nfragments = "eat"', "none of pass, drop"),
    ],
)  # fmt: skip
def test_a_fault_in_a_vip_names_its_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        load(_file(tmp_path, text))
    assert words in str(refusal.value)


def test_without_a_file_every_limit_is_off() -> None:
    policy = Policy()
    assert policy.limits.limits() == Limits()
    assert not policy.limits.limits().any
    assert policy.protection.over_budget == policy.protection.unparsed == "pass"
    assert policy.allow == policy.management == ()


def test_an_empty_file_is_the_default_policy(tmp_path: Path) -> None:
    assert load(_file(tmp_path, "")) == Policy()


def test_two_files_that_say_the_same_are_equal_policies(tmp_path: Path) -> None:
    assert load(_file(tmp_path, '[limits]\nburst = "2s"')) == load(
        _file(tmp_path, '[limits]\nburst = "2000ms"')
    )
    assert load(_file(tmp_path, '[limits]\nburst = "2s"')) != Policy()


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ('bps = "8kbit"', Limits(bps=8000)),
        ("bps = 0", Limits()),
        ('bps = "0"', Limits()),
        ("block_for = 0", Limits(block_for_s=0.0)),
        ('grace = "0"', Limits(grace_s=0.0)),
        ('block_for = "30d"', Limits(block_for_s=2_592_000.0)),
        ("pps = 4294967295", Limits(pps=4_294_967_295)),
    ],
)
def test_a_limit_is_read_as_it_is_meant(tmp_path: Path, text: str, limits: Limits) -> None:
    assert load(_file(tmp_path, f"[limits]\n{text}")).limits.limits() == limits


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("[limits]\nppps = 1", "there is no key 'limits.ppps'", "did you mean limits.pps?"),
        ("[limits]\nburst_s = 1", "there is no key 'limits.burst_s'", "did you mean limits.burst?"),
        ("[limit]\npps = 1", "there is no key 'limit'", "did you mean limits?"),
        ("block_for = '9s'", "there is no key 'block_for'", "did you mean limits.block_for?"),
        (
            "[limits]\nallow = []",
            "there is no key 'limits.allow'",
            "did you mean allow, above the first [section]?",
        ),
        (
            "[protection]\nzzz = 1",
            "there is no key 'protection.zzz'",
            "the keys here are protection.over_budget, protection.new_sources_per_core_s, "
            "protection.unparsed, protection.flood_pps",
        ),
        ('"\\u001b[2J" = 1', "there is no key '\ufffd[2J'", "the keys here are allow"),
        ('"a` - at `$.limits" = 1', "there is no key", ""),
        ("[limits]\nfloodpps = 1", "there is no key 'limits.floodpps'", "protection.flood_pps?"),
        (
            "[limits]\npps = '9'",
            "limits.pps: expected a whole number, got text",
            "for example pps = 1000",
        ),
        ("[limits]\npps = -1", "limits.pps: expected a whole number >= 0", "pps = 1000"),
        ("[limits]\npps = 1.0", "limits.pps: expected a whole number, got a number", "pps = 1000"),
        ("[limits]\npps = true", "limits.pps: expected a whole number, got true or", "pps = 1000"),
        (
            "[limits]\nsyn = 99999999999999999999",
            "limits.syn: expected a whole number <= 4294967295",
            "syn = 1000",
        ),
        ("[limits]\nbps = 5", "limits.bps: '5' has no unit", 'for example bps = "50mbit"'),
        ("[limits]\nbps = '5mb'", "limits.bps: '5mb' is no RATE", 'bps = "50mbit"'),
        ("[limits]\nbps = true", "limits.bps: expected text", 'bps = "50mbit"'),
        ("[limits]\nburst = 0", "limits.burst: it must be more than 0", 'burst = "1s"'),
        ("[limits]\ngrace = nan", "limits.grace: 'nan' is no DURATION", 'grace = "1s"'),
        ("[limits]\ngrace = []", "limits.grace: expected text", 'grace = "1s"'),
        (
            "[limits]\nblock_for = 'forever'",
            "limits.block_for: 'forever' is longer than 30 days",
            'block_for = "60s"',
        ),
        (
            "[limits]\nblock_for = '31d'",
            "limits.block_for: '31d' is longer than 30 days",
            'block_for = "60s"',
        ),
        (
            "[limits]\ndry_run = 'on'",
            "limits.dry_run: expected true or false, got text",
            "dry_run = true",
        ),
        ("limits = 3", "limits: expected a table, got a whole number", "for example [limits]"),
        (
            "[protection]\nunparsed = 'reject'",
            "protection.unparsed: 'reject' is none of pass, drop",
            'unparsed = "drop"',
        ),
        ("[protection]\nflood_pps = 0", "flood_pps: expected a whole number >= 1", "flood_pps = "),
        ("[access]\ngroup = 'a b'", "access.group: expected text matching", 'group = "ebpftop"'),
        (
            "[capacity]\nsources = 1000",
            "capacity.sources: expected a whole number >= 1024",
            "sources = 131072",
        ),
        (
            "[capacity]\nblocks = 16777217",
            "capacity.blocks: expected a whole number <= 16777216",
            "blocks = 100000",
        ),
        ("[capacity]\nprefixes = 15", "capacity.prefixes: expected a whole", "prefixes = 16384"),
        (
            'allow = "192.0.2.1"',
            "allow: expected a list of texts",
            'allow = ["192.0.2.0/24"]',
        ),
        ("allow = [1]", "allow: expected a list of texts", 'allow = ["192.0.2.0/24"]'),
        ("management = ['host']", "management: 'host' is no address", 'management = ["198.51.100'),
        (
            "allow = ['10.1.2.3/8']",
            "allow: '10.1.2.3/8' has bits set beyond its prefix length, write 10.0.0.0/8",
            'allow = ["192.0.2.0/24"]',
        ),
        ("\n\npps = = 1", "line 3: Invalid value", "TOML"),
        ("allow = []\nallow = []", "line 2: Cannot overwrite a value", "TOML"),
        ("\n[limits", "line 2: ", "TOML"),
        ('group = "\x1b"', "line 1: Illegal character", "TOML"),
        ("allow = " + "[" * 5000, "recursion", "TOML"),
        ("x = " + "1" * 5000, "limit", "TOML"),
    ],
)
def test_a_wrong_key_or_value_is_named_and_a_right_one_shown(
    tmp_path: Path, text: str, problem: str, remedy: str
) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert caught.value.problem.startswith(f"{path}: ")
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert str(caught.value).isprintable()


def test_a_file_that_is_not_text_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"# one\n# two \xff\n")
    with pytest.raises(UsageError, match="line 2: this is not UTF-8"):
        load(path)


@pytest.mark.parametrize("name", ["", "missing.toml"])
def test_a_file_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(KernelRefusedError) as caught:
        load(tmp_path / name)
    assert f"{tmp_path / name} cannot be read" in caught.value.problem


def test_a_policy_cannot_be_changed_after_it_was_read() -> None:
    policy = load(EXAMPLE)
    with pytest.raises(AttributeError):
        policy.limits.burst_s = PositiveSeconds(3)  # type: ignore[misc]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_a_damaged_policy_is_read_whole_or_refused_with_its_name(
    tmp_path: Path, data: st.DataObject
) -> None:
    # GIVEN the example with a piece of it replaced by something else
    text = EXAMPLE.read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    path = _file(tmp_path, text[:start] + data.draw(st.text(max_size=5)) + text[end:])

    # WHEN it is read
    message = f"{path}"
    try:
        load(path).limits.limits()
    except EbpftopError as error:
        message = str(error)

    # THEN it is a policy, or an error that can be shown and says which file
    assert message.startswith(str(path))
    assert message.isprintable()


def _file(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    return path
