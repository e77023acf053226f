# SPDX-License-Identifier: Apache-2.0
"""The acts of DDoS protection: blocks, the allow list, limits.

Each takes the writer's lock, reads the maps, checks, writes, and raises the lists'
generation last. The maps are the only truth: nothing is remembered here between acts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ebpftop.bpf import layout
from ebpftop.bpf.layout import ControlOp, EventKind, Flag, Rule
from ebpftop.control.guard import Guard
from ebpftop.control.rules import RuleTable, entries
from ebpftop.control.writing import InstanceWriter
from ebpftop.errors import NotFoundError, UsageError
from ebpftop.format import printable
from ebpftop.kernel.clock import coarse_ns, tick_ns
from ebpftop.model import BlockRequest, Limits, Prefix

LOWEST_BPS = 8_000
"""One byte a millisecond: below it a single frame would cost seconds."""
CLOCK_TICKS_IN_BURST = 2
PACKETS_IN_BURST = 3
FULL_FRAME_BYTES = 1514
MOST_EVENTS_AT_ONCE = 16
"""Blocks of a list that are told one by one; a longer list is told as its first ones."""
OF_POLICY = "policy"
"""The text of an entry of the allow list that the policy file has."""
_NS = 1_000_000_000


class ProtectionControl(InstanceWriter):
    """The acts on one instance, as `control.Controls` says."""

    @contextmanager
    def _writing(self) -> Iterator[RuleTable]:
        """Hold the writer's lock over one act."""
        with self._locked():
            yield RuleTable(self._maps)

    def guarded(self, prefix: Prefix) -> str | None:
        """Say why dropping `prefix` could cut the operator off; None where it could not."""
        return Guard(self._maps).why(prefix)

    def block(
        self, prefix: Prefix, *, for_s: float | None, reason: str = "", override: bool = False
    ) -> None:
        """Drop all from `prefix`; one that is blocked already gets the new end and reason.

        Raises:
            NotPermittedError: It could cut the operator off, and `override` is not given.
            UsageError: The allow list lets it through first, or the time is not above 0.
            KernelRefusedError: The table is full, or the kernel refused.
        """
        self.block_all([BlockRequest(prefix, for_s, reason)], override=override)

    def block_all(self, requests: Sequence[BlockRequest], *, override: bool = False) -> None:
        """Set many blocks, all or none; errors as of `block`."""
        wanted = {request.prefix: request for request in requests}
        if not override:
            Guard(self._maps).check(wanted)
        now_ns = time.monotonic_ns()
        until_ns = [_until(request, now_ns) for request in wanted.values()]
        reasons = [_reason(request) for request in wanted.values()]
        with self._writing() as table:
            _refuse_allowed(table, wanted)
            table.write(entries(list(wanted), Rule.BLOCKED, until_ns, reasons))
            table.commit()
            for request in list(wanted.values())[:MOST_EVENTS_AT_ONCE]:
                self._tell(
                    EventKind.BLOCK, request.prefix, _reason(request),
                    int((request.for_s or 0) * _NS),
                )  # fmt: skip

    def unblock(self, prefix: Prefix) -> None:
        """End the block of exactly `prefix`, manual or automatic.

        Raises:
            NotFoundError: It is not blocked; names the block that covers it.
        """
        with self._writing() as table:
            slot = table.slot_of(prefix, Rule.BLOCKED)
            if slot is not None:
                table.remove([slot])
                table.commit()
            automatic = self._blocked_automatically(prefix)
            if automatic:
                self._maps["auto_blocks"].delete((prefix.high, prefix.low))
            if slot is None and not automatic:
                raise self._not_blocked(table, prefix)
            self._tell(EventKind.UNBLOCK, prefix, "by the operator")

    def _blocked_automatically(self, prefix: Prefix) -> bool:
        """Whether an automatic block of exactly `prefix` holds; one that is over stays known."""
        if not (prefix.is_host if prefix.is_ipv4 else prefix.length == 64):
            return False
        found = self._maps["auto_blocks"].get((prefix.high, prefix.low))
        return found is not None and int(found["until_ns"][0]) > coarse_ns()

    def _not_blocked(self, table: RuleTable, prefix: Prefix) -> NotFoundError:
        covering = _holder(table, prefix, Rule.BLOCKED)
        net = prefix.truncated(64)
        if covering is None and not prefix.is_ipv4 and self._blocked_automatically(net):
            covering = net
        hint = f"the block of {covering} holds it" if covering else "`ebpftop blocks` lists them"
        return NotFoundError(f"{prefix} is not blocked by itself", hint)

    def allow(self, prefix: Prefix) -> None:
        """Let all from `prefix` pass, before blocks and limits."""
        self.allow_all([prefix])

    def allow_all(self, prefixes: Iterable[Prefix]) -> None:
        """Put many on the allow list, all or none; those that are on it stay."""
        wanted = list(dict.fromkeys(prefixes))
        with self._writing() as table:
            table.write(entries(wanted, Rule.ALLOWED, [0] * len(wanted), [""] * len(wanted)))
            table.commit()

    def allow_policy(self, prefixes: Iterable[Prefix]) -> None:
        """Put those of the policy file on the allow list, and take off what it no longer has."""
        wanted = set(prefixes)
        with self._writing() as table:
            slots = np.flatnonzero(table.rules["kind"] == Rule.ALLOWED)
            ours = slots[table.rules["text"][slots] == OF_POLICY.encode()].tolist()
            held = {table.prefix(slot) for slot in ours}
            table.remove([slot for slot in ours if table.prefix(slot) not in wanted])
            fresh = sorted(wanted - held)
            count = len(fresh)
            table.write(entries(fresh, Rule.ALLOWED, [0] * count, [OF_POLICY] * count))
            table.commit()

    def disallow(self, prefix: Prefix) -> None:
        """Take `prefix` out of the allow list.

        Raises:
            NotFoundError: It is not in it.
        """
        with self._writing() as table:
            slot = table.slot_of(prefix, Rule.ALLOWED)
            if slot is None:
                covering = _holder(table, prefix, Rule.ALLOWED)
                hint = f"{covering} is" if covering else "`ebpftop allowed` lists them"
                raise NotFoundError(f"{prefix} is not on the allow list by itself", hint)
            table.remove([slot])
            table.commit()

    def set_limits(self, limits: Limits) -> None:
        """Put limits in force for every source.

        Raises:
            UsageError: A value is out of range.
        """
        self.change_limits(asdict(limits))

    def change_limits(self, changes: Mapping[str, Any]) -> None:
        """Change some of the limits, by the names of `Limits`, and keep the rest."""
        with self._writing() as table:
            limits = replace(layout.limits(table.config), **changes)
            check_limits(limits)
            config = table.config
            config["burst_ns"] = int(limits.burst_s * _NS)
            config["pps"], config["bps"], config["syn"] = limits.pps, limits.bps, limits.syn
            config["pps_cost"] = _cost(limits.pps)
            config["syn_cost"] = _cost(limits.syn)
            config["byte_cost"] = _cost(limits.bps, 8 << layout.BYTE_COST_SHIFT)
            config["burst"] = _burst(config[0])
            config["grace_ns"] = int(limits.grace_s * _NS)
            config["block_for_ns"] = int(limits.block_for_s * _NS)
            flags = int(config["flags"][0]) & ~(Flag.LIMITS | Flag.DRY_RUN)
            flags |= Flag.LIMITS | Flag.AUTO if limits.any else 0
            config["flags"] = flags | (Flag.DRY_RUN if limits.dry_run else 0)
            table.commit()

    def protect(self, management: Iterable[Prefix] | None = None) -> None:
        """Write who is protected now; None keeps the management prefixes there are."""
        guard = Guard(self._maps)
        with self._writing() as table:
            guard.write(table, guard.management() if management is None else management)
            table.commit()

    def sweep(self) -> None:
        """Tell the end of blocks whose time is over, where no packet came to find out."""
        now_ns = coarse_ns()
        with self._writing() as table:
            ended = table.ended(now_ns)
            for slot in ended:
                self._run(ControlOp.END_RULE, slot=slot)
            table.remove(ended)
            if ended:
                table.commit()
            keys, values = self._maps["auto_blocks"].read()
            over = np.flatnonzero((values["ended"] == 0) & (values["until_ns"] <= now_ns))
            for key in keys[over].copy():
                address = Prefix(int(key["high"]), int(key["low"]))
                net = address.low == 0 and address.high != 0
                self._run(ControlOp.END_AUTO, Prefix(address.high, address.low, 64 if net else 128))
        if not Guard(self._maps).is_complete():
            self.protect()


