# SPDX-License-Identifier: Apache-2.0
"""Queueing disciplines, HTB classes and BPF filters, as plain values."""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ebpftop.kernel.netlink.rtnetlink import GETQDISC, TCA_KIND, TCMSG, RouteSocket

TC_ROOT = 0xFFFFFFFF
TC_CLSACT = 0xFFFF0000
TC_CLSACT_HOOKS = (0xFFFFFFF2, 0xFFFFFFF3)
"""Parents of clsact's filters, ingress and egress."""
OUR_ROOTS = {"htb": 0xEB0F0000, "fq": 0xEB100000, "mq": 0xEB110000}
"""Handles of the root qdiscs that ebpftop makes, by which they are known again."""
OUR_MAJOR = OUR_ROOTS["htb"]
OUR_QUEUES = 0xEA00
"""Major number of the queue in an HTB class of ours, less that class's minor one."""
HTB_TICK_NS = 64
"""Unit of the tokens that HTB tells of (PSCHED_SHIFT of net/pkt_sched.h)."""
MOST_HTB_BURST_S = 200
_CLONE_NEWNET = 0x40000000
_LOOPBACK = 1


@dataclass(frozen=True, slots=True)
class Qdisc:
    """One queueing discipline of an interface."""

    kind: str
    """`noqueue`, `htb`, `fq`, ..."""
    handle: int
    """Major and minor number; 0 where the kernel put it there by itself."""
    parent: int
    """Where it is; `TC_ROOT` for the root."""
    ifindex: int
    """Of its interface."""

    @property
    def label(self) -> str:
        """As tc(8) names it."""
        return f"{self.kind} {self.handle >> 16:x}:"


@dataclass(frozen=True, slots=True)
class HtbClass:
    """One class of an HTB tree of ours."""

    minor: int
    """Its number."""
    parent: int
    """Number of the class above it; 0 for none."""
    rate_bps: int
    """Bits a second that it is promised."""
    ceil_bps: int
    """Bits a second that it never exceeds."""
    burst_bytes: int
    """What it may send at once."""
    priority: int
    """0 to 7; 0 is served first with what is lent."""
    queue_bytes: int | None
    """What may wait in it; None for a class that has others below it."""


@dataclass(frozen=True, slots=True)
class HtbCounters:
    """What the kernel says of an HTB class."""

    packets: int
    """Packets that left it."""
    bytes: int
    """Bytes that left it."""
    dropped: int
    """Packets that found its queue full."""
    backlog_bytes: int
    """Bytes that wait in it."""
    backlog_packets: int
    """Packets that wait in it."""
    tokens_ns: int
    """What is in its bucket, as time at its rate, when it last was served; below 0: owed."""


