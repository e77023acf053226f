# SPDX-License-Identifier: Apache-2.0
"""Values of the policy file that TOML has no type for, and what its tables are made of."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ebpftop.errors import UsageError
from ebpftop.format import (
    parse_address,
    parse_duration,
    parse_rate,
    parse_service,
    parse_size,
    printable,
)
from ebpftop.model import Prefix, Service

MAX_POLICY_DURATION_S = 30 * 86_400.0
"""The longest time span in a policy: what happens by itself must also end by itself."""

Verdict = Annotated[Literal["pass", "drop"], Meta(examples=["drop"])]
"""What becomes of packets."""

PerSecond = Annotated[int, Meta(ge=0, le=2**32 - 1, examples=[1000])]
"""A limit in events a second; 0 is none."""

PositivePerSecond = Annotated[int, Meta(ge=1, le=2**32 - 1, examples=[1000])]
"""Events a second."""


class RateBps(int):
    """A RATE of the file, in bits a second."""


class SizeBytes(int):
    """A SIZE of the file, in bytes."""


class Seconds(float):
    """A DURATION of the file that ends, in seconds."""


class PositiveSeconds(Seconds):
    """A DURATION of the file that ends and is not 0, in seconds."""


class Prefixes(tuple[Prefix, ...]):
    """A list of addresses and prefixes of the file."""

    __slots__ = ()


class ServiceText(str):
    """A VIP of the file: an address, a port and a protocol."""

    __slots__ = ()

    @property
    def service(self) -> Service:
        """As the model knows it."""
        return Service.parse(self)


class EndpointText(str):
    """A backend of the file: an address and a port."""

    __slots__ = ()

    def service(self, protocol: str) -> Service:
        """Return it as the model knows it."""
        return Service.parse(self, protocol)


class Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A table of the file; its fields are the only keys."""


def decode(kind: type, value: object) -> object:
    """Read what TOML has no type for; msgspec adds the key to a ValueError."""
    try:
        if kind is Prefixes:
            return _prefixes(value)
        if kind is RateBps:
            return RateBps(parse_rate(_text(value)))
        if kind is ServiceText:
            return ServiceText(str(parse_service(_text(value))))
        if kind is EndpointText:
            return EndpointText(parse_service(_text(value), "tcp").endpoint)
        if kind is SizeBytes:
            return SizeBytes(parse_size(_text(value)))
        if issubclass(kind, Seconds):
            return _seconds(kind, _text(value))
    except UsageError as error:
        # An example follows in the file's own words; a remedy is worth more for an address.
        detail = f", {error.remedy}" if kind is Prefixes else ""
        raise ValueError(error.problem + detail) from None
    raise NotImplementedError(kind)


def _text(value: object) -> str:
    # A bare number goes on as text, so that it is refused for its missing unit unless it is 0.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("expected text")
    return str(value)


def _prefixes(value: object) -> Prefixes:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError("expected a list of texts")
    return Prefixes(map(parse_address, value))


def _seconds(kind: type[Seconds], text: str) -> Seconds:
    seconds = parse_duration(text)
    if seconds is None or seconds > MAX_POLICY_DURATION_S:
        raise ValueError(f"'{printable(text)}' is longer than 30 days")
    if kind is PositiveSeconds and not seconds:
        raise ValueError("it must be more than 0")
    return kind(seconds)
