# SPDX-License-Identifier: Apache-2.0
"""Floods: frames made in batches with numpy and sent by sendmmsg(2) on a packet socket."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

BATCH_FRAMES = 256
"""Most frames in one system call."""

_PACE_S = 0.002
_MAX_LAG_S = 0.05
_ETHERNET_BYTES = 14
_IPV4_BYTES = 20
_IPV6_BYTES = 40
_PAYLOAD = b"ebpftop: a flood.\n"
_SPOOFED_NETWORK = ipaddress.IPv4Network("10.0.0.0/8")
_FIRST_PORT, _LAST_PORT = 1024, 65535
_libc = ctypes.CDLL(None, use_errno=True)


class Mode(StrEnum):
    """What a flood is made of. Source ports are random in all of them."""

    UDP = "udp"
    """UDP from one IPv4 address."""
    SYN = "syn"
    """TCP connection requests from one IPv4 address."""
    SPOOFED = "spoofed"
    """UDP, each packet from another address of 10.0.0.0/8."""
    V6 = "v6"
    """UDP from one IPv6 address."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a flow."""

    mac: str
    """Ethernet address, with colons."""
    address: str
    """IPv4 or IPv6 address, as the mode wants it."""
    port: int
    """UDP or TCP port."""


class FrameBatch:
    """Frames of one flood, all of one length, written anew for every send.

    Args:
        mode: What they are.
        source: Who sends; its port is replaced, and in mode `spoofed` its address too.
        target: Who receives.
    """

    def __init__(self, mode: Mode, source: Endpoint, target: Endpoint) -> None:
        self._mode = mode
        template = _template(mode, source, target)
        self.frames: NDArray[np.uint8] = np.tile(
            np.frombuffer(template, np.uint8), (BATCH_FRAMES, 1)
        )
        """One frame a row."""
        self._words: NDArray[np.uint16] = self.frames.view(">u2")
        self._random = np.random.default_rng()
        network_bytes = _IPV6_BYTES if mode is Mode.V6 else _IPV4_BYTES
        self._network = _ETHERNET_BYTES // 2
        self._transport = self._network + network_bytes // 2
        self._checksum = self._transport + (8 if mode is Mode.SYN else 3)
        self._pseudo_header = _pseudo_header_sum(mode, len(template))

    def refill(self, count: int) -> None:
        """Give the first `count` frames new source ports or addresses, and true checksums."""
        words = self._words[:count]
        words[:, self._transport] = self._random.integers(
            _FIRST_PORT, _LAST_PORT, count, np.uint16, endpoint=True
        )
        addresses = self._network + 4
        if self._mode is Mode.SPOOFED:
            hosts = self._random.integers(1, _SPOOFED_NETWORK.num_addresses - 1, count, np.uint32)
            source = hosts + np.uint32(int(_SPOOFED_NETWORK.network_address))
            words[:, self._network + 6] = source >> 16
            words[:, self._network + 7] = source & 0xFFFF
        if self._mode is not Mode.V6:
            addresses = self._network + 6
            words[:, self._network + 5] = 0
            header = words[:, self._network : self._transport].sum(axis=1, dtype=np.uint32)
            words[:, self._network + 5] = _complement(header)
        words[:, self._checksum] = 0
        total = words[:, addresses:].sum(axis=1, dtype=np.uint32) + self._pseudo_header
        checksum = _complement(total)
        # Zero would say that there is no checksum (RFC 768); TCP takes either form of zero.
        words[:, self._checksum] = np.where(checksum == 0, 0xFFFF, checksum)


