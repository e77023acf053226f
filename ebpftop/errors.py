# SPDX-License-Identifier: Apache-2.0
"""One exception family: what happened, and what to do about it.

Every error that a user can meet is an `EbpftopError`. Its text is one line for standard
error, or one dialog; `exit_code` is the process's status (see `ebpftop --help`).
"""


class EbpftopError(Exception):
    """Something that the user can act on.

    Args:
        problem: What is wrong, in one sentence without a full stop.
        remedy: What to do about it; empty where the problem says it already.
    """

    exit_code = 1
    """Exit status of a command that ends with this error."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem


class KernelRefusedError(EbpftopError):
    """The kernel, the network or a file refused (exit status 1)."""


class UsageError(EbpftopError):
    """Wrong words or values from the user (exit status 2)."""

    exit_code = 2


class NotFoundError(EbpftopError):
    """No such block, allowed address, backend, class or interface (exit status 3)."""

    exit_code = 3


class NotPermittedError(EbpftopError):
    """No right to do it, or it would cut the operator's own access (exit status 4)."""

    exit_code = 4


class ChangedSinceError(NotPermittedError):
    """What an act had changed is not as it left it (exit status 4)."""


class NotAttachedError(EbpftopError):
    """Nothing of ours is attached there (exit status 5)."""

    exit_code = 5


class SourceLostError(EbpftopError):
    """What a snapshot is read from went away: detached, or the interface was deleted."""
