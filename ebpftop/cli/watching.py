# SPDX-License-Identifier: Apache-2.0
"""Verbs that only look: status, top, blocks, allowed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ebpftop import lists, report
from ebpftop.cli.output import print_json, print_pairs, print_table
from ebpftop.cli.parameters import COUNT, INTERFACE, JSON, watched
from ebpftop.errors import NotAttachedError
from ebpftop.format import bits_rate_unit, count, duration, size
from ebpftop.model import Snapshot
from ebpftop.ranking import Filter
from ebpftop.sources.live import LiveSource

SAMPLE_S = 1.0
"""Time over which `top` measures rates when it is asked once."""

EXPORT = click.option(
    "--export", "path", metavar="FILE", type=click.Path(allow_dash=True, path_type=Path),
    help="Write a new file that --from reads: plain, or JSON with --json or a name in .json.",
)  # fmt: skip


@contextmanager
def _source(iface: str) -> Iterator[LiveSource]:
    source = LiveSource(watched(iface))
    try:
        yield source
    finally:
        source.close()


def _snapshot(iface: str) -> Snapshot:
    with _source(iface) as source:
        return source.snapshot()


@click.command()
@INTERFACE
@JSON
def status(iface: str, as_json: bool) -> None:
    """Show what is attached, its counters, limits, maps and checks."""
    try:
        answer = report.status(_snapshot(iface), iface)
    except NotAttachedError:
        if as_json:
            print_json({"iface": iface, "attached": False})
        raise
    if as_json:
        print_json(answer)
    else:
        _print_status(answer)


def _print_status(answer: dict[str, Any]) -> None:
    packets, octets = answer["packets"], answer["bytes"]
    modes = ", ".join(
        f"{i['name']} ({i['mode']}{'' if i['up'] else ', down'})" for i in answer["interfaces"]
    )
    limits = answer["limits"]
    print_pairs(
        {
            "attached to": modes,
            "for": duration(answer["uptime_s"]),
            "received": f"{packets['total']:,} packets, {size(octets['total'])}",
            "passed": f"{packets['passed']:,} packets, {size(octets['passed'])}",
            "dropped": f"{packets['dropped']:,} packets, {size(octets['dropped'])}",
            "drop reasons": _words(answer["drops"]),
            "unparsed": _words(answer["unparsed"]),
            "protocols": _words(answer["protocols"]),
            "limits": _words({n: limits[n] for n in ("pps", "bps", "syn")}),
            "dry run": f"on, would have dropped: {_words(answer['would_drop'])}"
            if limits["dry_run"]
            else "off",
            "protected": ", ".join(f"{p['address']} ({p['why']})" for p in answer["protected"])
            or "none",
            "programs": ", ".join(f"{p['name']} (id {p['id']})" for p in answer["programs"]),
            "sums that fail": ", ".join(n for n, ok in answer["invariants"].items() if not ok)
            or "none",
        }
    )
    click.echo()
    print_table(
        ["MAP", "TYPE", "ENTRIES", "OF", "MEMORY"],
        [
            [
                m["name"], m["type"], "–" if m["entries"] is None else str(m["entries"]),
                str(m["max_entries"]), size(m["memory_bytes"]),
            ]
            for m in answer["maps"]
        ],
        left=2,
    )  # fmt: skip


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{word} {value:,}" for word, value in counts.items() if value) or "none"


@click.command()
@INTERFACE
@click.option("-n", "rows", type=COUNT, default=20, show_default=True, help="How many rows.")
@click.option("--sort", type=click.Choice(list(report.TOP_SORTS)), default="pps",
              show_default=True, help="What to sort by, the largest first.")  # fmt: skip
@click.option("--filter", "expression", default="", metavar="EXPR",
              help="Only rows that pass, as in 'state:blocked pps:>1k'.")  # fmt: skip
@click.option("--watch", is_flag=False, flag_value="5", default=None, metavar="[SECONDS]",
              type=click.FloatRange(0.1, 3600), help="Again every SECONDS, or 5.")  # fmt: skip
@JSON
def top(
    iface: str, rows: int, sort: str, expression: str, watch: float | None, as_json: bool
) -> None:
    """List who sends the most."""
    only = Filter.parse(expression, report.TOP_FIELDS)
    with _source(iface) as source:
        source.snapshot()
        time.sleep(min(watch or SAMPLE_S, SAMPLE_S))
        while True:
            snapshot = source.snapshot()
            chosen = report.chosen_sources(snapshot, sort=sort, count=rows, only=only)
            listed = report.top(snapshot, chosen.tolist())
            if as_json and watch:
                clock_s = round(snapshot.clock.wall_s, 3)
                print_json({"time": clock_s, "iface": iface, "top": listed}, one_line=True)
            elif as_json:
                print_json(listed)
            else:
                _print_top(listed, snapshot.clock.wall_s)
            if not watch:
                return
            sys.stdout.flush()
            time.sleep(watch)


def _print_top(listed: list[dict[str, Any]], now_s: float) -> None:
    print_table(
        ["ADDRESS", "STATE", "PPS", "BIT/S", "PACKETS", "BYTES", "DROPPED", "LAST SEEN"],
        [
            [
                row["address"], row["state"], count(row["pps"]), bits_rate_unit(row["bps"]),
                count(row["packets"]), size(row["bytes"]), count(row["dropped"]),
                f"{duration(max(0.0, now_s - row['last_seen_s']))} ago",
            ]
            for row in listed
        ],
        left=2,
    )  # fmt: skip


@click.command()
@INTERFACE
@EXPORT
@JSON
def blocks(iface: str, path: Path | None, as_json: bool) -> None:
    """List who is blocked, for how long yet, and what was stopped."""
    listed = report.blocks(_snapshot(iface))
    if path is not None:
        _export(path, listed, as_json=as_json)
        return
    if as_json:
        print_json(listed)
        return
    print_table(
        ["ADDRESS", "SOURCE", "REASON", "EXPIRES IN", "PACKETS", "BYTES"],
        [
            [
                row["address"], row["source"], row["reason"], duration(row["expires_in_s"]),
                count(row["packets"]), size(row["bytes"]),
            ]
            for row in listed
        ],
        left=3,
    )  # fmt: skip


def _export(path: Path, listed: list[dict[str, Any]], *, as_json: bool) -> None:
    """Write a list that `--from` reads again."""
    if as_json or path.suffix == ".json":
        text = lists.json_text(listed)
    else:
        text = "".join(f"{row['address']}\n" for row in listed)
    if str(path) == "-":
        click.echo(text, nl=False)
    else:
        lists.write_list(path, text)


@click.command()
@INTERFACE
@EXPORT
@JSON
def allowed(iface: str, path: Path | None, as_json: bool) -> None:
    """List who is let through before blocks and limits, and how much that was."""
    listed = report.allowed(_snapshot(iface))
    if path is not None:
        _export(path, listed, as_json=as_json)
        return
    if as_json:
        print_json(listed)
        return
    print_table(
        ["ADDRESS", "PACKETS", "BYTES"],
        [[row["address"], count(row["packets"]), size(row["bytes"])] for row in listed],
    )
