# SPDX-License-Identifier: Apache-2.0
"""The twin of `trace.h`: a numpy dtype for every key and value of the trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ebpftop.bpf.layout import ADDRESS, U32, U64

TRACE_BYTES = 128
"""Bytes of a packet that are handed over."""
PROGRAM = "xdp_trace"
"""What stands in for the pipeline."""
PROGRAMS = (PROGRAM,)
RING = "traces"
"""The ring buffer that packets are handed over in."""

TRACE_FILTER = np.dtype(
    [
        ("source", ADDRESS),
        ("mask", ADDRESS),
        ("protocols", U64),
        ("verdicts", U64),
        ("reasons", U64),
        ("interface", U64),
        ("rate", U64),
    ]
)
TRACED = np.dtype(
    [
        ("time_ns", U64),
        ("length", U64),
        ("interface", U32),
        ("captured", U32),
        ("verdict", U32),
        ("reason", U32),
        ("protocol", U32),
        ("backend", U32),
        ("data", f"V{TRACE_BYTES}"),
    ]
)
TRACING = np.dtype(
    [(name, U64) for name in ("window_ns", "handed", "left_out", "matches")] + [("packet", TRACED)]
)

MAPS: Mapping[str, tuple[np.dtype[Any], np.dtype[Any]]] = {
    "trace_filter": (U32, TRACE_FILTER),
    "tracing": (U32, TRACING),
}
"""Key and value of each map by its name; of per-CPU maps, the value of one CPU."""