def _until(request: BlockRequest, now_ns: int) -> int:
    if request.for_s is None:
        return 0
    if not 0 < request.for_s < math.inf:
        raise UsageError("a block lasts longer than 0 s", "say `90s`, `10m`, `2h` or `forever`")
    return now_ns + int(request.for_s * _NS)


def _reason(request: BlockRequest) -> str:
    return printable(request.reason, layout.RULE_TEXT_BYTES)


def _holder(table: RuleTable, prefix: Prefix, kind: Rule) -> Prefix | None:
    return next((holder for _, holder in table.covered([prefix], kind)), None)


def _refuse_allowed(table: RuleTable, wanted: Iterable[Prefix]) -> None:
    for prefix, holder in table.covered(wanted, Rule.ALLOWED):
        raise UsageError(
            f"a block of {prefix} would do nothing: {holder} is on the allow list",
            f"disallow {holder} first",
        )


def check_limits(limits: Limits) -> None:
    """Refuse limits that make no sense.

    Raises:
        UsageError: Names the value and what is right.
    """
    for name in ("pps", "bps", "syn", "grace_s", "block_for_s"):
        if getattr(limits, name) < 0:
            raise UsageError(f"{name} cannot be below 0", "0 switches a limit off")
    if 0 < limits.bps < LOWEST_BPS:
        raise UsageError("a limit below 8kbit would stop single frames", "say 8kbit or more")
    if max(limits.pps, limits.syn) > _NS or limits.bps > 1000 * _NS:
        raise UsageError("that limit is above any link's rate", "0 switches a limit off")
    if not 0 < limits.burst_s <= 3600:
        raise UsageError("a burst is above 0 and at most 1h", "say `1s`")
    if max(limits.grace_s, limits.block_for_s) > layout.BLOCK_LONGEST_S:
        raise UsageError("that is longer than 30 days", "block it by hand for longer")


def _cost(rate: int, scale: int = 1) -> int:
    """Return what one packet, or byte, costs at `rate` a second; 0 where there is no limit."""
    return max(1, round(_NS * scale * (1 << layout.LIMITER_SHIFT) / rate)) if rate else 0


def _burst(config: np.void) -> int:
    """Return the burst in the kernel's unit: the operator's, unless the limits need a longer one.

    A burst of fewer clock ticks would drop what arrives between two of them; one of fewer
    packets would never show that a source has fallen well below its limit again.
    """
    frame_cost = int(config["byte_cost"]) * FULL_FRAME_BYTES >> layout.BYTE_COST_SHIFT
    packet_cost = max(int(config["pps_cost"]), int(config["syn_cost"]), frame_cost)
    ticks_ns = int(CLOCK_TICKS_IN_BURST * tick_ns())
    burst_ns = max(int(config["burst_ns"]), ticks_ns)
    return max(burst_ns << layout.LIMITER_SHIFT, PACKETS_IN_BURST * packet_cost)
