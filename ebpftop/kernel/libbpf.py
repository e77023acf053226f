# SPDX-License-Identifier: Apache-2.0
"""ctypes over libbpf.so.1: maps read into numpy, pins, links, test runs, program info.

Whatever the kernel refuses is an `OSError` with its errno; who calls knows what it means.
Structures follow `linux/bpf.h` and libbpf 1.0's `bpf.h`.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ebpftop.errors import KernelRefusedError

BPF_F_RDONLY = 8
BPF_XDP = 37
BPF_TCX = (46, 47)
"""Attach types of TCX, ingress and egress; since Linux 6.6."""
BPF_F_BEFORE = 8
XDP_FLAGS_SKB_MODE = 2
XDP_FLAGS_DRV_MODE = 4
LINK_TYPE_XDP = 6
LINK_TYPE_TCX = 11


@cache
def library() -> ct.CDLL:
    """Return libbpf, loaded once.

    Raises:
        KernelRefusedError: It is not installed.
    """
    try:
        return ct.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise KernelRefusedError(
            "libbpf.so.1 is not installed", "apt-get install libbpf1"
        ) from error


def call(function: str, *arguments: Any) -> int:
    """Call a libbpf function that answers -1 or -errno when it fails."""
    answer: int = getattr(library(), function)(*arguments)
    if answer < 0:
        number = ct.get_errno() or -answer
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return answer


@cache
def possible_cpus() -> int:
    """Return how many values a per-CPU entry has."""
    return call("libbpf_num_possible_cpus")


class _ObjGetOptions(ct.Structure):
    _fields_ = (("sz", ct.c_size_t), ("file_flags", ct.c_uint32))


class _LinkCreateOptions(ct.Structure):
    _fields_ = (("sz", ct.c_size_t), ("flags", ct.c_uint32))


class _TestRunOptions(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("data_in", ct.c_char_p),
        ("data_out", ct.c_void_p),
        ("data_size_in", ct.c_uint32),
        ("data_size_out", ct.c_uint32),
        ("ctx_in", ct.c_void_p),
        ("ctx_out", ct.c_void_p),
        ("ctx_size_in", ct.c_uint32),
        ("ctx_size_out", ct.c_uint32),
        ("retval", ct.c_uint32),
        ("repeat", ct.c_int),
        ("duration", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("cpu", ct.c_uint32),
        ("batch_size", ct.c_uint32),
    )


class ProgramRecord(ct.Structure):
    """`struct bpf_prog_info` of linux/bpf.h, as far as it is read here."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("tag", ct.c_uint8 * 8),
        ("jited_bytes", ct.c_uint32),
        ("translated_bytes", ct.c_uint32),
        ("jited_at", ct.c_uint64),
        ("translated_at", ct.c_uint64),
        ("_to_name", ct.c_uint8 * 24),
        ("name", ct.c_char * 16),
        ("_to_run_time", ct.c_uint8 * 112),
        ("run_ns", ct.c_uint64),
        ("run_count", ct.c_uint64),
        ("recursion_misses", ct.c_uint64),
        ("verified_insns", ct.c_uint32),
    )


class _LinkInfo(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("program_id", ct.c_uint32),
        ("_pad", ct.c_uint32),
        ("ifindex", ct.c_uint32),
        ("_rest", ct.c_uint8 * 28),
    )


