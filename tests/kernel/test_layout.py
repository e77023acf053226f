# SPDX-License-Identifier: Apache-2.0
"""The twin of the C layout: every difference is refused at load, by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ebpftop.bpf import layout, shaper_layout
from ebpftop.errors import KernelRefusedError

Compiled = dict[str, dict[str, list[list[Any]]]]


@pytest.fixture
def compiled() -> Compiled:
    """What the compiler says where both sides agree."""
    return {
        name: {
            part: [list(field) for field in layout.flattened(dtype)]
            for part, dtype in zip(("key", "value"), types, strict=True)
        }
        for name, types in layout.MAPS.items()
    }


def test_two_sides_that_agree_are_accepted(compiled: Compiled) -> None:
    layout.check(compiled)


@pytest.mark.parametrize("name", layout.MAPS)
@pytest.mark.parametrize("part", ["key", "value"])
@pytest.mark.parametrize("change", ["name", "offset", "size"])
def test_a_field_that_differs_is_refused_by_name(
    compiled: Compiled, name: str, part: str, change: str
) -> None:
    field = compiled[name][part][-1]
    if change == "name":
        field[0] += "_renamed"
    else:
        field[{"offset": 1, "size": 2}[change]] += 4

    with pytest.raises(KernelRefusedError, match="install ebpftop again") as refusal:
        layout.check(compiled)

    assert f"{part} of map {name}" in str(refusal.value)
    assert repr(field[0]) in str(refusal.value)


def test_fields_that_changed_places_are_refused(compiled: Compiled) -> None:
    fields = compiled["config"]["value"]
    fields[2][0], fields[3][0] = fields[3][0], fields[2][0]

    with pytest.raises(KernelRefusedError, match=r"map config.*pps_cost.*byte_cost"):
        layout.check(compiled)


@pytest.mark.parametrize("surplus", [True, False])
def test_a_field_more_or_less_is_refused(compiled: Compiled, surplus: bool) -> None:
    if surplus:
        compiled["state"]["value"].append(["extra", 56, 8])
    else:
        compiled["state"]["value"].pop()

    with pytest.raises(KernelRefusedError, match="value of map state"):
        layout.check(compiled)


def test_a_map_that_is_missing_is_refused(compiled: Compiled) -> None:
    del compiled["auto_blocks"]

    with pytest.raises(KernelRefusedError, match="auto_blocks"):
        layout.check(compiled)


def test_a_changed_layout_has_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = layout.fingerprint()
    assert before == layout.fingerprint()
    changed = {**layout.MAPS, "state": (layout.U32, np.dtype([("event_seq", "<u4")]))}
    monkeypatch.setattr(layout, "MAPS", changed)

    assert layout.fingerprint() != before


def test_the_shapers_page_is_checked_too() -> None:
    compiled: Compiled = {
        name: {
            part: [list(field) for field in layout.flattened(dtype)]
            for part, dtype in zip(("key", "value"), types, strict=True)
        }
        for name, types in shaper_layout.MAPS.items()
    }
    layout.check(compiled, shaper_layout.MAPS)
    compiled["traffic_classes"]["value"][3][1] += 8

    with pytest.raises(KernelRefusedError, match=r"map traffic_classes.*byte_cost"):
        layout.check(compiled, shaper_layout.MAPS)
