# SPDX-License-Identifier: Apache-2.0
"""Have the programs compiled, check what came of it against the layout, and load them.

Compiling is a child process's, and needed once: `compiled_cache` keeps what came of it. What is
kept is checked and verified at each load as what is new.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ebpftop.bpf import layout, shaper_layout, trace_layout
from ebpftop.errors import KernelRefusedError, NotPermittedError
from ebpftop.kernel import compiled, compiled_cache
from ebpftop.kernel.compiled import Compiled, RefusedProgramError

COMPILER = Path(layout.__file__).with_name("compile.py")
SYSTEM_PYTHON = "/usr/bin/python3"
COMPILE_TIMEOUT_S = 120

INSTALL_BCC = "apt-get install python3-bpfcc"
INSTALL_HEADERS = "apt-get install linux-libc-dev"


@dataclass(frozen=True, slots=True)
class Module:
    """One C source and what it makes."""

    source: str
    """Its file name."""
    programs: Sequence[str]
    """Its functions, as they are loaded."""
    program_type: int
    """What they are loaded as (`enum bpf_prog_type`)."""
    maps: layout.Maps
    """Keys and values of its maps."""
    defines: Mapping[str, int] = field(default_factory=dict)
    """What it is compiled with besides."""


PROTECTION = Module("xdp_pipeline.c", layout.PROGRAMS, 6, layout.MAPS)
SHAPER = Module("tc_traffic_shaper.c", shaper_layout.PROGRAMS, 3, shaper_layout.MAPS)
TRACE = Module(
    "xdp_pipeline.c", trace_layout.PROGRAMS, 6, {**layout.MAPS, **trace_layout.MAPS}, {"TRACE": 1}
)
"""The pipeline with a trace in it; it works on the maps of an instance."""
MODULES = (PROTECTION, SHAPER)
"""Everything that an instance is made of."""


def interpreter() -> str:
    """Return the first interpreter that may have bcc: this one where it has it, the system's else.

    The library called bcc on PyPI is another one; only the compiler's has a `libbcc`.
    """
    spec = importlib.util.find_spec("bcc")
    if spec and spec.origin and Path(spec.origin).with_name("libbcc.py").exists():
        return sys.executable
    return SYSTEM_PYTHON


def probe() -> str:
    """Return the version of bcc that `interpreter` finds.

    Raises:
        KernelRefusedError: It finds none.
    """
    answer = _run(["--probe"], "")
    return f"{answer['bcc']} by {interpreter()}"


def load(
    folder: Path,
    defines: Mapping[str, int],
    modules: Sequence[Module] = MODULES,
    share: Path | None = None,
) -> None:
    """Compile the sources or take what is kept of them, load programs and maps, pin them all.

    Each module is compiled by a child of its own, all at the same time.

    Args:
        folder: An empty folder on a bpffs.
        defines: Capacities and switches, by the names the C side gives them.
        modules: What to load.
        share: Another folder; maps that are pinned there are used and not made.

    Raises:
        KernelRefusedError: bcc or headers are missing, or the compiler, the verifier or the
            kernel refused; the message holds their own last words.
        NotPermittedError: This is not root, or one without the rights.
    """
    with ThreadPoolExecutor(len(modules)) as pool:
        for done in [pool.submit(_load, module, folder, defines, share) for module in modules]:
            done.result()


def _load(module: Module, folder: Path, defines: Mapping[str, int], share: Path | None) -> None:
    defines = {**defines, **module.defines}
    request = {"source": module.source, "defines": defines, "programs": module.programs}
    made = _compiled(json.dumps(request, sort_keys=True))
    layout.check(
        {name: {"key": each.key, "value": each.value} for name, each in made.maps.items()},
        module.maps,
    )
    try:
        compiled.load(made, module.program_type, folder, share)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise _not_permitted() from error
        log = error.log if isinstance(error, RefusedProgramError) else ""
        raise _refused(error.strerror or str(error), log) from error


def _compiled(request: str) -> Compiled:
    name = compiled_cache.key(request, interpreter())
    kept = compiled_cache.take(name)
    if kept is not None:
        return kept
    made = msgspec.convert(_run([], request), Compiled)
    compiled_cache.put(name, made)
    return made


def _run(arguments: list[str], request: str) -> dict[str, Any]:
    python = interpreter()
    try:
        child = subprocess.run(
            [python, "-I", str(COMPILER), *arguments],
            input=request,
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            check=False,
        )
    except FileNotFoundError as error:
        raise KernelRefusedError(f"there is no {python}", INSTALL_BCC) from error
    except subprocess.TimeoutExpired as error:
        raise KernelRefusedError(
            f"compiling took longer than {COMPILE_TIMEOUT_S} s", "is the machine overloaded?"
        ) from error
    return _answer(child, python)


def _answer(child: subprocess.CompletedProcess[str], python: str) -> dict[str, Any]:
    """Read the child's answer, or turn its last words into an error that says what to do."""
    words = child.stderr.strip()
    if "No module named 'bcc'" in words:
        raise KernelRefusedError(f"bcc is not installed for {python}", INSTALL_BCC)
    try:
        answer: dict[str, Any] = json.loads(child.stdout)
    except ValueError:
        last = words.splitlines()[-1] if words else f"exit status {child.returncode}"
        raise KernelRefusedError(f"the compiler's process failed: {last}", INSTALL_BCC) from None
    if "error" not in answer:
        return answer
    if "file not found" in words:
        missing = next(line for line in words.splitlines() if "file not found" in line)
        raise KernelRefusedError(missing.strip(), INSTALL_HEADERS)
    if "super-user" in answer["error"] or "Operation not permitted" in words:
        raise _not_permitted()
    raise _refused(answer["error"], words[-2000:])


def _refused(*words: str) -> KernelRefusedError:
    said = "\n".join(filter(None, words))
    return KernelRefusedError("the kernel did not take the programs", said)


def _not_permitted() -> NotPermittedError:
    remedy = "run it with sudo"
    if os.geteuid() == 0:
        remedy = "this root lacks CAP_BPF or CAP_NET_ADMIN; run outside the container"
    return NotPermittedError("loading programs needs root", remedy)
