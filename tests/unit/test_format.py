# SPDX-License-Identifier: Apache-2.0
"""Text of numbers, times and addresses: its width, its truth, and the way back."""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpftop import format as fmt
from ebpftop.errors import UsageError

COUNTERS = st.one_of(st.integers(0, 2**64 - 1), st.floats(0, 2.0**64))
SI = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0, "0"),
        (7.0, "7"),
        (0.5, "0.50"),
        (9.876, "9.88"),
        (98.76, "98.8"),
        (999, "999"),
        (999.6, "1.00k"),
        (1000, "1.00k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (4_560_000, "4.56M"),
        (1.2e9, "1.20G"),
        (2**64 - 1, "18.4E"),
        (-12_345, "-12.3k"),
        (math.inf, "∞"),
    ],
)
def test_a_count_has_three_significant_digits(value: float | None, text: str) -> None:
    assert fmt.count(value) == text


@given(COUNTERS)
def test_a_count_fits_its_cell_and_is_right_to_half_a_percent(value: float) -> None:
    text = fmt.count(value)
    assert len(text) <= 6
    assert _number(text) == pytest.approx(value, rel=0.00501, abs=0.00501)


@pytest.mark.parametrize(
    ("draw", "unit", "width"), [(fmt.bits_rate_unit, "bit/s", 11), (fmt.size, "B", 7)]
)
@given(value=COUNTERS)
def test_a_unit_keeps_its_prefix_and_its_cell(
    draw: Callable[[float], str], unit: str, width: int, value: float
) -> None:
    text = draw(value)
    number, _, prefixed = text.partition(" ")
    assert len(text) <= width
    assert prefixed.endswith(unit)
    shown = _number(number + prefixed.removesuffix(unit))
    assert shown == pytest.approx(value, rel=0.00501, abs=0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fmt.bits_rate_unit(12_300_000), "12.3 Mbit/s"),
        (fmt.bits_rate_unit(0.4), "0 bit/s"),
        (fmt.bits_rate_unit(None), fmt.UNKNOWN),
        (fmt.bits_rate(1_230_000), "1.23M"),
        (fmt.bits_rate(98.76), "99"),
        (fmt.bits_rate(math.nan), fmt.UNKNOWN),
        (fmt.size(999), "999 B"),
        (fmt.size(12_300_000), "12.3 MB"),
        (fmt.size(None), fmt.UNKNOWN),
        (fmt.percent(0), "0%"),
        (fmt.percent(0.0001), "<0.1%"),
        (fmt.percent(0.123), "12.3%"),
        (fmt.percent(0.99999), "99.9%"),
        (fmt.percent(1), "100%"),
        (fmt.percent(math.nan), fmt.UNKNOWN),
    ],
)
def test_units_and_shares_read_like_this(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "forever"),
        (math.inf, "forever"),
        (math.nan, fmt.UNKNOWN),
        (-3, "0s"),
        (0, "0s"),
        (0.25, "250ms"),
        (0.9999, "999ms"),
        (9.9, "9s"),
        (245, "4m05s"),
        (3599.9, "59m59s"),
        (7800, "2h10m"),
        (3 * 86_400 + 4 * 3600, "3d04h"),
        (100 * 86_400, "100d"),
    ],
)
def test_a_duration_shows_its_two_largest_parts(seconds: float | None, text: str) -> None:
    assert fmt.duration(seconds) == text


