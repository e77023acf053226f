# SPDX-License-Identifier: Apache-2.0
"""All the acts there are, in one object: what a dashboard with control is handed."""

from __future__ import annotations

from functools import cached_property

from ebpftop.control.balancing import BalancingControl
from ebpftop.control.protection import ProtectionControl
from ebpftop.control.shaping import ShapingControl
from ebpftop.control.trace_filter import TraceFilter
from ebpftop.control.tracing import Trace
from ebpftop.control.ways import WayKeeper


class InstanceControl(ProtectionControl):
    """The acts on one instance, as `control.Controls` says; arguments as of its base."""

    @cached_property
    def shaping(self) -> ShapingControl:
        """The acts on traffic classes."""
        return ShapingControl(self._instance, holding_lock=self._holding_lock)

    @cached_property
    def balancing(self) -> BalancingControl:
        """The acts on VIPs and their backends."""
        return BalancingControl(self._instance, holding_lock=self._holding_lock)

    def trace(self, expression: str, rate: int) -> Trace:
        """Begin to show packets that a filter lets through, at most `rate` a second."""
        return Trace(self._instance, TraceFilter.parse(expression), rate=rate)

    def sweep(self) -> None:
        """Do what is due in protection and balancing; see each one's."""
        super().sweep()
        self.balancing.sweep()

    def keep_ways(self) -> WayKeeper:
        """Begin to keep the ways to backends; for one thread, which closes it."""
        return WayKeeper(self._instance, holding_lock=self._holding_lock)
