# SPDX-License-Identifier: Apache-2.0
"""Compile, load and pin one C module with bcc: a script of its own, run as a child process.

It is run by the first interpreter that has bcc, which need not be the one ebpftop runs in,
so it imports bcc and the standard library only. Compiling costs about 110 MB that LLVM never
gives back; they leave with this process.

Standard input: one JSON object, `{"source": file name, "defines": {name: number},
"programs": [function, ...], "type": number of the program type, "pin": folder, "share": folder
or null}`. With `share`, maps that are pinned there are used and not made. Standard
output: one JSON object, either `{"maps": {name: {"key": [[field, offset, size], ...],
"value": [...]}}, "bcc": version}` or `{"error": ..., "log": ...}`. With `--probe` it only says
which bcc it found.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LOG_BYTES = 1 << 24
VERIFIER_STATS_ONLY = 4


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


def verifier_log(lib: Any, module: Any, program: bytes, kind: int) -> str:
    """Load once more for the verifier's own closing words, which bcc replaces by its own."""
    log = ctypes.create_string_buffer(LOG_BYTES)
    lib.bcc_func_load(
        module, kind, program, lib.bpf_function_start(module, program),
        lib.bpf_function_size(module, program), lib.bpf_module_license(module),
        lib.bpf_module_kern_version(module), VERIFIER_STATS_ONLY, log, LOG_BYTES, None,
        ctypes.c_uint(-1).value,
    )  # fmt: skip
    return "\n".join(log.value.decode(errors="replace").splitlines()[-12:])


def compile_and_pin(request: dict[str, Any]) -> dict[str, Any]:
    """Do what the module's page says."""
    os.environ["BCC_KERNEL_SOURCE"] = str(HERE)
    import bcc
    from bcc.libbcc import lib

    multiarch = sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu"
    cflags = [f"-D{name}={value}" for name, value in request["defines"].items()]
    shared = request["share"]
    if shared is not None:
        cflags.append(f'-DSHARED_PINS="{shared}"')
    cflags += ["-idirafter/usr/include", f"-idirafter/usr/include/{multiarch}"]
    try:
        module = bcc.BPF(text=expanded(request["source"]), cflags=cflags)
    except Exception as error:
        return {"error": str(error), "log": ""}
    pins = {}
    for name in request["programs"]:
        try:
            pins[f"prog_{name}"] = module.load_func(name, request["type"]).fd
        except Exception as error:
            return {
                "error": str(error),
                "log": verifier_log(lib, module.module, name.encode(), request["type"]),
            }
    maps = {}
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    for index in range(lib.bpf_num_tables(module.module)):
        name = lib.bpf_table_name(module.module, index).decode()
        table = module[name]
        # Of a per-CPU table, Leaf is an array with a value for each CPU.
        one_cpu = getattr(table, "sLeaf", table.Leaf)
        maps[name] = {"key": fields(table.Key), "value": fields(one_cpu)}
        if shared is None or not Path(shared, name).exists():
            pins[name] = lib.bpf_table_fd(module.module, name.encode())
    for name, fd in pins.items():
        if lib.bpf_obj_pin(fd, str(Path(request["pin"]) / name).encode()) != 0:
            return {"error": f"pin {name}: {os.strerror(ctypes.get_errno())}", "log": ""}
    return {"maps": maps, "bcc": bcc.__version__}


def main() -> None:
    """Answer one request."""
    if sys.argv[1:] == ["--probe"]:
        import bcc

        # The library of the same name on PyPI has no such thing.
        print(json.dumps({"bcc": bcc.__version__, "BPF": bcc.BPF.__name__}))
        return
    answer = compile_and_pin(json.load(sys.stdin))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
