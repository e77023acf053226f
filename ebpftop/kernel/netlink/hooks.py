# SPDX-License-Identifier: Apache-2.0
"""What stands on an interface's way and what it counts: qdiscs, filters, statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ebpftop.kernel.netlink.traffic_control import (
    OUR_QUEUES,
    OUR_ROOTS,
    TC_CLSACT,
    TC_CLSACT_HOOKS,
)
from ebpftop.model import InterfaceCounters

OUR_FILTERS = "ebpftop:"
"""What the names of our clsact filters begin with."""
_BEFORE = ("rx_errors", "rx_missed_errors", "rx_over_errors", "rx_fifo_errors")
_AFTER = ("rx_dropped", "rx_nohandler")


@dataclass(frozen=True, slots=True)
class QueueCount:
    """One qdisc and what it counts."""

    kind: str
    """`noqueue`, `htb`, ..."""
    handle: int
    """Major and minor number; 0 where the kernel put it there by itself."""
    packets: int
    """Packets it sent."""
    dropped: int
    """Packets it dropped."""

    @property
    def ours(self) -> bool:
        """Whether ebpftop made it, which its handle tells."""
        major = self.handle >> 16
        roots = {root >> 16 for root in OUR_ROOTS.values()}
        return major in roots or OUR_QUEUES < major <= OUR_QUEUES + 0xFF


@dataclass(frozen=True, slots=True)
class TcFilter:
    """One clsact filter."""

    egress: bool
    """On which of the two hooks."""
    kind: str
    """`bpf`, `flower`, ..."""
    name: str
    """Of a BPF filter; empty for others."""
    handle: int
    """Its number on the hook."""


class HookReader:
    """Reads what is on interfaces of this network namespace."""

    def close(self) -> None:
        """Close the socket, if one was needed."""
        if "_route" in self.__dict__:
            self._route.close()

    @cached_property
    def _route(self) -> Any:
        """A socket of pyroute2's, opened where it is needed: it takes a while, and much memory."""
        from pyroute2 import IPRoute

        return IPRoute()

    def counters(self, index: int, name: str) -> InterfaceCounters | None:
        """Return what an interface counts, None where it is gone."""
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            stats = self._route.link("get", index=index)[0].get_attr("IFLA_STATS64")
        except NetlinkError:
            return None
        return InterfaceCounters(
            interface=name,
            received_packets=stats["rx_packets"],
            received_bytes=stats["rx_bytes"],
            sent_packets=stats["tx_packets"],
            sent_bytes=stats["tx_bytes"],
            dropped_before=sum(stats[field] for field in _BEFORE),
            dropped_after=sum(stats.get(field, 0) for field in _AFTER),
            dropped_sending=stats["tx_dropped"] + stats["tx_errors"],
        )

    def qdiscs(self, index: int) -> Iterator[QueueCount]:
        """Yield every qdisc of an interface."""
        for message in self._route.get_qdiscs():
            if message["index"] == index:
                stats = message.get_attr("TCA_STATS2")
                sent = stats.get_attr("TCA_STATS_BASIC") if stats else None
                queue = stats.get_attr("TCA_STATS_QUEUE") if stats else None
                yield QueueCount(
                    message.get_attr("TCA_KIND"), message["handle"],
                    sent["packets"] if sent else 0, queue["drops"] if queue else 0,
                )  # fmt: skip

    def filters(self, index: int) -> Iterator[TcFilter]:
        """Yield every clsact filter of an interface, in the order they run."""
        if all(queue.handle != TC_CLSACT for queue in self.qdiscs(index)):
            return
        for egress, parent in enumerate(TC_CLSACT_HOOKS):
            for message in self._route.get_filters(index=index, parent=parent):
                if message["handle"]:
                    options = message.get_attr("TCA_OPTIONS")
                    kind = message.get_attr("TCA_KIND")
                    name = options.get_attr("TCA_BPF_NAME") if kind == "bpf" and options else ""
                    yield TcFilter(bool(egress), kind, name or "", message["handle"])
