# SPDX-License-Identifier: Apache-2.0
"""Compile one C module with bcc: a script of its own, run as a child process.

It is run by the first interpreter that has bcc, which need not be the one ebpftop runs in,
so it imports bcc and the standard library only. Compiling costs about 110 MB that LLVM never
gives back; they leave with this process.

Standard input: one JSON object, `{"source": file name, "defines": {name: number},
"programs": [function, ...]}`. Standard output: one JSON object, either what `kernel.compiled`
describes or `{"error": ...}`. Nothing is loaded here: bcc makes the maps to compile against
them, and they go with this process. With `--probe` it only says which bcc it found.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import re
import struct
import sys
import sysconfig
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOOL = re.compile(r"/\S*/lib(bcc|clang|LLVM)[^/\s]*$", re.MULTILINE)
"""Libraries that the programs depend on, in a process's list of what it has mapped."""
HEADERS = "/usr/include/linux/version.h"
"""It is replaced with every other header of the C library's package."""

INSTRUCTION = struct.Struct("=BBhi")
LOAD_MAP = 0x18, 1
"""Operation and source register of a BPF_LD_IMM64 whose number is a map's descriptor."""


class MapInfo(ctypes.Structure):
    """`struct bpf_map_info` of linux/bpf.h, as far as it is read."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_bytes", ctypes.c_uint32),
        ("value_bytes", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("_to_btf", ctypes.c_uint8 * 40),
        ("btf_id", ctypes.c_uint32),
        ("btf_key", ctypes.c_uint32),
        ("btf_value", ctypes.c_uint32),
    )


class BtfInfo(ctypes.Structure):
    """`struct bpf_btf_info` of linux/bpf.h, as far as it is read."""

    _fields_ = (("btf", ctypes.c_uint64), ("btf_bytes", ctypes.c_uint32), ("id", ctypes.c_uint32))


def expanded(name: str) -> str:
    """Return a source with our own headers written into it.

    bcc rewrites `map.lookup(...)` in the main file alone, not in what that includes.
    """
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((HERE / name).read_text().splitlines(), 1):
        include = re.fullmatch(r'#include "([\w.]+)"', line)
        if include:
            lines += [expanded(include[1]), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines)


def fields(kind: Any, name: str = "", offset: int = 0) -> list[list[Any]]:
    """Return every scalar of a ctypes type as [dotted name, offset, size].

    Of an array of structures it is the array, and then every part of its first one.
    """
    found = []
    if not hasattr(kind, "_fields_"):
        found = [[name, offset, ctypes.sizeof(kind)]]
        kind, name = getattr(kind, "_type_", None), f"{name}[]"
        if not hasattr(kind, "_fields_"):
            return found
    for field, inner, *_ in kind._fields_:
        at = offset + getattr(kind, field).offset
        found += fields(inner, f"{name}.{field}" if name else field, at)
    return found


def object_info(lib: Any, fd: int, info: Any) -> Any:
    """Fill `info` with what the kernel says of the object behind `fd`."""
    size = ctypes.c_uint32(ctypes.sizeof(info))
    if lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)) != 0:
        raise OSError(ctypes.get_errno(), "bpf_obj_get_info_by_fd")
    return info


def btf(lib: Any, number: int) -> bytes:
    """Return the type information that bcc has loaded under `number`; empty for none."""
    fd = lib.bpf_btf_get_fd_by_id(number) if number else -1
    if fd < 0:
        return b""
    room = ctypes.create_string_buffer(object_info(lib, fd, BtfInfo()).btf_bytes)
    object_info(lib, fd, BtfInfo(ctypes.addressof(room), len(room)))
    return room.raw


def relocatable(code: bytes, names: dict[int, str]) -> dict[str, Any]:
    """Return a program with its maps by name in the place of their descriptors."""
    cleared, maps = bytearray(code), []
    for number in range(len(code) // INSTRUCTION.size):
        at = number * INSTRUCTION.size
        operation, registers, offset, fd = INSTRUCTION.unpack_from(code, at)
        if (operation, registers >> 4) == LOAD_MAP:
            INSTRUCTION.pack_into(cleared, at, operation, registers, offset, 0)
            maps.append([number, names[fd]])
    return {"code": base64.b64encode(cleared).decode(), "maps": maps}


def tools(*files: str) -> list[list[Any]]:
    """Return path, size and time of change of what this compiler is made of."""
    mapped = {found[0] for found in TOOL.finditer(Path("/proc/self/maps").read_text())}
    found = [(path, os.stat(path)) for path in sorted(mapped | {HEADERS, *files})]
    return [[path, status.st_size, status.st_mtime_ns] for path, status in found]


def compiled(request: dict[str, Any]) -> dict[str, Any]:
    """Do what the module's page says."""
    os.environ["BCC_KERNEL_SOURCE"] = str(HERE)
    import bcc
    from bcc.libbcc import lib

    multiarch = sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu"
    cflags = [f"-D{name}={value}" for name, value in request["defines"].items()]
    cflags += ["-idirafter/usr/include", f"-idirafter/usr/include/{multiarch}"]
    try:
        module = bcc.BPF(text=expanded(request["source"]), cflags=cflags)
    except Exception as error:
        return {"error": str(error)}
    maps, names, types = {}, {}, 0
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    for index in range(lib.bpf_num_tables(module.module)):
        name = lib.bpf_table_name(module.module, index).decode()
        table = module[name]
        fd = lib.bpf_table_fd(module.module, name.encode())
        names[fd], info = name, object_info(lib, fd, MapInfo())
        types = types or info.btf_id
        # Of a per-CPU table, Leaf is an array with a value for each CPU.
        one_cpu = getattr(table, "sLeaf", table.Leaf)
        maps[name] = {"key": fields(table.Key), "value": fields(one_cpu)} | {
            field: getattr(info, field)
            for field in ("type", "key_bytes", "value_bytes", "max_entries", "flags",
                          "btf_key", "btf_value")
        }  # fmt: skip
    programs = {}
    for name in request["programs"]:
        start = lib.bpf_function_start(module.module, name.encode())
        size = lib.bpf_function_size(module.module, name.encode())
        programs[name] = relocatable(ctypes.string_at(start, size), names)
    return {
        "maps": maps,
        "programs": programs,
        "license": lib.bpf_module_license(module.module).decode(),
        "btf": base64.b64encode(btf(lib, types)).decode(),
        "tools": tools(bcc.__file__, sys.modules["bcc.version"].__file__ or bcc.__file__),
    }


def main() -> None:
    """Answer one request."""
    if sys.argv[1:] == ["--probe"]:
        import bcc

        # The library of the same name on PyPI has no such thing.
        print(json.dumps({"bcc": bcc.__version__, "BPF": bcc.BPF.__name__}))
        return
    print(json.dumps(compiled(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
