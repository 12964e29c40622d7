"""Which units are clean: use makes a unit dirty, a step that `cleans` it makes it clean, and time makes it doubtful.

Of units whose plant file has `cleaning` alone. Cleanliness counts the most that may have passed, also while the box was
off; without a bound a unit is not known to be clean. This is no line clearance: that is a step, and looks for material
of another patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import Final

from edge.core import events as ev
from edge.core.alarms import AlarmWatch, Told
from edge.core.decision import Decision
from edge.core.errors import LinesideError
from edge.core.expiring import WARN_SHARE
from edge.core.line import OVER, Batch, Line, UnitState, elapsed
from edge.core.recipe.amend import Change
from edge.core.recipe.model import Step
from edge.core.terms import Stamp, span

_CLEAN: Final = (
    Told(
        "low",
        "{} will soon not be clean any more: it stays so for {}, and most of that may have passed.",
        "Then no batch that wants a clean unit starts on it.",
        "Use it before, or plan its cleaning.",
    ),
    Told(
        "medium",
        "{} is not known to be clean any more: it stays so for {}, and that may have passed.",
        "No batch that wants a clean unit starts on it.",
        "Run a recipe with a step that cleans it.",
    ),
)
_DIRTY: Final = (
    Told(
        "low",
        "{} must be cleaned soon: it may be dirty for {}, and most of that may have passed.",
        "Cleaned later, an exception record says so in the batch that cleans it.",
        "Run a recipe with a step that cleans it.",
    ),
    Told(
        "medium",
        "{} is dirty for too long: it must be cleaned within {}, and that may have passed.",
        "An exception record says so in the batch that cleans it; quality decides whether that is enough.",
        "Run a recipe with a step that cleans it.",
    ),
)


def not_clean(line: Line, at: Stamp) -> dict[str, str]:
    """The units that are not known to be clean now, each with why in words."""
    return {name: why + _ago(line, name, at) for name in line.book.plant.units if (why := doubt(line, name, at))}


def doubt(line: Line, unit: str, at: Stamp) -> str:
    """Why the unit is not known to be clean, in words that stay while nothing happens to it; empty when it is."""
    declared, known = line.book.plant.units[unit].cleaning, line.units.get(unit)
    if declared is None:
        return "dirty for all that is known: the plant file has no `cleaning` for it"
    if known is None:
        return "dirty for all that is known: no step of this box has cleaned it yet"
    if not known.clean:
        return f"dirty: {known.why}"
    if declared.clean_hold_s is None or _passed_s(known, at) < declared.clean_hold_s:
        return ""
    unknown = _passed_s(known, at) == inf
    return f"not {'known to be clean' if unknown else 'clean any more'}: it stays so for {span(declared.clean_hold_s)}"


def _passed_s(known: UnitState, at: Stamp) -> float:
    return elapsed(known.since, known.before_boot, at).high_s


def _ago(line: Line, unit: str, at: Stamp) -> str:
    """What is to be added about a unit that was clean for too long."""
    known = line.units.get(unit)
    if known is None or not known.clean:
        return ""
    passed_s = _passed_s(known, at)
    return (
        ", and nobody knows for how long the box was off"
        if passed_s == inf
        else f", and was cleaned {span(passed_s)} ago"
    )


def left_s(line: Line, unit: str, at: Stamp) -> float | None:
    """For how long it certainly stays clean; None when it is not, or without an end."""
    declared, known = line.book.plant.units[unit].cleaning, line.units.get(unit)
    if declared is None or declared.clean_hold_s is None or known is None or doubt(line, unit, at):
        return None
    return declared.clean_hold_s - elapsed(known.since, known.before_boot, at).high_s


def alarms(line: Line, at: Stamp) -> Iterator[tuple[AlarmWatch, bool]]:
    """For each unit whose time is limited: that it runs out soon, and that it has. In use no time is counted."""
    for name, unit in line.book.plant.units.items():
        limits, known = unit.cleaning, line.units.get(name)
        if limits is None:
            continue
        last = line.batches.get(known.batch) if known is not None else None
        ways = (("clean", limits.clean_hold_s, _CLEAN), ("dirty", limits.dirty_hold_s, _DIRTY))
        for state, limit_s, told in ways:
            if limit_s is None:
                continue
            spent = 0.0
            if known is not None and known.clean is (state == "clean"):
                in_use = not known.clean and last is not None and last.state not in OVER
                spent = 0.0 if in_use else elapsed(known.since, known.before_boot, at).high_s / limit_s
            soon, over = (replace(one, cause=one.cause.format(name, span(limit_s))) for one in told)
            yield AlarmWatch(f"{state} {name} soon over", soon), WARN_SHARE <= spent < 1
            yield AlarmWatch(f"{state} {name} over", over), spent >= 1


def allowed_dirty(line: Line, changes: Sequence[Change], at: Stamp) -> list[str]:
    """The dirty units that these changes allow, and are dirty still. Raises `unit.dirty_since` for one that is dirty
    for another reason by now: that nobody signed."""
    found = []
    for one in changes:
        if one.kind != "dirty" or not (why := doubt(line, one.new, at)):
            continue
        if why != one.old:
            raise LinesideError(
                "unit.dirty_since",
                f"{one.new} is {why}. What was signed for this batch is that it is {one.old}.",
                effect="Nothing was started; the batch waits.",
                todo="Stop this batch, and let another one wait.",
            )
        found.append(one.new)
    return found


def taken(d: Decision, batch_id: str) -> None:
    """A batch begins: what it takes is dirty from now on."""
    for unit in d.line.batches[batch_id].units.values():
        used(d, batch_id, unit)


def used(d: Decision, batch_id: str, unit: str) -> None:
    """The batch uses the unit: it is dirty, if it was not."""
    known = d.line.units.get(unit)
    if d.line.book.plant.units[unit].cleaning is not None and (known is None or known.clean):
        d.emit(ev.UnitSoiled(batch=batch_id, unit=unit, why=f"used by batch {batch_id}"))


def ended(d: Decision, batch_id: str) -> None:
    """A batch has ended: from now on it counts how long its units stay dirty. One that was dirty before goes on
    counting."""
    for unit in d.line.batches[batch_id].units.values():
        known = d.line.units.get(unit)
        if known is not None and not known.clean and known.batch == batch_id:
            d.emit(ev.UnitSoiled(batch=batch_id, unit=unit, why=known.why))


def begun(d: Decision, batch_id: str, step: Step) -> None:
    """A step that cleans begins: raise an exception record for each unit that was dirty for too long."""
    batch = d.line.batches[batch_id]
    for unit in _cleans(batch, step):
        declared, known = d.line.book.plant.units[unit].cleaning, d.line.units.get(unit)
        if declared is None or declared.dirty_hold_s is None or known is None or known.clean or known.batch == batch_id:
            continue
        passed = elapsed(known.since, known.before_boot, d.now.at)
        if passed.high_s < declared.dirty_hold_s:
            continue
        since = "nobody knows for how long" if passed.high_s == inf else f"for {span(passed.high_s)}"
        what = f"{step.title}: {unit} was dirty {since}; it must be cleaned within {span(declared.dirty_hold_s)}."
        d.raise_exception(batch_id, step.id, "major", "unit.dirty_too_long", what)


def done(d: Decision, batch_id: str, step: Step) -> None:
    """A step that cleans is done. In training nothing is cleaned."""
    batch = d.line.batches[batch_id]
    for unit in [] if batch.training else _cleans(batch, step):
        if d.line.book.plant.units[unit].cleaning is not None:
            d.emit(ev.UnitCleaned(batch=batch_id, step=step.id, unit=unit))


def restored(d: Decision) -> None:
    """The journal came from a backup: what was clean may have been used since then."""
    for unit, known in d.line.units.items():
        if known.clean:
            why = "the journal came from a backup, and it may have been used since then"
            d.emit(ev.UnitSoiled(unit=unit, why=why))


def _cleans(batch: Batch, step: Step) -> list[str]:
    return [batch.units[role] for role in step.cleans if role in batch.units]