def _template(mode: Mode, source: Endpoint, target: Endpoint) -> bytes:
    """Return one frame, its source port and its checksums still to be filled in."""
    if mode is Mode.SYN:
        # A maximum segment size and padding, as a real client's request has options too.
        options = struct.pack("!BBHBBBB", 2, 4, 1460, 1, 1, 1, 0)
        header = struct.pack("!HHIIBBHHH", 0, target.port, 1, 0, 7 << 4, 0x02, 64240, 0, 0)
        transport, protocol = header + options, socket.IPPROTO_TCP
    else:
        length = 8 + len(_PAYLOAD)
        header = struct.pack("!HHHH", 0, target.port, length, 0)
        transport, protocol = header + _PAYLOAD, socket.IPPROTO_UDP
    ends = ipaddress.ip_address(source.address).packed + ipaddress.ip_address(target.address).packed
    if mode is Mode.V6:
        network = struct.pack("!IHBB", 6 << 28, len(transport), protocol, 64) + ends
        ethertype = 0x86DD
    else:
        total = _IPV4_BYTES + len(transport)
        network = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0, 64, protocol, 0) + ends
        ethertype = 0x0800
    macs = bytes.fromhex((target.mac + source.mac).replace(":", ""))
    return macs + struct.pack("!H", ethertype) + network + transport


def _pseudo_header_sum(mode: Mode, frame_bytes: int) -> int:
    """Return the part of the transport checksum's sum that no word of a frame holds."""
    network_bytes = _IPV6_BYTES if mode is Mode.V6 else _IPV4_BYTES
    protocol = socket.IPPROTO_TCP if mode is Mode.SYN else socket.IPPROTO_UDP
    return protocol + frame_bytes - _ETHERNET_BYTES - network_bytes


def _complement(total: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Fold sums to 16 bits with end-around carry and invert them (RFC 1071)."""
    folded = (total & 0xFFFF) + (total >> 16)
    folded = (folded & 0xFFFF) + (folded >> 16)
    return folded ^ np.uint32(0xFFFF)


class _IoVector(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _MessageHeader(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_IoVector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("header", _MessageHeader), ("sent_bytes", ctypes.c_uint)]


class PacketSocket:
    """Sends whole Ethernet frames from an interface of the thread's namespace.

    Args:
        interface: Its name.
    """

    def __init__(self, interface: str) -> None:
        # Protocol 0: it receives nothing.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((interface, 0))
        self._messages: ctypes.Array[_Message] | None = None
        self._vectors: ctypes.Array[_IoVector] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def aim(self, frames: NDArray[np.uint8]) -> None:
        """Point at `frames`, one a row, which `send` will read each time anew."""
        base, (count, length) = frames.ctypes.data, frames.shape
        self._vectors = (_IoVector * count)(*((base + i * length, length) for i in range(count)))
        self._messages = (_Message * count)()
        for message, vector in zip(self._messages, self._vectors, strict=True):
            message.header.vectors = ctypes.pointer(vector)
            message.header.vector_count = 1

    def send(self, count: int) -> int:
        """Send the first `count` frames; return how many the kernel took.

        Raises:
            OSError: It refused, for another reason than full buffers.
        """
        sent: int = _libc.sendmmsg(self._socket.fileno(), self._messages, count, 0)
        if sent >= 0:
            return sent
        number = ctypes.get_errno()
        if number in (errno.ENOBUFS, errno.EAGAIN, errno.EINTR):
            return 0
        raise OSError(number, os.strerror(number))


def send(
    output: PacketSocket,
    batch: FrameBatch,
    pps: int,
    seconds: float,
    stopped: Callable[[float], bool],
) -> dict[str, object]:
    """Send a flood and return how many packets it was, and over how many seconds.

    Args:
        output: Where to send.
        batch: What to send.
        pps: Packets a second; 0 is as fast as one core can. Time lost is not made up for.
        seconds: When to end.
        stopped: Waits that many seconds, or less where it is to end earlier: then it says so.
    """
    output.aim(batch.frames)
    started_s = clock_s = now_s = time.monotonic()
    end_s = started_s + seconds
    sent = paced = 0
    while not stopped(0.0) and (now_s := time.monotonic()) < end_s:
        count = BATCH_FRAMES
        if pps:
            clock_s = max(clock_s, now_s - paced / pps - _MAX_LAG_S)
            count = min(count, int((now_s - clock_s) * pps) - paced)
            if count <= 0:
                stopped(_PACE_S)
                continue
        batch.refill(count)
        done = output.send(count)
        sent += done
        paced += done
    return {"sent_packets": sent, "seconds": round(now_s - started_s, 3)}
