# SPDX-License-Identifier: Apache-2.0
"""How somebody wants the dashboard to look and to be worked; a file of their own, as TOML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ebpftop.config.files import read
from ebpftop.config.values import Section

SYSTEM_FILE = Path("/etc/ebpftop/dashboard.toml")
"""Where everybody's settings are, for who has none of their own."""


class DashboardSettings(Section, kw_only=True, frozen=True):
    """The whole file; every key may be left out."""

    theme: Annotated[Literal["dark", "light", "terminal"], Meta(examples=["light"])] = "dark"
    """Colours: on a dark ground, on a light one, or the terminal's own sixteen."""
    ascii: Annotated[bool, Meta(examples=[True])] = False
    """Draw graphs, bars and signs with plain ASCII."""
    bell: Annotated[bool, Meta(examples=[True])] = False
    """Ring the terminal's bell when an alert begins."""
    mouse: Annotated[bool, Meta(examples=[False])] = True
    """Take the mouse; without it, the terminal selects and copies as everywhere else."""
    keys: Annotated[dict[str, str], Meta(examples=[{"block": "B"}])] = msgspec.field(
        default_factory=dict
    )
    """The key of each action that is to have another one, by the action's name."""


def own_file() -> Path:
    """Return where the settings of whoever runs this are."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "ebpftop" / "dashboard.toml"


def load_settings(path: Path | None = None) -> DashboardSettings:
    """Read settings: from `path`, or from the first of the usual files that exists.

    Raises:
        KernelRefusedError: The file cannot be read.
        UsageError: It has a wrong key or value; names the key and what is right.
    """
    if path is None:
        path = next(filter(_is_there, (own_file(), SYSTEM_FILE)), None)
    return DashboardSettings() if path is None else read(path, DashboardSettings)


def _is_there(path: Path) -> bool:
    """Whether there is such a file; one in a folder that is closed to us is as good as none."""
    try:
        return path.is_file()
    except OSError:
        return False
