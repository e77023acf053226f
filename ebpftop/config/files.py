# SPDX-License-Identifier: Apache-2.0
"""TOML files as settings: read whole, or refused whole with the key that is wrong."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from ebpftop.config.values import Section, decode
from ebpftop.errors import KernelRefusedError, UsageError
from ebpftop.format import printable

Root = TypeVar("Root", bound=Section)

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


def read(path: Path, root: type[Root]) -> Root:
    """Read a file of settings.

    Args:
        path: Where it is.
        root: What it consists of.

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
        return msgspec.convert(document, root, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise _explain(name, str(error), root) from None


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


def _explain(name: str, message: str, root: type[Section]) -> UsageError:
    """Turn the words of msgspec into the file's."""
    what, _, path = message.rpartition(" - at `$") if " - at `$" in message else (message, "", "")
    path = _INDEX.sub("", path.strip(".`"))
    keys = dict(_keys(root))
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
    """Return what a `[[table]]`, or one that may be left out, consists of; others as they are."""
    return get_args(kind)[0] if get_origin(kind) in (tuple, UnionType) else kind


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
    if get_origin(kind) is UnionType:
        return f"{key.rpartition('.')[2]} = {{...}}"
    value = next(meta.examples[0] for meta in kind.__metadata__ if meta.examples)
    return f"{key.rpartition('.')[2]} = {json.dumps(value)}"
