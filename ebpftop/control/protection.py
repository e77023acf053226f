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
from functools import partial
from typing import Any

import numpy as np

from ebpftop.bpf import layout
from ebpftop.bpf.layout import ControlOp, EventKind, Flag, Rule
from ebpftop.control import limit_rules
from ebpftop.control.audit import Intent
from ebpftop.control.guard import Guard
from ebpftop.control.list_states import (
    States,
    allow_states,
    block_states,
    packed,
    unix_s,
    until_ns,
)
from ebpftop.control.rules import RuleTable, entries
from ebpftop.control.writing import InstanceWriter
from ebpftop.errors import NotFoundError, UsageError
from ebpftop.format import printable
from ebpftop.kernel.clock import coarse_ns
from ebpftop.model import BlockRequest, Limits, Prefix

MOST_EVENTS_AT_ONCE = 16
"""Blocks of a list that are told one by one; a longer list is told as its first ones."""
OF_POLICY = "policy"
"""The text of an entry of the allow list that the policy file has."""
_NS = 1_000_000_000


class ProtectionControl(InstanceWriter):
    """The acts on one instance, as `control.Controls` says."""

    @contextmanager
    def _writing(self, intent: Intent) -> Iterator[RuleTable]:
        """Hold the writer's lock over one act, and record it."""
        with self._locked():
            table = RuleTable(self._maps)
            with self._recording(intent, partial(self._state, table, intent)):
                yield table

    @contextmanager
    def _maintaining(self) -> Iterator[RuleTable]:
        """Hold the writer's lock over what is no operator's act."""
        with self._locked():
            yield RuleTable(self._maps)

    def _state(self, table: RuleTable, intent: Intent) -> Any:
        """Return the state of an act's targets, as JSON has it."""
        if intent.facet == "limits":
            return asdict(layout.limits(table.config))
        prefixes = [each for each in intent.targets if isinstance(each, Prefix)]
        if intent.facet == "allow":
            return packed(allow_states(table, prefixes))
        return packed(block_states(table, self._maps["auto_blocks"], prefixes))

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
        states = {
            request.prefix: {
                "until_s": unix_s(_checked_time(request.for_s)),
                "reason": printable(request.reason, layout.RULE_TEXT_BYTES),
                "by": "manual",
            }
            for request in requests
        }
        lasting_ns = {request.prefix: int((request.for_s or 0) * _NS) for request in requests}
        intent = _list_intent("block", "block", states)
        self.restore_blocks(states, intent, override=override, lasting_ns=lasting_ns)

    def restore_blocks(
        self,
        states: States,
        intent: Intent,
        *,
        override: bool = False,
        lasting_ns: Mapping[Prefix, int] | None = None,
    ) -> None:
        """Have these blocks, and none where the state is None; errors as of `block`.

        Args:
            states: By whom they are about.
            intent: For the audit log.
            override: Even if it cuts off the operator.
            lasting_ns: How long each was asked for, to be told; without it what is left.
        """
        with self._writing(intent) as table:
            held = {prefix: state for prefix, state in states.items() if state}
            if not override:
                Guard(self._maps).check(held)
            _refuse_allowed(table, held)
            ends_ns = {prefix: until_ns(state["until_s"]) for prefix, state in held.items()}
            texts = [state["reason"] for state in held.values()]
            table.write(entries(list(held), Rule.BLOCKED, list(ends_ns.values()), texts))
            self._end_blocks(table, [prefix for prefix in states if prefix not in held])
            table.commit()
            left_ns = lasting_ns or _left(ends_ns)
            for prefix in list(held)[:MOST_EVENTS_AT_ONCE]:
                self._tell(EventKind.BLOCK, prefix, held[prefix]["reason"], left_ns[prefix])

    def _end_blocks(self, table: RuleTable, prefixes: Sequence[Prefix]) -> None:
        slots = dict(zip(prefixes, table.slots_of(prefixes, Rule.BLOCKED), strict=True))
        listed = {prefix: slot for prefix, slot in slots.items() if slot is not None}
        automatic = [prefix for prefix in prefixes if self._blocked_automatically(prefix)]
        table.remove(list(listed.values()))
        for prefix in automatic:
            self._maps["auto_blocks"].delete((prefix.high, prefix.low))
        for prefix in list(dict.fromkeys([*listed, *automatic]))[:MOST_EVENTS_AT_ONCE]:
            self._tell(EventKind.UNBLOCK, prefix, "by the operator")

    def unblock(self, prefix: Prefix) -> None:
        """End the block of exactly `prefix`, manual or automatic.

        Raises:
            NotFoundError: It is not blocked; names the block that covers it.
        """
        with self._writing(Intent("unblock", "block", [prefix])) as table:
            listed = table.slot_of(prefix, Rule.BLOCKED) is not None
            if not listed and not self._blocked_automatically(prefix):
                raise self._not_blocked(table, prefix)
            self._end_blocks(table, [prefix])
            if listed:
                table.commit()

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
        states = dict.fromkeys(prefixes, True)
        self.restore_allowed(states, _list_intent("allow", "allow", states))

    def restore_allowed(self, states: States, intent: Intent) -> None:
        """Have these on the allow list, and not those whose state is None."""
        with self._writing(intent) as table:
            held = [prefix for prefix, state in states.items() if state]
            table.write(entries(held, Rule.ALLOWED, [0] * len(held), [""] * len(held)))
            gone = table.slots_of([p for p in states if not states[p]], Rule.ALLOWED)
            table.remove([slot for slot in gone if slot is not None])
            table.commit()

    def allow_policy(self, prefixes: Iterable[Prefix]) -> None:
        """Put those of the policy file on the allow list, and take off what it no longer has."""
        wanted = set(prefixes)
        with self._maintaining() as table:
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
        with self._writing(Intent("disallow", "allow", [prefix])) as table:
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
        self.restore_limits(changes, Intent("limit", "limits", wanted=dict(changes)))

    def restore_limits(self, changes: Mapping[str, Any], intent: Intent) -> None:
        """Change some of the limits as a part of any act; errors as of `set_limits`."""
        with self._writing(intent) as table:
            limits = replace(layout.limits(table.config), **changes)
            limit_rules.check_limits(limits)
            config = table.config
            config["burst_ns"] = int(limits.burst_s * _NS)
            config["pps"], config["bps"], config["syn"] = limits.pps, limits.bps, limits.syn
            config["pps_cost"] = limit_rules.cost(limits.pps)
            config["syn_cost"] = limit_rules.cost(limits.syn)
            config["byte_cost"] = limit_rules.cost(limits.bps, 8 << layout.BYTE_COST_SHIFT)
            config["burst"] = limit_rules.burst(config[0])
            config["grace_ns"] = int(limits.grace_s * _NS)
            config["block_for_ns"] = int(limits.block_for_s * _NS)
            flags = int(config["flags"][0]) & ~(Flag.LIMITS | Flag.DRY_RUN)
            flags |= Flag.LIMITS | Flag.AUTO if limits.any else 0
            config["flags"] = flags | (Flag.DRY_RUN if limits.dry_run else 0)
            table.commit()

    def protect(self, management: Iterable[Prefix] | None = None) -> None:
        """Write who is protected now; None keeps the management prefixes there are."""
        guard = Guard(self._maps)
        with self._maintaining() as table:
            guard.write(table, guard.management() if management is None else management)
            table.commit()

    def sweep(self) -> None:
        """Tell the end of blocks whose time is over, where no packet came to find out."""
        now_ns = coarse_ns()
        with self._maintaining() as table:
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


def _checked_time(for_s: float | None) -> float | None:
    if for_s is not None and not 0 < for_s < math.inf:
        raise UsageError("a block lasts longer than 0 s", "say `90s`, `10m`, `2h` or `forever`")
    return for_s


def _left(ends_ns: Mapping[Prefix, int]) -> Mapping[Prefix, int]:
    now_ns = time.monotonic_ns()
    return {prefix: max(0, end_ns - now_ns) for prefix, end_ns in ends_ns.items()}


def _list_intent(what: str, facet: str, states: States) -> Intent:
    return Intent(what, facet, list(states), wanted=packed(states))


def _holder(table: RuleTable, prefix: Prefix, kind: Rule) -> Prefix | None:
    return next((holder for _, holder in table.covered([prefix], kind)), None)


def _refuse_allowed(table: RuleTable, wanted: Iterable[Prefix]) -> None:
    for prefix, holder in table.covered(wanted, Rule.ALLOWED):
        raise UsageError(
            f"a block of {prefix} would do nothing: {holder} is on the allow list",
            f"disallow {holder} first",
        )
