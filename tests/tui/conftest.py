# SPDX-License-Identifier: Apache-2.0
"""One time zone for every screen, and controls to act with."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.tui.fakes import FakeControls
from tests.tui.recorded import RecordedLab


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


@pytest.fixture(scope="session")
def recorded() -> RecordedLab:
    """Return the recording of the lab under the demo's traffic."""
    return RecordedLab()
