# SPDX-License-Identifier: Apache-2.0
"""One time zone for every screen, controls to act with, and shorter waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from textual import _wait

from tests.tui.fakes import FakeControls
from tests.tui.recorded import RecordedLab

IDLE_LOOK_S = 1 / 250
"""How long the pilot looks whether the dashboard is idle; by itself, five times as long for each
key, which was half of what these tests took."""


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wait, "SLEEP_GRANULARITY", IDLE_LOOK_S)
    monkeypatch.setattr(_wait, "SLEEP_IDLE", IDLE_LOOK_S / 20)


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
