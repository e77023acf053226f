# SPDX-License-Identifier: Apache-2.0
"""One attached instance: its folder on the bpffs, its maps, its links.

A folder is named after the network namespace and the first interface's number, since one
name can exist in several namespaces. Links are held by file descriptor (they vanish with
the process, SIGKILL included) or pinned. An instance without a live link is stale.
"""

from __future__ import annotations

import errno
import grp
import itertools
import os
import zlib
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ebpftop import __version__
from ebpftop.bpf import layout, shaper_layout
from ebpftop.errors import (
    EbpftopError,
    KernelRefusedError,
    NotAttachedError,
    NotPermittedError,
)
from ebpftop.kernel import bpffs, libbpf, tc_hooks, variants
from ebpftop.kernel.maps import Map
from ebpftop.kernel.netlink.links import Link, netlink

PIPELINE = "xdp_pipeline"

META_READINGS = 100
"""How often `meta` is read again while another process writes it."""

MAPS = {**layout.MAPS, **shaper_layout.MAPS}
"""Every map of an instance."""
PROGRAMS = (*layout.PROGRAMS, *shaper_layout.PROGRAMS)
"""Every program of an instance."""


def fingerprint() -> str:
    """Return a short hash of the layout of all maps."""
    return layout.fingerprint(MAPS)


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface that the pipeline is attached to."""

    name: str
    """Its name when it was attached."""
    index: int
    """Its number."""
    mode: str
    """`native` or `generic`."""


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """A program as its loader saw it."""

    name: str
    """Its name in the kernel."""
    id: int
    """Its number in the kernel."""
    tag: str
    """Hash of its instructions."""
    verified_insns: int
    """Instructions the verifier walked."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What the `meta` map says: all that a reader cannot find out by itself."""

    version: str
    """Version of ebpftop that attached it."""
    layout: str
    """`layout.fingerprint()` of that version."""
    namespace: int
    """Inode of the network namespace."""
    attached_s: float
    """Seconds since 1970 when it was attached."""
    attachments: Sequence[Attachment]
    """The interfaces."""
    programs: Sequence[LoadedProgram]
    """The programs."""
    policy: str = ""
    """Path of the policy file it was attached with; empty for none."""
    audit: str = ""
    """Path of the audit log; empty for the default."""
    trace: int = 0
    """Number of the program that last stood in for the pipeline, for a trace; 0: none did."""

    @property
    def pipeline(self) -> LoadedProgram:
        """The program on the interfaces."""
        return next(p for p in self.programs if p.name == PIPELINE)

    @property
    def hooked(self) -> frozenset[int]:
        """Numbers of the programs that may be on the interfaces."""
        return frozenset({self.pipeline.id, self.trace} - {0})


def network_namespace() -> int:
    """Return the inode of this process's network namespace."""
    return os.stat("/proc/self/ns/net").st_ino


