# SPDX-License-Identifier: Apache-2.0
"""What changes the kernel's state. Read-only mode is the absence of these objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ebpftop.model import Backend, BlockRequest, ClassKey, Limits, Prefix, Service, Vip


class ShapingControls(Protocol):
    """The acts on traffic classes; as of `Controls`."""

    def set_class(
        self, key: ClassKey, changes: Mapping[str, Any], members: Sequence[Prefix] = ()
    ) -> None:
        """Make a class, or change some of it by `TrafficClass`'s names; put `members` into it."""
        ...

    def delete_class(self, key: ClassKey) -> None:
        """Take a class away."""
        ...

    def assign(self, prefix: Prefix, name: str, direction: str | None = None) -> None:
        """Put `prefix` into the class called `name`, in each direction it has."""
        ...

    def unassign(self, prefix: Prefix) -> None:
        """Take exactly `prefix` out of its classes."""
        ...


class BalancingControls(Protocol):
    """The acts on VIPs and their backends; as of `Controls`."""

    def add_vip(self, wanted: Vip) -> None:
        """Make a VIP; it has no backends yet."""
        ...

    def set_vip(self, service: Service, changes: Mapping[str, Any]) -> None:
        """Change some of a VIP by the names of `Vip`, and keep the rest and its flows."""
        ...

    def delete_vip(self, service: Service) -> None:
        """Take a VIP away, with its backends and their flows."""
        ...

    def add_backend(self, vip: Service, wanted: Backend) -> None:
        """Put a backend behind a VIP."""
        ...

    def set_backends(self, vip: Service, changes: Mapping[Service, Mapping[str, Any]]) -> None:
        """Change backends of one VIP in one act, by the names of `Backend`."""
        ...

    def delete_backend(self, vip: Service, backend: Service) -> None:
        """Take a backend away; its flows are moved at their next packet."""
        ...


class Controls(Protocol):
    """The acts an operator has. Each may block for milliseconds: call them off the event loop.

    Each raises an `EbpftopError` where it cannot be done, and then nothing has changed.
    """

    @property
    def shaping(self) -> ShapingControls:
        """The acts on traffic classes."""
        ...

    @property
    def balancing(self) -> BalancingControls:
        """The acts on VIPs and their backends."""
        ...

    def guarded(self, prefix: Prefix) -> str | None:
        """Say why dropping `prefix` could cut the operator off; None where it could not."""
        ...

    def block(
        self, prefix: Prefix, *, for_s: float | None, reason: str = "", override: bool = False
    ) -> None:
        """Drop all from `prefix` for `for_s` seconds, None for ever; again: changes the block."""
        ...

    def block_all(self, requests: Sequence[BlockRequest], *, override: bool = False) -> None:
        """Set many blocks, all or none."""
        ...

    def allow_all(self, prefixes: Iterable[Prefix]) -> None:
        """Put many on the allow list, all or none."""
        ...

    def unblock(self, prefix: Prefix) -> None:
        """End the block of exactly `prefix`, manual or automatic."""
        ...

    def allow(self, prefix: Prefix) -> None:
        """Let all from `prefix` pass, before blocks and limits."""
        ...

    def disallow(self, prefix: Prefix) -> None:
        """Take `prefix` out of the allow list."""
        ...

    def set_limits(self, limits: Limits) -> None:
        """Put `limits` in force, for every source at once."""
        ...
