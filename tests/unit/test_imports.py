# SPDX-License-Identifier: Apache-2.0
"""What a process has loaded after an import: each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHEAP = ("errors", "model", "ranking", "filtering", "matching", "format", "report")
HEAVY = ("textual", "rich", "bcc", "pyroute2", "ctypes", "ebpftop.kernel", "ebpftop.control")
VERBS = ("acting", "attaching", "demo", "doctor", "recording", "watching")


def loaded_by(statements: str) -> set[str]:
    """Run statements in a new interpreter; return the names of every module in it."""
    program = f"{statements}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("name", CHEAP)
def test_what_has_no_screen_loads_neither_screen_nor_kernel(name: str) -> None:
    # numpy itself loads ctypes where it can: what it loads is not ours.
    ours = loaded_by(f"import ebpftop.{name}") - loaded_by("import numpy, humanize")
    assert f"ebpftop.{name}" in ours
    assert ours.isdisjoint(HEAVY)


def test_the_command_line_loads_no_screen_until_it_is_asked_for_one() -> None:
    assert loaded_by("import ebpftop.cli").isdisjoint({"textual", "numpy", "pyroute2", "bcc"})


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_loads_no_screen_and_no_compiler(name: str) -> None:
    assert loaded_by(f"import ebpftop.cli.{name}").isdisjoint({"textual", "bcc"})


def test_the_dashboards_process_loads_no_compiler() -> None:
    loaded = loaded_by("import ebpftop.cli.dashboard, ebpftop.app, ebpftop.sources.live")
    assert "textual" in loaded
    assert "bcc" not in loaded
