# SPDX-License-Identifier: Apache-2.0
"""The filter language: words joined by spaces, all of which must hold.

    FIELD:10.0.0.0/8     an address within a prefix, or exactly this one
    FIELD:>1k            a number; also >=, <, <=, = (or nothing), and a range 1m..5m
    FIELD:blocked        a text, the whole of it; FIELD:/regex/ is looked for anywhere in it
    word                 is looked for in every field: in texts and addresses, and among the
                         digits of numbers before the decimal point
    -word                negates any of these
    "two words"          one word, taken literally; also after FIELD:

Letters match in either case. k, m and g are powers of 1000. A number that is not known
matches no comparison.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np

from ebpftop.errors import UsageError
from ebpftop.format import parse_address, parse_number, printable
from ebpftop.matching import Mask, Test, has_digits, in_addresses, in_texts, within
from ebpftop.model import Column, Prefix

Kind = Literal["number", "address", "text"]
"""The kinds of `Column`."""

_WORD = re.compile(
    # Not `-?+` and `(...)?+`: with these, Python 3.11 does not match a word of one letter.
    r"""(?P<minus>-|(?!-))
        (?P<whole>
            (?:(?P<field>[A-Za-z_][A-Za-z0-9_]*):|(?![A-Za-z_][A-Za-z0-9_]*:))
            (?: "(?P<quoted>[^"]*)"
              | (?P<regex>(?<=:)/(?:[^/\\]|\\.)*/)
              | (?P<plain>[^\s"]\S*|(?<=:)) )
        )(?=\s|$)""",
    re.VERBOSE,
)
_IPV6_PART = re.compile(r"(?:[0-9a-f]{0,4}:)+[0-9a-f.]*(?:/[0-9]*)?", re.IGNORECASE)
_COMPARISON = re.compile(r"(?P<operator>>=|<=|[><=]?)(?P<number>[^><=]+)")
_COMPARE = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
    "=": np.equal,
    "": np.equal,
}
_REGEX_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\??|\)|(?:[*+?]|\{[0-9]*,?[0-9]*\})[?+]?|\||.", re.DOTALL
)
_MAX_REPEATS = 3


class FilterError(UsageError):
    """A filter that cannot be understood.

    Args:
        problem: What is wrong, in one sentence without a full stop.
        remedy: What to write instead.
        position: Where it is wrong, in characters from the filter's beginning.
    """

    def __init__(self, problem: str, remedy: str, position: int) -> None:
        super().__init__(problem, remedy)
        self.position = position


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One word of a filter."""

    field: str
    """The field that it is about; empty for every field."""
    negated: bool
    """Whether it holds where the test does not."""
    test: Test
    """What it asks of a column."""
    position: int
    """Where its value begins, in characters from the filter's beginning."""
    prefix: Prefix | None = None
    """What it asks of an address field."""

    def mask(self, columns: Mapping[str, Column]) -> Mask:
        """Return which rows it holds for."""
        searched = [columns[self.field]] if self.field else columns.values()
        found = reduce(np.logical_or, map(self.test, searched))
        return ~found if self.negated else found


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """A filter as it was written, ready to be asked."""

    text: str
    """As it was written."""
    terms: tuple[Term, ...]
    """Its words, all of which must hold."""

    @classmethod
    def parse(cls, text: str, fields: Mapping[str, Kind]) -> Filter:
        """Read a filter over a table.

        Args:
            text: The filter; empty matches every row.
            fields: The table's fields and their kinds.

        Raises:
            FilterError: What is wrong with it, and where.
        """
        terms = []
        position = 0
        while position < len(text):
            if text[position].isspace():
                position += 1
                continue
            word = _WORD.match(text, position)
            if word is None:
                raise _unreadable(text, position)
            terms.append(_term(word, fields))
            position = word.end()
        return cls(text, tuple(terms))

    def mask(self, columns: Mapping[str, Column]) -> Mask:
        """Return which rows match.

        Args:
            columns: The table, with at least one field and with all that the filter names.
        """
        rows = len(next(iter(columns.values())).values)
        matched = np.ones(rows, np.bool_)
        for term in self.terms:
            matched &= term.mask(columns)
        return matched


def _unreadable(text: str, position: int) -> FilterError:
    word = text[position:].split()[0]
    if '"' in word:
        at = position + word.index('"')
        problem = "a quotation mark is not closed at the end of a word"
        return FilterError(problem, 'write "two words"', at)
    return _nothing_follows(word, position)


def _nothing_follows(word: str, position: int) -> FilterError:
    remedy = f'put a value after it, or write "{printable(word)}" to look for it as it is'
    return FilterError(f"nothing follows '{printable(word)}'", remedy, position)


def _term(word: re.Match[str], fields: Mapping[str, Kind]) -> Term:
    negated = bool(word["minus"])
    name = (word["field"] or "").lower()
    if name in fields:
        if word["plain"] == "":
            raise _nothing_follows(word["whole"], word.start("whole"))
        return _field_term(word, fields[name], name)
    if not name:
        test = _anywhere(word["plain"] or word["quoted"])
        return Term("", negated, test, word.start("whole"))
    if _IPV6_PART.fullmatch(word["whole"]):
        return Term("", negated, _anywhere(word["whole"]), word.start("whole"))
    near = difflib.get_close_matches(name, fields, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise FilterError(
        f"there is no field '{printable(name)}'",
        f"{hint}the fields are {', '.join(fields)}",
        word.start("field"),
    )


def _field_term(word: re.Match[str], kind: Kind, field: str) -> Term:
    group = next(name for name in ("quoted", "regex", "plain") if word[name] is not None)
    value, position, negated = word[group], word.start(group), bool(word["minus"])
    if kind == "text":
        return Term(field, negated, _text_test(value, group, position), position)
    try:
        if kind == "number":
            return Term(field, negated, _number_test(value), position)
        prefix = parse_address(value)
        return Term(field, negated, within(prefix), position, prefix)
    except UsageError as error:
        raise FilterError(error.problem, error.remedy, position) from None


def _number_test(value: str) -> Test:
    lowest, dots, highest = value.partition("..")
    if dots:
        low, high = parse_number(lowest), parse_number(highest)
        if low > high:
            raise UsageError(f"the range '{printable(value)}' is empty", "put the smaller first")
        return lambda column: (column.values >= low) & (column.values <= high)
    comparison = _COMPARISON.fullmatch(value)
    if comparison is None:
        problem = f"'{printable(value)}' is no comparison"
        raise UsageError(problem, "write it as >1k, >=1k, <1k, <=1k, =1000 or 1m..5m")
    compare, number = _COMPARE[comparison["operator"]], parse_number(comparison["number"])
    return lambda column: compare(column.values, number)


def _text_test(value: str, group: str, position: int) -> Test:
    if group == "regex":
        pattern = _regex(value[1:-1], position + 1)
        return in_texts(lambda text: pattern.search(text) is not None)
    if group == "plain" and value.startswith("/"):
        remedy = "end it with /, or put the value in quotation marks"
        raise FilterError("the regular expression is not closed", remedy, position)
    folded = value.casefold()
    return in_texts(lambda text: text.casefold() == folded)


def _anywhere(word: str) -> Test:
    folded = word.casefold()
    tests: dict[Kind, Test] = {
        "text": in_texts(lambda text: folded in text.casefold()),
        "address": in_addresses(folded),
        "number": has_digits(word),
    }
    return lambda column: tests[column.kind](column)


def _regex(pattern: str, position: int) -> re.Pattern[str]:
    if _is_unbounded(pattern):
        raise FilterError(
            "the regular expression could take for ever",
            f"use at most {_MAX_REPEATS} repeats, none around another repeat or a choice",
            position,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        remedy = "put the text in quotation marks to look for it as it is"
        raise FilterError(
            f"the regular expression is wrong, {error.msg}", remedy, position + (error.pos or 0)
        ) from None
    except (FutureWarning, OverflowError, RecursionError) as error:
        raise FilterError(f"the regular expression is refused, {error}", "", position) from None


def _is_unbounded(pattern: str) -> bool:
    """Return whether matching could take exponential time, or polynomial of a high degree."""
    repeats = 0
    loose = [False]
    closed_loose = False
    for part in _REGEX_TOKEN.findall(pattern):
        was_loose, closed_loose = closed_loose, False
        if part.startswith("("):
            loose.append(False)
        elif part == ")" and len(loose) > 1:
            closed_loose = loose.pop()
            loose[-1] |= closed_loose
        elif part == "|":
            loose[-1] = True
        elif part[0] in "*+?{" and (part[0] != "{" or len(part) > 1):
            repeats += 1
            loose[-1] = True
            if was_loose and part[0] != "?":
                return True
    return repeats > _MAX_REPEATS
