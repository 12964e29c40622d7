"""The modes of a step (ISA-88): what the box does by itself in each, and what people may do. Data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Final, Literal

from edge.core.quick import dataclass
from edge.core.terms import Elapsed, Stamp, State, Value

HAND: Final = "by hand"
"""The source and the quality of a value that two people entered in the place of a measured one."""
DUE: Final = "by hand"
"""The timer after which a watched value is to be entered again ..."""
LATE: Final = "by hand late"
"""... and the one after which it should have been."""

DONE: Final = "done"
"""The part of a manual step in which somebody says what was done."""
STATE: Final = "state"
"""The part of a service's step in which its state is read off the module's panel."""


def is_write(part: str, tag: str) -> bool:
    """Whether what people entered in a step that writes says that it is done, and not what a service reports."""
    return part in {tag, DONE, STATE}


class Mode(StrEnum):
    """How much of a step the box does by itself. Each member's comment says what it permits."""

    AUTOMATIC = "automatic"
    """The box reads, writes, times and completes the step. Take by hand (when its equipment cannot be used) and switch
    to manual are allowed."""
    SEMI_AUTOMATIC = "semi-automatic"
    """Its equipment cannot be used: the box neither reads nor writes it for this step. Two people give what it should
    have shown, or do at its panel what should have been written; the box judges, times and completes as before. Enter,
    verify, switch to manual and return to automatic are allowed."""
    MANUAL = "manual"
    """A supervisor took the step: the box reads, writes, times and watches nothing for it. People do it and say what
    they did, and a second one's signature completes it. Enter, verify and return to automatic are allowed."""


class HandAct(StrEnum):
    """What a person may do about a step's mode, and within one."""

    TAKE = "take by hand"
    MANUAL = "switch to manual"
    RETURN = "return to automatic"
    ENTER = "enter"
    VERIFY = "verify"


# What each mode permits, and the mode afterwards. What is not here is refused.
MODES: Final[Mapping[tuple[Mode, HandAct], Mode]] = {
    (Mode.AUTOMATIC, HandAct.TAKE): Mode.SEMI_AUTOMATIC,
    (Mode.AUTOMATIC, HandAct.MANUAL): Mode.MANUAL,
    (Mode.SEMI_AUTOMATIC, HandAct.MANUAL): Mode.MANUAL,
    (Mode.SEMI_AUTOMATIC, HandAct.RETURN): Mode.AUTOMATIC,
    (Mode.SEMI_AUTOMATIC, HandAct.ENTER): Mode.SEMI_AUTOMATIC,
    (Mode.SEMI_AUTOMATIC, HandAct.VERIFY): Mode.SEMI_AUTOMATIC,
    (Mode.MANUAL, HandAct.RETURN): Mode.AUTOMATIC,
    (Mode.MANUAL, HandAct.ENTER): Mode.MANUAL,
    (Mode.MANUAL, HandAct.VERIFY): Mode.MANUAL,
}
SWITCHES: Final = frozenset({HandAct.TAKE, HandAct.MANUAL, HandAct.RETURN})
# The states of a batch in which each is allowed: entries move a step on, and nothing moves while a batch is held.
IN_STATES: Final[Mapping[HandAct, frozenset[State]]] = {
    **dict.fromkeys(SWITCHES, frozenset({State.RUNNING, State.PAUSING, State.PAUSED, State.HELD})),
    **dict.fromkeys((HandAct.ENTER, HandAct.VERIFY), frozenset({State.RUNNING, State.PAUSING})),
}


@dataclass(frozen=True, slots=True)
class Hand:
    """A step that is not automatic. `since` and `before_boot` measure, across boots, the time since it was switched or
    the last entry was verified."""

    mode: Mode
    cause: Literal["equipment", "person"]
    why: str
    tag: str
    """What cannot be used; empty when a person alone decided."""
    since: Stamp
    before_boot: Elapsed
    due: bool = True
    """Of what is entered again and again: it is to be entered now."""
    part: str = ""
    """What one person has entered and a second one has not verified yet; empty for nothing. It is ..."""
    value: Value = ""
    person: str = ""
    """... entered by this one."""
    claimed: bool = False
    """Somebody said that a write was done by hand."""
    given: Mapping[str, Value] = field(default_factory=dict)
    """What was verified, by its part, the newest last."""
    last: str = ""
    """The last entry that was verified, in words."""
