# SPDX-License-Identifier: Apache-2.0
"""Where the shaper's programs and queues are put, and how they are taken away again.

Programs run as TCX links, or as clsact filters where the kernel has no TCX. What others put
on the interface stays: their programs, their filters, and their root qdisc, beside which
there is no queue of ours. What was put where is written into the `shaper_hooks` map, so that
whoever removes the instance finds it; after a crash, our names and handles tell.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import Hook
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel import libbpf
from ebpftop.kernel.maps import Map
from ebpftop.kernel.netlink.traffic_control import (
    OUR_ROOTS,
    TC_CLSACT,
    TC_ROOT,
    Qdisc,
    traffic_control,
)
from ebpftop.model import DIRECTIONS

_NO_TCX = (errno.EINVAL, errno.EOPNOTSUPP, errno.E2BIG)
_GONE = (errno.ENODEV, errno.ENOENT, errno.EINVAL)


def filter_name(direction: int) -> str:
    """Return the name of our clsact filter in a direction."""
    return f"ebpftop:{layout.PROGRAMS[direction]}"


class HookTable:
    """What was put on which interface.

    Args:
        table: The `shaper_hooks` map.
    """

    def __init__(self, table: Map) -> None:
        self._map = table
        self._rows = table.read()[1].copy()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for row in self._rows[self._rows["ifindex"] != 0]:
            yield int(row["ifindex"]), int(row["flags"])

    def flags(self, ifindex: int) -> int:
        """Return what is on an interface, bits of `Hook`."""
        return int(self._rows["flags"][self._rows["ifindex"] == ifindex].sum())

    def set(self, ifindex: int, flags: int) -> None:
        """Remember what is on an interface; 0 forgets it.

        Raises:
            KernelRefusedError: There are too many interfaces.
        """
        at = np.flatnonzero(self._rows["ifindex"] == ifindex)
        if not len(at):
            at = np.flatnonzero(self._rows["ifindex"] == 0)
        if not len(at):
            raise KernelRefusedError("too many interfaces to shape", "attach fewer together")
        row = int(at[0])
        self._rows[row] = (ifindex, flags) if flags else (0, 0)
        self._map.put(row, self._rows[row : row + 1])


def put_program(
    hooks: HookTable, program: int, direction: int, ifindex: int, pin: Path | None
) -> int | None:
    """Attach a program to one direction of an interface, if it is not yet.

    Args:
        hooks: Where it is remembered.
        program: Its file descriptor.
        direction: 0 ingress, 1 egress.
        ifindex: The interface.
        pin: Where the link is pinned; None leaves it to its file descriptor.

    Returns:
        The link's file descriptor, None where it is a filter or was there already.
    """
    flags = hooks.flags(ifindex)
    if flags & 1 << direction:
        return None
    if not flags & Hook.CLSACT_FILTERS:
        try:
            link = libbpf.attach_tcx(program, ifindex, egress=bool(direction))
        except OSError as error:
            if error.errno not in _NO_TCX:
                raise
        else:
            hooks.set(ifindex, flags | 1 << direction)
            if pin is not None:
                libbpf.pin(link, pin)
            return link
    with traffic_control(ifindex) as tc:
        hooks.set(ifindex, flags | Hook.CLSACT_FILTERS)
        flags |= Hook.CLSACT_FILTERS | (Hook.CLSACT_OURS if tc.add_clsact() else 0)
        hooks.set(ifindex, flags | 1 << direction)
        tc.add_filter(direction, program, filter_name(direction))
    return None


def take_program(hooks: HookTable, program_id: int, direction: int, ifindex: int) -> None:
    """Detach a program from one direction of an interface; does nothing where it is not there."""
    flags = hooks.flags(ifindex)
    if not flags & 1 << direction:
        return
    left = flags & ~(1 << direction)
    if flags & Hook.CLSACT_FILTERS:
        with traffic_control(ifindex) as tc:
            tc.delete_filters(direction, filter_name(direction))
            if not left & (Hook.INGRESS | Hook.EGRESS):
                if flags & Hook.CLSACT_OURS:
                    tc.delete_clsact()
                left &= ~(Hook.CLSACT_FILTERS | Hook.CLSACT_OURS)
    else:
        libbpf.detach_tcx(program_id, ifindex)
    hooks.set(ifindex, left)


def root_of(qdiscs: list[Qdisc]) -> Qdisc | None:
    """Return the root qdisc of a list."""
    return next((qdisc for qdisc in qdiscs if qdisc.parent == TC_ROOT), None)


def has_fq(qdiscs: list[Qdisc]) -> bool:
    """Whether every packet goes through fq, which alone heeds a departure time."""
    root = root_of(qdiscs)
    if root is None or root.kind != "mq":
        return root is not None and root.kind == "fq"
    leaves = [q for q in qdiscs if q.parent >> 16 == root.handle >> 16 and q is not root]
    leaves = [q for q in leaves if q.kind not in ("clsact", "ingress")]
    return bool(leaves) and all(leaf.kind == "fq" for leaf in leaves)


def is_ours(root: Qdisc | None) -> bool:
    """Whether a root qdisc was made by ebpftop."""
    return root is not None and root.handle == OUR_ROOTS.get(root.kind)


def give_queue(
    hooks: HookTable, kind: str, ifindex: int, name: str, *, in_use: bool = False
) -> None:
    """See to it that an interface has what an action needs: `htb`, our tree, or any `fq`.

    Args:
        hooks: Where it is remembered.
        kind: `htb` or `fq`.
        ifindex: The interface.
        name: Its name, for messages.
        in_use: Other classes need the root qdisc of ours that is there.

    Raises:
        KernelRefusedError: It has not and cannot be given it; says what is missing.
    """
    with traffic_control(ifindex) as tc:
        qdiscs = tc.qdiscs()
    root = root_of(qdiscs)
    if (kind == "fq" and has_fq(qdiscs)) or (root and is_ours(root) and root.kind == kind):
        return
    if root and is_ours(root) and in_use:
        raise KernelRefusedError(
            f"{name} needs {kind} as its root qdisc, and other classes need {root.kind}",
            "give all classes one action",
        )
    if root and root.handle and not is_ours(root):
        raise KernelRefusedError(
            f"{name} has another's root qdisc, {root.label}, which is left alone",
            f"for {kind}, remove it with the tool that made it; --action police needs none",
        )
    if kind == "fq" and root and root.kind == "mq":
        raise KernelRefusedError(
            f"{name} has several queues without fq",
            "sysctl -w net.core.default_qdisc=fq, and set the interface up again",
        )
    before = hooks.flags(ifindex)
    # Remembered first: what nobody remembers is swept away.
    hooks.set(ifindex, before | Hook.ROOT_OURS)
    try:
        with traffic_control(ifindex) as tc:
            tc.set_root(kind)
    except OSError as error:
        hooks.set(ifindex, before)
        if error.errno != errno.ENOENT:
            raise
        raise KernelRefusedError(
            f"{name} has no {kind}, and this kernel does not know it", f"modprobe sch_{kind}"
        ) from error


def take_queue(hooks: HookTable, ifindex: int) -> None:
    """Take our root qdisc away, if there is one."""
    flags = hooks.flags(ifindex)
    if flags & Hook.ROOT_OURS:
        _delete_root(ifindex)
        hooks.set(ifindex, flags & ~Hook.ROOT_OURS)


def _delete_root(ifindex: int) -> None:
    with traffic_control(ifindex) as tc:
        root = root_of(tc.qdiscs())
        if root is not None and is_ours(root):
            tc.delete_root(root)


def clear_interface(ifindex: int, flags: int = 0) -> None:
    """Take away all that bears our names and handles on an interface of this namespace.

    Args:
        ifindex: The interface; it may be gone.
        flags: What the hook table says was put there; 0 after a crash that left no table.
    """
    try:
        _delete_root(ifindex)
        with traffic_control(ifindex) as tc:
            for direction in range(len(DIRECTIONS)):
                tc.delete_filters(direction, filter_name(direction))
            if flags & Hook.CLSACT_OURS:
                tc.delete_clsact()
    except OSError as error:
        if error.errno not in _GONE:
            raise


def clear_folder(folder: Path, *, same_namespace: bool) -> None:
    """Take away what an instance put on its interfaces, whatever state it is in.

    Args:
        folder: Where it is pinned.
        same_namespace: Its interfaces are in the network namespace of this thread.
    """
    for name in layout.PROGRAMS:
        with suppress(OSError):
            fd = libbpf.open_pin(folder / f"prog_{name}")
            try:
                libbpf.detach_tcx(libbpf.program_info(fd).id)
            finally:
                os.close(fd)
    for ifindex, flags in _hooked(folder).items() if same_namespace else ():
        clear_interface(ifindex, flags)


def sweep_orphans(folders: Iterable[Path]) -> None:
    """Take away queues and filters of ours in this namespace that no instance remembers.

    Args:
        folders: Of the instances of this namespace.
    """
    remembered = {ifindex for folder in folders for ifindex in _hooked(folder)}
    with traffic_control(0) as tc:
        found = {q.ifindex for q in tc.qdiscs() if is_ours(q) or q.handle == TC_CLSACT}
    for ifindex in found - remembered:
        clear_interface(ifindex)


def has_leftovers(folder: Path) -> bool:
    """Whether an instance has put on its interfaces what does not go with its links."""
    lasting = Hook.CLSACT_FILTERS | Hook.ROOT_OURS
    return any(flags & lasting for flags in _hooked(folder).values())


def clear_one(folder: Path, ifindex: int) -> None:
    """Take away what an instance put on one of its interfaces."""
    with closing(_table(folder)) as table:
        hooks = HookTable(table)
        for direction, name in enumerate(layout.PROGRAMS):
            fd = libbpf.open_pin(folder / f"prog_{name}")
            try:
                libbpf.detach_tcx(libbpf.program_info(fd).id, ifindex)
            finally:
                os.close(fd)
            link_pin(folder, direction, ifindex).unlink(missing_ok=True)
        clear_interface(ifindex, hooks.flags(ifindex))
        hooks.set(ifindex, 0)


def link_pin(folder: Path, direction: int, ifindex: int) -> Path:
    """Return where a TCX link of an instance is pinned if it is."""
    return folder / f"tc_{DIRECTIONS[direction]}_{ifindex}"


def _table(folder: Path) -> Map:
    return Map(libbpf.open_pin(folder / "shaper_hooks"), *layout.MAPS["shaper_hooks"])


def _hooked(folder: Path) -> Mapping[int, int]:
    """Return the hook table of a folder; empty where it cannot be read."""
    try:
        table = _table(folder)
    except (OSError, KernelRefusedError):
        return {}
    with closing(table):
        return dict(HookTable(table))
