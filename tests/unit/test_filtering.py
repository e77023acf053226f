# SPDX-License-Identifier: Apache-2.0
"""The filter language: what matches, and what is said about a mistake."""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpftop.filtering import Filter, FilterError, Kind
from ebpftop.model import Column, Prefix

Row = tuple[Prefix, int, float, str, str]
Holds = Callable[[Row], bool]

FIELDS: dict[str, Kind] = {
    "address": "address",
    "packets": "number",
    "pps": "number",
    "state": "text",
    "reason": "text",
}
STATES = ("passed", "blocked")
ROWS: list[Row] = [
    (Prefix.parse("192.0.2.1"), 1200, 0.5, "passed", "scan"),
    (Prefix.parse("192.0.2.12"), 7, math.nan, "blocked", "SYN flood"),
    (Prefix.parse("10.20.30.40"), 0, 1000.0, "blocked", "over pps limit"),
    (Prefix.parse("2001:db8::1"), 80, 12_345.9, "passed", ""),
    (Prefix.parse("fe80::dead:1"), 10**15, math.inf, "passed", "/var/log"),
    (Prefix.parse("::1"), 5, 3.0, "blocked", 'say "no"'),
    (Prefix.parse("10.0.0.0/8"), 6, 4.0, "passed", "net"),
    (Prefix.parse("2001:db8::/32"), 4, 2.0, "passed", "net 80"),
]


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("   ", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("address:192.0.2.1", [0]),
        ("address:192.0.2.0/24", [0, 1]),
        ("address:10.0.0.0/8", [2, 6]),
        ("address:10.0.0.0/16", []),
        ("address:2001:db8::/32", [3, 7]),
        ("address:::1", [5]),
        ("ADDRESS:FE80::DEAD:1", [4]),
        ("packets:7", [1]),
        ("packets:=1.2k", [0]),
        ("packets:>1k", [0, 4]),
        ("packets:>=1200 packets:<=1200", [0]),
        ("packets:5..80", [1, 3, 5, 6]),
        ("packets:1g..1000000g", [4]),
        ("pps:<1", [0]),
        ("pps:>1k", [3, 4]),
        ("pps:0.4..0.6", [0]),
        ("-pps:<1", [1, 2, 3, 4, 5, 6, 7]),
        ("state:blocked", [1, 2, 5]),
        ("state:Blocked", [1, 2, 5]),
        ("state:block", []),
        ("-state:blocked", [0, 3, 4, 6, 7]),
        ("state:/block/", [1, 2, 5]),
        ("state:/^B.*d$/", [1, 2, 5]),
        ('reason:"syn flood"', [1]),
        ("reason:/syn flood/", [1]),
        (r"reason:/^\/var/", [4]),
        ('reason:"/var/log"', [4]),
        ('reason:""', [3]),
        ("scan", [0]),
        ("syn", [1]),
        ("BLOCK", [1, 2, 5]),
        ('"over pps"', [2]),
        ("block state:blocked", [1, 2, 5]),
        ("192.0.2.1", [0]),
        ("192.0.2.0/24", [0, 1]),
        ("192.0.2", [0, 1]),
        (".2.1", [0, 1]),
        ("2.12", [1]),
        ("-192.0.2", [2, 3, 4, 5, 6, 7]),
        ("..", []),
        ("10.0.0.0", [6]),
        ("/8", [6]),
        ("2001:db8", [3, 7]),
        ("2001:db8::1", [3]),
        ("fe80:", [4]),
        ("dead", [4]),
        ("DEAD:", [4]),
        ("::1", [5]),
        ("80", [3, 4, 7]),
        ("2345", [3]),
        ("12345.9", []),
        ("000000000000000", [4]),
        ("07", []),
        ("10.20.30.40:443", []),
    ],
)
def test_a_filter_finds_these_rows(text: str, matching: list[int]) -> None:
    mask = Filter.parse(text, FIELDS).mask(_columns(ROWS))
    assert np.flatnonzero(mask).tolist() == matching


