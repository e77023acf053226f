# SPDX-License-Identifier: Apache-2.0
"""The manual page and the completions against the command line that they are made from."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from ebpftop.cli import cli
from ebpftop.cli.manual import COMPLETION_VARIABLE, SHELLS, manual_page


@pytest.fixture(scope="module")
def page() -> str:
    """Return the page as a terminal shows it; groff complains of nothing."""
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-rLL=200n", "-P-cbou"],
        input=manual_page(_group()), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def _group() -> click.Group:
    assert isinstance(cli, click.Group)
    return cli


def _commands(context: click.Context) -> Iterator[tuple[str, click.Command]]:
    assert isinstance(context.command, click.Group)
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        yield inner.command_path, command
        if isinstance(command, click.Group):
            yield from _commands(inner)


def test_the_manual_page_has_every_verb_with_every_option(page: str) -> None:
    found = list(_commands(click.Context(_group(), info_name="ebpftop")))
    assert len(found) > 20
    for path, command in found:
        section = re.search(rf"^ +{re.escape(path)}\b.*?(?=^ +ebpftop |^[A-Z])", page, re.M | re.S)
        assert section, path
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1] in section[0], (path, parameter.opts)


def test_the_manual_page_says_what_exit_statuses_and_values_are(page: str) -> None:
    for words in ("DURATION", "RATE", "EXPR", "EXIT STATUS", "Nothing of ours is attached there"):
        assert words in page


def test_a_line_of_help_that_looks_like_a_request_is_printed_as_it_stands() -> None:
    @click.group()
    def root() -> None:
        r""".so /etc/passwd is \fBtext\fR here."""

    shown = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou"],
        input=manual_page(root), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert r".so /etc/passwd is \fBtext\fR here" in shown.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_is_given_a_completion_for_ebpftop(shell: str) -> None:
    printed = CliRunner().invoke(cli, ["completion", shell], prog_name="ebpftop")
    assert printed.exit_code == 0
    assert COMPLETION_VARIABLE in printed.output


def _completed(*words: str) -> set[str]:
    answer = CliRunner(env={
        COMPLETION_VARIABLE: "bash_complete",
        "COMP_WORDS": " ".join(["ebpftop", *words]),
        "COMP_CWORD": str(len(words)),
    }).invoke(cli, prog_name="ebpftop")  # fmt: skip
    return {line.partition(",")[2] for line in answer.output.splitlines()}


def test_verbs_options_and_interfaces_are_completed() -> None:
    assert {"block", "blocks"} <= _completed("blo")
    assert "lo" in _completed("l") & _completed("block", "l") & _completed("attach", "l")
    assert "--reason" in _completed("block", "lo", "--")
    assert "--keep" in _completed("lo", "--")
