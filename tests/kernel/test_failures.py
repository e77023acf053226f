# SPDX-License-Identifier: Apache-2.0
"""What fails ends in one clear line and the right exit status, and leaves nothing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ebpftop.bpf import layout
from ebpftop.control.protection import ProtectionControl
from ebpftop.kernel.loading import SYSTEM_PYTHON
from tests.kernel.attached import EBPFTOP, NOBODY, READ_ONLY_BPFFS, Site, bcc_folder, hidden

pytestmark = pytest.mark.kernel

NEED_AN_INSTANCE = (
    ("detach", "eth0"),
    ("status", "eth0"),
    ("top", "eth0"),
    ("blocks", "eth0"),
    ("allowed", "eth0"),
    ("block", "eth0", "192.0.2.1"),
    ("unblock", "eth0", "192.0.2.1"),
    ("allow", "eth0", "192.0.2.1"),
    ("disallow", "eth0", "192.0.2.1"),
    ("limit", "eth0"),
    ("limit", "eth0", "--pps", "1"),
)


def attach_other_version(site: Site, interface: str) -> None:
    """Attach, and have it look like the work of a version with another layout."""
    site.done("attach", interface)
    with site.instance(interface) as instance:
        instance.write_meta(replace(instance.meta, version="9.9", layout="00000000"))


def test_without_bcc_it_says_what_to_install(site: Site) -> None:
    result = site.with_mounts(hidden(bcc_folder()), "attach", "eth0")

    result.refused(1, f"bcc is not installed for {SYSTEM_PYTHON}", "apt-get install python3-bpfcc")
    assert site.is_clean()


def test_without_the_c_librarys_headers_it_says_what_to_install(site: Site) -> None:
    result = site.with_mounts(hidden("/usr/include"), "attach", "eth0")

    result.refused(1, "file not found", "apt-get install linux-libc-dev")
    assert site.is_clean()


def test_where_pins_cannot_be_made_nothing_is_attached(site: Site) -> None:
    result = site.with_mounts(READ_ONLY_BPFFS, "attach", "eth0")

    result.refused(1, "Read-only file system", "mount -o remount,rw")
    assert site.is_clean()


def test_where_pins_cannot_be_removed_nothing_is_detached(site: Site) -> None:
    site.done("attach", "eth0")

    result = site.with_mounts(READ_ONLY_BPFFS, "detach", "eth0")

    result.refused(1, "cannot write to", "mount -o remount,rw")
    assert site.status()["attached"]


def test_without_root_nothing_is_attached(site: Site) -> None:
    result = site.child(*NOBODY, *EBPFTOP, "attach", "eth0")

    result.refused(4, "attaching needs root: run it with sudo")
    assert site.is_clean()


def test_a_root_without_the_right_to_load_programs_is_told_so(site: Site) -> None:
    powers = "-bpf,-sys_admin"
    result = site.child(
        "setpriv", "--bounding-set", powers, "--inh-caps", powers, *EBPFTOP, "attach", "eth0"
    )

    result.refused(4, "CAP_BPF", "outside the container")
    assert site.is_clean()


def test_a_list_that_does_not_fit_blocks_nobody(site: Site, tmp_path: Path) -> None:
    policy, listed = tmp_path / "policy.toml", tmp_path / "list"
    policy.write_text("[capacity]\nsources = 1024\nblocks = 16\nprefixes = 16\n")
    site.done("attach", "eth0", "--config", str(policy))
    listed.write_text("".join(f"192.0.2.{last}\n" for last in range(17)))

    result = site.ebpftop("block", "eth0", "--from", str(listed))

    result.refused(1, "the table of blocked addresses is full (16)", "[capacity]")
    assert site.ebpftop("blocks", "eth0", "--json").json == []

    # WHEN one less is asked for, THEN they fit
    listed.write_text("".join(f"192.0.2.{last}\n" for last in range(16)))
    site.done("block", "eth0", "--from", str(listed))
    assert len(site.ebpftop("blocks", "eth0", "--json").json) == 16


@pytest.mark.parametrize("verb", ["attach", "detach", "status", "doctor"])
def test_a_misspelled_interface_is_answered_with_the_nearest(site: Site, verb: str) -> None:
    site.ebpftop(verb, "eht0").refused(3, "no interface eht0", "did you mean eth0?")


@pytest.mark.parametrize("arguments", NEED_AN_INSTANCE, ids=" ".join)
def test_where_nothing_is_attached_a_verb_says_how_to(site: Site, arguments: Sequence[str]) -> None:
    result = site.ebpftop(*arguments)

    result.refused(5, "ebpftop is not attached to eth0", "sudo ebpftop attach eth0")


def test_a_dashboard_without_a_terminal_attaches_nothing(site: Site) -> None:
    result = site.child(*EBPFTOP, "eth0")

    result.refused(2, "needs a terminal", "ebpftop top")
    assert site.is_clean()


def test_another_versions_instance_is_not_read_but_can_be_detached(site: Site) -> None:
    attach_other_version(site, "eth0")

    for arguments in (("status", "eth0"), ("block", "eth0", "192.0.2.1")):
        result = site.ebpftop(*arguments)
        result.refused(1, "eth0 was attached by ebpftop 9.9", "`ebpftop detach`")
    dashboard = site.dashboard("eth0")
    assert dashboard.wait() == 1
    assert "eth0 was attached by ebpftop 9.9" in dashboard.shown

    site.done("detach", "eth0")
    assert site.is_clean()


def test_another_versions_instance_does_not_stand_in_the_way_of_ours(site: Site) -> None:
    attach_other_version(site, "lo")
    site.done("attach", "eth0")

    assert site.status("eth0")["attached"]
    site.ebpftop("status", "lo").refused(1, "lo was attached by ebpftop 9.9")


def test_what_a_version_to_come_says_of_itself_need_not_be_understood(site: Site) -> None:
    site.done("attach", "eth0")
    with site.instance() as instance:
        text = b'{"version": "9.9", "attachments": 7}'
        record = np.zeros(1, layout.META)
        record["length"], record["crc32"] = len(text), zlib.crc32(text)
        record["json"] = np.void(text.ljust(layout.META_BYTES, b"\0"))
        instance.maps["meta"].put(0, record)

    site.ebpftop("status", "eth0").refused(1, "attached by another version of ebpftop")


def test_a_late_act_leaves_nothing_where_an_instance_was(site: Site) -> None:
    site.done("attach", "eth0")
    with site.instance() as instance:
        site.done("detach", "eth0")

        ProtectionControl(instance).sweep()

    assert site.is_clean()