@pytest.mark.parametrize(
    ("text", "position", "problem", "remedy"),
    [
        ("pp:>1k", 0, "there is no field 'pp'", "did you mean pps? the fields are address,"),
        ("scan -stat:blocked", 6, "there is no field 'stat'", "did you mean state?"),
        ("zzz:1", 0, "there is no field 'zzz'", "the fields are address, packets"),
        ("packets:many", 8, "'many' is no number", "2.5m"),
        ("packets:>", 8, "'>' is no comparison", ">1k"),
        ("packets:>50mbit", 8, "'50mbit' is no number", "2.5m"),
        ("packets:5m..1m", 8, "the range '5m..1m' is empty", "smaller first"),
        ("packets:1..", 8, "'' is no number", "2.5m"),
        ("packets:", 0, "nothing follows 'packets:'", "put a value after it"),
        ("- packets:7", 0, "nothing follows '-'", '"-"'),
        ("  -", 2, "nothing follows '-'", '"-"'),
        ("address:/dead/", 8, "'/dead/' is no address or prefix", "192.0.2.0/24"),
        ("address:10.1.2.3/8", 8, "has bits set beyond", "10.0.0.0/8"),
        ('reason:"syn flood', 7, "a quotation mark is not closed", '"two words"'),
        ("reason:/syn flood", 7, "the regular expression is not closed", "quotation"),
        ("reason:/a(b/", 9, "the regular expression is wrong", "quotation"),
        ("reason:/a{99999999999}/", 8, "the regular expression is refused", ""),
        ("reason:/[[a]/", 8, "the regular expression is refused", ""),
        ("reason:/(a+)+$/", 8, "could take for ever", "at most 3"),
        ("reason:/((a)*b?){5}/", 8, "could take for ever", "at most 3"),
        ("reason:/(a|a)*$/", 8, "could take for ever", "at most 3"),
        ("reason:/.*.*.*.*x/", 8, "could take for ever", "at most 3"),
        ("\x1b[2J:1 packets:\x1b", 15, "'\ufffd' is no number", "2.5m"),
    ],
)
def test_a_mistake_is_named_and_placed(text: str, position: int, problem: str, remedy: str) -> None:
    with pytest.raises(FilterError) as caught:
        Filter.parse(text, FIELDS)
    assert caught.value.position == position
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("pattern", [r"(a|b)?c+", r"a\+\+\+\+", "[*+?]{2}", "(?i:syn)+", "((x))"])
def test_a_harmless_expression_is_not_refused(pattern: str) -> None:
    assert not Filter.parse(f"reason:/{pattern}/", FIELDS).mask(_columns([])).any()


NUMBERS = st.sampled_from([0, 1, 7, 80, 999, 1000, 1200, 2_500_000])
WRITTEN = {2_500_000: "2.5m", 1000: "1k"}


def _written(number: int) -> str:
    return WRITTEN.get(number, str(number))


@st.composite
def words(draw: st.DrawFn) -> tuple[str, Holds]:
    """Draw a word of a filter, and what it means."""
    number, other = sorted([draw(NUMBERS), draw(NUMBERS)])
    address = draw(st.sampled_from(ROWS))[0]
    prefix = address.truncated(draw(st.integers(0, address.length)))
    label = draw(st.sampled_from([*STATES, "pass", "net", "SYN flood", "other"]))
    part = re.compile(draw(st.sampled_from(["lo", "^pa", "d$", "."])), re.IGNORECASE)
    low, high = _written(number), _written(other)
    text, holds = draw(
        st.sampled_from(
            [
                (f"packets:{low}", lambda row: row[1] == number),
                (f"packets:>{low}", lambda row: row[1] > number),
                (f"pps:>={low}", lambda row: row[2] >= number),
                (f"pps:<{low}", lambda row: row[2] < number),
                (f"packets:<={low}", lambda row: row[1] <= number),
                (f"packets:{low}..{high}", lambda row: number <= row[1] <= other),
                (f"address:{prefix}", lambda row: prefix.contains(row[0])),
                (f'reason:"{label}"', lambda row: row[4].lower() == label.lower()),
                (f"state:/{part.pattern}/", lambda row: part.search(row[3]) is not None),
            ]
        )
    )
    if draw(st.booleans()):
        return f"-{text}", lambda row: not holds(row)
    return text, holds


@given(st.lists(words(), max_size=4), st.lists(st.sampled_from(ROWS), max_size=8))
def test_all_words_must_hold_as_plain_python_says(
    drawn: list[tuple[str, Holds]], rows: list[Row]
) -> None:
    mask = Filter.parse("  ".join(text for text, _ in drawn), FIELDS).mask(_columns(rows))
    assert mask.tolist() == [all(holds(row) for _, holds in drawn) for row in rows]


