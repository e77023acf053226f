# SPDX-License-Identifier: Apache-2.0
"""The filter of a trace: what of it the kernel is told, and mistakes in it."""

from __future__ import annotations

import pytest

from ebpftop.control.trace_filter import TraceFilter, mistake
from ebpftop.model import VERDICTS


def words(mask: int, names: tuple[str, ...]) -> set[str]:
    return {name for bit, name in enumerate(names) if mask >> bit & 1}


def test_an_empty_filter_lets_everything_through() -> None:
    record = TraceFilter.parse("").record(rate=7, interface=3)
    assert not record["mask"]["high"][0]
    assert not record["mask"]["low"][0]
    assert words(int(record["verdicts"][0]), VERDICTS) == set(VERDICTS)
    assert (record["rate"][0], record["interface"][0]) == (7, 3)


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("verdict:dropped", {"dropped"}),
        ("-verdict:dropped", set(VERDICTS) - {"dropped"}),
        ("verdict:/ed$/ -verdict:passed -verdict:/^[rt]/", {"dropped", "aborted"}),
        ("verdict:passed verdict:dropped", set()),
    ],
)
def test_whatever_is_asked_of_a_verdict_the_kernel_is_told(text: str, verdicts: set[str]) -> None:
    wanted = TraceFilter.parse(text)
    assert words(wanted.masks["verdict"], VERDICTS) == verdicts
    assert wanted.exact


def test_the_kernel_is_told_the_narrowest_prefix_and_the_rest_is_asked_later() -> None:
    wanted = TraceFilter.parse("source:10.0.0.0/8 address:10.1.0.0/16")
    assert (str(wanted.source), wanted.exact) == ("10.1.0.0/16", False)
    assert TraceFilter.parse("source:10.1.0.0/16").exact
    assert not TraceFilter.parse("-source:10.1.0.0/16").exact
    assert not TraceFilter.parse("blocked").exact


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("source:10.0.0.0/8 verdict:drop", 26, "there is passed, dropped"),
        ("-reason:nope", 8, "there is none, blocked"),
        ("pps:>1k", 0, "the fields are source, address, protocol, verdict, reason"),
        ("protocol:udp source:hello", 20, "hello"),
    ],
)
def test_a_mistake_is_named_and_has_its_place(text: str, position: int, said: str) -> None:
    found = mistake(text)
    assert found is not None
    assert found[1] == position
    assert said in found[0]


def test_a_filter_without_a_mistake_has_none() -> None:
    assert mistake("source:2001:db8::/32 reason:none protocol:tcp") is None
