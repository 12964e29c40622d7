"""The state machines of services against the diagrams of their standards, state by state and command by command."""

from __future__ import annotations

import pytest

from edge.core.service import BROKEN_OFF, EXECUTE, IDLE, MACHINES, MTP, PACKML, STANDING, Machine

# For each state the commands that are allowed in it, and where they lead: the diagrams, row by row.
EVERYWHERE = {"stop": "stopping", "abort": "aborting"}
MTP_DIAGRAM = {
    "idle": {"start": "starting", **EVERYWHERE},
    "starting": {"hold": "holding", "complete": "completing", **EVERYWHERE},
    "execute": {
        "hold": "holding", "pause": "pausing", "complete": "completing", "restart": "starting", **EVERYWHERE
    },
    "completing": {"hold": "holding", **EVERYWHERE},
    "completed": {"reset": "resetting", **EVERYWHERE},
    "resetting": EVERYWHERE,
    "pausing": {"hold": "holding", "complete": "completing", **EVERYWHERE},
    "paused": {"resume": "resuming", "hold": "holding", "complete": "completing", **EVERYWHERE},
    "resuming": {"hold": "holding", "complete": "completing", **EVERYWHERE},
    "holding": EVERYWHERE,
    "held": {"unhold": "unholding", **EVERYWHERE},
    "unholding": {"hold": "holding", "complete": "completing", **EVERYWHERE},
    "stopping": {"abort": "aborting"},
    "stopped": {"reset": "resetting", "abort": "aborting"},
    "aborting": {},
    "aborted": {"reset": "resetting"},
}  # fmt: skip
PACKML_DIAGRAM = {
    "idle": {"start": "starting", **EVERYWHERE},
    "starting": EVERYWHERE,
    "execute": {"hold": "holding", "suspend": "suspending", "complete": "completing", **EVERYWHERE},
    "completing": EVERYWHERE,
    "completed": {"reset": "resetting", **EVERYWHERE},
    "resetting": EVERYWHERE,
    "holding": EVERYWHERE,
    "held": {"unhold": "unholding", **EVERYWHERE},
    "unholding": EVERYWHERE,
    "suspending": EVERYWHERE,
    "suspended": {"unsuspend": "unsuspending", **EVERYWHERE},
    "unsuspending": EVERYWHERE,
    "stopping": {"abort": "aborting"},
    "stopped": {"reset": "resetting", "abort": "aborting"},
    "aborting": {},
    "aborted": {"clear": "clearing"},
    "clearing": {"abort": "aborting"},
}
DIAGRAMS = [(MTP, MTP_DIAGRAM), (PACKML, PACKML_DIAGRAM)]
CASES = [
    pytest.param(machine, state, command, diagram[state].get(command), id=f"{machine.title}-{state}-{command}")
    for machine, diagram in DIAGRAMS
    for state in machine.codes
    for command in machine.commands
]


@pytest.mark.parametrize(("machine", "state", "command", "to"), CASES)
def test_every_command_in_every_state(machine: Machine, state: str, command: str, to: str | None) -> None:
    assert machine.after(state, command) == to
    if to is not None:
        assert to in machine.shows(command)
        assert to in machine.then, "a command leads to an acting state"


@pytest.mark.parametrize(("machine", "diagram"), DIAGRAMS, ids=lambda one: getattr(one, "title", ""))
def test_states_are_those_of_the_diagram(machine: Machine, diagram: dict[str, dict[str, str]]) -> None:
    assert set(machine.codes) == set(diagram)
    resting = set(diagram) - set(machine.then)
    assert resting == {"idle", "completed", "held", "stopped", "aborted"} | (
        {"paused"} if machine is MTP else {"suspended"}
    )
    for state in resting - {IDLE, *STANDING}:
        here, steps = state, 0
        while here != IDLE:  # from every state at rest some way leads back to idle
            here = machine.then.get(here) or str(machine.after(here, machine.to_idle[here]))
            steps += 1
            assert steps < 10
    assert set(machine.to_idle) == BROKEN_OFF | {"completed"}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_what_the_box_tells_is_seen_at_a_state_where_it_was_not_allowed(machine: Machine) -> None:
    """Else a command that did nothing would count as taken."""
    for command in ("start", "reset", "clear", "hold", "unhold", "resume", "unsuspend", "complete", "stop", "abort"):
        for state in machine.legal.get(command, {}):
            assert state not in machine.shows(command), (command, state)


def test_numbers_are_those_on_the_wire() -> None:
    assert (MTP.word(16), MTP.word(131072), MTP.word(64.0), MTP.word(3), MTP.word(True), MTP.word("16")) == (
        "idle", "completed", "execute", "", "", "",
    )  # fmt: skip
    assert [MTP.command(code) for code in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 0)] == [
        "reset", "start", "stop", "hold", "unhold", "pause", "resume", "abort", "restart", "complete", "",
    ]  # fmt: skip
    assert sorted(PACKML.codes.values()) == list(range(1, 18))
    assert [PACKML.command(code) for code in range(11)] == [
        "", "reset", "start", "stop", "hold", "unhold", "suspend", "unsuspend", "abort", "clear", "complete",
    ]  # fmt: skip
    assert MTP.allowed(IDLE) == 4 + 8 + 256
    assert MTP.allowed(EXECUTE) == 8 + 16 + 64 + 256 + 512 + 1024
