# SPDX-License-Identifier: Apache-2.0
"""Compiled programs and their maps: made in the kernel, whoever compiled them and when.

`bpf/compile.py` writes this form. A program names its maps, so that it can be loaded again.
"""

from __future__ import annotations

import ctypes as ct
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ebpftop.errors import KernelRefusedError
from ebpftop.kernel import libbpf
from ebpftop.kernel.libbpf import call, object_info
from ebpftop.kernel.maps import MapInfo

INSTRUCTION_BYTES = 8
_OPERAND_AT = 4
"""Where an instruction holds its number."""
_LOG_BYTES = 1 << 24
_LOG_STATS = 4
_CLOSING_LINES = 12


@dataclass(frozen=True, slots=True)
class CompiledMap:
    """How a map is to be made."""

    type: int
    """`enum bpf_map_type`."""
    key_bytes: int
    """Size of a key."""
    value_bytes: int
    """Size of a value; of a per-CPU map, of one CPU's."""
    max_entries: int
    """Its capacity."""
    flags: int
    """`BPF_F_...` that it is made with."""
    btf_key: int
    """Number of the key's type in `Compiled.btf`; 0 for none."""
    btf_value: int
    """Number of the value's."""
    key: list[tuple[str, int, int]]
    """Fields as (name, offset, size), for `layout.check`."""
    value: list[tuple[str, int, int]]
    """The value's."""


@dataclass(frozen=True, slots=True)
class CompiledProgram:
    """One function."""

    code: bytes
    """Instructions, 0 where a map's descriptor belongs."""
    maps: list[tuple[int, str]]
    """Number of each instruction that takes a map's descriptor, and which map's."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One module."""

    maps: dict[str, CompiledMap]
    """Its maps, by name."""
    programs: dict[str, CompiledProgram]
    """Its functions, by name."""
    license: str
    """What the kernel is told; some of its functions ask for the GPL."""
    btf: bytes
    """Types of keys and values in the kernel's own form; empty where it knows none."""
    tools: list[tuple[str, int, int]]
    """Path, size and time of change (ns) of what it was compiled by."""


class _MapOptions(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("btf_fd", ct.c_uint32),
        ("btf_key", ct.c_uint32),
        ("btf_value", ct.c_uint32),
        ("btf_vmlinux_value", ct.c_uint32),
        ("inner_map_fd", ct.c_uint32),
        ("flags", ct.c_uint32),
    )


class _ProgramOptions(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("_to_log", ct.c_uint8 * 80),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log", ct.c_void_p),
    )


class RefusedProgramError(OSError):
    """The verifier's closing words, which `OSError` has no place for."""

    def __init__(self, error: OSError, log: str) -> None:
        super().__init__(error.errno, error.strerror)
        self.log = log
        """At most its last lines."""


def load(compiled: Compiled, program_type: int, folder: Path, share: Path | None = None) -> None:
    """Make the maps, load the programs and pin both.

    Args:
        compiled: What to load.
        program_type: What it is loaded as (`enum bpf_prog_type`).
        folder: On a bpffs; a program's pin is `prog_` and its name.
        share: Another folder; maps that are pinned there are used and not made.

    Raises:
        KernelRefusedError: A shared map was made in another way.
        OSError: The kernel refused; `RefusedProgramError` where the verifier did.
    """
    opened: list[int] = []
    try:
        btf = _load_btf(compiled.btf)
        opened += [btf] if btf else []
        maps, shared = {}, set()
        for name, wanted in compiled.maps.items():
            if share and (share / name).exists():
                maps[name] = libbpf.open_pin(share / name)
                shared.add(name)
            else:
                maps[name] = _create_map(name, wanted, btf)
            opened.append(maps[name])
        for name in shared:
            _check_shared(name, maps[name], compiled.maps[name])
        for name, program in compiled.programs.items():
            code = _with_maps(program, maps)
            fd = _load_program(name, code, program_type, compiled.license)
            opened.append(fd)
            libbpf.pin(fd, folder / f"prog_{name}")
        for name in maps.keys() - shared:
            libbpf.pin(maps[name], folder / name)
    finally:
        for fd in opened:
            os.close(fd)


def _load_btf(btf: bytes) -> int:
    """Load types; 0 where there are none or this kernel takes them not, which nothing needs."""
    try:
        return call("bpf_btf_load", btf, ct.c_size_t(len(btf)), None) if btf else 0
    except OSError:
        return 0


def _create_map(name: str, wanted: CompiledMap, btf: int) -> int:
    options = _MapOptions(ct.sizeof(_MapOptions), flags=wanted.flags)
    if btf and wanted.btf_value:
        options.btf_fd = btf
        options.btf_key, options.btf_value = wanted.btf_key, wanted.btf_value
    return call(
        "bpf_map_create", wanted.type, name.encode(), wanted.key_bytes, wanted.value_bytes,
        wanted.max_entries, ct.byref(options),
    )  # fmt: skip


def _check_shared(name: str, fd: int, wanted: CompiledMap) -> None:
    found = object_info(fd, MapInfo)
    for field in ("type", "key_bytes", "value_bytes", "max_entries"):
        if getattr(found, field) != getattr(wanted, field):
            raise KernelRefusedError(
                f"map {name} has {field} {getattr(found, field)} and not {getattr(wanted, field)}",
                "it was attached by another version of ebpftop: use that, or attach anew",
            )


def _with_maps(program: CompiledProgram, maps: Mapping[str, int]) -> bytes:
    code = bytearray(program.code)
    for number, name in program.maps:
        struct.pack_into("=i", code, number * INSTRUCTION_BYTES + _OPERAND_AT, maps[name])
    return bytes(code)


def _load_program(name: str, code: bytes, program_type: int, license_name: str) -> int:
    options = _ProgramOptions(ct.sizeof(_ProgramOptions))
    arguments = (
        "bpf_prog_load", program_type, name.encode(), license_name.encode(), code,
        ct.c_size_t(len(code) // INSTRUCTION_BYTES), ct.byref(options),
    )  # fmt: skip
    try:
        return call(*arguments)
    except OSError as error:
        log = ct.create_string_buffer(_LOG_BYTES)
        options.log_level, options.log_size = _LOG_STATS, len(log)
        options.log = ct.addressof(log)
        try:
            return call(*arguments)
        except OSError:
            said = log.value.decode(errors="replace").splitlines()[-_CLOSING_LINES:]
            raise RefusedProgramError(error, "\n".join(said)) from None
