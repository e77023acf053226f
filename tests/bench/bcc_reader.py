# SPDX-License-Identifier: Apache-2.0
"""Read the table of sources as a tool on bcc would: `bcc_reader.py PIN CAPACITY BYTES ROUNDS`.

Stands alone, under the Python that has bcc. Prints the milliseconds of each way as JSON.
"""

import json
import os
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

HEADERS = Path(__file__).resolve().parents[2] / "ebpftop" / "bpf"
"""The few headers that bcc asks for, so that it needs no kernel headers."""


def main() -> None:
    """Open the pinned map and read it."""
    os.environ["BCC_KERNEL_SOURCE"] = str(HEADERS)
    from bcc import BPF

    path, capacity, value_bytes, rounds = sys.argv[1], *map(int, sys.argv[2:])
    program = f"""
    struct key {{ unsigned long long high, low; }};
    struct row {{ unsigned long long word[{value_bytes // 8}]; }};
    BPF_TABLE_PINNED("lru_hash", struct key, struct row, pinned, {capacity}, "{path}");
    """
    multiarch = sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu"
    include = ["-idirafter/usr/include", f"-idirafter/usr/include/{multiarch}"]
    table = BPF(text=program, cflags=include)["pinned"]
    ways = {
        "items()": lambda: list(table.items()),
        "batch": lambda: list(table.items_lookup_batch()),
    }
    print(json.dumps({name: _milliseconds(read, rounds) for name, read in ways.items()}))


def _milliseconds(read: Callable[[], object], rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        read()
        taken.append((time.perf_counter() - started_s) * 1e3)
    return taken


if __name__ == "__main__":
    main()
