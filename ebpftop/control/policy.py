# SPDX-License-Identifier: Apache-2.0
"""Attach a new instance with a policy in force from its first packet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ebpftop.bpf import layout
from ebpftop.bpf.layout import Flag
from ebpftop.config import AccessPolicy, CapacityPolicy, Policy
from ebpftop.control import ways
from ebpftop.control.balancing import BalancingControl
from ebpftop.control.protection import ProtectionControl, check_limits
from ebpftop.control.rules import RuleTable
from ebpftop.control.shaping import ClassRequest, ShapingControl, check_all
from ebpftop.control.vip_rules import VipRequest, check_requests
from ebpftop.kernel import attaching, bpffs, ethtool, libbpf
from ebpftop.kernel.instance import Instance, describe_failure, sweep_stale
from ebpftop.kernel.netlink.routes import Routes

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
    instance = attaching.attach(
        interfaces,
        mode=mode,
        defines=capacities(policy.capacity),
        gid=attaching.reader_group(policy.access.group, required=named),
        policy=str(path.resolve()) if path else "",
        pinned=pinned,
        configure=lambda instance: _configure(instance, policy),
    )
    try:
        with bpffs.locked(instance.name):
            _note_merging(instance)
        apply_classes(instance, policy)
    except BaseException:
        with bpffs.locked(instance.name):
            instance.remove()
        raise
    return instance


def apply_classes(instance: Instance, policy: Policy, *, holding_lock: bool = False) -> None:
    """Have the classes of a policy and no others; what is so already is not touched.

    Raises:
        EbpftopError: They do not fit together, or an action does not work here.
    """
    control = ShapingControl(instance, holding_lock=holding_lock)
    control.apply(class_requests(policy), policy.shaping.count_sent)


def class_requests(policy: Policy) -> list[ClassRequest]:
    """Return the classes of a policy."""
    return [ClassRequest(each.traffic_class(), each.addresses) for each in policy.classes]


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


def reload(instance: Instance, policy: Policy) -> None:
    """Put a policy in force where it differs from what is; established flows survive.

    Limits, protection, management prefixes and classes are as the policy says then. On the
    allow list and among VIPs, what an earlier reading of it brought goes where it is no longer
    in it; what was made by hand stays. Capacities and access are for the next attach.

    Raises:
        EbpftopError: Something in it is wrong or does not fit; checked before anything changes.
    """
    check_limits(policy.limits.limits())
    check_requests(vip_requests(policy))
    check_all(class_requests(policy))
    with bpffs.locked(instance.name):
        try:
            apply_classes(instance, policy, holding_lock=True)
            BalancingControl(instance, holding_lock=True).apply(vip_requests(policy))
            _configure_protection(instance, policy)
        except OSError as error:
            raise describe_failure(error) from error


def _note_merging(instance: Instance) -> None:
    """Say whether packets may come merged (GRO), and so larger than any link takes."""
    table = RuleTable(instance.maps)
    merged = any(
        each.mode != "native" and ethtool.merges(each.name) for each in instance.meta.attachments
    )
    _set_flag(table.config, Flag.MERGED, on=merged)
    table.commit()


def _configure(instance: Instance, policy: Policy) -> None:
    _note_merging(instance)
    _configure_protection(instance, policy)
    with closing(Routes()) as routes:
        attached = [each.index for each in instance.meta.attachments]
        ways.write_ports(instance, routes.exits(attached))
    BalancingControl(instance, holding_lock=True).apply(vip_requests(policy))


def _configure_protection(instance: Instance, policy: Policy) -> None:
    protection = policy.protection
    table = RuleTable(instance.maps)
    new_sources_s = protection.new_sources_per_core_s or (
        policy.capacity.sources / TABLE_TURNOVER_S / libbpf.possible_cpus()
    )
    table.config["new_sources"] = max(1, round(new_sources_s * layout.NEW_SOURCES_WINDOW_S))
    table.config["flood_pps"] = protection.flood_pps
    _set_flag(table.config, Flag.DROP_NEW, on=protection.over_budget == "drop")
    _set_flag(table.config, Flag.DROP_UNPARSED, on=protection.unparsed == "drop")
    _configure_balancer(table.config, policy)
    table.commit()
    control = ProtectionControl(instance, holding_lock=True)
    control.set_limits(policy.limits.limits())
    control.allow_policy(policy.allow)
    control.protect(policy.management)


def _set_flag(config: NDArray[Any], flag: Flag, *, on: bool) -> None:
    flags = int(config["flags"][0]) & ~flag
    config["flags"] = flags | (flag if on else 0)


def _configure_balancer(config: NDArray[Any], policy: Policy) -> None:
    """Write what holds for all VIPs into the one `CONFIG` record."""
    balancer = policy.balancer
    # A flow takes two entries.
    new_flows_s = balancer.new_flows_per_core_s or (
        policy.capacity.connections / 2 / TABLE_TURNOVER_S / libbpf.possible_cpus()
    )
    config["new_flows"] = max(1, round(new_flows_s * layout.NEW_SOURCES_WINDOW_S))
    for name in ("tcp_idle", "tcp_opening", "udp_idle"):
        config[f"{name}_ns"] = round(getattr(balancer, f"{name}_s") * 1e9)
    _set_flag(config, Flag.DROP_FRAGMENTS, on=balancer.fragments == "drop")
    _set_flag(config, Flag.DROP_OPTIONS, on=balancer.options == "drop")


def vip_requests(policy: Policy) -> list[VipRequest]:
    """Return the VIPs of a policy."""
    return [VipRequest(each.vip(), each.wanted_backends()) for each in policy.vips]
