"""The state machines of services that modules offer, as tables: what may be told to a service in which state, and what
then comes by itself.

MTP: VDI/VDE/NAMUR 2658-4, the codes of `StateCur` and of `CommandOp`, `CommandExt` and `CommandEn` (one bit each), as
the manifests and the servers of p2o-lab/MTPPy and polaris-backend use them.
PackML: ISA-TR88.00.02 (OMAC PackML), the numbers of `StateCurrent`, `CntrlCmd` and `UnitModeCurrent`, as the constants
of simatic-ax/lpmlv2022 give them. `hold` and `complete` are those that every edition allows: from execute.

Pure words and numbers: what a step does with them is `edge.core.serving`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

from edge.core.quick import dataclass

IDLE: Final = "idle"
EXECUTE: Final = "execute"
COMPLETED: Final = "completed"
STANDING: Final[Mapping[str, str]] = {"held": "unhold", "paused": "resume", "suspended": "unsuspend"}
"""States in which a service that was started stands until it is told to go on, each with the command for that."""
BROKEN_OFF: Final = frozenset({"stopped", "aborted"})
"""States in which a service has ended without being complete."""
PRODUCTION: Final = 1
"""The unit mode of PackML in which a machine does what it is told from outside."""

AUTOMATIC_BITS: Final = 256
INTERNAL_BITS: Final = 16_384
OPERATOR_BITS: Final = 128
"""What `OpMode` of modules of 2018 shows: in automatic; following its own program; told by people at the module.
With neither of the first and the last it is offline."""
SWITCHES: Final[Mapping[int, tuple[int, int]]] = {
    16: (OPERATOR_BITS, OPERATOR_BITS),
    64: (AUTOMATIC_BITS, AUTOMATIC_BITS),
    8_192: (AUTOMATIC_BITS | INTERNAL_BITS, AUTOMATIC_BITS),
}
"""What is written to `OpMode`, in this order as far as needed (on by people, to automatic, told from outside) -> the
bits that show that it was taken, and what they then are."""


@dataclass(frozen=True)
class Machine:
    """One kind of service. States and commands are words; `codes` and `commands` give their numbers on the wire."""

    title: str
    codes: Mapping[str, int]
    commands: Mapping[str, int]
    legal: Mapping[str, Mapping[str, str]]
    """Command -> the states in which it is allowed, each with the acting state that it leads to."""
    then: Mapping[str, str]
    """Acting state -> the state that it goes to by itself when it is done. All others wait for a command. `execute` of
    a service that does not complete by itself waits, too."""
    to_idle: Mapping[str, str]
    """State at rest -> the command that brings it nearer to idle."""

    def word(self, code: object) -> str:
        """The state of this code; "" for a code that is none."""
        return self._words.get(code, "") if isinstance(code, int | float) and not isinstance(code, bool) else ""

    def command(self, code: object) -> str:
        """The command of this code; "" for a code that is none."""
        return next((name for name, one in self.commands.items() if one == code), "")

    def after(self, state: str, command: str) -> str | None:
        """The acting state that the command leads to; None when it is not allowed."""
        return self.legal.get(command, {}).get(state)

    def shows(self, command: str) -> frozenset[str]:
        """The states that show that the command was taken: the acting state that it leads to, and what follows it by
        itself."""
        found: set[str] = set()
        for state in self.legal[command].values():
            here: str | None = state
            while here is not None and here not in found:
                found.add(here)
                here = self.then.get(here)
        return frozenset(found)

    def allowed(self, state: str) -> int:
        """All commands that are allowed in a state, as the sum of their bits (`CommandEn` of MTP)."""
        return sum(code for name, code in self.commands.items() if self.after(state, name) is not None)

    @cached_property
    def _words(self) -> dict[object, str]:
        return {code: state for state, code in self.codes.items()}


def _from(states: str, to: str) -> dict[str, str]:
    return dict.fromkeys(states.split(), to)


_MTP_STATES: Final[Mapping[str, int]] = {
    "stopped": 4, "starting": 8, "idle": 16, "paused": 32, "execute": 64, "stopping": 128, "aborting": 256,
    "aborted": 512, "holding": 1024, "held": 2048, "unholding": 4096, "pausing": 8192, "resuming": 16384,
    "resetting": 32768, "completing": 65536, "completed": 131072,
}  # fmt: skip
_PACKML_STATES: Final[Mapping[str, int]] = {
    "clearing": 1, "stopped": 2, "starting": 3, "idle": 4, "suspended": 5, "execute": 6, "stopping": 7, "aborting": 8,
    "aborted": 9, "holding": 10, "held": 11, "unholding": 12, "suspending": 13, "unsuspending": 14, "resetting": 15,
    "completing": 16, "completed": 17,
}  # fmt: skip
_THEN: Final[Mapping[str, str]] = {
    "starting": "execute", "execute": "completing", "completing": "completed", "holding": "held",
    "unholding": "execute", "stopping": "stopped", "aborting": "aborted", "resetting": "idle",
}  # fmt: skip


def _all_but(states: Mapping[str, int], without: str, to: str) -> dict[str, str]:
    return {state: to for state in states if state not in without.split()}


MTP: Final = Machine(
    title="MTP",
    codes=_MTP_STATES,
    commands={
        "reset": 2, "start": 4, "stop": 8, "hold": 16, "unhold": 32, "pause": 64, "resume": 128, "abort": 256,
        "restart": 512, "complete": 1024,
    },
    legal={
        "reset": _from("completed stopped aborted", "resetting"),
        "start": _from("idle", "starting"),
        "stop": _all_but(_MTP_STATES, "stopping stopped aborting aborted", "stopping"),
        "hold": _from("starting execute completing resuming paused pausing unholding", "holding"),
        "unhold": _from("held", "unholding"),
        "pause": _from("execute", "pausing"),
        "resume": _from("paused", "resuming"),
        "abort": _all_but(_MTP_STATES, "aborting aborted", "aborting"),
        "restart": _from("execute", "starting"),
        "complete": _from("starting execute pausing paused resuming unholding", "completing"),
    },
    then={**_THEN, "pausing": "paused", "resuming": "execute"},
    to_idle={"completed": "reset", "stopped": "reset", "aborted": "reset"},
)  # fmt: skip

PACKML: Final = Machine(
    title="PackML",
    codes=_PACKML_STATES,
    commands={
        "reset": 1, "start": 2, "stop": 3, "hold": 4, "unhold": 5, "suspend": 6, "unsuspend": 7, "abort": 8,
        "clear": 9, "complete": 10,
    },
    legal={
        "reset": _from("completed stopped", "resetting"),
        "start": _from("idle", "starting"),
        "stop": _all_but(_PACKML_STATES, "stopping stopped aborting aborted clearing", "stopping"),
        "hold": _from("execute", "holding"),
        "unhold": _from("held", "unholding"),
        "suspend": _from("execute", "suspending"),
        "unsuspend": _from("suspended", "unsuspending"),
        "abort": _all_but(_PACKML_STATES, "aborting aborted", "aborting"),
        "clear": _from("aborted", "clearing"),
        "complete": _from("execute", "completing"),
    },
    then={**_THEN, "suspending": "suspended", "unsuspending": "execute", "clearing": "stopped"},
    to_idle={"completed": "reset", "stopped": "reset", "aborted": "clear"},
)  # fmt: skip

MACHINES: Final[Mapping[str, Machine]] = {"mtp": MTP, "packml": PACKML}
ACTING: Final = frozenset({*MTP.then, *PACKML.then})
"""States that end by themselves, each with a time-out."""
