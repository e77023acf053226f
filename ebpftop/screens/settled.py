# SPDX-License-Identifier: Apache-2.0
"""An app that looks and is worked as its settings say."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import App
from textual.binding import BindingsMap
from textual.filter import LineFilter

from ebpftop import actions
from ebpftop.config.dashboard import DashboardSettings
from ebpftop.widgets.plain import PlainFilter

THEMES = {"dark": "textual-dark", "light": "textual-light", "terminal": "ansi-dark"}
"""Textual's names of the themes that settings name."""


class SettledApp(App[None]):
    """Has the keys, the colours and the signs of its settings.

    Args:
        settings: Them.

    Raises:
        UsageError: They give a key to an action that is none, or to two.
    """

    def __init__(self, settings: DashboardSettings) -> None:
        super().__init__()
        self.settings = settings
        actions.use_keys(settings.keys)
        # `App.bind` takes no priority, and a class attribute is made before settings are read.
        self._bindings = BindingsMap.merge([self._bindings, BindingsMap(actions.bindings())])
        self.theme = THEMES[settings.theme]
        self._plain = [PlainFilter()] if settings.ascii else []

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return what every line goes through on its way to the terminal."""
        return [*super().get_line_filters(), *self._plain]
