# SPDX-License-Identifier: Apache-2.0
"""Which interfaces are ways out, of messages as the kernel sends them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ebpftop.kernel.netlink import routes
from ebpftop.kernel.netlink.routes import Exit, Routes


class Message(dict[str, Any]):
    """A message of netlink, as pyroute2 gives it."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


def link(index: int, *, below: int | None = None, vlan: int | None = None) -> Message:
    kind = {"IFLA_INFO_KIND": "vlan", "IFLA_INFO_DATA": Message({"IFLA_VLAN_ID": vlan})}
    info = Message(kind) if vlan is not None else None
    return Message(
        {"index": index, "IFLA_ADDRESS": f"02:00:00:00:00:{index:02x}", "IFLA_MTU": 1500 - index,
         "IFLA_LINK": below, "IFLA_LINKINFO": info}
    )  # fmt: skip


def test_attached_interfaces_and_vlans_on_them_are_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    links = [
        link(1), link(2), link(3), link(4, below=2, vlan=42), link(5, below=3, vlan=43),
        link(6, below=2), link(7, below=4, vlan=44),
    ]  # fmt: skip
    monkeypatch.setattr(routes, "IPRoute", lambda: SimpleNamespace(get_links=lambda: links))
    assert Routes().exits([1, 2]) == {
        1: Exit(1, None, bytes.fromhex("020000000001"), 1499),
        2: Exit(2, None, bytes.fromhex("020000000002"), 1498),
        4: Exit(2, 42, bytes.fromhex("020000000004"), 1496),
    }