class Instance:
    """An open instance.

    Args:
        folder: Where it is pinned.
        read_only: Open every map so that the kernel refuses writes, and no program at all.
        meta: Store this first, as who makes the instance does; what is stored is read without it.
        whole: Open everything; without it `meta` alone, which needs no more than the same layout
            of that one map.
    """

    def __init__(
        self, folder: Path, *, read_only: bool, meta: Meta | None = None, whole: bool = True
    ) -> None:
        self.folder = folder
        self.read_only = read_only
        self.maps: dict[str, Map] = {}
        self.programs: dict[str, int] = {}
        self.links: dict[int, int] = {}
        """File descriptors of links that this process holds, by interface number."""
        self.tc_links: dict[Path, int] = {}
        """The same of the shaper's links, by where they are pinned if they are."""
        try:
            self._open_map("meta")
            if meta is None:
                self.meta = self._read_meta()
            else:
                self.write_meta(meta)
            if whole:
                self._open_rest()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """Name of its folder and of its locks."""
        return self.folder.name

    @property
    def key(self) -> str:
        """What tells it from every other instance there ever was, for the audit log."""
        return f"{self.name}@{round(self.meta.attached_s * 1000)}"

    def _open_map(self, name: str) -> None:
        fd = libbpf.open_pin(self.folder / name, read_only=self.read_only)
        self.maps[name] = Map(fd, *MAPS[name])

    def _open_rest(self) -> None:
        if self.meta.layout != fingerprint():
            raise KernelRefusedError(
                f"{self.describe()} was attached by ebpftop {self.meta.version}, "
                f"whose maps differ from those of {__version__}",
                "use that version, or `ebpftop detach` and attach again",
            )
        for name in MAPS:
            if name not in self.maps:
                self._open_map(name)
        if not self.read_only:
            for name in PROGRAMS:
                self.programs[name] = libbpf.open_pin(self.folder / f"prog_{name}")

    def _read_meta(self) -> Meta:
        record = self.maps["meta"].get(0)
        text = bytes(record["json"][0])[: int(record["length"][0])] if record is not None else b""
        if record is None or not text or zlib.crc32(text) != int(record["crc32"][0]):
            raise KernelRefusedError(f"{self.folder} is being attached", "try again in a second")
        try:
            return msgspec.json.decode(text, type=Meta)
        except msgspec.ValidationError as error:
            raise KernelRefusedError(
                f"{self.folder} was attached by another version of ebpftop", "use that version"
            ) from error

    def read_meta_again(self) -> None:
        """Bring `meta` up to date, which a detach or a trace elsewhere changes.

        Raises:
            KernelRefusedError: It kept changing while it was read.
        """
        for _ in range(META_READINGS):
            with suppress(KernelRefusedError):
                self.meta = self._read_meta()
                return
        self.meta = self._read_meta()

    def write_meta(self, meta: Meta) -> None:
        """Store what readers need to know."""
        self.meta = meta
        text = msgspec.json.encode(meta)
        if len(text) > layout.META_BYTES:
            raise KernelRefusedError("too many interfaces for one instance", "attach fewer")
        record = np.zeros(1, layout.META)
        record["length"], record["crc32"] = len(text), zlib.crc32(text)
        record["json"] = np.void(text.ljust(layout.META_BYTES, b"\0"))
        self.maps["meta"].put(0, record)

    def describe(self) -> str:
        """Name its interfaces, for messages."""
        return ", ".join(a.name for a in self.meta.attachments) or self.name

    def is_live(self) -> bool:
        """Whether one of its links still stands."""
        if os.geteuid() == 0:
            return bool(linked_interfaces(self.folder))
        self.read_meta_again()
        with netlink() as socket:
            return any(link.xdp_program in self.meta.hooked for link in socket.links())

    def pin_links(self) -> None:
        """Let the links outlive this process."""
        for index, fd in self.links.items():
            libbpf.pin(fd, self.folder / f"link_{index}")
        for path, fd in self.tc_links.items():
            if not path.exists():
                libbpf.pin(fd, path)

    def close_tc_link(self, pin: Path) -> None:
        """Give back the link that is pinned there, or would be, if this process holds it."""
        fd = self.tc_links.pop(pin, None)
        if fd is not None:
            os.close(fd)

    @property
    def outlives_us(self) -> bool:
        """Whether what is attached stays when this process ends."""
        return not self.links or any(self.folder.glob("link_*"))

    def close(self) -> None:
        """Give back every file descriptor; links that are not pinned go away with that."""
        for fd in (*self.links.values(), *self.tc_links.values(), *self.programs.values()):
            os.close(fd)
        for opened in self.maps.values():
            opened.close()
        self.links, self.programs, self.maps = {}, {}, {}
        self.tc_links = {}

    def remove(self) -> None:
        """Close it and take away everything of ours; call it under the writer's lock."""
        self.close()
        # After a detach elsewhere the folder may be that of the next instance.
        if _program_id(self.folder / f"prog_{PIPELINE}") in (0, self.meta.pipeline.id):
            tc_hooks.clear_folder(self.folder, same_namespace=_is_of_this_namespace(self.folder))
            bpffs.remove(self.name)


