# SPDX-License-Identifier: Apache-2.0
"""A trace of packets: the pipeline's variant put in its place, and what it hands over.

One process at a time traces an instance. Should it die, the next that writes to the instance
or looks for it puts the pipeline back.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from ebpftop.bpf import balancer_records, layout, trace_layout
from ebpftop.control.audit import Intent, Operator, Recorder
from ebpftop.control.trace_filter import TraceFilter
from ebpftop.errors import EbpftopError, KernelRefusedError, SourceLostError
from ebpftop.kernel import bpffs, libbpf, variants
from ebpftop.kernel.instance import Instance, describe_failure
from ebpftop.kernel.maps import Map
from ebpftop.kernel.ring import Ring
from ebpftop.model import VERDICTS, Service, TracedPacket

POLL_S = 0.1
KEPT = 20_000
"""Packets kept for whoever shows them; later ones are left out until they are taken."""
MOST_RATE = 10_000
"""The most packets a second that can be asked for."""


class Trace:
    """A trace that is on, from its construction until `stop`.

    Args:
        instance: Open for writing; it must stay so until `stop`.
        wanted: Which packets.
        rate: How many of them a second, at most.
        interface: Number of the one to look at; 0 for all.
        defines: What the instance was compiled with besides its capacities.

    Raises:
        EbpftopError: Somebody traces it already, the audit log cannot be written, or the kernel
            refused; nothing has changed.
    """

    def __init__(
        self,
        instance: Instance,
        wanted: TraceFilter,
        *,
        rate: int,
        interface: int = 0,
        defines: Mapping[str, int] | None = None,
    ) -> None:
        self._instance, self._interface = instance, interface
        self._wanted, self._rate = wanted, rate
        self._queue: deque[TracedPacket] = deque()
        self._window_ns, self._shown = 0, 0
        self._kernel_left_out, self._own_left_out = 0, 0
        self._backends: dict[int, Service | None] = {}
        self._to_wall_s = time.time() - time.monotonic()
        self._ending, self._program = False, 0
        self._ended = threading.Event()
        self._news = threading.Event()
        self.error: EbpftopError | None = None
        """What ended it early."""
        with ExitStack() as stack:
            try:
                self._begin(stack, defines or {})
            except OSError as error:
                raise describe_failure(error) from error
            self._undo = stack.pop_all()
        self._thread = threading.Thread(target=self._run, name="ebpftop-trace", daemon=True)
        self._thread.start()

    def _begin(self, stack: ExitStack, defines: Mapping[str, int]) -> None:
        instance, folder = self._instance, self._instance.folder
        seat = bpffs.Seat(instance.name, variants.SEAT)
        stack.callback(seat.close)
        with bpffs.locked(instance.name):
            if (who := seat.take(Operator.here().user)) is not None:
                raise KernelRefusedError(
                    f"a trace of {instance.describe()} is on already: {who}", "end that first"
                )
            variants.restore(folder)
        stack.callback(self._restore)
        self._program = variants.load(folder, {**_capacities(instance), **defines})
        room = variants.room(folder)
        opened = {
            name: Map(libbpf.open_pin(room / name), *types)
            for name, types in trace_layout.MAPS.items()
        }
        for each in opened.values():
            stack.callback(each.close)
        self._counters, self._filter = opened["tracing"], opened["trace_filter"]
        self.look_for(self._wanted, self._rate)
        ring = libbpf.open_pin(room / trace_layout.RING)
        stack.callback(os.close, ring)
        self._ring = Ring(ring, self._take)
        stack.callback(self._ring.close)
        with bpffs.locked(instance.name), Recorder(instance).recording(Intent("trace")):
            instance.read_meta_again()
            # Who watches must know the variant before it is on the interface.
            instance.write_meta(replace(instance.meta, trace=self._program))
            variants.put_in_place(folder)

    def look_for(self, wanted: TraceFilter, rate: int) -> None:
        """Show other packets from now on; one that comes at this moment may be of either kind."""
        self._filter.put(0, wanted.record(rate=rate, interface=self._interface))
        self._wanted, self._rate = wanted, rate

    def ask(self, expression: str, rate: int) -> None:
        """As `look_for`, of a filter in words.

        Raises:
            FilterError: What is wrong with it, and where.
        """
        self.look_for(TraceFilter.parse(expression), rate)

    def _restore(self) -> None:
        folder = self._instance.folder
        with bpffs.locked(self._instance.name):
            # After a detach elsewhere the folder, and a trace in it, may be another's.
            if self._program in (0, variants.number(folder)):
                variants.restore(folder)

    def _run(self) -> None:
        """Take packets until `stop`; runs in a thread of its own."""
        try:
            while not self._ended.is_set():
                self._ring.poll(POLL_S)
                self._look()
            while self._ring.poll(0):
                pass
            self._look()
        except EbpftopError as error:
            self.error = error
        except OSError as error:
            self.error = describe_failure(error)
        self._news.set()

    def _look(self) -> None:
        """See what was left out, and whether the trace is still on."""
        left_out = self._counters.read()[1]["left_out"]
        self._kernel_left_out = int(left_out.sum())
        self._backends.clear()
        if not self._ending and variants.number(self._instance.folder) != self._program:
            raise SourceLostError("the trace was ended, as by a detach", "begin it again")

    def _take(self, data: bytes) -> None:
        """Take in one record of the ring; called by libbpf, in the trace's thread."""
        record = np.frombuffer(data, trace_layout.TRACED, 1)[0]
        packet = self._packet(record)
        if not self._wanted.shows(packet):
            return
        if int(record["time_ns"]) - self._window_ns >= 10**9:
            self._window_ns, self._shown = int(record["time_ns"]), 0
        # The kernel counts for each CPU, so several CPUs can hand over more than was asked for.
        if self._shown >= self._rate or len(self._queue) >= KEPT:
            self._own_left_out += 1
            return
        self._shown += 1
        self._queue.append(packet)
        self._news.set()

    def _packet(self, record: np.void) -> TracedPacket:
        slot = int(record["backend"])
        if slot not in self._backends:
            self._backends[slot] = self._backend(slot)
        captured = min(int(record["captured"]), trace_layout.TRACE_BYTES)
        return TracedPacket(
            time_s=int(record["time_ns"]) / 1e9 + self._to_wall_s,
            interface=int(record["interface"]),
            length=int(record["length"]),
            data=bytes(record["data"])[:captured],
            protocol=layout.PROTOCOLS[int(record["protocol"])],
            verdict=VERDICTS[int(record["verdict"])],
            reason=layout.REASONS[int(record["reason"])],
            backend=self._backends[slot],
            left_out=self.left_out,
        )

    def _backend(self, slot: int) -> Service | None:
        found = self._instance.maps["backends"].get(slot) if slot else None
        if found is None or not found["id"][0]:
            return None
        return balancer_records.service(found["service"][0])

    @property
    def left_out(self) -> int:
        """Packets that matched and were not handed over, since the trace began."""
        return self._kernel_left_out + self._own_left_out

    def take(self, patience_s: float = 0.0) -> list[TracedPacket]:
        """Return what came since the last call; waits for something, but not for ever."""
        if not self._queue:
            self._news.wait(patience_s)
        self._news.clear()
        return [self._queue.popleft() for _ in range(len(self._queue))]

    def stop(self) -> None:
        """End the trace: the pipeline runs again, and the thread is gone.

        Packets of before can still be taken.

        Raises:
            EbpftopError: The kernel refused; the next that writes to the instance tries again.
        """
        self._ending = True
        try:
            self._restore()
        except OSError as error:
            raise describe_failure(error) from error
        finally:
            self._ended.set()
            self._thread.join()
            self._undo.close()


def _capacities(instance: Instance) -> dict[str, int]:
    maps = {
        "SOURCES": "ip_tracker", "BLOCKS": "blocked_ips", "PREFIXES": "blocked_nets",
        "RULES": "rules", "CONNECTIONS": "connections",
    }  # fmt: skip
    return {f"CAPACITY_{name}": instance.maps[which].max_entries for name, which in maps.items()}
