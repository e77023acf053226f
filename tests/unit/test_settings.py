# SPDX-License-Identifier: Apache-2.0
"""The dashboard's settings file: found, read, and refused with a line that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpftop.config import dashboard
from ebpftop.config.dashboard import DashboardSettings, load_settings
from ebpftop.errors import KernelRefusedError, UsageError

WHOLE = """
theme = "light"
ascii = true
bell = true
mouse = false
[keys]
block = "B"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home of nobody's, where a system's file is looked for too."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(dashboard, "SYSTEM_FILE", tmp_path / "etc" / "dashboard.toml")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_a_file_everything_is_as_usual(home: Path) -> None:
    assert load_settings() == DashboardSettings()


def test_every_key_is_read(home: Path) -> None:
    settings = load_settings(write(home / "mine.toml", WHOLE))
    assert settings == DashboardSettings(
        theme="light", ascii=True, bell=True, mouse=False, keys={"block": "B"}
    )


def test_ones_own_file_is_taken_before_everybodys(home: Path) -> None:
    write(dashboard.SYSTEM_FILE, 'theme = "light"')
    assert load_settings().theme == "light"
    write(dashboard.own_file(), 'theme = "terminal"')
    assert load_settings().theme == "terminal"


def test_without_a_config_folder_the_file_is_in_the_home(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(home))
    assert dashboard.own_file() == home / ".config" / "ebpftop" / "dashboard.toml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('theme = "pink"', "none of dark, light, terminal"),
        ("them = 1", "did you mean theme"),
        ("bell = 1", "true or false"),
        ("[keys]\nblock = 1", "keys"),
        ("theme =", "line 1"),
    ],
)
def test_a_mistake_is_named_with_what_is_right(home: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_settings(write(home / "mine.toml", text))


def test_a_file_that_was_asked_for_and_is_not_there_is_an_error(home: Path) -> None:
    with pytest.raises(KernelRefusedError, match="cannot be read"):
        load_settings(home / "nothing.toml")


def test_a_home_that_is_closed_to_us_is_passed_over(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "is_file", closed)
    assert load_settings() == DashboardSettings()
