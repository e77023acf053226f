# SPDX-License-Identifier: Apache-2.0
"""The policy file: limits, protection, access, capacities and address lists, as TOML.

A file is read whole or refused whole: `load` returns a complete `Policy` or raises.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from ebpftop.errors import KernelRefusedError, UsageError
from ebpftop.format import (
    parse_address,
    parse_duration,
    parse_rate,
    parse_size,
    printable,
)
from ebpftop.model import ClassKey, Limits, Prefix, TrafficClass

MAX_POLICY_DURATION_S = 30 * 86_400.0
"""The longest time span in a policy: what happens by itself must also end by itself."""

_MAX_ENTRIES = 16_777_216

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


class Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A table of the file; its fields are the only keys."""


class LimitPolicy(Section, kw_only=True, frozen=True):
    """`[limits]`: what one source may send before it is dropped. 0 switches a limit off."""

    pps: PerSecond = 0
    """Packets a second."""
    bps: Annotated[RateBps, Meta(examples=["50mbit"])] = RateBps(0)
    """Bits a second, over the whole frame, as a RATE."""
    syn: PerSecond = 0
    """TCP connection requests (SYN without ACK) a second."""
    burst_s: Annotated[PositiveSeconds, Meta(examples=["1s"])] = msgspec.field(
        default=PositiveSeconds(1.0), name="burst"
    )
    """How far ahead of its rate a source may run, as a DURATION."""
    grace_s: Annotated[Seconds, Meta(examples=["1s"])] = msgspec.field(
        default=Seconds(1.0), name="grace"
    )
    """How long a source may stay over a limit before it is blocked, as a DURATION."""
    block_for_s: Annotated[Seconds, Meta(examples=["60s"])] = msgspec.field(
        default=Seconds(60.0), name="block_for"
    )
    """How long the first automatic block lasts, as a DURATION; 0 never blocks."""
    dry_run: Annotated[bool, Meta(examples=[True])] = False
    """Count what would be dropped, and drop nothing."""

    def limits(self) -> Limits:
        """Return them as the model knows them."""
        return Limits(
            pps=self.pps,
            bps=int(self.bps),
            syn=self.syn,
            burst_s=float(self.burst_s),
            grace_s=float(self.grace_s),
            block_for_s=float(self.block_for_s),
            dry_run=self.dry_run,
        )


class ProtectionPolicy(Section, kw_only=True, frozen=True):
    """`[protection]`: what happens where limits by source cannot decide."""

    over_budget: Verdict = "pass"
    """What becomes of packets from new sources, once more of them came than are tracked."""
    new_sources_per_core_s: PerSecond = 0
    """New sources a second that each core begins to track; 0 takes what fills the table in 8 s."""
    unparsed: Verdict = "pass"
    """What becomes of packets that cannot be parsed."""
    flood_pps: PositivePerSecond = 1000
    """Drops a second at which a flood begins."""


class AccessPolicy(Section, kw_only=True, frozen=True):
    """`[access]`: who may watch without root."""

    group: Annotated[
        str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$", examples=["ebpftop"])
    ] = "ebpftop"
    """The group whose members may read what is attached, where there is such a group."""


class CapacityPolicy(Section, kw_only=True, frozen=True):
    """`[capacity]`: how many entries the kernel's tables hold; they cost memory at once."""

    sources: Annotated[int, Meta(ge=1024, le=_MAX_ENTRIES, examples=[131_072])] = 131_072
    """Sources that are tracked at one time."""
    blocks: Annotated[int, Meta(ge=16, le=_MAX_ENTRIES, examples=[100_000])] = 100_000
    """Single addresses that can be blocked at one time."""
    prefixes: Annotated[int, Meta(ge=16, le=_MAX_ENTRIES, examples=[16_384])] = 16_384
    """Entries that each list of prefixes can hold."""
    connections: Annotated[int, Meta(ge=1024, le=_MAX_ENTRIES, examples=[262_144])] = 262_144
    """Entries of balanced flows; a flow takes one for each direction."""


