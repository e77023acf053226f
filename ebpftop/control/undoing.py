# SPDX-License-Identifier: Apache-2.0
"""Take acts back: by name, the last one, or because nobody confirmed them in time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ebpftop.control import pending
from ebpftop.control.audit import Intent, Operator, log_of
from ebpftop.control.class_states import key_of, requests
from ebpftop.control.list_states import States, unpacked
from ebpftop.errors import EbpftopError, KernelRefusedError, NotFoundError, UsageError
from ebpftop.format import printable
from ebpftop.journal import Acts, Reader
from ebpftop.kernel.instance import Instance
from ebpftop.model import Act, Prefix, Service
from ebpftop.model.acts import DONE, UNKNOWN_RESULT, last_to_undo

if TYPE_CHECKING:
    from ebpftop.control.everything import InstanceControl

REVERT_PATIENCE_S = 60.0
"""How long a revert is tried again while another writer keeps the lock."""


def acts_of(instance: Instance) -> Acts:
    """Return what the audit log says of an instance.

    Raises:
        KernelRefusedError: The log cannot be read.
    """
    path = log_of(instance).path
    try:
        return Reader(path, instance.key).read()
    except OSError as error:
        raise KernelRefusedError(
            f"the audit log {printable(str(path))} cannot be read: {error.strerror}"
        ) from None


def chosen(acts: Sequence[Act], name: str) -> Act:
    """Return the act called `name`, or the last one that can be undone.

    Args:
        acts: Oldest first.
        name: Its name, or the beginning of it; empty for the last.

    Raises:
        NotFoundError: There is none.
        UsageError: The beginning fits several, or it cannot be undone.
    """
    if not name:
        last = last_to_undo(list(acts))
        if last is None:
            raise NotFoundError("there is no act to undo", "`ebpftop acts` lists them")
        return last
    found = [act for act in acts if act.id.startswith(name)]
    if not found:
        raise NotFoundError(f"no act {printable(name, 20)}", "`ebpftop acts` lists them")
    if len(found) > 1:
        raise UsageError(f"{printable(name, 20)} begins the names of {len(found)} acts")
    act = found[0]
    if act.undone:
        raise UsageError(f"act {act.id} is undone already", "undo what undid it instead")
    if act.result not in (DONE, UNKNOWN_RESULT):
        raise UsageError(f"act {act.id} was not done", "there is nothing to take back")
    if not act.facet:
        raise UsageError(f"{act.what} cannot be undone", "only what it changed can be changed back")
    return act


def undo(control: InstanceControl, act: Act, *, force: bool, override: bool) -> None:
    """Put back what was before `act`.

    Args:
        control: Of the instance.
        act: What to take back.
        force: Even if the state has changed since.
        override: Even if it cuts off the operator.

    Raises:
        ChangedSinceError: The state is not as the act left it.
        NotFoundError: What it ended would have ended by now.
        EbpftopError: As of the act that puts it back.
    """
    intent = Intent(
        "undo", act.facet, _targets(act.facet, act.target, act.new), wanted=act.old,
        undoes=act.id, expected=act.new, forced=force,
    )  # fmt: skip
    restore(control, intent, act.target, act.old, override=override)
    pending.Timer(pending.path_of(control.instance_name, act.id)).cancel()


def restore(
    control: InstanceControl, intent: Intent, target: str, state: Any, *, override: bool
) -> None:
    """Put a state back, as the act that `intent` says.

    Args:
        control: Of the instance.
        intent: The act.
        target: The target in words, as the audit log has it.
        state: What is to hold, as the audit log has it.
        override: Even if it cuts off the operator.
    """
    shaping = control.shaping
    match intent.facet:
        case "block":
            control.restore_blocks(_not_over(unpacked(state, target)), intent, override=override)
        case "allow":
            control.restore_allowed(unpacked(state, target), intent)
        case "limits":
            control.restore_limits(state, intent)
        case "class":
            shaping.restore_class(key_of(target), state, intent)
        case "member":
            shaping.restore_member(Prefix.parse(target), state, intent)
        case "count-sent":
            shaping.count_sent(state, intent)
        case "classes":
            shaping.apply(requests(state), shaping.counting_sent(), intent)
        case "vip":
            control.balancing.restore_vip(Service.parse(target), state, intent)
        case "backends":
            vip = Service.parse(target.partition(" ")[0])
            control.balancing.restore_backends(vip, state, intent)
        case _:
            raise UsageError(f"{printable(intent.facet, 20)} cannot be put back")


def _not_over(states: States) -> States:
    """Return the blocks with those left out whose time is over.

    Raises:
        NotFoundError: It is over for all of them.
    """
    now_s = time.time()

    def is_over(state: Any) -> bool:
        return bool(state) and state["until_s"] is not None and state["until_s"] <= now_s

    if all(map(is_over, states.values())):
        raise NotFoundError("the block would have ended by now", "block it anew if it must be")
    return {prefix: None if is_over(state) else state for prefix, state in states.items()}


def _targets(facet: str, target: str, value: Any) -> Sequence[str | Prefix]:
    if facet in ("block", "allow"):
        return list(unpacked(value, target))
    return [target] if target else []


def confirm(control: InstanceControl, instance: Instance) -> int:
    """Let all acts stay that wait to be confirmed; returns how many there were.

    Raises:
        NotFoundError: There is none, or it was taken back just now.
    """
    waiting = pending.of(instance)
    if not waiting:
        raise NotFoundError("no act waits to be confirmed", "`ebpftop acts` lists what was done")
    names = [orders.id for orders in waiting]
    with control.confirming(Intent("confirm", confirms=names, targets=[", ".join(names)])):
        for orders in waiting:
            try:
                pending.path_of(instance.name, orders.id).unlink()
            except FileNotFoundError:
                raise NotFoundError(f"too late: act {orders.id} was taken back") from None
    return len(names)


def revert(content: bytes) -> None:
    """Carry out the orders of `pending`: nobody has confirmed the act."""
    from ebpftop.control.everything import InstanceControl

    orders = msgspec.json.decode(content, type=pending.Pending)
    with suppress(EbpftopError, OSError):
        instance = Instance(Path(orders.folder), read_only=False)
        try:
            if instance.key == orders.key:
                who = Operator(orders.user, orders.login, orders.terminal)
                _revert(InstanceControl(instance, operator=who, must_record=False), orders)
        finally:
            instance.close()


def _revert(control: InstanceControl, orders: pending.Pending) -> None:
    deadline_s = time.monotonic() + REVERT_PATIENCE_S
    while True:
        try:
            restore(
                control, _revert_intent(control, orders), orders.target, orders.revert_to,
                override=True,
            )  # fmt: skip
        except KernelRefusedError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)
        else:
            return


def _revert_intent(control: InstanceControl, orders: pending.Pending) -> Intent:
    """Expect what the act has left, where it is known to have been done."""
    act = None
    with suppress(EbpftopError):
        act = next((act for act in control.acts().acts if act.id == orders.id), None)
    known = act is not None and act.result == DONE
    return Intent(
        "revert", orders.facet, _targets(orders.facet, orders.target, orders.revert_to),
        wanted=orders.revert_to, undoes=orders.id, expected=act.new if act else None,
        forced=not known,
    )  # fmt: skip
