"""Which units are clean: use makes a unit dirty, a step that `cleans` it makes it clean, and time makes it doubtful.

Of units whose plant file has `cleaning` alone. Cleanliness counts the most that may have passed, also while the box was
off; without a bound a unit is not known to be clean. This is no line clearance: that is a step, and looks for material
of another patient.
"""

from __future__ import annotations

from math import inf
from typing import Any, Protocol

from edge.core import events as ev
from edge.core.events import Event
from edge.core.line import Batch, Line, elapsed
from edge.core.recipe.model import Recipe, Step
from edge.core.terms import Stamp, span


class Decision(Protocol):
    """The decision under way, as far as cleanliness needs it."""

    @property
    def line(self) -> Line: ...
    @property
    def now(self) -> Any: ...
    def emit(self, event: Event) -> None: ...
    def recipe(self, batch: Batch) -> Recipe: ...
    def raise_exception(self, batch_id: str, step: str, category: str, code: str, what: str) -> None: ...


def not_clean(line: Line, at: Stamp) -> dict[str, str]:
    """The units that are not known to be clean now, each with why in words."""
    return {name: why for name in line.book.plant.units if (why := _doubt(line, name, at))}


def _doubt(line: Line, unit: str, at: Stamp) -> str:
    declared, known = line.book.plant.units[unit].cleaning, line.units.get(unit)
    if declared is None:
        return "dirty for all that is known: the plant file has no `cleaning` for it"
    if known is None:
        return "dirty for all that is known: no step of this box has cleaned it yet"
    if not known.clean:
        return f"dirty: {known.why}"
    passed = elapsed(known.since, known.before_boot, at)
    if declared.clean_hold_s is None or passed.high_s < declared.clean_hold_s:
        return ""
    held = span(declared.clean_hold_s)
    if passed.high_s == inf:
        return f"not known to be clean: it stays so for {held}, and nobody knows for how long the box was off"
    return f"not clean any more: it stays so for {held}, and was cleaned {span(passed.high_s)} ago"


def left_s(line: Line, unit: str, at: Stamp) -> float | None:
    """For how long it certainly stays clean; None when it is not, or without an end."""
    declared, known = line.book.plant.units[unit].cleaning, line.units.get(unit)
    if declared is None or declared.clean_hold_s is None or known is None or _doubt(line, unit, at):
        return None
    return declared.clean_hold_s - elapsed(known.since, known.before_boot, at).high_s


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
