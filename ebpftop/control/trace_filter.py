# SPDX-License-Identifier: Apache-2.0
"""Which packets a trace shows: the language of filters, as far as it goes into the kernel.

The sender is matched in the kernel by one prefix, and protocol, verdict and reason whatever is
asked of them: by a mask of all their words. What is left, a bare word or a second prefix, is
asked of each packet that was handed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import layout, trace_layout
from ebpftop.dissection import dissect
from ebpftop.filtering import Filter, FilterError, Kind, Term
from ebpftop.model import VERDICTS, Column, Prefix, TracedPacket

NO_REASON = "none"
"""The word for the reason of a packet that was not dropped."""
FIELDS: Mapping[str, Kind] = {
    "source": "address",
    "address": "address",
    "protocol": "text",
    "verdict": "text",
    "reason": "text",
}
"""What can be asked of a packet; `address` is its source, as in other lists."""
WORDS: Mapping[str, tuple[str, ...]] = {
    "protocol": layout.PROTOCOLS,
    "verdict": VERDICTS,
    "reason": (NO_REASON, *layout.REASONS[1:]),
}
"""The words of each text field, in the order of the C side's numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class TraceFilter:
    """Which packets to show."""

    expression: Filter
    """As it was written."""
    source: Prefix | None
    """What the kernel asks of the sender; None for any, also for none at all."""
    masks: Mapping[str, int]
    """A bit for each of `WORDS` that the kernel lets through, by field."""
    exact: bool
    """Whether the kernel asks for all that was written."""

    @classmethod
    def parse(cls, text: str) -> TraceFilter:
        """Read a filter.

        Raises:
            FilterError: What is wrong with it, and where.
        """
        expression = Filter.parse(text, FIELDS)
        masks = {field: (1 << len(words)) - 1 for field, words in WORDS.items()}
        sources: list[Prefix] = []
        exact = True
        for term in expression.terms:
            if term.field in WORDS:
                masks[term.field] &= _mask(term)
            elif term.prefix is not None and not term.negated:
                sources.append(term.prefix)
            else:
                exact = False
        narrowest = max(sources, key=lambda prefix: prefix.length, default=None)
        return cls(expression, narrowest, masks, exact and len(sources) <= 1)

    def record(self, *, rate: int, interface: int) -> NDArray[Any]:
        """Return what the kernel is told, as the one value of its map.

        Args:
            rate: Packets a second that a CPU hands over.
            interface: Number of the one to look at; 0 for all.
        """
        record = np.zeros(1, trace_layout.TRACE_FILTER)
        if self.source is not None:
            bits = (1 << 128) - (1 << 128 - self.source.length)
            record["mask"] = (bits >> 64, bits & (1 << 64) - 1)
            record["source"] = (self.source.high, self.source.low)
        for field, mask in self.masks.items():
            record[f"{field}s"] = mask
        record["rate"], record["interface"] = rate, interface
        return record

    def shows(self, packet: TracedPacket) -> bool:
        """Whether a packet that the kernel handed over is to be shown."""
        if self.exact:
            return True
        source = dissect(packet.data).source or Prefix(0, 0)
        address = Column(
            "address", np.array([source.high], np.uint64), np.array([source.low], np.uint64)
        )
        values = (packet.protocol, packet.verdict, packet.reason or NO_REASON)
        texts = {
            field: Column("text", np.array([value], object))
            for field, value in zip(WORDS, values, strict=True)
        }
        columns = {"source": address, "address": address, **texts}
        return bool(self.expression.mask(columns)[0])


def mistake(text: str) -> tuple[str, int] | None:
    """Say what is wrong with a filter and at which character; None when nothing is."""
    try:
        TraceFilter.parse(text)
    except FilterError as error:
        return str(error), error.position
    return None


def _mask(term: Term) -> int:
    """Return the words of its field that a term lets through, as bits."""
    words = WORDS[term.field]
    held = term.test(Column("text", np.arange(len(words)), labels=words))
    if not held.any():
        raise FilterError(
            f"no {term.field} is called that", f"there is {', '.join(words)}", term.position
        )
    return sum(1 << bit for bit, holds in enumerate(held.tolist()) if holds != term.negated)
