# SPDX-License-Identifier: Apache-2.0
"""Numbers, times and addresses as text, and back.

What is drawn has a bounded width, so that a table's columns stand still, and three
significant digits. What was counted is in powers of 1000: packets, bits and bytes alike.
What an operator writes follows tc(8): a RATE is in bits a second and powers of 1000, a SIZE
is in bytes and powers of 1024.

This is the only user of humanize.
"""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from humanize.number import metric

from ebpftop.errors import UsageError
from ebpftop.model import Prefix, Service

UNKNOWN = "\N{EN DASH}"
"""Stands for a value that is not known yet."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands for a character that must not reach a terminal."""

MAX_DURATION_S = 3650 * 86_400.0
"""The longest DURATION that ends; beyond it `forever` is meant."""

_MAX_WHOLE = (1 << 63) - 1
_QUOTED_CHARACTERS = 60

_AMOUNT = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,40})?)([a-z]*)")
_RATE_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "tbit": 10**12}
_SIZE_UNITS = {
    **dict.fromkeys(("", "b"), 1),
    **dict.fromkeys(("k", "kb"), 1 << 10),
    **dict.fromkeys(("m", "mb"), 1 << 20),
    **dict.fromkeys(("g", "gb"), 1 << 30),
}
_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_DURATION_UNITS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
}
_ADDRESS_REMEDY = "write it as 192.0.2.1, 192.0.2.0/24, 2001:db8::1 or 2001:db8::/32"

# Unicode calls these letters, marks or symbols, and yet they are drawn as nothing: fillers,
# variation selectors, the empty Braille cell.
_INVISIBLE = frozenset(
    map(
        chr,
        [
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ],
    )
)


def count(value: float | None) -> str:
    """Return a number in at most six characters: `0`, `999`, `12.3k`, `4.56M`, `1.20G`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    # Rounded first: some versions of humanize carry 999.9 over to "1000".
    rounded = float(f"{value:.3g}")
    if abs(rounded) < 1000 and value == int(value):
        return str(int(value))
    if abs(rounded) < 1:
        return f"{rounded:.2f}"
    return str(metric(rounded)).replace(" ", "")


def bits_rate(rate_bps: float | None) -> str:
    """Return bits a second as `count` does, in whole bits; the unit is the column's header."""
    return count(_whole_or_unknown(rate_bps))


def bits_rate_unit(rate_bps: float | None) -> str:
    """Return bits a second with their unit, in at most eleven characters: `12.3 Mbit/s`."""
    return _with_unit(rate_bps, "bit/s")


def size(size_bytes: float | None) -> str:
    """Return bytes with their unit, in at most seven characters: `999 B`, `12.3 MB`.

    A megabyte is 1,000,000 bytes, so that it compares with a rate in bits and with a filter's
    `bytes:>1m`.
    """
    return _with_unit(size_bytes, "B")


def percent(share: float | None) -> str:
    """Return a share of 1 in at most five characters: `0%`, `12.3%`, `100%`.

    Only nothing is `0%` and only all is `100%`: what is nearly so is `<0.1%` and `99.9%`.
    """
    if share is None or not math.isfinite(share):
        return UNKNOWN
    if share <= 0 or share >= 1:
        return f"{100 * share:.0f}%"
    if share < 0.0005:
        return "<0.1%"
    return f"{min(100 * share, 99.9):.1f}%"


def duration(seconds: float | None) -> str:
    """Return a time span in at most six characters: `9s`, `4m05s`, `2h10m`, `3d04h`, `forever`.

    Parts that are not shown are cut off, not rounded; `forever` (None or infinite) is the one
    word that is longer. A span below zero is `0s`.
    """
    if seconds is None or seconds == math.inf:
        return "forever"
    if math.isnan(seconds):
        return UNKNOWN
    if 0 < seconds < 1:
        return f"{int(seconds * 1000)}ms"
    whole_s = max(0, int(seconds))
    if whole_s < 60:
        return f"{whole_s}s"
    if whole_s < 3600:
        return f"{whole_s // 60}m{whole_s % 60:02}s"
    if whole_s < 86_400:
        return f"{whole_s // 3600}h{whole_s % 3600 // 60:02}m"
    days, rest_s = divmod(whole_s, 86_400)
    return f"{days}d{rest_s // 3600:02}h" if days < 100 else f"{days}d"


