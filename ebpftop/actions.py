# SPDX-License-Identifier: Apache-2.0
"""Everything a key can do, said once.

The bindings, the footer, the help screen and the command palette are all made from
`ACTIONS`, so that none of them can offer what another does not know.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from textual.binding import Binding

from ebpftop.errors import UsageError
from ebpftop.format import printable

OVERVIEW, TALKERS, BLOCKS, SHAPER = "overview", "talkers", "blocks", "shaper"
BALANCER, CONNECTIONS = "balancer", "connections"
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
    replays: bool = False
    """Whether it moves about in a recording; offered on one and nowhere else."""
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


_KEY_LABELS = {
    "escape": "Esc", "enter": "Enter", "ctrl+l": "^L", "ctrl+c": "^C", "f1": "F1",
    "space": "Space", "comma": ",",
}  # fmt: skip

_LISTS = (TALKERS, BLOCKS, BALANCER, SHAPER, CONNECTIONS, ACTS, PROGRAMS)
_SIEVED = (OVERVIEW, *_LISTS)
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
        "pane-balancer", ("4",), "Balancer", "VIPs, their backends, and each one's share of flows",
        opens=BALANCER, in_footer=False,
    ),
    Action(
        "pane-shaper", ("5",), "Shaper", "Traffic classes: their rates, their buckets, their drops",
        opens=SHAPER, in_footer=False,
    ),
    Action(
        "pane-connections", ("6",), "Connections", "Every flow through a VIP, one row each",
        opens=CONNECTIONS, in_footer=False,
    ),
    Action(
        "pane-acts", ("7",), "Acts", "Who changed what, and how it went",
        opens=ACTS, in_footer=False,
    ),
    Action(
        "write-staged", ("enter",), "write", "Put what is staged for the VIP in force",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "drop-staged", ("escape",), "drop", "Forget what is staged for the VIP",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "weight-up", ("+", "="), "more", "Stage a weight that is larger by one",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "weight-down", ("-",), "less", "Stage a weight that is smaller by one",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "weight", ("w",), "weight", "Type the weight of the selected backend",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "drain", ("0",), "drain", "Stage: its flows stay, and no new ones come",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "take-down", ("d",), "down", "Stage: its flows are moved at their next packet",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "bring-back", ("e",), "enable", "Stage: it takes new flows again",
        writes=True, panes=(BALANCER,),
    ),
    Action("flows", ("f",), "flows", "Show the flows of the selected backend", panes=(BALANCER,)),
    Action(
        "restore-weight", ("o",), "original", "Stage the weight that it was found with",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "algorithm", ("m",), "algorithm", "Stage another way to place new flows",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "new-service", ("n",), "new", "Add a VIP or, from among the backends, a backend",
        writes=True, panes=(BALANCER,),
    ),
    Action(
        "delete-service", ("x",), "delete", "Take the selected VIP or backend away",
        writes=True, panes=(BALANCER,),
    ),
    Action("talker", ("t",), "talker", "Show the client in Talkers", panes=(CONNECTIONS,)),
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
        "confirm", ("Y",), "confirm", "Let the acts stay that would take themselves back",
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
        "trace", ("T",), "trace", "Show packets as they come, with their verdict and its reason",
        writes=True, panes=(PROGRAMS,),
    ),
    Action(
        "new-block", ("n",), "new block", "Block an address or prefix by typing it",
        writes=True, panes=(BLOCKS,),
    ),
    Action(
        "unblock", ("u",), "unblock", "End the block that holds the selected row",
        writes=True, panes=_ON_SOURCES,
    ),
    Action(
        "disallow", ("d",), "disallow", "Take the selected row out of the allow list",
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
    Action(
        "look-at", ("enter",), "details", "All that is known of the selected source",
        panes=(TALKERS,),
    ),
    Action("play", ("space",), "play", "Stand still, or play on from here", replays=True),
    Action("step", (".",), "step", "Stand still, one tick further on", replays=True),
    Action("step-back", ("comma",), "back", "Stand still, one tick back", replays=True),
    Action("rewind", ("[",), "-10s", "Go back ten seconds", replays=True),
    Action("forward", ("]",), "+10s", "Go on ten seconds", replays=True),
    Action("slower", ("<",), "slower", "Play at half the speed, down to a quarter", replays=True),
    Action("faster", (">",), "faster", "Play at double the speed, up to 16 times", replays=True),
    Action("to-start", ("{",), "start", "Go to the first tick", replays=True),
    Action("to-end", ("}",), "end", "Go to the last tick", replays=True),
    Action("go-to", ("@",), "go to", "Go to a time of day, or so long after the start",
           replays=True),
    Action("filter", ("/",), "filter", "Show only the rows that match an expression",
           panes=_SIEVED),
    Action("clear-filter", ("escape",), "clear filter", "Show all rows again", panes=_SIEVED),
    Action("sort", ("s",), "sort", "Sort by the next column", panes=_LISTS),
    Action(
        "import", ("f",), "import", "Block or allow a whole list from a file, all or none",
        writes=True, panes=(BLOCKS,),
    ),
    Action("pause", ("p",), "pause", "Freeze the display; data is still collected"),
    Action("limits", ("l",), "limits", "Change the limits that hold for every source", writes=True),
    Action(
        "allow", ("a",), "allow", "Let the selected source pass whatever it sends",
        writes=True, panes=(TALKERS,),
    ),
    Action(
        "mark", ("v",), "mark", "Mark the row, or unmark it; acts are on all marked rows",
        writes=True, panes=_ON_SOURCES,
    ),
    Action(
        "clear-marks", ("V",), "unmark all", "Take the marks of all rows away",
        writes=True, panes=_ON_SOURCES,
    ),
    Action("export", ("e",), "export", "Write the list to a file", panes=(BLOCKS,)),
    Action("record", ("R",), "record", "Record what is shown to a file, or end the recording"),
    Action("undo", ("z",), "undo last", "Take the last act back", writes=True),
    Action("invert", ("S",), "invert", "Turn the sort order round", panes=_LISTS),
    Action(
        "hold-order", ("F",), "freeze order", "Keep the rows in their order, or sort them again",
        panes=_LISTS,
    ),
    Action(
        "unit", ("B",), "unit", "Rates and graphs in packets, bits or bytes", in_footer=False,
    ),
    Action(
        "copy", ("y",), "copy", "Copy what is selected to the terminal's clipboard",
        panes=_LISTS, in_footer=False,
    ),
    Action(
        "names", ("N",), "names", "Names by reverse DNS, asked of your resolver; or none",
        in_footer=False,
    ),
    Action(
        "interval", ("i",), "interval", "Take the next time between looks: 0.5 to 10 seconds",
        in_footer=False,
    ),
    Action(
        "interval-back", ("I",), "interval back", "Take the time between looks before that one",
        in_footer=False,
    ),
    Action("redraw", ("ctrl+l",), "redraw", "Draw the whole screen again", in_footer=False),
    Action("help", ("?", "f1"), "help", "Keys, signs and the language of filters", in_footer=False),
    Action("quit", ("q", "ctrl+c"), "quit", "Leave the dashboard", in_footer=False),
)  # fmt: skip
"""Every action, in the order of the footer: what matters most in an attack comes first."""

PINNED = ("help", "quit")
"""What the footer never drops, however narrow the terminal."""


_in_force: dict[str, Action] = {action.id: action for action in ACTIONS}


def current() -> tuple[Action, ...]:
    """Return every action, with the keys that are in force."""
    return tuple(_in_force.values())


def by_id(action_id: str) -> Action:
    """Return the action called `action_id`, with the keys that are in force.

    Raises:
        KeyError: There is none.
    """
    return _in_force[action_id]


def key(action_id: str) -> str:
    """Return the key of an action as it is written for people."""
    return by_id(action_id).key_label


def use_keys(keys: Mapping[str, str]) -> None:
    """Put keys in force for the whole process: those that are given, and else the usual ones.

    Args:
        keys: The key of each action that is to have another one.

    Raises:
        UsageError: There is no such action, or a key would do two things in one place.
    """
    changed = dict(_usual)
    for action_id, name in keys.items():
        if action_id not in changed:
            near = difflib.get_close_matches(action_id, changed, 1) or list(changed)
            raise UsageError(
                f"keys: there is no action '{printable(action_id)}'",
                f"did you mean {near[0]}?" if len(near) == 1 else f"there is {', '.join(near)}",
            )
        if not name.isprintable() or not name or " " in name:
            raise UsageError(
                f"keys: {action_id}: '{printable(name)}' is no key", "as x, f5, ctrl+x"
            )
        # What always leaves, and what is worked by the same key elsewhere, stays.
        kept = tuple(usual for usual in changed[action_id].keys[1:] if usual.startswith("ctrl+"))
        changed[action_id] = replace(changed[action_id], keys=(name, *kept))
    for action in changed.values():
        for other in changed.values():
            twice = set(action.keys) & set(other.keys)
            if action.id in keys and other is not action and twice and _meet(action, other):
                raise UsageError(
                    f"keys: {printable(min(twice))} would be both {action.id} and {other.id}",
                    "give one of them another key",
                )
    _in_force.update(changed)


_usual: Mapping[str, Action] = dict(_in_force)


def _meet(one: Action, other: Action) -> bool:
    """Whether two actions can be offered in one place."""
    return not one.panes or not other.panes or bool(set(one.panes) & set(other.panes))


def bindings() -> Iterable[Binding]:
    """Yield the key bindings of every action, for the app."""
    for action in current():
        for name in action.keys:
            # ^C must work in every dialog and in every text field, or somebody is stuck.
            yield Binding(
                name, command(action), action.label, show=False, priority=name == "ctrl+c"
            )


def command(action: Action) -> str:
    """Return what Textual runs to perform `action`."""
    return f"app.perform('{action.id}')"