@given(st.floats(0, 90_000 * 86_400.0))
def test_a_duration_is_cut_off_and_never_rounded_up(seconds: float) -> None:
    text = fmt.duration(seconds)
    units = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"([0-9]+)(ms|[dhms])", text)
    shown = sum(int(number) * units[unit] for number, unit in parts)
    assert len(text) <= 6
    assert shown <= seconds + 1e-9
    assert seconds - shown < units[parts[-1][1]] + 1e-9


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1bc",
        "\x9b31m",
        "two\nlines\r\n",
        "tab\there",
        "\u202egnp.exe",
        "\u2066isolated\u2069",
        "zero\u200bwidth\u200d\ufeff",
        "line\u2028paragraph\u2029",
        "\ud800",
        "\ue000\U000f0000",
        "\u0378",
        "filler\u3164\u115f",
        "variation\ufe0f\U000e0100",
        "tag\U000e0041",
        "\x00\x7f\xad",
    ],
)
def test_nothing_that_steers_a_terminal_or_hides_stays(hostile: str) -> None:
    text = fmt.printable(hostile)
    assert fmt.REPLACEMENT in text
    assert text.isprintable()
    assert len(text) == len(hostile)


@given(st.text(st.characters(exclude_categories=[]), max_size=60), st.integers(1, 50))
def test_what_is_printable_is_bounded_and_stays_as_it_is(text: str, limit: int) -> None:
    shown = fmt.printable(text, limit)
    assert len(shown) <= limit
    assert not {unicodedata.category(character) for character in shown} & HIDDEN_CATEGORIES
    assert fmt.printable(shown, limit) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S"], max_codepoint=0x24FF)))
def test_ordinary_text_comes_back_unchanged(text: str) -> None:
    ordinary = "".join(c for c in text if c not in "\u034f\u115f\u1160\u17b4\u17b5")
    assert fmt.printable(ordinary, 1000) == ordinary


