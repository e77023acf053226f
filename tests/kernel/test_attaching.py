# SPDX-License-Identifier: Apache-2.0
"""How the program comes onto interfaces, and leaves them."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from ebpftop.bpf.layout import Flag
from ebpftop.kernel import bpffs, ethtool, libbpf
from ebpftop.kernel.instance import find
from ebpftop.kernel.netlink.links import netlink
from ebpftop.lab import Lab, joined
from tests.kernel import foreign
from tests.kernel.attached import EBPFTOP, Site, trying
from tests.kernel.terminal import Terminal

pytestmark = pytest.mark.kernel

NO_BPFFS = f"umount {bpffs.BPFFS}"
BPFFS_OF_ONES_OWN = f"{NO_BPFFS}\nmount -t bpf bpf {bpffs.BPFFS}"


def modes(site: Site, interface: str) -> dict[str, str]:
    """Return the modes that `status` tells, by interface."""
    return {row["name"]: row["mode"] for row in site.status(interface)["interfaces"]}


def test_a_driver_with_xdp_runs_it_which_is_said_and_lasts(site: Site) -> None:
    result = site.child(*EBPFTOP, "attach", "eth0")

    assert (result.status, result.out) == (0, "attached to eth0 (native)\n")
    assert modes(site, "eth0") == {"eth0": "native"}
    with joined(site.host), netlink() as socket:
        assert socket.link("eth0").xdp_native


def test_behind_a_driver_without_xdp_it_runs_in_generic_mode_which_is_said(site: Site) -> None:
    said = site.done("attach", "lo")

    assert said == "attached to lo (generic)\n"
    assert modes(site, "lo") == {"lo": "generic"}


def test_generic_mode_can_be_asked_for(site: Site) -> None:
    site.done("attach", "eth0", "--mode", "generic")

    assert modes(site, "eth0") == {"eth0": "generic"}
    with joined(site.host), netlink() as socket:
        assert not socket.link("eth0").xdp_native


@pytest.mark.parametrize(
    ("interfaces", "gro", "merged"),
    [(["eth0"], "on", False), (["lo"], "on", True), (["lo"], "off", False),
     (["eth0", "lo"], "on", True)],
)  # fmt: skip
def test_the_program_knows_where_packets_may_come_merged(
    site: Site, interfaces: list[str], gro: str, merged: bool
) -> None:
    with joined(site.host):
        _set_gro("lo", on=gro == "on")
        site.done("attach", *interfaces)

        with closing(find(interfaces[0], read_only=True)) as instance:
            flags = int(instance.maps["config"].read()[1]["flags"][0])
    assert bool(flags & Flag.MERGED) == merged


def _set_gro(interface: str, *, on: bool) -> None:
    value = array.array("I", [0x2C, on])  # ETHTOOL_SGRO of linux/ethtool.h
    request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, ethtool.SIOCETHTOOL, request)
    assert ethtool.merges(interface) == on


def test_native_mode_where_there_is_none_is_refused_for_all_interfaces(site: Site) -> None:
    result = site.ebpftop("attach", "eth0", "lo", "--mode", "native")

    result.refused(1, "cannot attach to lo", "the driver has no XDP", "try --mode generic")
    assert site.is_clean("eth0", "lo")


def test_several_interfaces_are_one_instance_until_the_last_is_detached(site: Site) -> None:
    site.add_interface("eth1")
    site.done("attach", "eth0", "eth1", "eth0")

    # WHEN a verb is given either of them, THEN it means both
    site.done("block", "eth1", "192.0.2.1")
    assert "192.0.2.1" in site.done("blocks", "eth0")
    assert modes(site, "eth0") == modes(site, "eth1") == {"eth0": "native", "eth1": "native"}

    # WHEN one is detached, THEN the other and the shared maps stay
    site.done("detach", "eth0")
    site.ebpftop("status", "eth0").refused(5, "not attached to eth0")
    assert not site.program_on("eth0")
    assert modes(site, "eth1") == {"eth1": "native"}
    assert "192.0.2.1" in site.done("blocks", "eth1")

    # WHEN the last is detached, THEN everything goes
    site.done("detach", "eth1")
    assert site.is_clean("eth0", "eth1")


def test_an_interface_that_left_an_instance_can_have_one_of_its_own(site: Site) -> None:
    site.add_interface("eth1")
    site.done("attach", "eth0", "eth1")
    site.done("block", "eth1", "192.0.2.1")
    site.done("detach", "eth0")

    site.done("attach", "eth0")

    assert site.ebpftop("blocks", "eth0", "--json").json == []
    assert "192.0.2.1" in site.done("blocks", "eth1")
    site.done("detach", "eth1")
    assert site.program_on("eth0")
    site.done("detach", "eth0")
    assert site.is_clean("eth0", "eth1")


def test_the_last_one_is_the_last_that_exists(site: Site) -> None:
    site.add_interface("eth1")
    site.done("attach", "eth0", "eth1")
    site.host.ip("link delete eth1")

    site.done("detach", "eth0")

    assert site.is_clean()


def test_an_interface_is_detached_by_the_name_it_has_now(site: Site) -> None:
    site.add_interface("eth1")
    site.done("attach", "eth1")
    site.host.ip("link set eth1 down", "link set eth1 name uplink")

    site.done("detach", "uplink")

    assert site.is_clean("uplink")


def test_somebody_elses_program_is_named_and_stays(site: Site) -> None:
    with foreign.program_on(site.host, "eth0") as number:
        result = site.ebpftop("attach", "eth0")

        result.refused(1, f"{foreign.NAME}, id {number}", "left alone")
        assert site.program_on() == number
        assert not site.left()


def test_an_interface_that_somebody_else_took_over_is_not_ours(site: Site) -> None:
    site.done("attach", "eth0", "lo")
    with site.instance() as instance:
        pipeline, index = instance.meta.pipeline.id, instance.meta.attachments[0].index
    assert libbpf.detach_xdp(pipeline, index)

    with foreign.program_on(site.host, "eth0"):
        site.ebpftop("status", "eth0").refused(5, "not attached to eth0")

    assert site.status("lo")["attached"]


def test_a_folder_that_is_not_roots_is_no_instance(site: Site) -> None:
    site.done("attach", "eth0")
    with site.instance() as instance:
        os.chown(instance.folder, 65534, 0)

    site.ebpftop("status", "eth0").refused(5, "not attached to eth0")


def test_attaching_twice_is_refused_and_says_what_to_do(site: Site) -> None:
    site.done("attach", "eth0")
    before = site.program_on()

    site.ebpftop("attach", "eth0").refused(1, "attached to eth0 already", "ebpftop detach eth0")

    assert site.program_on() == before
    assert site.status()["attached"]


def test_of_two_that_attach_at_once_one_is_refused_and_the_other_is_whole(site: Site) -> None:
    argv = ["nsenter", f"--net={site.host.netns_path}", *EBPFTOP, "attach", "eth0"]
    both = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]

    complaints = [child.communicate(timeout=60)[1] for child in both]

    assert sorted(child.returncode for child in both) == [0, 1]
    assert "ebpftop is attached to eth0 already" in "".join(complaints)
    assert site.status()["attached"]
    site.done("detach", "eth0")
    assert site.is_clean()


def test_one_name_in_two_network_namespaces_is_two_instances(site: Site, lab: Lab) -> None:
    with trying(lab.attacker) as other:
        site.done("attach", "eth0")
        other.done("attach", "eth0")
        site.done("block", "eth0", "192.0.2.1")

        assert "192.0.2.1" not in other.done("blocks", "eth0")
        assert site.program_on() != other.program_on()
        site.done("detach", "eth0")
        assert other.status()["attached"]
        site.ebpftop("status", "eth0").refused(5)


@pytest.mark.parametrize("preparation", [NO_BPFFS, BPFFS_OF_ONES_OWN], ids=["none", "own"])
def test_pins_that_would_not_last_are_refused(site: Site, preparation: str) -> None:
    result = site.with_mounts(preparation, "attach", "eth0")

    result.refused(1, "no lasting bpffs", "ebpftop doctor", "nsenter")
    assert site.is_clean()


def private_dashboard(site: Site, *arguments: str) -> Terminal:
    """Open a dashboard that mounts a bpffs of its own, as under `ip netns exec`."""
    script = f'{NO_BPFFS} && exec "$@"'
    through = ("unshare", "--mount", "sh", "-c", script, "sh")
    return site.dashboard(*arguments, through=through)


def test_a_dashboard_that_keeps_nothing_needs_no_pins_that_last(site: Site) -> None:
    dashboard = private_dashboard(site, "eth0")

    dashboard.wait_for("eth0", "native")
    assert site.program_on()
    assert not list(bpffs.BPFFS.glob(f"{site.prefix}*"))
    dashboard.press("q")

    assert dashboard.wait() == 0
    assert site.is_clean()


def test_a_dashboard_that_keeps_needs_pins_that_last(site: Site) -> None:
    dashboard = private_dashboard(site, "eth0", "--keep")

    assert dashboard.wait() == 1
    assert "no lasting bpffs" in dashboard.shown
    assert site.is_clean()


def test_a_group_that_does_not_exist_is_refused(site: Site, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[access]\ngroup = "no-such-group"\n')

    result = site.ebpftop("attach", "eth0", "--config", str(policy))

    result.refused(3, "no group no-such-group", "groupadd --system no-such-group")
    assert site.is_clean()