def sweep_stale() -> None:
    """Remove instances whose links are gone, as after a dashboard was killed. Root only."""
    if os.geteuid() != 0:
        return
    for name in bpffs.names():
        with bpffs.locked(name, wait=False) as ours:
            folder = bpffs.BPFFS / name
            if ours and _is_stale(folder) and not _is_anothers_duty(folder):
                tc_hooks.clear_folder(folder, same_namespace=_is_of_this_namespace(folder))
                bpffs.remove(name)
            elif ours:
                variants.restore_abandoned(folder)
    with suppress(OSError):
        tc_hooks.sweep_orphans(filter(_is_of_this_namespace, bpffs.folders()))


def _is_of_this_namespace(folder: Path) -> bool:
    return folder.name.startswith(f"{network_namespace()}-")


def _is_anothers_duty(folder: Path) -> bool:
    """Whether a stale instance has left queues where only a process of another namespace can go."""
    inode = folder.name.partition("-")[0]
    if _is_of_this_namespace(folder) or not tc_hooks.has_leftovers(folder):
        return False
    paths = itertools.chain(Path("/proc").glob("[0-9]*/ns/net"), Path("/run/netns").glob("*"))
    for path in paths:
        with suppress(OSError):
            if str(path.stat().st_ino) == inode:
                return True
    return False


def _is_stale(folder: Path) -> bool:
    """Whether no link of an instance stands; ask under its lock, or it is being attached."""
    if not folder.exists():
        return False
    try:
        return not linked_interfaces(folder)
    except PermissionError:
        return False


def linked_interfaces(folder: Path) -> set[int]:
    """Return the interfaces that an instance's pipeline, or its trace, is on. Root only."""
    ours = {_program_id(folder / f"prog_{PIPELINE}"), variants.number(folder)} - {0}
    return {index for program, index in libbpf.linked_programs() if program in ours}


def _program_id(pin: Path) -> int:
    """Return the number of the program that is pinned there, 0 for none."""
    try:
        fd = libbpf.open_pin(pin)
    except OSError:
        return 0
    try:
        return libbpf.program_info(fd).id
    finally:
        os.close(fd)


def find(interface: str, *, read_only: bool, whole: bool = True) -> Instance:
    """Open the instance that is attached to `interface` in this network namespace.

    Raises:
        NotFoundError: There is no such interface.
        NotAttachedError: Nothing of ours is attached there.
        NotPermittedError: It is there, and closed to this user.
        KernelRefusedError: It was attached by a version with another layout and `whole` is asked
            for, or the kernel refused.
    """
    sweep_stale()
    with netlink() as socket:
        link = socket.link(interface)
    obstacle: EbpftopError = NotAttachedError(
        f"ebpftop is not attached to {interface}", f"sudo ebpftop attach {interface}"
    )
    for folder in bpffs.folders() if link.xdp_program else []:
        if not folder.name.startswith(f"{network_namespace()}-"):
            continue
        try:
            instance = Instance(folder, read_only=True, whole=False)
            with closing(instance):
                if _is_on(instance, link):
                    return Instance(folder, read_only=read_only, whole=whole)
        except FileNotFoundError:
            continue  # it was detached just now
        except PermissionError:
            obstacle = _closed(interface, folder)
        except KernelRefusedError as error:
            obstacle = error
        except OSError as error:
            raise describe_failure(error) from error
    raise obstacle


def _is_on(instance: Instance, link: Link) -> bool:
    on_it = any(attachment.index == link.index for attachment in instance.meta.attachments)
    return on_it and link.xdp_program in instance.meta.hooked


def _closed(interface: str, folder: Path) -> NotPermittedError:
    gid = folder.stat().st_gid
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    who = f"be a member of group {group}, or use sudo" if gid else "use sudo"
    return NotPermittedError(f"what is attached to {interface} is closed to you", who)


def describe_failure(error: OSError) -> EbpftopError:
    """Turn a refusal of the kernel that nobody expected into an error for the user."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return NotPermittedError(f"the kernel refused ({error.strerror})", "run it with sudo")
    return KernelRefusedError(f"the kernel refused: {error.strerror}", "`ebpftop doctor` may know")
