# SPDX-License-Identifier: Apache-2.0
"""The pages follow the program: what doctor looks at, which links lead somewhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from ebpftop import actions
from ebpftop.cli import doctor
from ebpftop.screens.acts import ActsPane
from ebpftop.screens.balancer_rows import BACKEND_COLUMNS, VIP_COLUMNS
from ebpftop.screens.blocks import BlocksPane
from ebpftop.screens.connections import ConnectionsPane
from ebpftop.screens.inspection_rows import FIXTURE_COLUMNS, MAP_COLUMNS, PROGRAM_COLUMNS
from ebpftop.screens.main import PANES as ALL_PANES
from ebpftop.screens.overview import _DROPS, _EVENTS, _PROTOCOL, _TALKERS, _VERDICTS
from ebpftop.screens.shaper import ShaperPane
from ebpftop.screens.talkers import TalkersPane
from ebpftop.widgets.cells import Column

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PANES: dict[str, list[Sequence[Column]]] = {
    "overview": [_TALKERS, _VERDICTS, _EVENTS, _DROPS, _PROTOCOL],
    "talkers": [TalkersPane.COLUMNS],
    "blocks": [BlocksPane.COLUMNS, BlocksPane.ALLOWED_COLUMNS],
    "balancer": [VIP_COLUMNS, BACKEND_COLUMNS],
    "shaper": [ShaperPane.COLUMNS],
    "connections": [ConnectionsPane.COLUMNS],
    "acts": [ActsPane.COLUMNS],
    "programs": [PROGRAM_COLUMNS, MAP_COLUMNS, FIXTURE_COLUMNS],
}
"""The columns of each pane that has a page."""
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


def page_of(pane: str) -> str:
    return (ROOT / "docs" / "panes" / f"{pane}.md").read_text()


@pytest.mark.parametrize("pane", PANES)
def test_every_key_of_a_pane_is_on_its_page_and_no_other(pane: str) -> None:
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", page_of(pane).partition("## Keys")[2], re.M)
    wanted = [
        (" ".join(f"`{key}`" for key in action.all_keys_label.split()), action.help)
        for action in actions.ACTIONS
        if pane in action.panes
    ]
    assert sorted(rows) == sorted(wanted)


@pytest.mark.parametrize("pane", PANES)
def test_every_column_of_a_pane_is_on_its_page(pane: str) -> None:
    text = page_of(pane)
    columns = [column for table in PANES[pane] for column in table]
    titles = [column.title for column in columns if column.title]
    assert [title for title in titles if f"`{title}`" not in text] == []


def test_every_pane_has_a_page_with_its_picture_and_the_readme_leads_there() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {pane.NAME for pane in ALL_PANES} == set(PANES)
    for pane in PANES:
        assert f"(docs/panes/{pane}.md)" in readme
        assert "](../../screenshots/" in page_of(pane)


def test_every_page_is_reached_from_the_readme() -> None:
    reached, to_read = set(), [ROOT / "README.md"]
    while to_read:
        page = to_read.pop()
        reached.add(page)
        names = [target.partition("#")[0] for target in _LINK.findall(page.read_text())]
        linked = {(page.parent / name).resolve() for name in names if name.endswith(".md")}
        to_read.extend(linked - reached)
    assert set(PAGES) <= reached
