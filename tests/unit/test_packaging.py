# SPDX-License-Identifier: Apache-2.0
"""What an installation gets: every file the program opens, and no library of a wrong name."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_a_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    tracked = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "ebpftop"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    needed = {"ebpftop/app.tcss", "ebpftop/bpf/xdp_pipeline.c", "ebpftop/bpf/include/linux/types.h"}

    assert needed <= set(tracked) <= set(wheel.namelist())


def test_bcc_comes_from_the_distribution_and_never_from_pypi(wheel: zipfile.ZipFile) -> None:
    metadata = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
    required = Parser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist") or []

    assert any(line.startswith("textual==") for line in required)
    assert not any(line.startswith("bcc") for line in required)


def test_a_wheel_gives_the_command(wheel: zipfile.ZipFile) -> None:
    entries = next(name for name in wheel.namelist() if name.endswith("/entry_points.txt"))

    assert "ebpftop = ebpftop.cli:main" in wheel.read(entries).decode()