class TrafficControl:
    """The queueing disciplines, HTB classes and BPF filters of one interface.

    Args:
        index: Its number, in the network namespace of the calling thread.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self._asking = RouteSocket()

    def close(self) -> None:
        """Close the sockets."""
        self._asking.close()
        if "_route" in self.__dict__:
            self._route.close()

    @cached_property
    def _route(self) -> Any:
        """A socket of pyroute2's, opened where it is needed: it takes a while, and much memory."""
        from pyroute2 import IPRoute
        from pyroute2.netlink.rtnl.tcmsg import plugins, sched_pfifo

        # bfifo takes what pfifo takes, and pyroute2 does not know it.
        plugins.setdefault("bfifo", sched_pfifo)
        return IPRoute()

    def qdiscs(self) -> list[Qdisc]:
        """Return every qdisc, of every interface where the number is 0."""
        found = []
        for answer in self._asking.ask_all(GETQDISC, TCMSG.pack(*[0] * 5)):
            _, ifindex, handle, parent, _ = TCMSG.unpack(answer.head)
            kind = answer.attributes[TCA_KIND].rstrip(b"\0").decode(errors="replace")
            if self.index in (0, ifindex):
                found.append(Qdisc(kind, handle, parent, ifindex))
        return found

    def set_root(self, kind: str) -> None:
        """Put a root qdisc of ours over the kernel's own default, or over another of ours."""
        options = {"default": 0} if kind == "htb" else {"parent": TC_ROOT}
        self._route.tc("replace", kind, self.index, OUR_ROOTS[kind], **options)

    def queues(self) -> int:
        """Return how many queues the interface sends through."""
        (link,) = self._route.get_links(self.index)
        return int(link.get_attr("IFLA_NUM_TX_QUEUES") or 1)

    def set_leaves(self, over: str, kind: str) -> None:
        """Put a root qdisc of ours there, and a qdisc of a kind under it for each queue."""
        from pyroute2.netlink.exceptions import NetlinkError

        root = OUR_ROOTS[over]
        self._route.tc("replace", over, self.index, root, parent=TC_ROOT)
        try:
            for leaf in [q for q in self.qdiscs() if q.parent >> 16 == root >> 16]:
                self._route.tc("replace", kind, self.index, 0, parent=leaf.parent)
        except NetlinkError:
            self._route.tc("del", index=self.index, handle=root, parent=TC_ROOT)
            raise

    def delete_root(self, root: Qdisc) -> None:
        """Take our root qdisc away; the kernel puts its default back."""
        self._route.tc("del", index=self.index, handle=root.handle, parent=TC_ROOT)

    def set_htb_class(self, wanted: HtbClass, *, fresh: bool) -> None:
        """Make a class, with a queue where it has none below it, or change one."""
        handle = OUR_MAJOR | wanted.minor
        rate, ceil = max(1, wanted.rate_bps // 8), max(1, wanted.ceil_bps // 8)
        self._route.tc(
            "add-class" if fresh else "change-class", "htb", self.index, handle,
            parent=OUR_MAJOR | wanted.parent, rate=rate, ceil=ceil, prio=wanted.priority,
            burst=min(wanted.burst_bytes, MOST_HTB_BURST_S * rate),
            cburst=min(wanted.burst_bytes, MOST_HTB_BURST_S * ceil),
            quantum=HTB_QUANTUM_BYTES,
        )  # fmt: skip
        if wanted.queue_bytes is not None:
            self._route.tc(
                "replace", "bfifo", self.index, OUR_QUEUES + wanted.minor << 16, parent=handle,
                limit=wanted.queue_bytes,
            )  # fmt: skip

    def delete_htb_class(self, minor: int) -> None:
        """Take a class away, and what waits in it."""
        self._route.tc("del-class", index=self.index, handle=OUR_MAJOR | minor)

    def htb_parents(self) -> dict[int, int]:
        """Return the number of the class above each class of our tree, 0 for none."""
        return {
            message["handle"] & 0xFFFF: 0 if message["parent"] == TC_ROOT
            else message["parent"] & 0xFFFF
            for message in self._route.get_classes(index=self.index)
            if message["handle"] & 0xFFFF0000 == OUR_MAJOR
        }  # fmt: skip

    def htb_counters(self) -> dict[int, HtbCounters]:
        """Return what the kernel says of each class of our tree, by its number."""
        found = {}
        for message in self._route.get_classes(index=self.index):
            if message["handle"] & 0xFFFF0000 != OUR_MAJOR:
                continue
            stats = message.get_attr("TCA_STATS2")
            sent, queue = stats.get_attr("TCA_STATS_BASIC"), stats.get_attr("TCA_STATS_QUEUE")
            found[message["handle"] & 0xFFFF] = HtbCounters(
                packets=sent["packets"],
                bytes=sent["bytes"],
                dropped=queue["drops"],
                backlog_bytes=queue["backlog"],
                backlog_packets=queue["qlen"],
                tokens_ns=stats.get_attr("TCA_STATS_APP")["tokens"] * HTB_TICK_NS,
            )
        return found

    def add_clsact(self) -> bool:
        """See to it that there is a clsact qdisc; says whether there was none."""
        if any(qdisc.handle == TC_CLSACT for qdisc in self.qdiscs()):
            return False
        self._route.tc("add", "clsact", self.index)
        return True

    def delete_clsact(self) -> None:
        """Take the clsact qdisc away, unless it has filters."""
        if not any(self._filters(hook) for hook in TC_CLSACT_HOOKS):
            self._route.tc("del", "clsact", self.index)

    def add_filter(self, hook: int, program: int, name: str) -> None:
        """Put a program before the other filters of a hook (0 ingress, 1 egress)."""
        self._route.tc(
            "add-filter", "bpf", self.index, 0, fd=program, name=name,
            parent=TC_CLSACT_HOOKS[hook], direct_action=True,
        )  # fmt: skip

    def delete_filters(self, hook: int, name: str) -> None:
        """Take away the filters of that name, and no others."""
        parent = TC_CLSACT_HOOKS[hook]
        for message in self._filters(parent):
            options = message.get_attr("TCA_OPTIONS")
            if options is not None and options.get_attr("TCA_BPF_NAME") == name:
                self._route.tc(
                    "del-filter", "bpf", self.index, message["handle"], parent=parent,
                    info=message["info"],
                )  # fmt: skip

    def _filters(self, parent: int) -> list[Any]:
        if all(qdisc.handle != TC_CLSACT for qdisc in self.qdiscs()):
            return []
        # Each is listed twice, once without its options.
        return [
            message
            for message in self._route.get_filters(index=self.index, parent=parent)
            if message["handle"]
        ]


HTB_QUANTUM_BYTES = 60_000
"""What a class may send before its siblings have their turn."""


def kernel_knows(kind: str) -> bool:
    """Whether the kernel has a qdisc, or a module of it; asked in a network of its own.

    A replaced root loses what waits in it, so that a device is a bad place to try.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    answers: list[bool] = []

    def ask() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            return
        with closing(IPRoute()) as route:
            try:
                route.tc("replace", kind, _LOOPBACK, OUR_MAJOR, parent=TC_ROOT)
            except NetlinkError as error:
                answers.append(error.code != errno.ENOENT)
            else:
                answers.append(True)

    # The network goes with the thread that is in it.
    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    return answers != [False]


@contextmanager
def traffic_control(index: int) -> Iterator[TrafficControl]:
    """Open the traffic control of an interface for a few acts.

    Raises:
        OSError: The kernel refused one of them.
    """
    socket = TrafficControl(index)
    try:
        yield socket
    except Exception as error:
        # pyroute2 is loaded by now, or this is no error of its.
        from pyroute2.netlink.exceptions import NetlinkError

        if not isinstance(error, NetlinkError):
            raise
        raise OSError(error.code, str(error)) from error
    finally:
        socket.close()
