# SPDX-License-Identifier: Apache-2.0
"""The balancer's flows from outside: ending those that are over, correcting how many there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import layout
from ebpftop.bpf.layout import ControlOp
from ebpftop.kernel import libbpf
from ebpftop.kernel.maps import Map
from ebpftop.model import CONNECTION_STATES

CLOSED, UDP, ESTABLISHED = map(CONNECTION_STATES.index, ("closed", "udp", "established"))
REPLY = len(CONNECTION_STATES)
"""`CONNECTION_REPLY`: an entry of the way back."""
ALWAYS_NS = 2**64 - 1
"""For `FlowTable.end`: however young a flow is."""


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """The flows at one instant, without their ways back. All arrays have one length."""

    keys: NDArray[Any]
    """`FLOW` records."""
    vips: NDArray[np.uint64]
    """Id of each one's VIP."""
    backends: NDArray[np.uint64]
    """Slot of each one's backend."""
    states: NDArray[np.uint64]
    """Index into `CONNECTION_STATES`, or above."""
    last_ns: NDArray[np.uint64]
    """When its latest packet was seen, to within a second."""

    def open_flows(self) -> NDArray[np.int64]:
        """Return how many flows each backend has that are not closed, by slot."""
        is_open = self.states < REPLY
        is_open &= self.states != CLOSED
        counted = np.bincount(self.backends[is_open].astype(np.int64), minlength=layout.BACKENDS)
        return counted[: layout.BACKENDS].astype(np.int64)


class FlowTable:
    """The flows of an instance.

    Args:
        maps: Of the instance.
        control: Its program of that name.
    """

    def __init__(self, maps: Mapping[str, Map], control: int) -> None:
        self._maps = maps
        self._control = control
        self._suspects: dict[int, int] = {}

    def read(self) -> Flows:
        """Read them all."""
        keys, values = self._maps["connections"].read()
        states = values["word"] & 0xFF
        there = states != REPLY
        kept, words = keys[there], values["word"][there]
        return Flows(
            kept, kept["port"] >> layout.FLOW_ID_SHIFT, words >> 8 & 0xFFFF, words & 0xFF,
            values["last_ns"][there],
        )  # fmt: skip

    def end(self, keys: NDArray[Any], before_ns: int = ALWAYS_NS) -> int:
        """End flows that have been silent since `before_ns`; returns how many it were."""
        ended = 0
        for first in range(0, len(keys), layout.FLOWS_AT_ONCE):
            chunk = keys[first : first + layout.FLOWS_AT_ONCE]
            ended += self._run(ControlOp.END_FLOWS, len(chunk), before_ns, chunk)
        return ended

    def end_of_vips(self, gone: Iterable[int], before_ns: int = ALWAYS_NS) -> None:
        """End the flows of the VIPs with these ids."""
        flows = self.read()
        self.end(flows.keys[np.isin(flows.vips, list(gone))], before_ns)

    def end_of_backends(self, slots: Iterable[int]) -> None:
        """End the flows that name these backends, by slot."""
        flows = self.read()
        self.end(flows.keys[np.isin(flows.backends, list(slots))])

    def sweep(self, known: Iterable[int], idle_ns: Mapping[int, int], now_ns: int) -> None:
        """End what is over, and put counts right that have been wrong for two sweeps.

        Args:
            known: Ids of the VIPs that there are.
            idle_ns: After which silence a flow in a state is over; 0 is never.
            now_ns: What the programs take for the time.
        """
        before = self._counters()
        counted = self._maps["backend_flows"].read()[1].astype(np.int64)
        flows = self.read()
        self._correct(counted, flows, before, self._counters())
        self.end(flows.keys[~np.isin(flows.vips, list(known))])
        for silence_ns in set(idle_ns.values()) - {0}:
            states = [state for state, limit_ns in idle_ns.items() if limit_ns == silence_ns]
            over = np.isin(flows.states, states) & (flows.last_ns + silence_ns <= now_ns)
            self.end(flows.keys[over], max(0, now_ns - silence_ns))

    def _counters(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many flows each backend was given and lost so far, by slot."""
        counters = self._maps["backend_stats"].read()[1]
        opened, closed = (counters[name].sum(axis=1) for name in ("opened", "closed"))
        return opened.astype(np.int64), closed.astype(np.int64)

    def _correct(
        self,
        counted: NDArray[np.int64],
        flows: Flows,
        before: tuple[NDArray[np.int64], NDArray[np.int64]],
        after: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        """Take back of each count what no flow that came or went meanwhile can explain.

        The programs count while the flows are read: those that ended meanwhile may be missing
        among the flows and still be in the count, and those that began the other way round. A
        processor may be held up between a flow's entry and its count, so only what was wrong
        in the sweep before too is corrected, and of that the smaller part.
        """
        opened, closed = (late - early for early, late in zip(before, after, strict=True))
        excess = counted - flows.open_flows()
        sure = np.where(excess > closed, excess - closed, np.where(-excess > opened,
                                                                  excess + opened, 0))  # fmt: skip
        found = {int(slot): int(sure[slot]) for slot in np.flatnonzero(sure)}
        for slot, wrong in found.items():
            earlier = self._suspects.get(slot, 0)
            if slot and earlier * wrong > 0:
                by = min(earlier, wrong, key=abs)
                self._run(ControlOp.CORRECT_FLOWS, slot, by & ALWAYS_NS)
                found[slot] = wrong - by
        self._suspects = found

    def _run(
        self, op: ControlOp, number: int, value: int, flows: NDArray[Any] | None = None
    ) -> int:
        request = np.zeros(1, layout.FLOWS_REQUEST)
        request["op"], request["number"], request["value"] = op, number, value
        if flows is not None:
            request["flows"][0][: len(flows)] = flows
        return libbpf.run_program(self._control, request.tobytes())[0]
