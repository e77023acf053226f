# SPDX-License-Identifier: Apache-2.0
"""The verb that reads the policy file again."""

from __future__ import annotations

from pathlib import Path

import click

from ebpftop import config
from ebpftop.cli.parameters import INTERFACE, require_root, watched
from ebpftop.control import policy as policies
from ebpftop.errors import UsageError


@click.command()
@INTERFACE
def reload(iface: str) -> None:
    """Read the policy file again, and change only what differs in its classes."""
    require_root("changing anything")
    instance = watched(iface)
    try:
        path = instance.meta.policy
        if not path:
            raise UsageError(
                f"{iface} was attached without a policy file", "attach with --config FILE"
            )
        policies.apply_classes(instance, config.load(Path(path)))
    finally:
        instance.close()
