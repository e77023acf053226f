# SPDX-License-Identifier: Apache-2.0
"""The manual page and the shells' completions, made from the command line itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.shell_completion import get_completion_class

from ebpftop import __version__

SHELLS = ("bash", "zsh", "fish")
"""Shells that a completion can be made for."""
COMPLETION_VARIABLE = "_EBPFTOP_COMPLETE"

_VALUES = {
    "ADDR": "An IPv4 or IPv6 address or prefix: 192.0.2.1, 192.0.2.0/24, 2001:db8::/32.",
    "VIP": "Address, port and protocol: 192.0.2.1:80/tcp, [2001:db8::1]:53/udp.",
    "BACKEND": "Address and port: 10.0.0.1:8080, [2001:db8::2]:8080.",
    "DURATION": "90s, 10m, 2h, or forever.",
    "RATE": "Bits a second: 8kbit, 50mbit, 1gbit, 64000bit.",
    "SIZE": "Bytes: 32kb, 1mb.",
    "EXPR": "Words joined by spaces, all of which must hold. FIELD:VALUE, where addresses match by "
    "prefix (address:10.0.0.0/8), numbers by =, >, < or a range (pps:>1k, bytes:1m..5m), and text "
    "exactly or by /regex/. A bare word is looked for in every field. - before a word negates it.",
}
_EXIT_STATUS = {
    "0": "Done.",
    "1": "The kernel, the network or a file refused.",
    "2": "Wrong words or values.",
    "3": "No such block, backend, class or interface.",
    "4": "Not permitted: no right, or the guard of one's own access without --override.",
    "5": "Nothing of ours is attached there.",
}
_FILES = {
    "/run/ebpftop/bpf": "A BPF file system: a folder for each attached instance, with its maps.",
    "/run/ebpftop": "Locks.",
}


@click.command()
def man() -> None:
    """Print the manual page: `ebpftop man | man -l -`."""
    root = click.get_current_context().find_root()
    assert isinstance(root.command, click.Group)
    click.echo(manual_page(root.command), nl=False)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete verbs, options and interfaces."""
    root = click.get_current_context().find_root()
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(root.command, {}, "ebpftop", COMPLETION_VARIABLE).source(), nl=False)


def manual_page(root: click.Group) -> str:
    """Return the manual page of a command line, as man(7) macros.

    Args:
        root: The group of all verbs.
    """
    context = click.Context(root, info_name="ebpftop")
    return "\n".join([*_head(context), *_verbs(context), *_tail()]) + "\n"


def _head(context: click.Context) -> Iterator[str]:
    yield f'.TH EBPFTOP 8 "" "ebpftop {__version__}" "System Administration"'
    yield ".SH NAME"
    yield rf"ebpftop \- {_text(_sentence(context.command))}"
    yield ".SH SYNOPSIS"
    yield r".B ebpftop"
    yield r"\fIIFACE\fR... [\fIOPTIONS\fR]"
    yield ".br"
    yield r".B ebpftop"
    yield r"\fIVERB\fR [\fIARGUMENTS\fR]"
    yield ".SH DESCRIPTION"
    yield _text(
        "Attaches eBPF programs to network interfaces, shows who is sending what, and lets an "
        "operator act: block and allow sources, limit them, balance VIPs over backends, and hold "
        "traffic classes to a rate. Without a verb it opens the dashboard on the interfaces, "
        "attached for as long as it is open; its keys are listed by ? in it. To attach drops "
        "nothing until a limit is set or a source is blocked."
    )


def _verbs(context: click.Context) -> Iterator[str]:
    assert isinstance(context.command, click.Group)
    yield ".SH VERBS"
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        assert command is not None
        yield from _command(click.Context(command, info_name=name, parent=context))


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    yield f'.SS "{_text(" ".join([context.command_path, *pieces]))}"'
    yield _text(_paragraphs(command))
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            yield ".TP"
            yield f".B {_text(record[0])}"
            yield _text(record[1])
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(click.Context(inner, info_name=name, parent=context))


def _tail() -> Iterator[str]:
    sections = {"VALUES": _VALUES, "EXIT STATUS": _EXIT_STATUS, "FILES": _FILES}
    for title, entries in sections.items():
        yield f".SH {title}"
        for word, meaning in entries.items():
            yield ".TP"
            yield f".B {_text(word)}"
            yield _text(meaning)
    yield ".SH SEE ALSO"
    yield r".BR tc (8), .BR ip (8), .BR bpftool (8)".replace(", .BR", ",\n.BR")


def _sentence(command: click.Command) -> str:
    """Return the first sentence of a command's help, without its stop."""
    return (command.help or "").partition("\n")[0].rstrip(".")


def _paragraphs(command: click.Command) -> str:
    return "\n".join(line.strip() for line in (command.help or "").splitlines() if line.strip())


def _text(words: str) -> str:
    r"""Return text that roff prints as it stands: no escapes, no line that is a request."""
    escaped = words.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    lines = (rf"\&{line}" if line[:1] in (".", "'") else line for line in escaped.split("\n"))
    return "\n".join(lines)