def test_any_space_becomes_a_plain_one_and_a_cut_is_marked() -> None:
    assert fmt.printable("a\u00a0b\u3000c") == "a b c"
    assert fmt.printable("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (fmt.parse_rate, "0", 0),
        (fmt.parse_rate, "100bit", 100),
        (fmt.parse_rate, "8kbit", 8000),
        (fmt.parse_rate, " 1.5MBIT ", 1_500_000),
        (fmt.parse_rate, "1gbit", 10**9),
        (fmt.parse_rate, "2tbit", 2 * 10**12),
        (fmt.parse_size, "1500", 1500),
        (fmt.parse_size, "1500b", 1500),
        (fmt.parse_size, "32kb", 32_768),
        (fmt.parse_size, "1.5k", 1536),
        (fmt.parse_size, "1mb", 1_048_576),
        (fmt.parse_size, "2GB", 2 << 30),
        (fmt.parse_count, "1000", 1000),
        (fmt.parse_count, "1k", 1000),
        (fmt.parse_count, "2.5m", 2_500_000),
        (fmt.parse_count, "1g", 10**9),
        (fmt.parse_number, "0.5", 0.5),
        (fmt.parse_number, "2.5k", 2500),
        (fmt.parse_duration, "forever", None),
        (fmt.parse_duration, "0", 0.0),
        (fmt.parse_duration, "500ms", 0.5),
        (fmt.parse_duration, "90s", 90.0),
        (fmt.parse_duration, "10m", 600.0),
        (fmt.parse_duration, "1.5h", 5400.0),
        (fmt.parse_duration, "1d", 86_400.0),
    ],
)
def test_an_amount_is_read_exactly(
    parse: Callable[[str], float | None], text: str, value: float | None
) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "problem", "example"),
    [
        (fmt.parse_rate, "50", "'50' has no unit", "50mbit"),
        (fmt.parse_rate, "50mb", "'50mb' is no RATE", "50mbit"),
        (fmt.parse_rate, "-5mbit", "'-5mbit' is no RATE", "50mbit"),
        (fmt.parse_rate, "0.5bit", "'0.5bit' is not a whole RATE", "50mbit"),
        (fmt.parse_rate, "9" * 19 + "gbit", "is too large", "50mbit"),
        (fmt.parse_rate, "1_0kbit", "is no RATE", "50mbit"),
        (fmt.parse_rate, "٣kbit", "is no RATE", "50mbit"),
        (fmt.parse_rate, "1e3kbit", "is no RATE", "50mbit"),
        (fmt.parse_rate, "", "'' is no RATE", "50mbit"),
        (fmt.parse_size, "1tb", "'1tb' is no SIZE", "32kb"),
        (fmt.parse_size, "0.3b", "is not a whole SIZE", "32kb"),
        (fmt.parse_count, "0.5", "is not a whole number", "1k"),
        (fmt.parse_count, "1.k", "is no number", "1k"),
        (fmt.parse_number, "many", "'many' is no number", "1k"),
        (fmt.parse_duration, "90", "'90' has no unit", "90s"),
        (fmt.parse_duration, "-1s", "is no DURATION", "90s"),
        (fmt.parse_duration, "nan", "is no DURATION", "90s"),
        (fmt.parse_duration, "inf", "is no DURATION", "90s"),
        (fmt.parse_duration, "4000d", "is longer than ten years", "forever"),
        (fmt.parse_address, "300.1.1.1", "'300.1.1.1' is no address or prefix", "192.0.2.0/24"),
        (fmt.parse_address, "", "'' is no address or prefix", "192.0.2.0/24"),
        (fmt.parse_address, "10.0.0.1/33", "is no address or prefix", "192.0.2.0/24"),
        (fmt.parse_address, "10.1.2.3/8", "has bits set beyond", "10.0.0.0/8"),
        (fmt.parse_address, "2001:db8::1/32", "has bits set beyond", "2001:db8::/32"),
        (fmt.parse_address, "fe80::1%eth0", "names a zone", "%"),
    ],
)
def test_a_wrong_value_is_named_and_a_right_one_shown(
    parse: Callable[[str], object], text: str, problem: str, example: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert problem in caught.value.problem
    assert example in caught.value.remedy


@pytest.mark.parametrize(
    "parse", [fmt.parse_rate, fmt.parse_size, fmt.parse_count, fmt.parse_number]
)
@given(text=st.text(max_size=12))
def test_any_text_is_either_a_number_from_0_or_a_printable_error(
    parse: Callable[[str], float], text: str
) -> None:
    value, message = 0.0, ""
    try:
        value = parse(text)
    except UsageError as error:
        message = str(error)
    assert value >= 0
    assert message.isprintable()


@given(st.integers(0, 2**63 - 1))
def test_a_rate_reads_back_exactly(rate_bps: int) -> None:
    assert fmt.parse_rate(fmt.rate_text(rate_bps)) == rate_bps


@pytest.mark.parametrize(
    ("rate_bps", "text"),
    [
        (0, "0"),
        (999, "999bit"),
        (8000, "8kbit"),
        (50_000_000, "50mbit"),
        (1_500_000, "1.5mbit"),
        (12_340_000_000, "12.34gbit"),
        (1_234_567, "1234567bit"),
        (10**12, "1tbit"),
    ],
)
def test_a_rate_is_written_in_the_unit_that_suits_it(rate_bps: int, text: str) -> None:
    assert fmt.rate_text(rate_bps) == text


@given(
    st.one_of(
        st.none(), st.integers(0, 3650 * 86_400).map(float), st.floats(1e-9, fmt.MAX_DURATION_S)
    )
)
def test_a_duration_reads_back_exactly(seconds: float | None) -> None:
    assert fmt.parse_duration(fmt.duration_text(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (60, "1m"),
        (90, "90s"),
        (600, "10m"),
        (7200, "2h"),
        (86_400, "1d"),
        (math.inf, "forever"),
    ],
)
def test_a_duration_is_written_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert fmt.duration_text(seconds) == text


@given(st.ip_addresses())
def test_an_address_reads_back_as_ipaddress_writes_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    mapped = getattr(address, "ipv4_mapped", None)
    assert str(fmt.parse_address(str(address))) == str(mapped or address)


def _number(text: str) -> float:
    prefix = text[-1] if text[-1].isalpha() else ""
    return float(text.removesuffix(prefix)) * SI[prefix]
