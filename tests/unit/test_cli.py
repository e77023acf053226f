# SPDX-License-Identifier: Apache-2.0
"""The command line's words: what is refused before anything is asked of the kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ebpftop import __version__, cli

PROGRAM = Path(sys.executable).with_name("ebpftop")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must end with status 2 and print nothing; return its complaint."""
    assert cli.run(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ebpftop: ")
    assert err.endswith("\n")
    return err.removeprefix("ebpftop: ").rstrip("\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["block", "eth0"], "block takes an ADDR or --from FILE: see `ebpftop block --help`"),
        (["block", "eth0", "1.2.3"],
         "'1.2.3' is no address or prefix: write it as 192.0.2.1, 192.0.2.0/24, 2001:db8::1 "
         "or 2001:db8::/32"),
        (["block", "eth0", "192.0.2.1/24"],
         "'192.0.2.1/24' has bits set beyond its prefix length: write 192.0.2.0/24 for the "
         "whole prefix, or 192.0.2.1 for the one address"),
        (["block", "eth0", "192.0.2.1", "--for", "5"],
         "'5' has no unit: write it as 90s, 10m, 2h or forever"),
        (["limit", "eth0", "--pps", "-1"], "'-1' is no number: write it as 1000, 1k or 2.5m"),
        (["limit", "eth0", "--bps", "10"],
         "'10' has no unit: write it in bits a second, as 8kbit, 50mbit or 1gbit"),
        (["limit", "eth0", "--burst", "forever"],
         "--burst cannot be for ever: say a time, as in 10m"),
        (["limit", "eth0", "--block-for", "forever"],
         "--block-for cannot be for ever: say a time, as in 10m"),
        (["top", "eth0", "--filter", "size:>1"],
         "there is no field 'size': the fields are address, packets, bytes, pps, bps, dropped, "
         "state, first_seen_s, last_seen_s"),
        (["top", "eth0", "-n", "many"], "'many' is no number: write it as 1000, 1k or 2.5m"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused_with_what_to_write(
    capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert refused(capsys, *words) == complaint


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["unblock", "eth0"], ["ADDR", "ebpftop unblock --help"]),
        (["status"], ["IFACE", "ebpftop status --help"]),
        (["status", "eth0", "--yaml"], ["--yaml", "ebpftop status --help"]),
        (["status", "eth0", "eth1"], ["eth1", "ebpftop status --help"]),
        (["limit", "eth0", "--dry-run", "maybe"], ["maybe", "'on', 'off'"]),
        (["attach", "eth0", "--mode", "turbo"], ["turbo", "'auto', 'native', 'generic'"]),
        (["demo", "--for", "0"], ["--for", "3<=x<=3600"]),
        (["top", "eth0", "--watch", "0"], ["--watch", "0.1<=x<=3600"]),
        (["top", "eth0", "--watch", "soon"], ["--watch", "soon"]),
        (["top", "eth0", "--sort", "size"],
         ["size", "'pps', 'bps', 'packets', 'bytes', 'dropped', 'last'"]),
    ],
)  # fmt: skip
def test_a_refusal_names_the_word_and_what_may_stand_there(
    capsys: pytest.CaptureFixture[str], words: list[str], named: list[str]
) -> None:
    complaint = refused(capsys, *words)
    assert "\n" not in complaint
    assert all(name in complaint for name in named)


def test_a_list_is_refused_with_every_bad_line_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_text(
        "# known bots\n192.0.2.1\n1.2.3\n\n  2001:db8::/33x # no\n192.0.2.1/8\n\x1b[2J\n"
    )

    problem, *lines = refused(capsys, "block", "eth0", "--from", str(path)).splitlines()

    assert problem == f"{path} has 4 bad lines, nothing was blocked: mend"
    assert lines == [
        "  line 3: '1.2.3' is no address or prefix",
        "  line 5: '2001:db8::/33x' is no address or prefix",
        "  line 6: '192.0.2.1/8' has bits set beyond its prefix length",
        "  line 7: '�[2J' is no address or prefix",
    ]


def test_a_list_of_nothing_but_bad_lines_names_each_of_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_text("nonsense\n" * 250)
    problem, *lines = refused(capsys, "block", "eth0", "--from", str(path)).splitlines()
    assert "has 250 bad lines" in problem
    assert lines == [f"  line {n}: 'nonsense' is no address or prefix" for n in range(1, 251)]


def test_an_address_and_a_list_exclude_each_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("192.0.2.1\n")
    refused(capsys, "block", "eth0", "192.0.2.1", "--from", str(tmp_path / "list"))


def test_a_list_that_cannot_be_read_is_the_files_fault(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run(["block", "eth0", "--from", str(tmp_path / "none")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_without_a_word_the_help_is_shown_and_the_status_is_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run([]) == 2
    assert "Usage: ebpftop" in capsys.readouterr().err


def test_the_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in cli._VERBS:
        assert f"  {verb} " in shown
        assert cli.run([verb, "--help"]) == 0
        assert f"Usage: ebpftop {verb}" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"ebpftop, version {__version__}\n"


@pytest.mark.parametrize("words", [["nosuchverb"], ["eth0"], ["run", "block"]])
def test_a_word_that_is_no_verb_is_an_interface_and_wants_a_terminal(words: list[str]) -> None:
    done = subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ebpftop: the dashboard needs a terminal: use `ebpftop top`")
    assert done.stderr.count("\n") == 1


def test_help_into_a_pipe_that_nobody_reads_ends_quietly() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{PROGRAM} --help | true"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("redirection", "status", "complaint"),
    [(">/dev/full", 1, "ebpftop: No space left on device\n"), (">&-", 0, "")],
)
def test_output_that_cannot_be_written_is_told_in_one_line(
    redirection: str, status: int, complaint: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{PROGRAM} --version {redirection}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (status, complaint)
