# SPDX-License-Identifier: Apache-2.0
"""The pages follow the program: what doctor looks at, which links lead somewhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from ebpftop.cli import doctor

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def test_the_troubleshooting_page_has_a_section_for_each_check_of_doctor_in_its_order() -> None:
    source = inspect.getsource(doctor._findings)
    checks = [name for name in re.findall(r"_(\w+)", source) if hasattr(doctor, f"_{name}")]
    wanted = [name for name in dict.fromkeys(checks) if name not in ("findings", "guarded")]
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    sections = [title.strip().lower() for title in re.findall(r"^## (.*)$", page, re.M)]
    assert sections == wanted


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_page_or_picture_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target
