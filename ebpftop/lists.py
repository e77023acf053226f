# SPDX-License-Identifier: Apache-2.0
"""Lists of addresses as files: plain text, an address a line, or JSON. No I/O but whole files.

A plain list has one address or prefix a line; `#` begins a comment. A JSON list is an array of
addresses, or of objects as `ebpftop blocks --json` prints them: `address`, and with it
`reason` and `expires_in_s` (null: for ever).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebpftop.errors import KernelRefusedError, UsageError
from ebpftop.format import parse_address, printable
from ebpftop.model import BlockRequest

_MOST_REASON = 200


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a list is for, and what holds for an entry that does not say it itself."""

    for_s: float | None = None
    """How long it is blocked; None is for ever."""
    reason: str = ""
    """Why."""
    verb: str = "blocked"
    """What becomes of its entries."""


def read_list(path: Path, defaults: Defaults | None = None) -> list[BlockRequest]:
    """Read a whole list.

    Raises:
        KernelRefusedError: The file cannot be read.
        UsageError: Names every bad line.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        name = printable(str(path))
        raise KernelRefusedError(f"{name} cannot be read: {error.strerror}") from None
    return parse_list(text, str(path), defaults)


def parse_list(text: str, name: str, defaults: Defaults | None = None) -> list[BlockRequest]:
    """Read a list from its text, in either form.

    Args:
        text: All of it.
        name: What it is called, for errors.
        defaults: What holds where the list says nothing.

    Raises:
        UsageError: Names every bad line.
    """
    plain = not text.lstrip().startswith("[")
    defaults = defaults or Defaults()
    found: list[BlockRequest] = []
    wrong: list[str] = []
    for where, value in _lines(text) if plain else _elements(text, name, defaults):
        try:
            found.append(_entry(value, defaults))
        except UsageError as error:
            wrong.append(f"{where}: {error.problem}")
    if wrong:
        what = "line" if plain else "entry"
        many = f"{len(wrong)} bad {what}s".replace("entrys", "entries")
        listed = "\n  ".join(wrong)
        raise UsageError(
            f"{printable(name)} has {f'1 bad {what}' if len(wrong) == 1 else many}, "
            f"nothing was {defaults.verb}",
            f"mend\n  {listed}",
        )
    return found


def _lines(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if words := line.partition("#")[0].strip():
            yield f"line {number}", words


def _elements(text: str, name: str, defaults: Defaults) -> Iterator[tuple[str, Any]]:
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(
            f"{printable(name)} is no JSON, nothing was {defaults.verb}",
            f"{where}{printable(str(error))}",
        ) from None
    for number, value in enumerate(listed, 1):
        yield f"entry {number}", value


def _entry(value: Any, defaults: Defaults) -> BlockRequest:
    if isinstance(value, str):
        return BlockRequest(parse_address(value), defaults.for_s, defaults.reason)
    if not isinstance(value, dict) or not isinstance(value.get("address"), str):
        raise UsageError("it is neither an address nor an object with an `address`")
    for_s = value.get("expires_in_s", defaults.for_s)
    if for_s is not None and (
        isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s < math.inf
    ):
        raise UsageError("`expires_in_s` is a number above 0, or null for ever")
    reason = value.get("reason", defaults.reason)
    if not isinstance(reason, str):
        raise UsageError("`reason` is a text")
    return BlockRequest(parse_address(value["address"]), for_s, printable(reason, _MOST_REASON))


def json_text(rows: Iterable[dict[str, Any]]) -> str:
    """Return a JSON list, an entry a line, of rows as `report` has them."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def write_list(path: Path, text: str) -> None:
    """Write a new file; one that is there already is left alone.

    Raises:
        KernelRefusedError: It is there, or cannot be written; nothing is left of it then.
    """
    name = printable(str(path))
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        raise KernelRefusedError(f"{name} is there already", "choose another name") from None
    except OSError as error:
        raise KernelRefusedError(f"{name} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KernelRefusedError(f"{name} cannot be written: {error.strerror}") from None
