# SPDX-License-Identifier: Apache-2.0
"""A close look at an attached instance: what its programs cost, and what is on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ebpftop.format import printable
from ebpftop.kernel import libbpf, programs, variants
from ebpftop.kernel.disassembly import disassemble
from ebpftop.kernel.instance import Instance
from ebpftop.kernel.netlink.hooks import OUR_FILTERS, HookReader
from ebpftop.kernel.netlink.links import Link
from ebpftop.model import Fixture, Inspection, Listing, ProgramFacts
from ebpftop.sources.entries import entry_lines

WANTED = "inspection"
"""The word of `Source.wants` for a close look."""
INSTRUCTIONS, ENTRIES = "instructions:", "entries:"
"""What words of `Source.wants` for a listing begin with; a program's or map's name follows."""
MOST_LINES = 10_000
MOST_ENTRIES = 500


@dataclass(frozen=True, slots=True)
class _Run:
    count: int
    ns: int


class Inspector:
    """Looks closely at an instance while somebody wants it.

    Args:
        instance: Open; without its programs, what they cost is not known.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._statistics = programs.RunStatistics()
        self._hooks: HookReader | None = None
        self._before: dict[int, _Run] = {}
        self._listing: Listing | None = None

    def close(self) -> None:
        """Let the kernel stop measuring."""
        self._statistics.switch(on=False)
        if self._hooks is not None:
            self._hooks.close()
            self._hooks = None

    def look(
        self,
        wants: Collection[str],
        interval_s: float | None,
        link_at: Callable[[int], Link | None],
    ) -> Inspection | None:
        """Return what is found; None where nobody wants it, and then nothing is measured.

        Args:
            wants: Words of `Source.wants`.
            interval_s: Time since the last look.
            link_at: Finds an interface by its number.
        """
        if WANTED not in wants:
            self.close()
            self._before, self._listing = {}, None
            return None
        with suppress(OSError):
            self._statistics.switch(on=True)
        if self._hooks is None:
            self._hooks = HookReader()
        attachments = self._instance.meta.attachments
        found = [(a, link) for a in attachments if (link := link_at(a.index)) is not None]
        counters = [self._hooks.counters(link.index, link.name) for _, link in found]
        return Inspection(
            measured=self._statistics.is_on,
            programs=self._programs(interval_s),
            fixtures=[fixture for _, link in found for fixture in self._fixtures(link)],
            counters=[counted for counted in counters if counted is not None],
            listing=self._list(wants),
        )

    def _programs(self, interval_s: float | None) -> dict[int, ProgramFacts]:
        facts = {}
        for loaded in self._instance.meta.programs:
            fd = self._instance.programs.get(loaded.name)
            if fd is None:
                facts[loaded.id] = ProgramFacts()
                continue
            info = libbpf.program_info(fd)
            now, before = _Run(info.run_count, info.run_ns), self._before.get(loaded.id)
            self._before[loaded.id] = now
            runs = ns = None
            if before is not None and interval_s:
                runs, ns = now.count - before.count, now.ns - before.ns
            facts[loaded.id] = ProgramFacts(
                translated_bytes=info.translated_bytes,
                jited_bytes=info.jited_bytes,
                runs_per_s=runs / interval_s if runs is not None and interval_s else None,
                ns_per_run=ns / runs if runs and ns is not None else None,
                cpu_share=ns / 1e9 / interval_s if ns is not None and interval_s else None,
            )
        return facts

    def _fixtures(self, link: Link) -> Iterator[Fixture]:
        assert self._hooks is not None
        known = {loaded.id: loaded.name for loaded in self._instance.meta.programs}
        known[self._instance.meta.trace] = variants.PROGRAM
        if link.xdp_program:
            yield self._program(link, "xdp", link.xdp_program, known)
        for egress in (False, True):
            with suppress(OSError):
                for number in programs.tcx_programs(link.index, egress=egress):
                    way = "egress" if egress else "ingress"
                    yield self._program(link, f"tcx {way}", number, known)
        for found in self._hooks.filters(link.index):
            yield Fixture(
                link.name, "tc egress" if found.egress else "tc ingress",
                printable(found.name or found.kind), f"{found.handle:#x}",
                found.name.startswith(OUR_FILTERS),
            )  # fmt: skip
        for queue in self._hooks.qdiscs(link.index):
            yield Fixture(
                link.name, "qdisc", printable(queue.kind), f"{queue.handle >> 16:x}:",
                queue.ours, queue.packets, queue.dropped,
            )  # fmt: skip

    def _program(self, link: Link, place: str, number: int, known: dict[int, str]) -> Fixture:
        name = known.get(number) or printable(programs.name_of(number))
        return Fixture(link.name, place, name, str(number), number in known)

    def _list(self, wants: Collection[str]) -> Listing | None:
        """Return the listing that is asked for; instructions never change, entries do."""
        asked = next((word for word in wants if word.startswith((INSTRUCTIONS, ENTRIES))), None)
        if asked is None:
            self._listing = None
        elif asked.startswith(ENTRIES):
            self._listing = self._entries(asked)
        elif self._listing is None or self._listing.of != asked:
            self._listing = self._instructions(asked)
        return self._listing

    def _instructions(self, asked: str) -> Listing:
        fd = self._instance.programs.get(asked.removeprefix(INSTRUCTIONS))
        if fd is None:
            return Listing(asked, (), note="a reader without root sees no instructions")
        lines = disassemble(programs.instructions(fd))
        note = "" if lines else "the kernel does not show them (sysctl kernel.kptr_restrict)"
        return Listing(asked, lines[:MOST_LINES], max(0, len(lines) - MOST_LINES), note)

    def _entries(self, asked: str) -> Listing:
        opened = self._instance.maps.get(asked.removeprefix(ENTRIES))
        if opened is None:
            return Listing(asked, (), note="there is no such map")
        lines, left_out = entry_lines(opened, MOST_ENTRIES)
        return Listing(asked, lines, left_out, "" if lines else "it is empty")
