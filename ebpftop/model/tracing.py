# SPDX-License-Identifier: Apache-2.0
"""A packet that a trace shows."""

from __future__ import annotations

from dataclasses import dataclass

from ebpftop.model.addresses import Service


@dataclass(frozen=True, slots=True)
class TracedPacket:
    """A packet as it came, and what became of it."""

    time_s: float
    """When it came, in seconds since 1970."""
    interface: int
    """Number of the interface that it came by."""
    length: int
    """Its bytes, the Ethernet header included."""
    data: bytes
    """The first of them, before anything was rewritten."""
    protocol: str
    """A word of `layout.PROTOCOLS`: what the pipeline took it for."""
    verdict: str
    """A word of `VERDICTS`."""
    reason: str
    """A word of `layout.REASONS`: why it was dropped, or would be without the dry run."""
    backend: Service | None
    """The backend that it is for or from; None where there is none, or it is gone."""
    left_out: int
    """Packets that matched and were not shown, since the trace began."""
