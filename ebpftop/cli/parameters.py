# SPDX-License-Identifier: Apache-2.0
"""Words of the command line as values: addresses, durations, rates, interfaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ebpftop.cli.completing import complete_interface
from ebpftop.control.everything import InstanceControl
from ebpftop.errors import NotPermittedError, UsageError
from ebpftop.format import (
    parse_address,
    parse_count,
    parse_duration,
    parse_rate,
    parse_service,
    parse_size,
)
from ebpftop.kernel.attaching import MODES
from ebpftop.kernel.instance import Instance, describe_failure, find


class _Word(click.ParamType[Any]):
    """A word that one of the parsers of `format` reads; its errors are ours."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return self._parse(value) if isinstance(value, str) else value


ADDRESS = _Word("ADDR", parse_address)
"""An address or prefix, as a `Prefix`."""
RATE = _Word("RATE", parse_rate)
"""Bits a second."""
SIZE = _Word("SIZE", parse_size)
"""Bytes."""
SERVICE = _Word("VIP", parse_service)
"""A VIP, as a `Service`."""
COUNT = _Word("N", parse_count)
"""A whole number, `1k` and `2m` too."""


class _Duration(click.ParamType[Any]):
    name = "DURATION"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return Duration(parse_duration(value)) if isinstance(value, str) else value


class Duration:
    """A time span that was given; click takes a bare None for an option that was not."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        """Its length; None is for ever."""


DURATION = _Duration()
"""A time span, as a `Duration`."""

INTERFACE = click.argument("iface", metavar="IFACE", shell_complete=complete_interface)
INTERFACES = click.argument(
    "ifaces", metavar="IFACE...", nargs=-1, required=True, shell_complete=complete_interface
)
MODE = click.option(
    "--mode", type=click.Choice(MODES), default="auto", show_default=True,
    help="How XDP runs: in the driver (native) or behind it (generic).",
)  # fmt: skip
CONFIG = click.option(
    "--config", "policy_path", metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Policy: limits, allow list, management prefixes, capacities (TOML).",
)  # fmt: skip
REVERT_AFTER = click.option(
    "--revert-after", type=DURATION,
    help="Take it back by itself after so long, unless `ebpftop confirm` is said.",
)  # fmt: skip
SETTINGS = click.option(
    "--settings", "settings_path", metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Theme, keys, bell, mouse (TOML); else ~/.config/ebpftop/dashboard.toml.",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def require_root(what: str) -> None:
    """Refuse early, and with a remedy, what the kernel would refuse late.

    Raises:
        NotPermittedError: We are not root.
    """
    if os.geteuid() != 0:
        raise NotPermittedError(f"{what} needs root", "run it with sudo")


def watched(iface: str) -> Instance:
    """Open what is attached to `iface`, for reading; with root its programs too."""
    return _opened(iface, read_only=os.geteuid() != 0)


def _opened(iface: str, *, read_only: bool) -> Instance:
    try:
        return find(iface, read_only=read_only)
    except OSError as error:
        raise describe_failure(error) from error


@contextmanager
def controlled(iface: str, revert_after: Duration | None = None) -> Iterator[InstanceControl]:
    """Open what is attached to `iface`, for one act.

    Args:
        iface: The interface.
        revert_after: The act takes itself back after so long, unless it is confirmed.
    """
    require_root("changing anything")
    if revert_after is not None and not revert_after.seconds:
        raise UsageError("--revert-after needs a time", "say one that ends, as 60s")
    instance = _opened(iface, read_only=False)
    try:
        after_s = revert_after.seconds if revert_after else None
        control = InstanceControl(instance, revert_after_s=after_s)
        control.sweep()
        yield control
    finally:
        instance.close()
