# SPDX-License-Identifier: Apache-2.0
"""Attach a new instance with a policy in force from its first packet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Flag
from ebpftop.config import AccessPolicy, CapacityPolicy, Policy
from ebpftop.control import audit
from ebpftop.control.class_states import ClassRequest
from ebpftop.control.protection import ProtectionControl
from ebpftop.control.rules import RuleTable
from ebpftop.control.shaping import ShapingControl
from ebpftop.journal import Log, default_path
from ebpftop.kernel import attaching, bpffs, libbpf
from ebpftop.kernel.instance import Instance, sweep_stale

TABLE_TURNOVER_S = 8.0
"""Without a number in the policy, new sources alone take at least so long to fill the table."""


def attach(
    interfaces: Sequence[str],
    policy: Policy,
    *,
    mode: str,
    path: Path | None,
    pinned: bool,
    lasting: bool = False,
) -> Instance:
    """Attach to `interfaces`; see `attaching.attach`.

    Args:
        interfaces: Their names.
        policy: What to put in force.
        mode: `auto`, `native` or `generic`.
        path: Where the policy was read, None for no file.
        pinned: Outlive this process.
        lasting: It may be pinned later, so that what it is pinned on must outlive us too.
    """
    bpffs.mount(lasting=pinned or lasting)
    sweep_stale()
    named = policy.access.group != AccessPolicy().group
    gid = attaching.reader_group(policy.access.group, required=named)
    audit_path = Path(policy.audit.path) if policy.audit.path else default_path()
    with audit.attaching(interfaces, Log(audit_path, gid)) as made:
        instance = attaching.attach(
            interfaces,
            mode=mode,
            defines=capacities(policy.capacity),
            gid=gid,
            policy=str(path.resolve()) if path else "",
            audit=str(audit_path),
            pinned=pinned,
            configure=lambda instance: _configure(instance, policy),
        )
        try:
            with bpffs.locked(instance.name):
                _apply_classes(ShapingControl(instance, part_of_act=True), policy)
        except BaseException:
            with bpffs.locked(instance.name):
                instance.remove()
            raise
        made(instance)
    return instance


def apply_classes(instance: Instance, policy: Policy) -> None:
    """Have the classes of a policy and no others; what is so already is not touched.

    Raises:
        EbpftopError: They do not fit together, or an action does not work here.
    """
    _apply_classes(ShapingControl(instance), policy)


def _apply_classes(control: ShapingControl, policy: Policy) -> None:
    requests = [ClassRequest(each.traffic_class(), each.addresses) for each in policy.classes]
    control.apply(requests, policy.shaping.count_sent)


def capacities(capacity: CapacityPolicy) -> dict[str, int]:
    """Return the sizes of the maps, by the names of the C side."""
    return {
        "CAPACITY_SOURCES": capacity.sources,
        "CAPACITY_BLOCKS": capacity.blocks,
        "CAPACITY_PREFIXES": capacity.prefixes,
        "CAPACITY_CONNECTIONS": capacity.connections,
        "CAPACITY_RULES": capacity.blocks + 2 * capacity.prefixes,
        "CAPACITY_SENT": capacity.sources,
        "CAPACITY_CACHE": max(1024, capacity.sources // 8),
    }


def _configure(instance: Instance, policy: Policy) -> None:
    protection = policy.protection
    table = RuleTable(instance.maps)
    new_sources_s = protection.new_sources_per_core_s or (
        policy.capacity.sources / TABLE_TURNOVER_S / libbpf.possible_cpus()
    )
    table.config["new_sources"] = max(1, round(new_sources_s * layout.NEW_SOURCES_WINDOW_S))
    table.config["flood_pps"] = protection.flood_pps
    flags = Flag.DROP_NEW if protection.over_budget == "drop" else 0
    flags |= Flag.DROP_UNPARSED if protection.unparsed == "drop" else 0
    table.config["flags"] = flags
    table.commit()
    control = ProtectionControl(instance, part_of_act=True)
    control.set_limits(policy.limits.limits())
    control.allow_all(policy.allow)
    control.protect(policy.management)
