"""How much time passed while the box was off, where no trusted clock says so: two people enter it.

What counts is the time from the last row before the dark to the first one after it: nobody knows when in between the
box went off.

One person enters the minutes, a second one enters them again without having seen them, and both sign. Until then a
batch with a wait whose time nobody bounds is held, everything else counts the least that has passed, and material
counts as expired. What they enter is taken a minute shorter for waits and a minute longer for material: people read
minutes off a clock on the wall.
"""

from __future__ import annotations

from dataclasses import replace
from math import isinf
from typing import Final

from edge.core import commands as cm
from edge.core import events as ev
from edge.core import expiring
from edge.core.decision import Decision
from edge.core.errors import LinesideError
from edge.core.line import OVER, Batch, is_timed
from edge.core.people import Permission, permitted, roles_with
from edge.core.terms import State

CAUSE: Final = "dark"
"""Of a hold that ends when two people have entered the time."""
CODE: Final = "time.unbounded"
KEPT: Final = "Nothing was taken; what has a time still counts the worst."
MEANING: Final = {
    False: "so much time passed in the dark, by another clock",
    True: "so much time passed in the dark, verified by a second person",
}
"""The meaning of the signature of the first and of the second person."""
PERMISSION: Final = {False: Permission.BY_HAND, True: Permission.VERIFY}
MINUTES_MAX: Final = 10 * 366 * 24 * 60
MINUTE_S: Final = 60.0


def unbounded(batch: Batch, but: str = "") -> str:
    """Which wait is under way since before a dark time that nobody bounds, in a sentence; "" when none is. A person
    decided about step `but`."""
    for run in batch.active():
        timed = run.phase in {"wait", "hold"} and (run.duration_s or run.timeout_s) and is_timed(run)
        if timed and isinf(run.before_boot.high_s) and run.step != but:
            return f"{run.title}: the box was off while it was under way, and nobody knows for how long."
    return ""


def look(d: Decision, batch_id: str) -> None:
    """After a dark time without a bound: a wait that would go on by itself holds its batch until two people say how
    much time passed."""
    batch = d.line.batches[batch_id]
    if batch.state in {State.STOPPING, State.ABORTING}:
        return
    steps = d.recipe(batch).steps()
    asked = [run.step for run in batch.active() if getattr(steps[run.step], "on_restart", "resume") != "resume"]
    calm = replace(batch, steps={name: run for name, run in batch.steps.items() if name not in asked})
    if why := unbounded(calm):
        d.raise_exception(batch_id, "", "major", CODE, why)
        d.hold(batch_id, CAUSE, why)


def wanted(batch: Batch) -> bool:
    """Whether something of the batch is timed across a dark time that nobody bounds."""
    if batch.dark is None or batch.state in OVER:
        return False
    timed = (run for run in batch.active() if is_timed(run) and (run.duration_s or run.timeout_s))
    times = [clock.before_boot for clock in batch.clocks.values()] + [run.before_boot for run in timed]
    return any(isinf(one.high_s) for one in times)


def enter(d: Decision, command: cm.EnterDark) -> None:
    """One person's minutes, or those of the second one, which must be the same."""
    batch, signed, minutes = d.batch(command.batch), command.signed, command.minutes
    dark = batch.dark
    if dark is None or not wanted(batch) or command.verifies != bool(dark.person):
        raise LinesideError(
            "dark.not_wanted",
            f"Batch {batch.batch} does not ask for that now.",
            effect=KEPT,
            todo="Look at what the batch asks for.",
        )
    needed = PERMISSION[command.verifies]
    if signed.role not in signed.roles or not permitted((signed.role,), needed):
        raise LinesideError(
            "people.not_permitted",
            f"{signed.person} may not {needed.value} in this role.",
            effect=KEPT,
            todo=f"Ask someone with one of these roles: {', '.join(role.value for role in roles_with(needed))}.",
        )
    if command.verifies and signed.person == dark.person:
        raise LinesideError(
            "signature.same_person",
            f"{signed.person} made this entry; somebody else must verify it.",
            effect=KEPT,
            todo="Ask a second person to look at another clock, and to enter it again.",
        )
    if not 0 <= minutes <= MINUTES_MAX:
        raise LinesideError(
            "dark.minutes",
            f"{minutes} minutes cannot have passed.",
            effect=KEPT,
            todo="Enter whole minutes, from 0 to ten years.",
        )
    if not command.verifies:
        d.make_signature(batch.batch, "", signed)
        d.emit(ev.DarkEntered(batch=batch.batch, minutes=minutes, person=signed.person, role=signed.role.value))
        return
    if minutes != dark.minutes:
        d.actor = signed.person
        why = f"The two entries differ ({dark.person}, {signed.person}). Neither was taken."
        d.emit(ev.DarkRefused(batch=batch.batch, entered_by=dark.person, person=signed.person, why=why))
        return
    d.make_signature(batch.batch, "", signed)
    low_s = max(0.0, minutes - 1) * MINUTE_S
    d.emit(
        ev.DarkVerified(
            batch=batch.batch,
            minutes=minutes,
            # of several dark times together, what began between them was not in the dark for all of it
            low_s=low_s if dark.stretches == 1 else 0.0,
            high_s=(minutes + 1) * MINUTE_S,
            entered_by=dark.person,
            person=signed.person,
            role=signed.role.value,
        )
    )
    after = d.line.batches[batch.batch]
    if after.state is State.HELD and after.cause == CAUSE and not after.questions:
        d.change(batch.batch, State.RESTARTING, CAUSE, f"{minutes} min passed while the box was off, say two people.")
    expiring.look(d, batch.batch)
    d.proceed(batch.batch)
