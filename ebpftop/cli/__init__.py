# SPDX-License-Identifier: Apache-2.0
"""The command line: `ebpftop IFACE` opens the dashboard, verbs do one thing each.

Exit status: 0 done; 1 the kernel, the network or a file refused; 2 wrong words or values;
3 no such thing; 4 not permitted; 5 nothing of ours is attached there. An error's first line
on standard error says what is wrong and what to do.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from ebpftop import __version__
from ebpftop.cli.completing import complete_interface
from ebpftop.errors import EbpftopError, UsageError

_VERBS = {
    "run": "dashboard",
    "demo": "demo",
    "attach": "attaching",
    "detach": "attaching",
    "status": "watching",
    "top": "watching",
    "blocks": "watching",
    "allowed": "watching",
    "block": "acting",
    "unblock": "acting",
    "allow": "acting",
    "disallow": "acting",
    "limit": "acting",
    "class": "shaping",
    "assign": "shaping",
    "unassign": "shaping",
    "classes": "shaping",
    "count-sent": "shaping",
    "vip": "balancing",
    "backend": "balancing",
    "backends": "balancer_watching",
    "connections": "balancer_watching",
    "explain": "explaining",
    "trace": "tracing",
    "reload": "reloading",
    "record": "recording",
    "replay": "recording",
    "acts": "accounting",
    "undo": "accounting",
    "confirm": "accounting",
    "doctor": "doctor",
    "man": "manual",
    "completion": "manual",
}
"""The module of each verb; a verb imports what it needs and no more."""


_FUNCTIONS = {"class": "traffic_class", "count-sent": "count_sent"}
"""The functions of verbs that cannot be called as the verb is."""


class _Verbs(click.Group):
    """A group whose words that are no verb are interfaces."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = import_module(f"ebpftop.cli.{_VERBS[cmd_name]}")
        command: click.Command = getattr(module, _FUNCTIONS.get(cmd_name, cmd_name))
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = complete_interface(ctx, None, incomplete)
        return [*super().shell_complete(ctx, incomplete), *map(CompletionItem, names)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*_VERBS, "--help", "-h", "--version"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            answer = super().invoke(ctx)
            if sys.stdout:  # closed by the caller, as in `>&-`
                sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output has seen enough. Not left to click, which would leave
            # with status 1; what is still buffered must not go into the pipe either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None
        return answer


@click.group(
    cls=_Verbs,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`ebpftop IFACE...` opens the dashboard; `ebpftop run --help` has its options.",
)
@click.version_option(__version__, prog_name="ebpftop")
def cli() -> None:
    """See who is sending what to an interface, and act on it."""


def main() -> None:
    """Run the command line and leave with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit status."""
    try:
        answer: Any = cli.main(arguments, prog_name="ebpftop", standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except EbpftopError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return UsageError.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "ebpftop"
        return _fail(f"{error.format_message()} See `{command} --help`", UsageError.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", EbpftopError.exit_code)


def _fail(message: str, status: int) -> int:
    click.echo(f"ebpftop: {message}", err=True)
    return status
