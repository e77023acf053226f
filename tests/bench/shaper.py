# SPDX-License-Identifier: Apache-2.0
"""Packets through the shaper's TC programs, conformant ones and dropped ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ebpftop.bpf import shaper_layout
from ebpftop.control.class_states import ClassRequest
from ebpftop.control.shaping import ShapingControl
from ebpftop.kernel import libbpf
from ebpftop.kernel.instance import Instance
from ebpftop.model import ClassKey, Prefix, TrafficClass
from tests.bench.figures import Row
from tests.bench.instances import attached
from tests.bench.paths import TC, TC_NEXT, Path, empty_program, measure, rows
from tests.bench.registry import Effort, measurement
from tests.kernel.packets import frame

SOURCE, TARGET = "192.0.2.1", "198.51.100.0/24"
TC_DROP = 2
WIDE_BPS, LONG_BYTES = 100_000_000_000, 1 << 30
CONFORMANT = "egress, conformant"


def _classes(
    control: ShapingControl,
    count: str,
    *,
    action: str = "police",
    rate_bps: int = WIDE_BPS,
    burst_bytes: int = LONG_BYTES,
    member: bool = True,
) -> Callable[[], None]:
    """Return what puts one class a direction in force, with or without the packets in it."""

    def prepare() -> None:
        out = TrafficClass(ClassKey("out"), rate_bps, burst_bytes, action)
        into = TrafficClass(ClassKey("in", "ingress"), rate_bps, burst_bytes)
        control.apply(
            [
                ClassRequest(out, [Prefix.parse(TARGET)] if member else []),
                ClassRequest(into, [Prefix.parse(SOURCE)] if member else []),
            ],
            count,
        )

    return prepare


def _paths(instance: Instance, control: ShapingControl) -> list[Path]:
    egress, ingress = (instance.programs[name] for name in shaper_layout.HOOKED[::-1])
    packet = frame(SOURCE)

    def path(name: str, program: int, prepare: Callable[[], None], answer: int = TC_NEXT) -> Path:
        return Path(name, program, [packet], answer, prepare=prepare)

    wide, counted = _classes(control, "off"), _classes(control, "on")
    return [
        path("egress, nothing shaped", egress, lambda: control.apply([], "off")),
        path("egress, in no class", egress, _classes(control, "off", member=False)),
        path(CONFORMANT, egress, wide),
        path("egress, conformant, counted", egress, counted),
        path("egress, a burst of microseconds", egress, _classes(control, "off",
             burst_bytes=1 << 20)),
        path("egress, a burst of microseconds, counted", egress, _classes(control, "on",
             burst_bytes=1 << 20)),
        path("egress, sorted for HTB", egress, _classes(control, "off", action="htb")),
        path("ingress, conformant", ingress, wide),
    ]  # fmt: skip


def _dropped(instance: Instance, control: ShapingControl) -> list[Path]:
    """Return the paths on which all but the burst of two packets is dropped."""
    egress, ingress = (instance.programs[name] for name in shaper_layout.HOOKED[::-1])
    narrow = _classes(control, "off", rate_bps=8_000, burst_bytes=3_000)
    packet = frame(SOURCE)

    def emptied(program: int) -> Callable[[], None]:
        def prepare() -> None:
            narrow()
            libbpf.run_program(program, packet, repeat=1_000)

        return prepare

    return [
        Path(f"{way}, dropped", program, [packet], TC_DROP, prepare=emptied(program))
        for way, program in (("egress", egress), ("ingress", ingress))
    ]


@measurement(
    "shaper",
    "Packets through the shaper",
    place=30,
    note="Nanoseconds over an empty TC program. HTB, which queues packets and has no program to"
    " run, is beside it in real traffic below.",
)
def shaper(effort: Effort) -> Sequence[Row]:
    """Measure what conforms and what is dropped."""
    with attached() as (_, instance):
        control = ShapingControl(instance)
        empty = Path("empty TC program", empty_program(TC), [frame(SOURCE)], TC_NEXT)
        paths = [*_paths(instance, control), *_dropped(instance, control)]
        measure([empty, *paths], effort.rounds)
        return rows(empty, paths, budgets={CONFORMANT: "bucket"})
