# SPDX-License-Identifier: Apache-2.0
"""`ebpftop doctor`: what works here, what does not, and the command that mends it."""

from __future__ import annotations

import grp
import platform

import pytest

from ebpftop.kernel import bpffs
from ebpftop.kernel.loading import SYSTEM_PYTHON
from tests.kernel import foreign
from tests.kernel.attached import (
    EBPFTOP,
    NOBODY,
    READ_ONLY_BPFFS,
    Result,
    Site,
    bcc_folder,
    hidden,
)

pytestmark = pytest.mark.kernel


def findings(result: Result) -> dict[str, tuple[str, str]]:
    """Return state and remedy of each finding, by its words."""
    found: dict[str, tuple[str, str]] = {}
    what = ""
    for line in result.out.splitlines():
        if line.startswith("      -> "):
            found[what] = (found[what][0], line.removeprefix("      -> "))
        else:
            what = line[6:]
            found[what] = (line[:4].strip(), "")
    return found


def finds(result: Result, state: str, words: str) -> str:
    """Expect a finding of this state with these words in it; returns its remedy."""
    hits = [v for what, v in findings(result).items() if words in what]
    assert [hit[0] for hit in hits] == [state], result
    failed = any(found == "FAIL" for found, _ in findings(result).values())
    assert result.status == int(failed)
    return hits[0][1]


def test_where_all_is_well_it_says_so_and_attaches_nothing(site: Site) -> None:
    result = site.child(*EBPFTOP, "doctor", "eth0")

    assert result.status == 0
    finds(result, "ok", "root, with the capabilities that attaching needs")
    finds(result, "ok", f"Linux {platform.release()}")
    finds(result, "ok", f"by {SYSTEM_PYTHON}")
    finds(result, "ok", "kernel headers")
    finds(result, "ok", "libbpf.so.1")
    finds(result, "ok", f"a bpffs on {bpffs.BPFFS}")
    finds(result, "ok", "eth0 is up, driver veth")
    finds(result, "ok", "eth0: no XDP program; the driver runs XDP (native mode)")
    assert site.is_clean()


def test_without_an_interface_it_looks_at_the_machine_alone(site: Site) -> None:
    result = site.ebpftop("doctor")

    assert result.status == 0
    assert "eth0" not in result.out


@pytest.mark.parametrize(
    ("preparation", "words", "remedy"),
    [
        (hidden("/usr/include"), "no kernel headers", "apt-get install linux-libc-dev"),
        (READ_ONLY_BPFFS, "Read-only file system", f"mount -o remount,rw {bpffs.BPFFS}"),
        (f"umount {bpffs.BPFFS}", "no lasting bpffs", "run `ebpftop doctor` once outside"),
        (
            "for lib in /lib/*/libbpf.so.1 /usr/lib*/libbpf.so.1; do"
            " test ! -e $lib || mount --bind /dev/null $lib; done",
            "libbpf.so.1 is not installed",
            "apt-get install libbpf1",
        ),
    ],
    ids=["headers", "read-only", "unmounted", "libbpf"],
)
def test_what_is_missing_fails_with_the_command_that_mends_it(
    site: Site, preparation: str, words: str, remedy: str
) -> None:
    result = site.with_mounts(preparation, "doctor")

    assert remedy in finds(result, "FAIL", words)


def test_bcc_is_missed_where_no_interpreter_has_it(site: Site) -> None:
    result = site.with_mounts(hidden(bcc_folder()), "doctor")

    remedy = finds(result, "FAIL", f"bcc is not installed for {SYSTEM_PYTHON}")
    assert remedy == "apt-get install python3-bpfcc"


def test_a_root_without_its_powers_fails(site: Site) -> None:
    powers = "-net_admin,-bpf"
    result = site.child(
        "setpriv", "--bounding-set", powers, "--inh-caps", powers, *EBPFTOP, "doctor"
    )

    finds(result, "FAIL", "root without CAP_NET_ADMIN, CAP_BPF")


def test_who_is_not_root_can_still_watch(site: Site) -> None:
    result = site.child(*NOBODY, *EBPFTOP, "doctor")

    assert "sudo" in finds(result, "note", "not root: watching works")
    assert result.status == 0


@pytest.mark.parametrize(
    ("release", "state", "remedy"),
    [
        ("5.10.0-28-amd64", "FAIL", "5.15 or later"),
        ("5.15.0-113-generic", "note", "watching without root needs Linux 5.19"),
        ("5.19.0", "ok", ""),
    ],
)
def test_the_kernel_must_not_be_too_old(
    site: Site, monkeypatch: pytest.MonkeyPatch, release: str, state: str, remedy: str
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)

    result = site.ebpftop("doctor")

    assert remedy in finds(result, state, f"Linux {release}")


@pytest.mark.parametrize(("members", "listed"), [(["ada", "grace"], "ada, grace"), ([], "nobody")])
def test_the_group_that_may_watch_is_shown_with_its_members(
    site: Site, monkeypatch: pytest.MonkeyPatch, members: list[str], listed: str
) -> None:
    def group(name: str) -> grp.struct_group:
        return grp.struct_group((name, "x", 990, members))

    monkeypatch.setattr(grp, "getgrnam", group)

    finds(site.ebpftop("doctor"), "ok", f"group ebpftop may watch without root ({listed}")


def test_a_group_that_is_not_there_is_no_failure(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_group(name: str) -> grp.struct_group:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", no_group)

    result = site.ebpftop("doctor")

    assert finds(result, "note", "no group ebpftop") == "groupadd --system ebpftop"


def test_a_driver_without_xdp_and_an_interface_that_is_down_are_noted(site: Site) -> None:
    site.host.ip("link set lo down")

    result = site.ebpftop("doctor", "lo")

    finds(result, "note", "lo is down")
    finds(result, "note", "lo: the driver has no XDP: generic mode")
    assert result.status == 0


def test_somebody_elses_program_is_named(site: Site) -> None:
    with foreign.program_on(site.host, "eth0") as number:
        result = site.ebpftop("doctor", "eth0")

        remedy = finds(result, "FAIL", f"another XDP program is there, {foreign.NAME}, id {number}")
        assert f"bpftool prog show id {number}" in remedy
        assert site.program_on() == number


def test_our_own_program_is_known(site: Site) -> None:
    site.done("attach", "eth0")

    finds(site.ebpftop("doctor", "eth0"), "ok", "eth0: xdp_pipeline of ebpftop is attached")