@given(st.data(), st.lists(st.ip_addresses(), min_size=1, max_size=5))
def test_any_part_of_an_address_finds_it_and_nothing_without_it(
    data: st.DataObject, addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address]
) -> None:
    # GIVEN a part of one address
    texts = [str(Prefix.parse(str(address))) for address in addresses]
    text = data.draw(st.sampled_from(texts))
    start = data.draw(st.integers(0, len(text) - 1))
    part = text[start : data.draw(st.integers(start + 1, len(text)))]

    # WHEN it is looked for
    prefixes = [Prefix.parse(text) for text in texts]
    address = {"address": _addresses(prefixes)}
    found = Filter.parse(f'"{part}"', {"address": "address"}).mask(address)

    # THEN it is found where it is in the text; a whole address is found as an address
    try:
        whole = Prefix.parse(part)
    except ValueError:
        expected = [part in text for text in texts]
    else:
        expected = [whole.contains(prefix) for prefix in prefixes]
    assert found.tolist() == expected


@given(st.lists(st.integers(0, 10**18), min_size=1, max_size=5), st.data())
def test_digits_find_the_numbers_that_have_them(numbers: list[int], data: st.DataObject) -> None:
    text = str(data.draw(st.sampled_from(numbers)))
    start = data.draw(st.integers(0, len(text) - 1))
    part = text[start : data.draw(st.integers(start + 1, len(text)))]
    columns = {"packets": Column("number", np.array(numbers, np.uint64))}
    mask = Filter.parse(part, {"packets": "number"}).mask(columns)
    assert mask.tolist() == [part in str(number) for number in numbers]


@given(st.text(max_size=30))
def test_any_text_is_a_filter_or_a_mistake_with_a_place(text: str) -> None:
    position = 0
    try:
        assert len(Filter.parse(text, FIELDS).mask(_columns(ROWS))) == len(ROWS)
    except FilterError as error:
        position = error.position
    assert 0 <= position <= len(text)


def test_a_hundred_thousand_rows_are_filtered_in_milliseconds() -> None:
    rng = np.random.default_rng(5)
    rows = 100_000
    columns = {
        "address": Column(
            "address",
            np.zeros(rows, np.uint64),
            rng.integers(0, 2**32, rows, dtype=np.uint64) | np.uint64(0xFFFF << 32),
        ),
        "pps": Column("number", rng.random(rows)),
        "state": Column("text", rng.integers(0, 2, rows).astype(np.uint8), labels=STATES),
    }
    kinds: dict[str, Kind] = {name: column.kind for name, column in columns.items()}
    for text in ("pps:>0.5 state:blocked address:10.0.0.0/8", "203.0", "-passed"):
        parsed = Filter.parse(text, kinds)
        started_s = time.perf_counter()
        parsed.mask(columns)
        # Ten times what was measured, so that only a change of kind is caught.
        assert time.perf_counter() - started_s < 0.050


def _columns(rows: list[Row]) -> dict[str, Column]:
    states = np.array([STATES.index(row[3]) for row in rows], np.uint8)
    return {
        "address": _addresses([row[0] for row in rows]),
        "packets": Column("number", np.array([row[1] for row in rows], np.uint64)),
        "pps": Column("number", np.array([row[2] for row in rows], np.float64)),
        "state": Column("text", states, labels=STATES),
        "reason": Column("text", np.array([row[4] for row in rows], np.object_)),
    }


def _addresses(prefixes: list[Prefix]) -> Column:
    return Column(
        "address",
        np.array([prefix.high for prefix in prefixes], np.uint64),
        np.array([prefix.low for prefix in prefixes], np.uint64),
        length=np.array([prefix.length for prefix in prefixes], np.uint8),
    )


@pytest.mark.parametrize("word", ["a", "7", "-a"])
def test_a_bare_word_of_one_letter_is_looked_for(word: str) -> None:
    column = Column("text", np.array(["a7", "b"], np.object_))
    mask = Filter.parse(word, {"reason": "text"}).mask({"reason": column})
    assert mask.tolist() == [word != "-a", word == "-a"]
