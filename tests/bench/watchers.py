# SPDX-License-Identifier: Apache-2.0
"""The dashboard beside iftop and btop, on the same traffic of a hundred thousand sources."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import sending
from tests.bench.dashboard import EBPFTOP, LARGE, SETTLE_S, TALKERS
from tests.bench.figures import Figure, Row
from tests.bench.instances import attached
from tests.bench.machine import lacks
from tests.bench.registry import Effort, measurement
from tests.bench.watching import Watched, shown, watch

SOURCES, PPS = 100_000, 100_000
Seen = tuple[Watched, int]
"""What was seen of a process, and the bytes a second that it wrote to its terminal."""
_BTOP_SETTINGS = "update_ms = 1000\nshow_battery = False\ncheck_temp = False\n"


@contextmanager
def _btop_home() -> Iterator[Mapping[str, str]]:
    """Make a home in which btop is told to look once a second."""
    with tempfile.TemporaryDirectory() as home:
        settings = Path(home, ".config", "btop")
        settings.mkdir(parents=True)
        (settings / "btop.conf").write_text(_BTOP_SETTINGS)
        yield {"HOME": home, "XDG_CONFIG_HOME": str(Path(home, ".config"))}


def _watched(
    argv: Sequence[str], seconds: float, keys: str = "", environment: Mapping[str, str] = {}
) -> Seen:
    with shown(argv, LARGE, environment) as program:
        program.wait_for_output(100)
        if keys:
            program.wait_for_output(4000)
            program.press(keys)
        watch(program.pid, SETTLE_S)
        before = program.octets
        found = watch(program.pid, seconds)
        return found, round((program.octets - before) / len(found.core_percent))


def _all(seconds: float) -> Iterator[tuple[str, Seen | str]]:
    yield "ebpftop", _watched([*EBPFTOP, "eth0"], seconds, TALKERS)
    if reason := lacks("iftop"):
        yield "iftop", reason
    else:
        yield "iftop", _watched(["iftop", "-n", "-N", "-i", "eth0"], seconds)
    if reason := lacks("btop"):
        yield "btop", reason
    else:
        with _btop_home() as environment:
            yield "btop", _watched(["btop", "--utf-force"], seconds, environment=environment)


@measurement(
    "watchers",
    "Beside iftop and btop",
    place=52,
    watches=True,
    note="One after the other on the same traffic: a hundred thousand packets a second, of as many"
    " sources in turn, at one look a second, 160x50. btop shows the interface's sums and the"
    " machine's processes, and no source; what writes nothing to the terminal draws nothing"
    " under this load. Growth is the memory of the last quarter over that"
    " of the first.",
)
def watchers(effort: Effort) -> Sequence[Row]:
    """Watch each of them."""
    with attached() as (lab, _):
        sending.start(lab.attacker, lab.server, SOURCES, PPS)
        found = dict(_all(effort.watch_s))
    return [row for name, seen in found.items() for row in _rows(name, seen)]


def _rows(name: str, seen: Seen | str) -> list[Row]:
    if isinstance(seen, str):
        return [Row(name, skipped=seen)]
    found, written = seen
    quarter = max(1, len(found.rss_mb) // 4)
    grown = Figure.of(found.rss_mb[-quarter:]).median - Figure.of(found.rss_mb[:quarter]).median
    return [
        Row(name, "% of a core", found.core_percent,
            details={"to_the_terminal": f"{written:,} B/s"}),
        Row(f"{name}: memory", "MB", found.rss_mb, details={"growth": f"{grown:.1f} MB"}),
    ]  # fmt: skip