def object_info(fd: int, kind: type[Any], **room: int) -> Any:
    """Fill a structure of `kind` with what the kernel says of the object behind `fd`.

    Args:
        fd: The object.
        kind: The structure.
        room: Fields that say where there is room for more, and how much.
    """
    info, size = kind(**room), ct.c_uint32(ct.sizeof(kind))
    call("bpf_obj_get_info_by_fd", fd, ct.byref(info), ct.byref(size))
    return info


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel says of a loaded program."""

    id: int
    """Its number."""
    name: str
    """Its name, at most 15 characters."""
    tag: str
    """Hash of its instructions, in hex."""
    translated_bytes: int
    """Size after the verifier."""
    jited_bytes: int
    """Size as machine code."""
    run_ns: int
    """Time of its runs while statistics were on."""
    run_count: int
    """Runs while statistics were on."""
    verified_insns: int
    """Instructions the verifier walked; 0 before Linux 5.16."""


def program_info(fd: int) -> ProgramInfo:
    """Describe the program behind `fd`."""
    info = object_info(fd, ProgramRecord)
    return ProgramInfo(
        info.id, info.name.decode(errors="replace"), bytes(info.tag).hex(), info.translated_bytes,
        info.jited_bytes, info.run_ns, info.run_count, info.verified_insns,
    )  # fmt: skip


def program_fd(program_id: int) -> int:
    """Open a program by its number; needs CAP_SYS_ADMIN."""
    return call("bpf_prog_get_fd_by_id", program_id)


def open_pin(path: Path, *, read_only: bool = False) -> int:
    """Open what is pinned at `path`; `read_only` makes the kernel refuse every update."""
    options = _ObjGetOptions(ct.sizeof(_ObjGetOptions), BPF_F_RDONLY if read_only else 0)
    return call("bpf_obj_get_opts", os.fsencode(path), ct.byref(options))


def pin(fd: int, path: Path) -> None:
    """Keep the object behind `fd` under `path`, on a bpffs."""
    call("bpf_obj_pin", fd, os.fsencode(path))


def attach_xdp(program: int, ifindex: int, *, native: bool) -> int:
    """Attach by a link, which goes away with its last file descriptor or pin; return its fd."""
    flags = XDP_FLAGS_DRV_MODE if native else XDP_FLAGS_SKB_MODE
    options = _LinkCreateOptions(ct.sizeof(_LinkCreateOptions), flags)
    return call("bpf_link_create", program, ifindex, BPF_XDP, ct.byref(options))


def attach_tcx(program: int, ifindex: int, *, egress: bool) -> int:
    """Attach to TCX in front of what is there, as `attach_xdp` does."""
    options = _LinkCreateOptions(ct.sizeof(_LinkCreateOptions), BPF_F_BEFORE)
    return call("bpf_link_create", program, ifindex, BPF_TCX[egress], ct.byref(options))


def detach_tcx(program_id: int, ifindex: int | None = None) -> None:
    """Break the TCX links of a program, whoever holds them, to one interface or to all."""
    for fd, program, index in _links(LINK_TYPE_TCX):
        if program == program_id and ifindex in (None, index):
            call("bpf_link_detach", fd)


def _links(kind: int) -> Iterator[tuple[int, int, int]]:
    """Yield (fd, program id, interface index) of every live link; needs CAP_SYS_ADMIN."""
    link_id = ct.c_uint32(0)
    while True:
        try:
            call("bpf_link_get_next_id", link_id, ct.byref(link_id))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        try:
            fd = call("bpf_link_get_fd_by_id", link_id)
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            raise
        try:
            info = object_info(fd, _LinkInfo)
            if info.type == kind and info.ifindex:
                yield fd, info.program_id, info.ifindex
        finally:
            os.close(fd)


def linked_programs() -> list[tuple[int, int]]:
    """Return (program id, interface index) of every live XDP link, in all network namespaces.

    Needs CAP_SYS_ADMIN.
    """
    return [(program, index) for _, program, index in _links(LINK_TYPE_XDP)]


def detach_xdp(program_id: int, ifindex: int) -> bool:
    """Break the link of a program to an interface, whoever holds it; False where there is none."""
    for fd, program, index in _links(LINK_TYPE_XDP):
        if (program, index) == (program_id, ifindex):
            call("bpf_link_detach", fd)
            return True
    return False


def run_program(
    program: int, packet: bytes, *, repeat: int = 1, context: bytes | None = None
) -> tuple[int, bytes, int]:
    """Run a program on a packet.

    Returns:
        Its return value, the packet after it, and the mean time of a run in whole nanoseconds.
    """
    room = ct.create_string_buffer(len(packet) + 256)
    options = _TestRunOptions(ct.sizeof(_TestRunOptions))
    options.data_in, options.data_size_in = packet, len(packet)
    options.data_out, options.data_size_out = ct.addressof(room), len(room)
    options.repeat = repeat
    if context is not None:
        options.ctx_in = ct.cast(ct.c_char_p(context), ct.c_void_p)
        options.ctx_size_in = len(context)
    call("bpf_prog_test_run_opts", program, ct.byref(options))
    return options.retval, room.raw[: options.data_size_out], options.duration


def run_with_context(program: int, packet: bytes, context: bytes) -> tuple[int, bytes, bytes]:
    """Run a program once on a packet and its context (`struct __sk_buff`, `struct xdp_md`).

    Returns:
        Its return value, and the packet and the context after it.
    """
    room = ct.create_string_buffer(len(packet) + 256)
    inner, outer = ct.create_string_buffer(context), ct.create_string_buffer(len(context))
    options = _TestRunOptions(ct.sizeof(_TestRunOptions))
    options.data_in, options.data_size_in = packet, len(packet)
    options.data_out, options.data_size_out = ct.addressof(room), len(room)
    options.ctx_in, options.ctx_size_in = ct.addressof(inner), len(context)
    options.ctx_out, options.ctx_size_out = ct.addressof(outer), len(context)
    options.repeat = 1
    call("bpf_prog_test_run_opts", program, ct.byref(options))
    return options.retval, room.raw[: options.data_size_out], outer.raw[: options.ctx_size_out]
