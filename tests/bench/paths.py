# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds a packet on the ways through a program, all of them in turn, round by round.

The kernel's own figure of `BPF_PROG_TEST_RUN` is in whole nanoseconds, so that runs of many
packets are timed by the thread's processor time, and what starting one costs is taken off. A
packet that a program rewrites is given one run at a time, each with the packet anew; those are
timed by the kernel, and compared with an empty program that was run just so.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ebpftop.kernel import libbpf
from tests.bench.figures import Row, over

REPEAT = 100_000
SINGLES = 400
XDP, TC = 6, 3
"""Program types."""
XDP_DROP, XDP_PASS, XDP_TX = 1, 2, 3
TC_NEXT = 2**32 - 1
"""What a TC program answers that lets the next one have its say."""
_ANSWERS = {XDP: XDP_PASS, TC: TC_NEXT}


def empty_program(kind: int) -> int:
    """Load a program that lets everything pass; returns its file descriptor."""
    answer = _ANSWERS[kind].to_bytes(4, "little")
    instructions = b"\xb7\0\0\0" + answer + b"\x95" + bytes(7)  # r0 = answer; exit
    return libbpf.call("bpf_prog_load", kind, b"empty", b"GPL", instructions, 2, None)


@dataclass
class Path:
    """One way through a program."""

    name: str
    """For the table."""
    program: int
    """Its file descriptor."""
    packets: Sequence[bytes] | Iterator[bytes]
    """What goes in; with `single`, one after the other, over all rounds."""
    answer: int
    """What must come out; a path that was not taken is not measured."""
    single: bool = False
    """Give it one packet a run."""
    prepare: Callable[[], None] = lambda: None
    """Called before each round."""
    samples: list[float] = field(default_factory=list)
    """Nanoseconds a packet, one of each round."""

    def __post_init__(self) -> None:
        again = isinstance(self.packets, Sequence)
        self._feed = itertools.cycle(self.packets) if again else iter(self.packets)

    def run(self) -> None:
        """Add the sample of one round.

        Raises:
            RuntimeError: The packet took another path.
        """
        self.prepare()
        packet = next(self._feed)
        answer = libbpf.run_program(self.program, packet)[0]
        if answer != self.answer:
            raise RuntimeError(f"{self.name}: the program said {answer}, not {self.answer}")
        self.samples.append(self._singles() if self.single else self._many(packet))

    def _many(self, packet: bytes) -> float:
        clock = time.thread_time_ns
        started = clock()
        libbpf.run_program(self.program, packet, repeat=2)
        begun = clock()
        libbpf.run_program(self.program, packet, repeat=REPEAT)
        return ((clock() - begun) - (begun - started)) / (REPEAT - 2)

    def _singles(self) -> float:
        packets = itertools.islice(self._feed, SINGLES)
        taken = [libbpf.run_program(self.program, packet)[2] for packet in packets]
        # The mean of the middle half: outliers are interrupts, and a median is a whole number.
        return float(np.sort(taken)[SINGLES // 4 : -SINGLES // 4].mean())


def measure(paths: Sequence[Path], rounds: int) -> None:
    """Let all paths take their turns; one round before the first is not counted."""
    for path in paths:
        path.run()
        path.samples.clear()
    for _ in range(rounds):
        for path in paths:
            path.run()


def rows(
    empty: Path,
    paths: Sequence[Path],
    *,
    peers: dict[str, Path] | None = None,
    budgets: dict[str, str] | None = None,
) -> list[Row]:
    """Return the empty program, and the paths over it.

    Args:
        empty: An empty program, given packets in the same way.
        paths: What was measured.
        peers: By the name of a path, the path it is beside.
        budgets: By the name of a path, the budget that it decides.
    """
    answer = [Row(empty.name, "ns", empty.samples)]
    for path in paths:
        peer = (peers or {}).get(path.name)
        answer.append(
            Row(
                path.name, "ns", over(path.samples, empty.samples),
                peer=peer.name if peer else "",
                peer_samples=over(peer.samples, empty.samples) if peer else (),
                budget=(budgets or {}).get(path.name, ""),
            )
        )  # fmt: skip
    return answer