class ShapingPolicy(Section, kw_only=True, frozen=True):
    """`[shaping]`: what the shaper does besides its classes."""

    count_sent: Annotated[Literal["auto", "on", "off"], Meta(examples=["auto"])] = "auto"
    """Count what is sent to each address; `auto` does while something is shaped."""


class AuditPolicy(Section, kw_only=True, frozen=True):
    """`[audit]`: where every act of an operator is written down before it is done."""

    path: Annotated[
        str, Meta(pattern=r"^(/.{1,500})?$", examples=["/var/log/ebpftop/acts.jsonl"])
    ] = ""
    """The file, with its whole path; empty for /var/log/ebpftop/acts.jsonl."""


class ClassPolicy(Section, kw_only=True, frozen=True):
    """`[[class]]`: addresses that share a rate."""

    name: Annotated[str, Meta(examples=["video"])]
    """What it is called."""
    rate_bps: Annotated[RateBps, Meta(examples=["20mbit"])] = msgspec.field(name="rate")
    """Bits a second, as a RATE."""
    direction: Annotated[Literal["ingress", "egress"], Meta(examples=["egress"])] = "egress"
    """Whether it holds what comes in, or what goes out."""
    burst_bytes: Annotated[SizeBytes, Meta(examples=["64kb"])] = msgspec.field(
        default=SizeBytes(0), name="burst"
    )
    """What it may send at once, as a SIZE; 0 for what suits the rate."""
    action: Annotated[Literal["auto", "pace", "htb", "police"], Meta(examples=["auto"])] = "auto"
    """How it is held to its rate."""
    priority: Annotated[int, Meta(ge=0, le=7, examples=[0])] = 0
    """0 is the first to get what its parent has left over."""
    parent: Annotated[str, Meta(examples=["uplink"])] = ""
    """Name of the class whose rate is a ceiling over this one."""
    addresses: Annotated[Prefixes, Meta(examples=[["192.0.2.0/24"]])] = Prefixes()
    """Who is in it."""

    def traffic_class(self) -> TrafficClass:
        """Return it as the model knows it."""
        return TrafficClass(
            ClassKey(self.name, self.direction), int(self.rate_bps), int(self.burst_bytes),
            self.action, self.priority, self.parent,
        )  # fmt: skip


class Policy(Section, kw_only=True, frozen=True):
    """A whole policy file. The default has every limit off."""

    allow: Annotated[Prefixes, Meta(examples=[["192.0.2.0/24"]])] = Prefixes()
    """Addresses and prefixes that are never limited or blocked."""
    management: Annotated[Prefixes, Meta(examples=[["198.51.100.7"]])] = Prefixes()
    """Where operators come from: never blocked, unless an operator overrides it."""
    limits: LimitPolicy = LimitPolicy()
    """What one source may send."""
    protection: ProtectionPolicy = ProtectionPolicy()
    """What happens where limits by source cannot decide."""
    access: AccessPolicy = AccessPolicy()
    """Who may watch."""
    capacity: CapacityPolicy = CapacityPolicy()
    """How large the tables are."""
    shaping: ShapingPolicy = ShapingPolicy()
    """What the shaper does besides its classes."""
    audit: AuditPolicy = AuditPolicy()
    """Where acts are written down."""
    classes: tuple[ClassPolicy, ...] = msgspec.field(default=(), name="class")
    """What is held to a rate."""


_LINE = re.compile(r"line ([0-9]+)")
_INDEX = re.compile(r"\[[0-9.]*\]")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_NO_CHOICE = "Invalid enum value "
_TYPE = re.compile(r"`([a-z]+)`")
_TOML_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "datetime": "a date",
    "date": "a date",
    "time": "a time",
}


