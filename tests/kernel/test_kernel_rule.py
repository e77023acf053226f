# SPDX-License-Identifier: Apache-2.0
"""The rule by which kernel tests are skipped or failed (see this folder's conftest)."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py").read_text()
NO_OBSTACLE = "\ndef obstacle(): return None\n"


def run_inside(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *, changes: str, mark: str, ci: bool
) -> pytest.RunResult:
    """Run one passing test with `mark` under a copy of the conftest with `changes` at its end."""
    # Plugins share their state with the run around this one.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nmarkers = kernel\n")
    pytester.makeconftest(CONFTEST + changes)
    pytester.makepyfile(f"import pytest\n\n@pytest.mark.{mark}\ndef test_it(): pass\n")
    if ci:
        monkeypatch.setenv("CI", "true")
    else:
        monkeypatch.delenv("CI", raising=False)
    return pytester.runpytest("-rs")


@pytest.mark.parametrize(("ci", "outcome"), [(True, "errors"), (False, "skipped")])
def test_what_cannot_run_fails_in_ci_and_is_skipped_elsewhere(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: bool, outcome: str
) -> None:
    changes = "\ndef obstacle(): return 'no root here'\n"

    result = run_inside(pytester, monkeypatch, changes=changes, mark="kernel", ci=ci)

    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines("*no root here*")


@pytest.mark.parametrize("ci", [True, False])
def test_what_the_kernel_lacks_is_skipped_everywhere(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: bool
) -> None:
    changes = NO_OBSTACLE + "FEATURES['tcx'] = lambda: 'never heard of it'\n"

    result = run_inside(pytester, monkeypatch, changes=changes, mark="kernel('tcx')", ci=ci)

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines("*this kernel lacks tcx: never heard of it*")


def test_what_can_run_does(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_inside(pytester, monkeypatch, changes=NO_OBSTACLE, mark="kernel", ci=True)

    result.assert_outcomes(passed=1)
