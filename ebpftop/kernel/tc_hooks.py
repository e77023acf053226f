# SPDX-License-Identifier: Apache-2.0
"""Where the shaper's programs are put, and how all of its is taken away again.

Programs run as TCX links, or as clsact filters where the kernel has no TCX. What others put
on the interface stays: their programs, their filters, and their root qdisc, beside which
there is no queue of ours. What was put where is written into the `shaper_hooks` map, so that
whoever removes the instance finds it; after a crash, our names and handles tell.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from ebpftop.bpf import shaper_layout as layout
from ebpftop.bpf.shaper_layout import Hook
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel import libbpf
from ebpftop.kernel.hook_table import HookTable
from ebpftop.kernel.maps import Map
from ebpftop.kernel.netlink.traffic_control import TC_CLSACT, traffic_control
from ebpftop.kernel.tc_queues import delete_root, is_ours
from ebpftop.model import DIRECTIONS

_NO_TCX = (errno.EINVAL, errno.EOPNOTSUPP, errno.E2BIG)
_GONE = (errno.ENODEV, errno.ENOENT, errno.EINVAL)


def filter_name(direction: int) -> str:
    """Return the name of our clsact filter in a direction."""
    return f"ebpftop:{layout.HOOKED[direction]}"


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


def clear_interface(ifindex: int, flags: int = 0) -> None:
    """Take away all that bears our names and handles on an interface of this namespace.

    Args:
        ifindex: The interface; it may be gone.
        flags: What the hook table says was put there; 0 after a crash that left no table.
    """
    try:
        delete_root(ifindex)
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
    for name in layout.HOOKED:
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
        for direction, name in enumerate(layout.HOOKED):
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