def load(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        KernelRefusedError: The file cannot be read.
        UsageError: It is no TOML, or has a wrong key or value; names the key and what is right.
    """
    name = printable(str(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"{name} cannot be read, {error.strerror or error}"
        raise KernelRefusedError(problem) from None
    document = _parse_toml(name, content)
    try:
        return msgspec.convert(document, Policy, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explain(name, str(error)) from None


def _parse_toml(name: str, content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"{name}: line {line}: this is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        last_line = content.rstrip().count(b"\n") + 1
        what, _, place = str(error).rpartition(" (at ")
        at = _LINE.match(place)
        problem = f"{name}: line {at[1] if at else last_line}: {printable(what)}"
    except (RecursionError, ValueError) as error:
        problem = f"{name}: {printable(str(error))}"
    raise UsageError(problem, "write it in TOML, see https://toml.io")


def _decode(kind: type, value: object) -> object:
    """Read what TOML has no type for; msgspec adds the key to a ValueError."""
    try:
        if kind is Prefixes:
            return _prefixes(value)
        if kind is RateBps:
            return RateBps(parse_rate(_text(value)))
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


def _explain(name: str, message: str) -> UsageError:
    """Turn the words of msgspec into the file's."""
    what, _, path = message.rpartition(" - at `$") if " - at `$" in message else (message, "", "")
    path = _INDEX.sub("", path.strip(".`"))
    keys = dict(_keys(Policy))
    unknown = _UNKNOWN_FIELD.fullmatch(what)
    if unknown:
        key = f"{path}.{unknown[1]}".lstrip(".")
        return UsageError(
            f"{name}: there is no key '{printable(key)}'", _right_key(key, list(keys))
        )
    if what.startswith(_NO_CHOICE):
        choices = ", ".join(get_args(get_args(keys[path])[0]))
        what = f"{what.removeprefix(_NO_CHOICE)} is none of {choices}"
    what = _TYPE.sub(lambda word: _TOML_WORDS.get(word[1], word[1]), what)
    return UsageError(
        f"{name}: {path}: {printable(what[:1].lower() + what[1:])}",
        f"for example {_example(path, keys[path])}",
    )


def _keys(section: type[Section], parent: str = "") -> Iterator[tuple[str, Any]]:
    """Return all keys of a section in dotted form, with their types."""
    hints = get_type_hints(section, include_extras=True)
    names = zip(section.__struct_fields__, section.__struct_encode_fields__, strict=True)
    for field, name in names:
        yield parent + name, hints[field]
        kind = _element(hints[field])
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _keys(kind, f"{parent}{name}.")


def _element(kind: Any) -> Any:
    """Return what a `[[table]]` consists of, and anything else as it is."""
    return get_args(kind)[0] if get_origin(kind) is tuple else kind


def _right_key(key: str, keys: list[str]) -> str:
    """Say which key was meant: of the same name, or the nearest in the section or anywhere."""
    parent, _, name = key.rpartition(".")
    named = [(*other.rpartition(".")[::2], other) for other in keys]
    siblings = {own: other for section, own, other in named if section == parent}
    anywhere = {own: other for _, own, other in named} | siblings
    near = [name] if name in anywhere else difflib.get_close_matches(name, siblings, 1)
    near = near or difflib.get_close_matches(name, anywhere, 1)
    if not near:
        return f"the keys here are {', '.join(siblings.values())}"
    right = anywhere[near[0]]
    place = ", above the first [section]" if parent and "." not in right else ""
    return f"did you mean {right}{place}?"


def _example(key: str, kind: Any) -> str:
    """Return a right line for a key; what JSON writes for these values is TOML too."""
    if get_origin(kind) is tuple:
        return f"[[{key}]]"
    if isinstance(kind, type):
        return f"[{key}]"
    value = next(meta.examples[0] for meta in kind.__metadata__ if meta.examples)
    return f"{key.rpartition('.')[2]} = {json.dumps(value)}"
