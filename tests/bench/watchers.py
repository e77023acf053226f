# SPDX-License-Identifier: Apache-2.0
"""The dashboard beside iftop and btop, on the same traffic of a hundred thousand sources."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench import sending
from tests.bench.dashboard import EBPFTOP, LARGE, SETTLE_S, TALKERS
from tests.bench.figures import Figure, Row
from tests.bench.instances import attached
from tests.bench.machine import lacks
from tests.bench.registry import Effort, measurement
from tests.bench.watching import Screenless, Watched, shown, watch

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


@contextmanager
def _started() -> Iterator[dict[str, Screenless | str]]:
    """Start each of them; those that are not there, in words."""
    with ExitStack() as stack:
        programs: dict[str, Screenless | str] = {}
        dashboard = stack.enter_context(shown([*EBPFTOP, "eth0"], LARGE))
        dashboard.wait_for_output(4000)
        dashboard.press(TALKERS)
        programs["ebpftop"] = dashboard
        home = stack.enter_context(_btop_home())
        for name, argv in (("iftop", ["-n", "-N", "-i", "eth0"]), ("btop", ["--utf-force"])):
            reason = lacks(name)
            programs[name] = reason or stack.enter_context(shown([name, *argv], LARGE, home))
        yield programs


@measurement(
    "watchers",
    "Beside iftop and btop",
    place=52,
    watches=True,
    note="At the same time on the same traffic: a hundred thousand packets a second, of as many"
    " sources in turn, at one look a second, 160x50. btop shows the interface's sums and the"
    " machine's processes, and no source; what writes nothing to the terminal draws nothing"
    " under this load. Growth is the memory of the last quarter over that of the first.",
)
def watchers(effort: Effort) -> Sequence[Row]:
    """Watch them all."""
    with attached() as (lab, _):
        sending.start(lab.attacker, lab.server, SOURCES, PPS)
        with _started() as programs, ThreadPoolExecutor() as pool:
            seen = {
                name: program if isinstance(program, str) else pool.submit(_seen, program, effort)
                for name, program in programs.items()
            }
            found = {
                name: each if isinstance(each, str) else each.result()
                for name, each in seen.items()
            }
    return [row for name, each in found.items() for row in _rows(name, each)]


def _seen(program: Screenless, effort: Effort) -> Seen:
    watch(program.pid, SETTLE_S)
    before = program.octets
    found = watch(program.pid, effort.watch_s)
    return found, round((program.octets - before) / len(found.core_percent))


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
