# SPDX-License-Identifier: Apache-2.0
"""The root qdiscs that hold classes to their rates: found, given, and taken away again.

A root that an operator made is never replaced, nor changed. One that already is what is needed
is used as it is, whoever made it; the kernel's own default makes room for one of ours, and is
back when that goes. A device of several queues keeps them: it is given `mq` over an `fq` each.
"""

from __future__ import annotations

import errno

from ebpftop.bpf.shaper_layout import Hook
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel.hook_table import HookTable
from ebpftop.kernel.netlink.traffic_control import (
    OUR_ROOTS,
    TC_ROOT,
    Qdisc,
    kernel_knows,
    traffic_control,
)

PACED, TREE = "fq", "htb"
"""Qdiscs that heed a departure time, and that keep a tree of classes."""
SEVERAL = "mq"
"""What stands over the qdiscs of a device with several queues."""
_CLSACT_KINDS = ("clsact", "ingress")


def root_of(qdiscs: list[Qdisc]) -> Qdisc | None:
    """Return the root qdisc of a list."""
    return next((qdisc for qdisc in qdiscs if qdisc.parent == TC_ROOT), None)


def has_paced(qdiscs: list[Qdisc]) -> bool:
    """Whether every packet goes through fq, which alone heeds a departure time."""
    root = root_of(qdiscs)
    if root is None or root.kind != SEVERAL:
        return root is not None and root.kind == PACED
    leaves = [q for q in qdiscs if q.parent >> 16 == root.handle >> 16 and q is not root]
    leaves = [leaf for leaf in leaves if leaf.kind not in _CLSACT_KINDS]
    return bool(leaves) and all(leaf.kind == PACED for leaf in leaves)


def is_ours(root: Qdisc | None) -> bool:
    """Whether a root qdisc was made by ebpftop."""
    return root is not None and root.handle == OUR_ROOTS.get(root.kind)


def purpose_of(root: Qdisc) -> str:
    """Return what a root of ours is there for: `TREE` or `PACED`."""
    return TREE if root.kind == TREE else PACED


def give_queue(
    hooks: HookTable, kind: str, ifindex: int, name: str, *, in_use: bool = False
) -> None:
    """See to it that an interface has what an action needs.

    Args:
        hooks: Where it is remembered.
        kind: `TREE`, which must be ours, or `PACED`, which may be anybody's.
        ifindex: The interface.
        name: Its name, for messages.
        in_use: Other classes need the root qdisc of ours that is there.

    Raises:
        KernelRefusedError: It has not and cannot be given it; says what is missing.
    """
    with traffic_control(ifindex) as tc:
        qdiscs, queues = tc.qdiscs(), tc.queues()
    root = root_of(qdiscs)
    if (kind == PACED and has_paced(qdiscs)) or (
        root and is_ours(root) and purpose_of(root) == kind
    ):
        return
    _check_replaceable(root, kind, name, in_use=in_use)
    if kind == PACED and queues > 1 and not kernel_knows(PACED):
        raise _unknown(kind, name)
    before = hooks.flags(ifindex)
    # Remembered first: what nobody remembers is swept away.
    hooks.set(ifindex, before | Hook.ROOT_OURS)
    try:
        with traffic_control(ifindex) as tc:
            if kind == PACED and queues > 1:
                tc.set_leaves(SEVERAL, PACED)
            else:
                tc.set_root(kind)
    except OSError as error:
        hooks.set(ifindex, before)
        if error.errno != errno.ENOENT:
            raise
        raise _unknown(kind, name) from error


def _check_replaceable(root: Qdisc | None, kind: str, name: str, *, in_use: bool) -> None:
    if root and is_ours(root) and in_use:
        raise KernelRefusedError(
            f"{name} needs {kind} as its root qdisc, and other classes need {purpose_of(root)}",
            "give all classes one action",
        )
    if root and root.handle and not is_ours(root):
        raise KernelRefusedError(
            f"{name} has another's root qdisc, {root.label}, which is left alone",
            f"for {kind}, remove it with the tool that made it; --action police needs none",
        )


def _unknown(kind: str, name: str) -> KernelRefusedError:
    return KernelRefusedError(
        f"{name} has no {kind}, and this kernel does not know it", f"modprobe sch_{kind}"
    )


def take_queue(hooks: HookTable, ifindex: int) -> None:
    """Take our root qdisc away, if there is one."""
    flags = hooks.flags(ifindex)
    if flags & Hook.ROOT_OURS:
        delete_root(ifindex)
        hooks.set(ifindex, flags & ~Hook.ROOT_OURS)


def delete_root(ifindex: int) -> None:
    """Take away a root qdisc that bears a handle of ours."""
    with traffic_control(ifindex) as tc:
        root = root_of(tc.qdiscs())
        if root is not None and is_ours(root):
            tc.delete_root(root)
