# SPDX-License-Identifier: Apache-2.0
"""The sizes of the programs."""

from __future__ import annotations

from collections.abc import Sequence

from ebpftop.bpf import shaper_layout
from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import PROGRAMS
from tests.bench.figures import Row
from tests.bench.instances import attached
from tests.bench.registry import Effort, measurement


@measurement(
    "programs",
    "The programs",
    place=90,
    note="What the verifier walked to accept each, its size after that, and as machine code.",
)
def programs(effort: Effort) -> Sequence[Row]:
    """Read the sizes; nothing is timed."""
    with attached() as (_, instance):
        names = dict.fromkeys((*PROGRAMS, *shaper_layout.PROGRAMS))
        found = {name: libbpf.program_info(instance.programs[name]) for name in names}
    return [
        Row(
            name,
            details={
                "verified_insns": info.verified_insns,
                "translated_bytes": info.translated_bytes,
                "jited_bytes": info.jited_bytes,
            },
        )
        for name, info in found.items()
    ]
