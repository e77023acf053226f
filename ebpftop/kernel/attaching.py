# SPDX-License-Identifier: Apache-2.0
"""Make an instance, attach it to interfaces, and take it away again.

Another's program on the hook is never replaced: `attach` refuses and names it.
"""

from __future__ import annotations

import errno
import grp
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ebpftop import __version__
from ebpftop.errors import KernelRefusedError, NotFoundError
from ebpftop.format import printable
from ebpftop.kernel import bpffs, libbpf, loading, tc_hooks, variants
from ebpftop.kernel.instance import (
    PIPELINE,
    PROGRAMS,
    Attachment,
    Instance,
    LoadedProgram,
    Meta,
    describe_failure,
    fingerprint,
    network_namespace,
)
from ebpftop.kernel.netlink.links import Link, netlink

MODES = ("auto", "native", "generic")
REMOUNT = f"mount -o remount,rw {bpffs.BPFFS}"


def reader_group(name: str, *, required: bool) -> int:
    """Return the group that may watch: its number, 0 where it does not exist and need not."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if required:
            raise NotFoundError(f"there is no group {name}", f"groupadd --system {name}") from None
        return 0


def program_name(program_id: int) -> str:
    """Return a program's name in the kernel, in words where it has none or root alone knows it."""
    try:
        fd = libbpf.program_fd(program_id)
    except OSError:
        return "unknown"
    try:
        return printable(libbpf.program_info(fd).name) or "without a name"
    finally:
        os.close(fd)


def _check_free(link: Link) -> None:
    """Refuse an interface that has a program on it already, ours or not."""
    if not link.xdp_program:
        return
    program = program_name(link.xdp_program)
    if program in (PIPELINE, variants.PROGRAM):
        raise KernelRefusedError(
            f"ebpftop is attached to {link.name} already", f"ebpftop detach {link.name} first"
        )
    raise KernelRefusedError(
        f"another XDP program is on {link.name}: {program}, id {link.xdp_program}",
        "it is left alone; remove it with the tool that attached it",
    )


def attach(
    interfaces: Sequence[str],
    *,
    mode: str,
    defines: Mapping[str, int],
    gid: int,
    policy: str,
    audit: str,
    pinned: bool,
    configure: Callable[[Instance], None],
) -> Instance:
    """Load, configure and attach a new instance.

    Args:
        interfaces: Their names; all are attached, or none.
        mode: `auto`, `native` or `generic`.
        defines: Capacities, by the names the C side gives them.
        gid: Group that may read the maps; 0 for nobody but root.
        policy: Path of the policy file, for `meta`.
        audit: Path of the audit log, for `meta`.
        pinned: The links outlive this process.
        configure: Called before the first packet, with the writer's lock held.

    Raises:
        EbpftopError: An interface is missing or taken, or the kernel refused; nothing is left.
    """
    for folder in _folders(_free_links(interfaces)[0]):
        with bpffs.locked(folder.name):
            # Who waited for the lock may find that another was faster.
            if not folder.exists():
                links = _free_links(interfaces)
                for link in links:
                    tc_hooks.clear_interface(link.index)  # what a crash left
                instance = _created(folder, links, defines, gid, (policy, audit))
                _put_in_force(instance, mode, pinned, configure)
                return instance
    raise AssertionError("there is always another name")


def _folders(first: Link) -> Iterator[Path]:
    """Yield folders that an instance may have; a bpffs allows no dot in a name.

    The first may be taken: by an instance that has left the interface, and not others.
    """
    for serial in itertools.count(1):
        suffix = f"-{serial}" if serial > 1 else ""
        yield bpffs.BPFFS / f"{network_namespace()}-{first.index}{suffix}"


def _created(
    folder: Path,
    links: Sequence[Link],
    defines: Mapping[str, int],
    gid: int,
    paths: tuple[str, str],
) -> Instance:
    try:
        folder.mkdir(mode=0o700)
        loading.load(folder, defines)
        _open_to_group(folder, gid)
        return _with_meta(folder, links, *paths)
    except OSError as error:
        bpffs.remove(folder.name)
        raise KernelRefusedError(f"cannot write to {folder}: {error.strerror}", REMOUNT) from error
    except BaseException:
        bpffs.remove(folder.name)
        raise


