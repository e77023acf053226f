# SPDX-License-Identifier: Apache-2.0
"""Measure, print the tables, and write them: `python -m tests.bench --help`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import click

from ebpftop.journal.log import PATH_VARIABLE
from ebpftop.kernel import bpffs
from tests.bench import machine, report
from tests.bench.figures import Row, Table
from tests.bench.registry import LONG, NORMAL, QUICK, Measurement, measurements

EFFORTS = {"quick": QUICK, "normal": NORMAL, "long": LONG}


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Run this measurement; may be given"
              " more than once.")  # fmt: skip
@click.option("--effort", type=click.Choice(list(EFFORTS)), default="normal", show_default=True)
@click.option("--write", "folder", type=click.Path(file_okay=False, path_type=Path),
              help="Write a checkout's docs, screenshots and README there.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="Only say what there is to measure.")
def main(only: Sequence[str], effort: str, folder: Path | None, listing: bool) -> None:
    """Measure what ebpftop costs, beside what a user would pick instead."""
    chosen = _chosen(only, watching=effort == "long")
    if listing:
        for each in chosen:
            click.echo(f"{each.name:12} {each.title}")
        return
    bpffs.mount(lasting=False)
    about, tables = machine.describe(), []
    # What is attached to be measured is no act on this machine.
    with (
        TemporaryDirectory() as log,
        patch.dict(os.environ, {PATH_VARIABLE: f"{log}/acts.jsonl"}),
    ):
        for each in chosen:
            tables.append(_measured(each, effort))
            click.echo(f"{each.name}: {tables[-1].seconds:.1f} s", err=True)
    click.echo(report.page(about, tables))
    if folder is not None:
        _write(folder, about, tables)


def _write(folder: Path, about: Mapping[str, object], tables: Sequence[Table]) -> None:
    """Write the JSON, the page, the plot, and the budgets of the README if there is one."""
    docs, pictures, readme = folder / "docs", folder / "screenshots", folder / "README.md"
    for made in (docs, pictures):
        made.mkdir(parents=True, exist_ok=True)
    found = json.dumps(report.as_json(about, tables), indent=1, ensure_ascii=False)
    (docs / "performance.json").write_text(found + "\n")
    (docs / "performance.md").write_text(report.page(about, tables))
    if drawn := report.growth_svg(tables):
        (pictures / "growth.svg").write_text(drawn)
    if readme.exists():
        readme.write_text(report.with_budgets(readme.read_text(), tables))


def _chosen(only: Sequence[str], *, watching: bool) -> list[Measurement]:
    known = measurements()
    if unknown := set(only) - {each.name for each in known}:
        names = ", ".join(each.name for each in known)
        raise click.UsageError(f"no measurement {', '.join(sorted(unknown))}; there are {names}")
    if only:
        return [each for each in known if each.name in only]
    return [each for each in known if each.watches] if watching else known


def _measured(each: Measurement, effort: str) -> Table:
    """Run one measurement; one that fails is a row that says so, and the others go on."""
    started_s = time.monotonic()
    try:
        rows = each.run(EFFORTS[effort])
    except (Exception, subprocess.SubprocessError) as error:
        print(f"{each.name} failed: {error!r}", file=sys.stderr)
        rows = [Row(each.name, skipped=f"it failed: {error}")]
    return Table(each.name, each.title, rows, each.note, time.monotonic() - started_s)


if __name__ == "__main__":
    main()
