# SPDX-License-Identifier: Apache-2.0
"""Loading: what the kernel takes, what is said where it does not, and what is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ebpftop.bpf import layout
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel import bpffs, libbpf, loading
from tests.kernel.pipeline import CAPACITY, Pipeline, loaded

pytestmark = pytest.mark.kernel


def leavings() -> set[Path]:
    """What this process has on the bpffs and beside it."""
    return {path for place in (bpffs.BPFFS, bpffs.RUN) for path in place.glob(f"*{os.getpid()}*")}


def test_the_programs_stay_within_the_verifiers_reach(pipeline: Pipeline) -> None:
    info = libbpf.program_info(pipeline.program)

    assert info.name == "xdp_pipeline"
    assert 0 < info.verified_insns < 250_000
    assert libbpf.program_info(pipeline.control_program).name == "control"


def test_capacities_are_as_asked_for(pipeline: Pipeline) -> None:
    sizes = {name: opened.max_entries for name, opened in pipeline.maps.items()}

    assert sizes["ip_tracker"] == sizes["net_limiters"] == CAPACITY["SOURCES"]
    assert sizes["auto_blocks"] == sizes["blocked_ips"] == CAPACITY["BLOCKS"]
    assert sizes["blocked_nets"] == sizes["allowed"] == CAPACITY["PREFIXES"]
    assert sizes["rules"] == sizes["rule_hits"] == CAPACITY["RULES"]
    assert sizes["events"] == layout.EVENTS


def test_an_instance_is_locked_while_it_is_used_and_gone_after_a_failure() -> None:
    bpffs.mount(lasting=False)
    before = leavings()

    def fail() -> None:
        with loaded():
            (folder,) = (path for path in leavings() - before if path.is_dir())
            assert (folder / "prog_xdp_pipeline").exists()
            with bpffs.locked(folder.name, wait=False) as ours:
                assert not ours
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert leavings() == before


def test_a_refusal_holds_the_compilers_own_words(tmp_path: Path) -> None:
    with pytest.raises(KernelRefusedError, match="CAPACITY_SOURCES"):
        loading.load(tmp_path, {})
