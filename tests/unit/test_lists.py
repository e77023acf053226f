# SPDX-License-Identifier: Apache-2.0
"""Lists as files: both forms, read and written, refused as a whole with each bad line named."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpftop.errors import KernelRefusedError, UsageError
from ebpftop.lists import Defaults, json_text, parse_list, read_list, write_list
from ebpftop.model import BlockRequest, Prefix


def prefixes(text: str) -> list[str]:
    return [str(request.prefix) for request in parse_list(text, "list")]


def test_a_plain_list_has_an_address_a_line_and_comments() -> None:
    text = "# bots\n10.0.0.1\n\n 2001:db8::/32 # all of it\r\n10.1.0.0/16\n"
    assert prefixes(text) == ["10.0.0.1", "2001:db8::/32", "10.1.0.0/16"]
    assert prefixes("") == prefixes("# nothing\n") == []


def test_what_a_plain_list_does_not_say_is_said_for_it() -> None:
    (request,) = parse_list("10.0.0.1", "list", Defaults(60.0, "bots"))
    assert request == BlockRequest(Prefix.parse("10.0.0.1"), 60.0, "bots")


def test_a_json_list_has_addresses_or_what_blocks_prints() -> None:
    text = json.dumps([
        "10.0.0.1",
        {"address": "10.0.0.2", "source": "auto", "reason": "flood", "expires_in_s": 9.5,
         "packets": 7},
        {"address": "10.0.0.0/8", "expires_in_s": None},
    ])  # fmt: skip
    assert parse_list(text, "list", Defaults(60.0, "bots")) == [
        BlockRequest(Prefix.parse("10.0.0.1"), 60.0, "bots"),
        BlockRequest(Prefix.parse("10.0.0.2"), 9.5, "flood"),
        BlockRequest(Prefix.parse("10.0.0.0/8"), None, "bots"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.1\nx\n10.0.0.1/8\n", ["2 bad lines", "line 2: 'x'", "line 3: '10.0.0.1/8'"]),
        ('["10.0.0.1", 5, {"address": 7}, {"x": 1}, null]',
         ["4 bad entries", "entry 2: ", "entry 3: ", "entry 4: ", "entry 5: "]),
        ('[{"address": "10.0.0.1", "expires_in_s": 0}]', ["1 bad entry", "above 0"]),
        ('[{"address": "10.0.0.1", "expires_in_s": true}]', ["above 0"]),
        ('[{"address": "10.0.0.1", "expires_in_s": 1e999}]', ["above 0"]),
        ('[{"address": "10.0.0.1", "reason": 5}]', ["`reason` is a text"]),
        ('["10.0.0.1",\n', ["is no JSON", "line 2"]),
        ("[" * 100_000, ["is no JSON"]),
        ("010.0.0.1\n1.2.3\n0x7f.1\n", ["3 bad lines"]),
        ("\x1b[2J\n", ["\N{REPLACEMENT CHARACTER}[2J"]),
    ],
)  # fmt: skip
def test_a_wrong_list_is_refused_with_each_mistake_named(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_list(text, "list")
    for word in words:
        assert word in str(caught.value)
    assert "nothing was blocked" in str(caught.value)
    assert "\x1b" not in str(caught.value)


@given(st.lists(st.ip_addresses().map(str), max_size=20))
def test_every_address_is_read_as_ipaddress_reads_it(texts: list[str]) -> None:
    found = parse_list("\n".join(texts), "list")
    assert [request.prefix for request in found] == [
        Prefix.parse(str(ipaddress.ip_address(text))) for text in texts
    ]


def test_what_was_written_is_read_again_and_nothing_is_overwritten(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"address": "10.0.0.1", "reason": "ü", "expires_in_s": None},
            {"address": "10.0.0.0/8", "reason": "", "expires_in_s": 5.5}]  # fmt: skip
    path = tmp_path / "list.json"
    write_list(path, json_text(rows))
    assert [(str(r.prefix), r.for_s, r.reason) for r in read_list(path)] == [
        ("10.0.0.1", None, "ü"), ("10.0.0.0/8", 5.5, ""),
    ]  # fmt: skip
    assert json.loads(path.read_text()) == rows
    assert json_text([]) == "[]\n"
    with pytest.raises(KernelRefusedError, match="is there already"):
        write_list(path, "")
    assert json.loads(path.read_text()) == rows
    with pytest.raises(KernelRefusedError, match="cannot be written"):
        write_list(tmp_path / "none" / "list", "")
