# SPDX-License-Identifier: Apache-2.0
"""Prefixes against ipaddress, and the tables' columns against their rows."""

from __future__ import annotations

import ipaddress
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpftop.model import Blocks, Clock, Limits, Prefix, Service, Sources, SourceState

CLOCK = Clock(monotonic_ns=5_000_000_000, wall_s=1_700_000_000.0)


@st.composite
def networks(draw: st.DrawFn) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Draw any IPv4 network, or any IPv6 network that is not mapped IPv4."""
    address = draw(st.ip_addresses())
    length = draw(st.integers(0, address.max_prefixlen))
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
        network = ipaddress.ip_network("2001:db8::/32")
    return network


@given(networks())
def test_a_prefix_reads_and_writes_as_ipaddress_does(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> None:
    prefix = Prefix.parse(str(network))
    single = network.prefixlen == network.max_prefixlen
    assert str(prefix) == (str(network.network_address) if single else str(network))
    assert prefix.is_host == single
    assert prefix.is_ipv4 == (network.version == 4)


@given(networks())
def test_a_prefix_keeps_its_bytes_in_network_order(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> None:
    prefix = Prefix.parse(str(network))
    packed = prefix.to_bytes()
    mapped = bytes(10) + b"\xff\xff" if network.version == 4 else b""
    assert packed == mapped + network.network_address.packed
    assert Prefix.from_bytes(packed, prefix.length) == prefix


@given(networks(), st.data())
def test_a_prefix_contains_what_its_network_contains(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, data: st.DataObject
) -> None:
    prefix = Prefix.parse(str(network))
    address = data.draw(st.ip_addresses(network=network))
    inside = Prefix.parse(str(address))
    assert prefix.contains(inside)
    assert prefix.contains(prefix)
    assert inside.truncated(prefix.length) == prefix
    assert inside.contains(prefix) == prefix.is_host


@given(networks(), networks())
def test_two_prefixes_contain_one_another_as_their_networks_do(
    outer: ipaddress.IPv4Network | ipaddress.IPv6Network,
    inner: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> None:
    def as_ipv6(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv6Network:
        if isinstance(network, ipaddress.IPv6Network):
            return network
        mapped = f"::ffff:{network.network_address}/{96 + network.prefixlen}"
        return ipaddress.IPv6Network(mapped)

    expected = as_ipv6(inner).subnet_of(as_ipv6(outer))
    assert Prefix.parse(str(outer)).contains(Prefix.parse(str(inner))) == expected


def test_a_mapped_address_is_the_ipv4_address() -> None:
    assert Prefix.parse("::ffff:192.0.2.1") == Prefix.parse("192.0.2.1")
    assert str(Prefix.parse("0.0.0.0/0")) == "0.0.0.0/0"
    assert str(Prefix.parse("::/0")) == "::/0"
    assert not Prefix.parse("::/0").is_ipv4


@pytest.mark.parametrize("text", ["", "192.0.2.1/8", "2001:db8::1/32", "256.0.0.1", "host", "1"])
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Prefix.parse(text)


def test_the_states_are_in_the_order_of_severity() -> None:
    assert [state.label for state in sorted(SourceState)] == [
        *("passed", "allowed", "limited", "blocked")
    ]


def test_the_columns_of_sources_tell_what_the_rows_hold() -> None:
    sources = _sources("192.0.2.1", "2001:db8::1")
    columns = sources.columns(CLOCK)

    assert list(columns) == [
        *("address", "packets", "bytes", "pps", "bps", "dropped", "state"),
        *("first_seen_s", "last_seen_s"),
    ]
    assert all(len(column.values) == len(sources) for column in columns.values())
    state = columns["state"]
    assert [state.labels[code] for code in state.values] == ["limited", "limited"]
    assert columns["address"].length is None
    assert columns["first_seen_s"].values.tolist() == [1_699_999_996.0, 1_699_999_996.0]
    assert columns["last_seen_s"].values.tolist() == [1_699_999_999.5, 1_699_999_999.5]


def test_a_source_is_found_by_its_address() -> None:
    sources = _sources("192.0.2.1", "2001:db8::1")
    for row, text in enumerate(["192.0.2.1", "2001:db8::1"]):
        assert sources.row_of(Prefix.parse(text)) == row
        assert str(sources.address(row)) == text
    assert sources.row_of(Prefix.parse("192.0.2.2")) is None


def test_the_columns_of_blocks_tell_what_the_rows_hold() -> None:
    blocks = _blocks()
    columns = blocks.columns(CLOCK)

    assert list(columns) == ["address", "source", "reason", "expires_in_s", "packets", "bytes"]
    source = columns["source"]
    assert [source.labels[code] for code in source.values] == ["manual", "auto"]
    assert columns["expires_in_s"].values.tolist() == [math.inf, 2.5]
    assert columns["address"].length is not None
    assert columns["address"].length.tolist() == [104, 128]


def test_a_block_is_found_by_exactly_its_prefix() -> None:
    blocks = _blocks()
    assert blocks.row_of(Prefix.parse("10.0.0.0/8")) == 0
    assert blocks.row_of(Prefix.parse("10.0.0.0")) == 1
    assert blocks.row_of(Prefix.parse("10.0.0.0/16")) is None
    assert str(blocks.prefix(0)) == "10.0.0.0/8"


def test_empty_tables_have_all_their_columns() -> None:
    for table in (Sources.empty(), Blocks.empty()):
        assert len(table) == 0
        assert {len(column.values) for column in table.columns(CLOCK).values()} == {0}


def test_limits_are_on_when_one_of_them_is() -> None:
    assert not Limits(dry_run=True).any
    assert Limits(pps=1).any
    assert Limits(bps=1).any
    assert Limits(syn=1).any


def _sources(*addresses: str) -> Sources:
    prefixes = [Prefix.parse(text) for text in addresses]
    rows = len(prefixes)
    ones, rate = np.ones(rows, np.uint64), np.ones(rows)
    return Sources(
        high=np.array([prefix.high for prefix in prefixes], np.uint64),
        low=np.array([prefix.low for prefix in prefixes], np.uint64),
        packets=ones,
        bytes=ones,
        dropped=ones,
        dropped_bytes=ones,
        would_drop=ones,
        pps=rate,
        bps=rate,
        dropped_pps=rate,
        state=np.full(rows, SourceState.LIMITED, np.uint8),
        first_ns=ones * np.uint64(1_000_000_000),
        last_ns=ones * np.uint64(4_500_000_000),
    )


def _blocks() -> Blocks:
    prefixes = [Prefix.parse("10.0.0.0/8"), Prefix.parse("10.0.0.0")]
    zeros = np.zeros(2, np.uint64)
    return Blocks(
        high=zeros,
        low=np.array([prefix.low for prefix in prefixes], np.uint64),
        length=np.array([prefix.length for prefix in prefixes], np.uint8),
        automatic=np.array([0, 1], np.uint8),
        reason=np.array(["scan", "pps"], np.object_),
        set_ns=zeros,
        expires_ns=np.array([0, 7_500_000_000], np.uint64),
        packets=zeros,
        bytes=zeros,
    )


@pytest.mark.parametrize(
    "text",
    ["192.0.2.1:80/tcp", "192.0.2.1:65535/udp", "[2001:db8::1]:443/tcp", "[::]:1/udp"],
)
def test_a_service_reads_back_what_it_writes(text: str) -> None:
    service = Service.parse(text)
    assert str(service) == text
    assert Service.parse(service.endpoint, service.protocol) == service


@pytest.mark.parametrize(
    "text",
    ["", "192.0.2.1/tcp", "192.0.2.1:80", "192.0.2.1:80/sctp", "192.0.2.1:0/tcp", "::1:80/tcp",
     "192.0.2.1:65536/tcp", "192.0.2.1:\u0661/tcp", "[192.0.2.1]:80/tcp", "192.0.2.0/24:80/tcp",
     "192.0.2.1:-1/tcp", "192.0.2.1: 80/tcp", "[fe80::1%eth0]:80/tcp"],
)  # fmt: skip
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not|brackets|port|interface"):
        Service.parse(text)
