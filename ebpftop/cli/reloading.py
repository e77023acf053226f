# SPDX-License-Identifier: Apache-2.0
"""The verb that reads the policy file again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from ebpftop import config
from ebpftop.cli.parameters import INTERFACE, require_root, watched
from ebpftop.control import policy as policies
from ebpftop.errors import UsageError
from ebpftop.kernel.instance import Instance


@click.command()
@INTERFACE
def reload(iface: str) -> None:
    """Read the policy file again, and change only what differs; flows stay."""
    require_root("changing anything")
    with closing(watched(iface)) as instance:
        reread(instance)


def reread(instance: Instance) -> None:
    """Put the policy file that an instance was attached with in force again.

    Raises:
        UsageError: There was none.
        EbpftopError: It cannot be read, is wrong, or does not fit; nothing has changed.
    """
    path = instance.meta.policy
    if not path:
        raise UsageError(
            f"{instance.describe()} was attached without a policy file", "attach with --config FILE"
        )
    policies.reload(instance, config.load(Path(path)))
