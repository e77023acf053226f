# SPDX-License-Identifier: Apache-2.0
"""What fails ends in one clear line and the right exit status, and leaves nothing."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ebpftop import cli
from ebpftop.control.protection import ProtectionControl
from ebpftop.kernel.loading import SYSTEM_PYTHON
from ebpftop.lab import joined
from tests.kernel.attached import EBPFTOP, READ_ONLY_BPFFS, Site, hidden

pytestmark = pytest.mark.kernel

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def test_without_bcc_attaching_says_what_to_install(site: Site) -> None:
    result = site.with_mounts(hidden(bcc_folder()), "attach", "eth0")

    result.refused(1, f"bcc is not installed for {SYSTEM_PYTHON}", "apt-get install python3-bpfcc")
    assert site.is_clean()


def bcc_folder() -> str:
    """Return the folder with the system's Python packages that bcc is in."""
    program = "import bcc, pathlib; print(pathlib.Path(bcc.__file__).parents[1])"
    return subprocess.check_output([SYSTEM_PYTHON, "-c", program], text=True).strip()
