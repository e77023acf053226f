# SPDX-License-Identifier: Apache-2.0
"""`make bench`: measure, and print tables in Markdown; `--json FILE` keeps the figures."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ebpftop.journal.log import PATH_VARIABLE
from ebpftop.kernel import bpffs
from tests.bench import kernel, lists, reading


def _table(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n### {title}\n")
    names = list(rows[0])
    print("| " + " | ".join(name.replace("_", " ") for name in names) + " |")
    print("|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(str(row[name]) for name in names) + " |")


def main() -> None:
    """Run every benchmark; what is attached for it is no act on this machine."""
    bpffs.mount(lasting=False)
    with TemporaryDirectory() as folder:
        os.environ[PATH_VARIABLE] = f"{folder}/acts.jsonl"
        _run()


def _run() -> None:
    results = {
        "nanoseconds a packet": kernel.run(),
        "nanoseconds a packet, shaper": kernel.shaper(),
        "programs": kernel.programs(),
        "reading and ranking sources": reading.run(),
        "lists": lists.run(),
    }
    for title, rows in results.items():
        _table(title, rows)
    if "--json" in sys.argv:
        Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
