# SPDX-License-Identifier: Apache-2.0
"""What all acts on an instance share: the writer's lock, and the kernel's refusals as errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np

from ebpftop.bpf import layout
from ebpftop.bpf.layout import ControlOp, EventKind
from ebpftop.kernel import bpffs, libbpf, variants
from ebpftop.kernel.instance import Instance, describe_failure
from ebpftop.model import Prefix


class InstanceWriter:
    """Base of the controls of one instance.

    Args:
        instance: Open for writing; who opened it closes it.
        holding_lock: The caller holds the writer's lock over all its acts.
    """

    def __init__(self, instance: Instance, *, holding_lock: bool = False) -> None:
        self._instance = instance
        self._holding_lock = holding_lock
        self._maps = instance.maps

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the writer's lock over one act.

        Raises:
            EbpftopError: The kernel refused, or another writer does not end.
        """
        try:
            with nullcontext() if self._holding_lock else bpffs.locked(self._instance.name):
                variants.restore_abandoned(self._instance.folder)
                yield
        except OSError as error:
            raise describe_failure(error) from error

    def _tell(self, kind: EventKind, prefix: Prefix, text: str, *values: int) -> None:
        """Append an event."""
        self._run(ControlOp.EVENT, prefix, kind=kind, text=text, values=values)

    def _run(
        self,
        op: ControlOp,
        prefix: Prefix | None = None,
        *,
        slot: int = 0,
        kind: int = 0,
        text: str = "",
        values: Sequence[int] = (),
    ) -> None:
        """Have the `control` program do what maps alone cannot; arguments as of its request."""
        request = np.zeros(1, layout.CONTROL_REQUEST)
        request["op"], request["slot"] = op, slot
        event = request["event"]
        if prefix is not None:
            event["address"]["high"], event["address"]["low"] = prefix.high, prefix.low
            event["length"] = prefix.length
        event["kind"] = kind
        event["value"][:, : len(values)] = values
        event["text"] = text.encode()[: layout.EVENT_TEXT_BYTES].decode(errors="ignore").encode()
        libbpf.run_program(self._instance.programs["control"], request.tobytes())