def printable(text: str, limit: int = 200) -> str:
    """Return `text` on one line, without anything that steers a terminal or hides from the eye.

    Control characters, escapes, direction overrides, zero-width characters, line separators,
    surrogates, private and unassigned characters become `REPLACEMENT`; any space becomes a
    plain one. Printable text comes back as it was.

    Args:
        text: From the network, a file or an operator.
        limit: Characters to keep, at least 1; a cut is marked with an ellipsis.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_printable_character, text))


def parse_rate(text: str) -> int:
    """Return the bits a second of a RATE: `8kbit`, `1.5mbit`, `1gbit`, `100bit`, or `0`.

    Raises:
        UsageError: It is no RATE, or has no unit.
    """
    if text.strip() == "0":
        return 0
    remedy = "write it in bits a second, as 8kbit, 50mbit or 1gbit"
    return _parse_whole(text, _RATE_UNITS, "RATE", remedy)


def parse_size(text: str) -> int:
    """Return the bytes of a SIZE: `1500`, `1500b`, `32kb` (32 x 1024), `1mb`, `1gb`.

    Raises:
        UsageError: It is no SIZE, or no whole number of bytes.
    """
    return _parse_whole(text, _SIZE_UNITS, "SIZE", "write it in bytes, as 1500b, 32kb or 1mb")


def parse_count(text: str) -> int:
    """Return the number of `1000`, `1k`, `2.5m` or `1g`, in powers of 1000.

    Raises:
        UsageError: It is no number, or not a whole one.
    """
    return _parse_whole(text, _COUNT_UNITS, "number", "write it as 1000, 1k or 2.5m")


def parse_number(text: str) -> int | float:
    """Return the number of `1000`, `0.5`, `1k` or `2.5m`, in powers of 1000.

    Raises:
        UsageError: It is no number.
    """
    amount = _amount(text, _COUNT_UNITS)
    if amount is None:
        raise _wrong(text, "number", "write it as 1000, 0.5, 1k or 2.5m")
    return int(amount) if amount.denominator == 1 else float(amount)


def parse_duration(text: str) -> float | None:
    """Return the seconds of a DURATION: `500ms`, `90s`, `10m`, `2h`, `1d`, `0`; None: `forever`.

    Raises:
        UsageError: It is no DURATION, has no unit, or is longer than `MAX_DURATION_S`.
    """
    word = text.strip().lower()
    if word == "forever":
        return None
    if word == "0":
        return 0.0
    amount = _amount(text, _DURATION_UNITS)
    if amount is None:
        raise _wrong(text, "DURATION", "write it as 90s, 10m, 2h or forever")
    if amount > MAX_DURATION_S:
        raise UsageError(f"{_quoted(text)} is longer than ten years", "write forever")
    return float(amount)


def parse_address(text: str) -> Prefix:
    """Return the address or prefix of an ADDR, IPv4 or IPv6.

    Raises:
        UsageError: It is neither, or has bits set beyond its prefix length.
    """
    # ipaddress reads a zone (fe80::1%eth0) and Prefix would lose it without a word.
    if "%" in text:
        raise UsageError(f"{_quoted(text)} names a zone", "write the address without the %")
    try:
        return Prefix.parse(text)
    except ValueError:
        pass
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        problem = f"{_quoted(text)} is no address or prefix"
        raise UsageError(problem, _ADDRESS_REMEDY) from None
    host = text.strip().partition("/")[0]
    raise UsageError(
        f"{_quoted(text)} has bits set beyond its prefix length",
        f"write {network} for the whole prefix, or {host} for the one address",
    )


def parse_service(text: str, protocol: str | None = None) -> Service:
    """Return the service of a VIP, `192.0.2.1:80/tcp` or `[2001:db8::1]:53/udp`.

    Args:
        text: What was typed.
        protocol: Given for a BACKEND, which is written without `/tcp` or `/udp`.

    Raises:
        UsageError: It is no such thing.
    """
    try:
        return Service.parse(text, protocol)
    except ValueError:
        what, ending = ("VIP", "/tcp") if protocol is None else ("address and port", "")
        remedy = f"write it as 192.0.2.1:80{ending} or [2001:db8::1]:80{ending}"
        raise UsageError(f"{_quoted(text)} is no {what}", remedy) from None


def rate_text(rate_bps: int) -> str:
    """Return the RATE that `parse_rate` reads as exactly `rate_bps`, in the unit that suits it."""
    if rate_bps == 0:
        return "0"
    for unit in ("tbit", "gbit", "mbit", "kbit"):
        hundredths, rest = divmod(100 * rate_bps, _RATE_UNITS[unit])
        if not rest and hundredths >= 100:
            decimals = f".{hundredths % 100:02}".rstrip("0").rstrip(".")
            return f"{hundredths // 100}{decimals}{unit}"
    return f"{rate_bps}bit"


def duration_text(seconds: float | None) -> str:
    """Return the DURATION that `parse_duration` reads as exactly `seconds`.

    Args:
        seconds: From 0 to `MAX_DURATION_S`; None or infinite is `forever`.
    """
    if seconds is None or seconds == math.inf:
        return "forever"
    decimal = Decimal(repr(float(seconds)))
    exact = Fraction(decimal)
    for unit in ("d", "h", "m", "s"):
        if exact >= _DURATION_UNITS[unit] and exact % _DURATION_UNITS[unit] == 0:
            return f"{exact / _DURATION_UNITS[unit]}{unit}"
    if 0 < exact < 1 and (1000 * exact).denominator == 1:
        return f"{1000 * exact}ms"
    return f"{decimal.normalize():f}s"


def _whole_or_unknown(value: float | None) -> float | None:
    return value if value is None or not math.isfinite(value) else round(value)


def _with_unit(value: float | None, unit: str) -> str:
    text = count(_whole_or_unknown(value))
    if text == UNKNOWN:
        return text
    prefix = text[-1] if text[-1].isalpha() else ""
    return f"{text.removesuffix(prefix)} {prefix}{unit}"


def _printable_character(character: str) -> str:
    if character.isprintable() and character not in _INVISIBLE:
        return character
    return " " if unicodedata.category(character) == "Zs" else REPLACEMENT


def _quoted(text: str) -> str:
    return f"'{printable(text, _QUOTED_CHARACTERS)}'"


def _amount(text: str, units: Mapping[str, int | Fraction]) -> Fraction | None:
    match = _AMOUNT.fullmatch(text.strip().lower())
    if match is None or match[2] not in units:
        return None
    return Fraction(match[1]) * units[match[2]]


def _wrong(text: str, what: str, remedy: str) -> UsageError:
    if _amount(text, {"": 1}) is not None:
        return UsageError(f"{_quoted(text)} has no unit", remedy)
    return UsageError(f"{_quoted(text)} is no {what}", remedy)


def _parse_whole(text: str, units: Mapping[str, int], what: str, remedy: str) -> int:
    amount = _amount(text, units)
    if amount is None:
        raise _wrong(text, what, remedy)
    if amount.denominator != 1:
        raise UsageError(f"{_quoted(text)} is not a whole {what}", remedy)
    if amount > _MAX_WHOLE:
        raise UsageError(f"{_quoted(text)} is too large", remedy)
    return int(amount)
