# SPDX-License-Identifier: Apache-2.0
"""Everything a key can do, said once.

The bindings, the footer, the help screen and the command palette are all made from
`ACTIONS`, so that none of them can offer what another does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.binding import Binding

OVERVIEW, TALKERS, BLOCKS, SHAPER = "overview", "talkers", "blocks", "shaper"
PROGRAMS = "programs"
ACTS = "acts"
"""Names of the panes, as actions and the pane switcher call them."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing the operator can do by a key or from the command palette."""

    id: str
    """Its name; handlers are found by it."""
    keys: tuple[str, ...]
    """The keys that do it; the first is the one shown."""
    label: str
    """One or two words, for the footer."""
    help: str
    """One line, for the help screen and the command palette."""
    writes: bool = False
    """Whether it changes the kernel's state; never offered without controls."""
    panes: tuple[str, ...] = ()
    """Where it works; empty for everywhere."""
    opens: str = ""
    """The pane it shows, for an action that switches panes."""
    in_footer: bool = True
    """Whether the footer has it among the others: panes are on their tabs, help and quit pinned."""

    @property
    def key_label(self) -> str:
        """The first key as it is written for people."""
        return _KEY_LABELS.get(self.keys[0], self.keys[0])

    @property
    def all_keys_label(self) -> str:
        """All its keys as they are written for people."""
        return " ".join(_KEY_LABELS.get(key, key) for key in self.keys)

    def works_in(self, pane: str) -> bool:
        """Whether it belongs to `pane`."""
        return not self.panes or pane in self.panes


_KEY_LABELS = {"escape": "Esc", "ctrl+l": "^L", "ctrl+c": "^C", "f1": "F1", "enter": "Enter"}

_LISTS = (TALKERS, BLOCKS, ACTS)
_ON_SOURCES = (TALKERS, BLOCKS)

ACTIONS: tuple[Action, ...] = (
    Action(
        "pane-overview", ("1",), "Overview", "Totals, top talkers, what was dropped and why",
        opens=OVERVIEW, in_footer=False,
    ),
    Action(
        "pane-talkers", ("2",), "Talkers", "Every source that sends, one row each",
        opens=TALKERS, in_footer=False,
    ),
    Action(
        "pane-blocks", ("3",), "Blocks", "Who is blocked, until when, and who is allowed",
        opens=BLOCKS, in_footer=False,
    ),
    Action(
        "pane-shaper", ("5",), "Shaper", "Traffic classes: their rates, their buckets, their drops",
        opens=SHAPER, in_footer=False,
    ),
    Action(
        "pane-acts", ("7",), "Acts", "Who changed what, and how it went",
        opens=ACTS, in_footer=False,
    ),
    Action(
        "pane-programs", ("8",), "Programs", "Programs, maps, hooks: what they cost and hold",
        opens=PROGRAMS, in_footer=False,
    ),
    Action(
        "look-inside", ("enter",), "look inside", "A program's instructions, a map's entries",
        panes=(PROGRAMS,),
    ),
    Action("look-away", ("escape",), "back", "Back to the programs and maps", panes=(PROGRAMS,)),
    Action(
        "confirm", ("y",), "confirm", "Let the acts stay that would take themselves back",
        writes=True,
    ),
    Action(
        "undo-act", ("u",), "undo", "Take the selected act back",
        writes=True, panes=(ACTS,),
    ),
    Action(
        "block", ("b",), "block", "Block the selected source or its prefix, for a while",
        writes=True, panes=(TALKERS,),
    ),
    Action(
        "new-block", ("n",), "new block", "Block an address or prefix by typing it",
        writes=True, panes=(BLOCKS,),
    ),
    Action(
        "import", ("i",), "import", "Block or allow a whole list from a file, all or none",
        writes=True, panes=(BLOCKS,),
    ),
    Action(
        "unblock", ("u",), "unblock", "End the block that holds the selected row",
        writes=True, panes=_ON_SOURCES,
    ),
    Action(
        "class-rate", ("r",), "rate", "Change the rate of the selected class",
        writes=True, panes=(SHAPER,),
    ),
    Action(
        "class-burst", ("b",), "burst", "Change the burst of the selected class",
        writes=True, panes=(SHAPER,),
    ),
    Action(
        "new-class", ("n",), "new class", "Make a class of addresses that share a rate",
        writes=True, panes=(SHAPER,),
    ),
    Action(
        "delete-class", ("x",), "delete", "Delete the selected class",
        writes=True, panes=(SHAPER,),
    ),
    Action(
        "assign", ("c",), "class", "Put an address into a class, or take it out",
        writes=True, panes=(TALKERS, SHAPER),
    ),
    Action("filter", ("/",), "filter", "Show only the rows that match an expression", panes=_LISTS),
    Action("clear-filter", ("escape",), "clear filter", "Show all rows again", panes=_LISTS),
    Action("sort", ("s",), "sort", "Sort by the next column", panes=_LISTS),
    Action("export", ("e",), "export", "Write the list to a file", panes=(BLOCKS,)),
    Action("pause", ("p",), "pause", "Freeze the display; data is still collected"),
    Action("limits", ("l",), "limits", "Change the limits that hold for every source", writes=True),
    Action(
        "allow", ("a",), "allow", "Let the selected source pass whatever it sends",
        writes=True, panes=(TALKERS,),
    ),
    Action(
        "disallow", ("d",), "disallow", "Take the selected row out of the allow list",
        writes=True, panes=_ON_SOURCES,
    ),
    Action("undo", ("z",), "undo last", "Take the last act back", writes=True),
    Action("invert", ("S",), "invert", "Turn the sort order round", panes=_LISTS),
    Action("redraw", ("ctrl+l",), "redraw", "Draw the whole screen again", in_footer=False),
    Action("help", ("?", "f1"), "help", "Keys, signs and the language of filters", in_footer=False),
    Action("quit", ("q", "ctrl+c"), "quit", "Leave the dashboard", in_footer=False),
)  # fmt: skip
"""Every action, in the order of the footer: what matters most in an attack comes first."""

PINNED = ("help", "quit")
"""What the footer never drops, however narrow the terminal."""


def by_id(action_id: str) -> Action:
    """Return the action called `action_id`.

    Raises:
        KeyError: There is none.
    """
    return _BY_ID[action_id]


_BY_ID = {action.id: action for action in ACTIONS}


def bindings() -> Iterable[Binding]:
    """Yield the key bindings of every action, for the app."""
    for action in ACTIONS:
        for key in action.keys:
            # ^C must work in every dialog and in every text field, or somebody is stuck.
            yield Binding(key, command(action), action.label, show=False, priority=key == "ctrl+c")


def command(action: Action) -> str:
    """Return what Textual runs to perform `action`."""
    return f"app.perform('{action.id}')"
