# SPDX-License-Identifier: Apache-2.0
"""Block and allow lists into files and back, on the live kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpftop.bpf.layout import Rule
from tests.kernel.stage import IFACE, Stage, ebpftop, staged

pytestmark = pytest.mark.kernel

COUNT = 100_000


@pytest.fixture(scope="module")
def attached() -> Iterator[Stage]:
    with staged(clients=0, quiet=True) as stage:
        yield stage


@pytest.fixture
def stage(attached: Stage) -> Stage:
    attached.clear()
    return attached


def done(*words: str) -> str:
    result = ebpftop(*words)
    assert (result.status, result.err) == (0, "")
    return result.out


@pytest.mark.parametrize("name", ["list", "list.json"])
def test_blocks_come_back_from_what_was_exported(stage: Stage, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    done("block", IFACE, "10.7.0.1", "--for", "1h", "--reason", "flood")
    done("block", IFACE, "2001:db8::/32")
    done("blocks", IFACE, "--export", str(path))
    before = ebpftop("blocks", IFACE, "--json").json()
    stage.clear()
    done("block", IFACE, "--from", str(path))
    assert stage.listed() == {"10.7.0.1", "2001:db8::/32"}
    if name.endswith(".json"):
        after = ebpftop("blocks", IFACE, "--json").json()
        for row in (*before, *after):
            row["expires_in_s"] = row["expires_in_s"] and round(row["expires_in_s"] / 100)
        assert after == before


def test_the_allow_list_comes_back_too_all_or_nothing(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "list"
    done("allow", IFACE, "10.7.0.0/16")
    done("allow", IFACE, "10.8.0.1")
    path.write_text(done("allowed", IFACE, "--export", "-"))
    stage.clear()
    with path.open("a") as file:
        file.write("nonsense\n")
    refused = ebpftop("allow", IFACE, "--from", str(path))
    assert refused.status == 2
    assert "line 3: 'nonsense'" in refused.err
    assert "nothing was allowed" in refused.err
    assert stage.listed(Rule.ALLOWED) == set()
    path.write_text(path.read_text().replace("nonsense\n", ""))
    done("allow", IFACE, "--from", str(path))
    assert stage.listed(Rule.ALLOWED) == {"10.7.0.0/16", "10.8.0.1"}


def test_a_hundred_thousand_addresses_are_one_act(
    stage: Stage, tmp_path: Path, audit_log: Path
) -> None:
    path = tmp_path / "list"
    path.write_text("".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}\n" for n in range(COUNT)))
    done("block", IFACE, "--from", str(path), "--reason", "bots")
    table = stage.instance.maps["blocked_ips"]
    assert len(table.read()[0]) == COUNT
    act = json.loads(audit_log.read_bytes().splitlines()[-1])
    assert act["target"] == "100,000 addresses"
    (group,) = act["new"]
    assert len(group["targets"]) == COUNT
    done("undo", IFACE)
    assert len(table.read()[0]) == 0
