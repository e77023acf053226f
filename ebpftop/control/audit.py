# SPDX-License-Identifier: Apache-2.0
"""Who acts, and the record of each act: written before it is done, and again when it is over."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ebpftop.control import pending
from ebpftop.errors import ChangedSinceError, EbpftopError, KernelRefusedError
from ebpftop.format import printable
from ebpftop.journal import Line, Log, default_path
from ebpftop.kernel.instance import Instance
from ebpftop.model import Prefix
from ebpftop.model.acts import DONE

_NOBODY = 0xFFFFFFFF
"""What the kernel says of a process that no login began."""
_SAME_TIME_S = 1.0
"""Ends of blocks that are nearer are one end: two clocks are between them."""
_PARTS = {"class": "members", "vip": "backends"}
"""What of a state is changed by acts of its own."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be done."""

    what: str
    """`block`, `limit`, `class set`, ..."""
    facet: str = ""
    """The part of the state that it changes: a word of `model.acts.FACETS`, empty for none."""
    targets: Sequence[str | Prefix] = ()
    """The addresses, prefixes or classes."""
    wanted: Any = None
    """The state that is intended, as far as it is known before."""
    undoes: str = ""
    """The act that it takes back."""
    expected: Any = None
    """The state that an act to be taken back has left."""
    forced: bool = False
    """Take it back whatever the state is now."""
    confirms: Sequence[str] = ()
    """The acts that it lets stay."""

    @property
    def target(self) -> str:
        """The target in words."""
        if len(self.targets) == 1:
            return str(self.targets[0])
        return f"{len(self.targets):,} addresses" if self.targets else ""


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts, and from where."""

    user: str
    """Who; the one behind sudo where there is one."""
    login: str | None
    """Who logged in at first; None where nobody did."""
    terminal: str | None
    """The terminal; None for none."""

    @classmethod
    def here(cls) -> Operator:
        """Return whoever runs this process."""
        user = _name(os.getuid())
        if os.geteuid() == 0:
            user = os.environ.get("SUDO_USER") or user
        return cls(printable(user, 40), _login(), _terminal())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _login() -> str | None:
    """Return whose login began this process: sudo and su do not change it."""
    with suppress(OSError, ValueError):
        uid = int(Path("/proc/self/loginuid").read_text())
        return None if uid == _NOBODY else _name(uid)
    return None


def _terminal() -> str | None:
    for fd in (0, 1, 2):
        with suppress(OSError):
            return os.ttyname(fd)
    return None


def log_of(instance: Instance) -> Log:
    """Return the audit log of an instance; who may watch it may read the log."""
    path = Path(instance.meta.audit) if instance.meta.audit else default_path()
    gid = 0
    with suppress(FileNotFoundError):  # its interface was deleted, and a sweep took it
        gid = instance.folder.stat().st_gid
    return Log(path, gid)


@contextmanager
def attaching(interfaces: Sequence[str], log: Log) -> Iterator[Callable[[Instance], None]]:
    """Record that something is attached; what is yielded is told the instance once it is there.

    Raises:
        KernelRefusedError: The log cannot be written; nothing was done.
    """
    who = Operator.here()
    line = Line(
        id=os.urandom(4).hex(), time=round(time.time(), 3), user=who.user, login=who.login,
        terminal=who.terminal, pid=os.getpid(), interfaces=tuple(interfaces), what="attach",
        target=printable(", ".join(interfaces), 80),
    )  # fmt: skip
    log.append(line, durable=True)
    made: list[Instance] = []
    try:
        yield made.append
    except BaseException as error:
        _close(log, line, f"refused: {error}" if str(error) else repr(error))
        raise
    for instance in made:
        line = msgspec.structs.replace(line, instance=instance.key)
        _close(
            log, line, DONE, [f"{each.name} ({each.mode})" for each in instance.meta.attachments]
        )


class Recorder:
    """Writes the acts on one instance down.

    Args:
        instance: What is acted on.
        operator: Who acts; None for whoever runs this process.
        revert_after_s: Each act takes itself back after so long, unless it is confirmed.
        must_record: An act that cannot be written down is not done.
    """

    def __init__(
        self,
        instance: Instance,
        operator: Operator | None = None,
        revert_after_s: float | None = None,
        *,
        must_record: bool = True,
    ) -> None:
        self._instance = instance
        self._operator = operator
        self._revert_after_s = revert_after_s
        self._must_record = must_record

    @contextmanager
    def recording(self, intent: Intent, state: Callable[[], Any] | None = None) -> Iterator[None]:
        """Write the intent, let the act be done, and write how it went.

        Args:
            intent: What is about to be done.
            state: Returns the state of the intent's targets, as JSON has it.

        Raises:
            KernelRefusedError: The log cannot be written; nothing was done.
            ChangedSinceError: The state is not the one that the intent expects.
        """
        log, old = log_of(self._instance), state() if state else None
        line = _line(self._instance, intent, self._operator or Operator.here(), old)
        after_s = self._revert_after_s if intent.facet else None
        if after_s is not None:
            line = msgspec.structs.replace(line, reverts_at=round(line.time + after_s, 3))
        with nullcontext() if self._must_record else suppress(KernelRefusedError):
            log.append(line, durable=True)
        timer = None
        try:
            _check_expected(intent, old)
            if after_s is not None:
                timer = pending.start(self._instance, self._orders(line, after_s))
            yield
        except BaseException as error:
            if timer is not None:
                timer.cancel()
            _close(log, line, f"refused: {error}" if str(error) else repr(error))
            raise
        _close(log, line, DONE, state() if state else intent.wanted)

    def _orders(self, line: Line, after_s: float) -> pending.Pending:
        instance = self._instance
        return pending.Pending(
            id=line.id,
            key=instance.key,
            folder=str(instance.folder),
            facet=line.facet,
            target=line.target,
            revert_to=pending.state_to_restore(instance, line.facet, line.target, line.old),
            deadline_ns=pending.deadline_ns(after_s),
            user=line.user,
            login=line.login,
            terminal=line.terminal,
        )


def _close(log: Log, line: Line, result: str, new: Any = None) -> None:
    changes = {"result": result} | ({"new": new} if result == DONE else {})
    # The intent is on the disk, and what was done is done: an error here would say it was not.
    with suppress(EbpftopError):
        log.append(msgspec.structs.replace(line, **changes), durable=False)


def _line(instance: Instance, intent: Intent, who: Operator, old: Any) -> Line:
    return Line(
        id=os.urandom(4).hex(),
        time=round(time.time(), 3),
        user=who.user,
        login=who.login,
        terminal=who.terminal,
        pid=os.getpid(),
        instance=instance.key,
        interfaces=tuple(attachment.name for attachment in instance.meta.attachments),
        what=intent.what,
        facet=intent.facet,
        target=printable(intent.target, 80),
        old=old,
        new=intent.wanted,
        undoes=intent.undoes or None,
        confirms=tuple(intent.confirms),
    )


def _check_expected(intent: Intent, state: Any) -> None:
    if intent.undoes and not intent.forced and not same_state(intent.facet, state, intent.expected):
        raise ChangedSinceError(
            f"what act {intent.undoes} left has been changed since", "--force takes it back anyway"
        )


def same_state(facet: str, one: Any, other: Any) -> bool:
    """Whether two states of a facet are one."""
    if isinstance(one, list) and isinstance(other, list) and facet == "block":
        return len(one) == len(other) and all(map(_same_group, one, other))
    if not isinstance(one, dict) or not isinstance(other, dict):
        return bool(one == other)
    if facet == "block":
        return _same_block(one, other)
    if facet in _PARTS:  # who is in it is a matter of its own
        one, other = {**one, _PARTS[facet]: None}, {**other, _PARTS[facet]: None}
    return bool(one == other)


def _same_group(one: Any, other: Any) -> bool:
    blocks = one["state"], other["state"]
    same = blocks[0] == blocks[1] if None in blocks else _same_block(*blocks)
    return same and one["targets"] == other["targets"]


def _same_block(one: dict[str, Any], other: dict[str, Any]) -> bool:
    ends = one.get("until_s"), other.get("until_s")
    if None in ends:
        return ends[0] == ends[1]
    return abs(float(ends[0] or 0) - float(ends[1] or 0)) < _SAME_TIME_S
