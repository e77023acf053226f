# SPDX-License-Identifier: Apache-2.0
"""All the acts there are, in one object: what a dashboard with control is handed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ebpftop.control import undoing
from ebpftop.control.audit import Intent, Operator
from ebpftop.control.balancing import BalancingControl
from ebpftop.control.protection import ProtectionControl
from ebpftop.control.shaping import ShapingControl
from ebpftop.control.trace_filter import TraceFilter
from ebpftop.control.tracing import Trace
from ebpftop.control.ways import WayKeeper
from ebpftop.journal import Acts
from ebpftop.kernel.instance import Instance


class InstanceControl(ProtectionControl):
    """The acts on one instance, as `control.Controls` says; arguments as of its base."""

    def __init__(
        self,
        instance: Instance,
        *,
        operator: Operator | None = None,
        revert_after_s: float | None = None,
        must_record: bool = True,
    ) -> None:
        super().__init__(
            instance, operator=operator, revert_after_s=revert_after_s, must_record=must_record
        )
        self._shaping = ShapingControl(
            instance, operator=operator, revert_after_s=revert_after_s, must_record=must_record
        )
        self._balancing = BalancingControl(
            instance, operator=operator, revert_after_s=revert_after_s, must_record=must_record
        )

    @property
    def shaping(self) -> ShapingControl:
        """The acts on traffic classes."""
        return self._shaping

    @property
    def balancing(self) -> BalancingControl:
        """The acts on VIPs and their backends."""
        return self._balancing

    def trace(self, expression: str, rate: int) -> Trace:
        """Begin to show packets that a filter lets through, at most `rate` a second."""
        return Trace(self._instance, TraceFilter.parse(expression), rate=rate)

    def sweep(self) -> None:
        """Do what is due in protection and balancing; see each one's."""
        super().sweep()
        self._balancing.sweep()

    def keep_ways(self) -> WayKeeper:
        """Begin to keep the ways to backends; for one thread, which closes it."""
        return WayKeeper(self._instance)

    @property
    def instance_name(self) -> str:
        """The name of the instance's folder."""
        return self._instance.name

    def reverting(self, after_s: float) -> InstanceControl:
        """Return the same acts, each of which takes itself back unless it is confirmed in time."""
        return InstanceControl(self._instance, revert_after_s=after_s)

    def acts(self) -> Acts:
        """Return what was done to the instance, as the audit log says."""
        return undoing.acts_of(self._instance)

    def undo(self, name: str = "", *, force: bool = False, override: bool = False) -> None:
        """Take an act back: the one called `name`, or the last; errors as of `undoing`."""
        act = undoing.chosen(self.acts().acts, name)
        undoing.undo(self, act, force=force, override=override)

    def confirm(self) -> int:
        """Let all acts stay that wait to be confirmed; returns how many there were."""
        return undoing.confirm(self, self._instance)

    @contextmanager
    def confirming(self, intent: Intent) -> Iterator[None]:
        """Hold the writer's lock over an act about acts, and record it."""
        with self._locked(), self._recording(intent):
            yield
