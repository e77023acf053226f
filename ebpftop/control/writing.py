# SPDX-License-Identifier: Apache-2.0
"""What all acts on an instance share: the writer's lock, the record of each act, and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from ebpftop.bpf import layout
from ebpftop.bpf.layout import ControlOp, EventKind
from ebpftop.control.audit import Intent, Operator, Recorder
from ebpftop.kernel import bpffs, libbpf, variants
from ebpftop.kernel.instance import Instance, describe_failure
from ebpftop.model import Prefix


class InstanceWriter:
    """Base of the controls of one instance.

    Args:
        instance: Open for writing; who opened it closes it.
        part_of_act: The caller holds the writer's lock, and has recorded the act of which all
            that is done here is a part.
        operator: Who acts; None for whoever runs this process.
        revert_after_s: Each act takes itself back after so long, unless it is confirmed.
        must_record: An act that cannot be written down is not done.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        part_of_act: bool = False,
        operator: Operator | None = None,
        revert_after_s: float | None = None,
        must_record: bool = True,
    ) -> None:
        self._instance = instance
        self._part_of_act = part_of_act
        self._recorder = Recorder(instance, operator, revert_after_s, must_record=must_record)
        self._maps = instance.maps

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the writer's lock, for what is no operator's act.

        Raises:
            EbpftopError: The kernel refused, or another writer does not end.
        """
        try:
            if self._part_of_act:
                yield
                return
            with bpffs.locked(self._instance.name):
                variants.restore_abandoned(self._instance.folder)
                yield
        except OSError as error:
            raise describe_failure(error) from error

    @contextmanager
    def _recording(self, intent: Intent, state: Callable[[], Any] | None = None) -> Iterator[None]:
        """Record one act, under the lock: before anything is done, and when it is over.

        Args:
            intent: What is about to be done.
            state: Returns the state of its targets, as JSON has it.

        Raises:
            EbpftopError: The audit log cannot be written, or what was done failed.
        """
        with nullcontext() if self._part_of_act else self._recorder.recording(intent, state):
            yield

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
