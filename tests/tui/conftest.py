# SPDX-License-Identifier: Apache-2.0
"""One time zone for every screen, and controls to act with."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.tui.fakes import FakeControls


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Draw wall times in UTC, whatever the machine's zone is."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def controls() -> FakeControls:
    """Return controls that remember what they were asked."""
    return FakeControls()