def _put_in_force(
    instance: Instance, mode: str, pinned: bool, configure: Callable[[Instance], None]
) -> None:
    try:
        configure(instance)
        _attach_links(instance, mode)
        if pinned:
            instance.pin_links()
    except OSError as error:
        instance.remove()
        raise describe_failure(error) from error
    except BaseException:
        instance.remove()
        raise


def _free_links(interfaces: Sequence[str]) -> list[Link]:
    with netlink() as socket:
        links = [socket.link(name) for name in dict.fromkeys(interfaces)]
    for link in links:
        _check_free(link)
    return links


def _open_to_group(folder: Path, gid: int) -> None:
    """Let the group read maps. Programs stay closed: who can run one can write through it."""
    for path in folder.iterdir():
        program = path.name.startswith("prog_")
        os.chown(path, 0, 0 if program else gid)
        path.chmod(0o400 if program else 0o440)
    os.chown(folder, 0, gid)
    folder.chmod(0o750)


def _with_meta(folder: Path, links: Sequence[Link], policy: str, audit: str) -> Instance:
    """Write the first `meta`, with which the folder can be opened."""
    programs = []
    for name in PROGRAMS:
        fd = libbpf.open_pin(folder / f"prog_{name}")
        info = libbpf.program_info(fd)
        os.close(fd)
        programs.append(LoadedProgram(name, info.id, info.tag, info.verified_insns))
    meta = Meta(
        version=__version__, layout=fingerprint(), namespace=network_namespace(),
        attached_s=time.time(), policy=policy, audit=audit, programs=programs,
        attachments=[Attachment(link.name, link.index, "") for link in links],
    )  # fmt: skip
    return Instance(folder, read_only=False, meta=meta)


def _attach_links(instance: Instance, mode: str) -> None:
    attachments = []
    for wanted in instance.meta.attachments:
        fd, got = _attach_one(instance.programs[PIPELINE], wanted, mode)
        instance.links[wanted.index] = fd
        attachments.append(replace(wanted, mode=got))
    instance.write_meta(replace(instance.meta, attachments=attachments))


def _attach_one(program: int, wanted: Attachment, mode: str) -> tuple[int, str]:
    refusals = []
    for attempt in ("native", "generic") if mode == "auto" else (mode,):
        try:
            native = attempt == "native"
            return libbpf.attach_xdp(program, wanted.index, native=native), attempt
        except OSError as error:
            refusals.append(f"{attempt}: {_why_refused(error)}")
    with netlink() as socket:
        link = socket.link_at(wanted.index)
    if link:
        _check_free(link)
    raise KernelRefusedError(
        f"cannot attach to {wanted.name} ({'; '.join(refusals)})", _remedy(mode)
    )


def _why_refused(error: OSError) -> str:
    return {
        errno.EBUSY: "another program is there",
        errno.EEXIST: "a program runs there in the other mode",
        errno.EOPNOTSUPP: "the driver has no XDP",
        errno.EINVAL: "the driver refuses, as for a large MTU or too few queues",
        errno.ERANGE: "the MTU is too large for one buffer",
        errno.EPERM: "not permitted",
    }.get(error.errno or 0, error.strerror or str(error))


def _remedy(mode: str) -> str:
    return "try --mode generic" if mode == "native" else "`ebpftop doctor` names what is missing"


def detach(instance: Instance, interface: str) -> None:
    """Take one interface out; with the last one, everything of ours goes.

    Args:
        instance: Open at least as far as its `meta`; the writer's lock is held.
        interface: The name it has now.

    Raises:
        NotFoundError: It is not one of the instance's.
        KernelRefusedError: The bpffs is read-only; nothing has changed.
    """
    if not os.access(instance.folder, os.W_OK):
        raise KernelRefusedError(f"cannot write to {instance.folder}", REMOUNT)
    with netlink() as socket:
        index = socket.link(interface).index
    if all(attachment.index != index for attachment in instance.meta.attachments):
        raise NotFoundError(f"{interface} is not attached", f"attached: {instance.describe()}")
    variants.restore(instance.folder)
    pipeline = instance.meta.pipeline.id
    # Somebody else may hold the link: removing the pin alone would not break it.
    libbpf.detach_xdp(pipeline, index)
    standing = {at for program, at in libbpf.linked_programs() if program == pipeline}
    staying = [a for a in instance.meta.attachments if a.index in standing]
    if staying:
        tc_hooks.clear_one(instance.folder, index)
        instance.write_meta(replace(instance.meta, attachments=staying))
        (instance.folder / f"link_{index}").unlink(missing_ok=True)
    else:
        instance.remove()
