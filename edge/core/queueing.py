"""Which units a batch takes, and whose turn it is: pure questions about the head.

A batch takes all its units at once when it begins, and none while it waits: so no two batches can wait for each other.

For each that waits, the longest first, those units are kept against whoever came later that it would take if it could
begin without what it still lacks: one for each role, and no more. Later ones may pass it on others. That takes nothing
from it: of what it lacks no unit is free, or it would be kept; and whatever becomes free is offered to it first. So
what it would take only grows, and each gets its turn when those before it have ended. A dirty unit is not kept for a
batch that wants a clean one: else who cleans it could not have it, and both would wait for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edge.core.cleaning import not_clean
from edge.core.errors import LinesideError
from edge.core.line import Batch, Line
from edge.core.plant import Plant
from edge.core.quick import dataclass
from edge.core.recipe.model import Recipe
from edge.core.terms import Stamp, State

WAITING_MAX: Final = 16
"""So many batches may wait on one box; further ones are refused."""
BY_HAND: Final = "written to at the command line"
"""Why a unit cannot be had for a moment."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a batch stands: what it waits for ("BR-1, used by batch B1"), and how many could use a unit of its before
    it, and itself."""

    waits_for: tuple[str, ...]
    place: int

    def __str__(self) -> str:
        return f"Waits for {'; '.join(self.waits_for)}; place {self.place}" if self.waits_for else ""


def refuse_by_hand(line: Line, unit: str) -> None:
    """Raise when a batch has the unit: it is not written to at the command line then."""
    for batch in line.live():
        if unit in batch.units.values():
            raise LinesideError(
                "equipment.unit_in_use",
                f"Batch {batch.batch} has {unit}; it is {batch.state}.",
                effect="Nothing more is written by hand while it does.",
                todo="Wait until the batch has ended, or stop it at the screen.",
            )


def waiting(line: Line) -> list[Batch]:
    """The batches that wait, the longest first."""
    idle = (batch for batch in line.live() if batch.state is State.IDLE)
    return sorted(idle, key=lambda batch: batch.started_seq)


def usable(plant: Plant, recipe: Recipe, *, training: bool = False) -> dict[str, list[str]]:
    """For each role the units that could take it."""
    bound = {need.unit for need in recipe.units.values()}
    found = {}
    for role, need in recipe.units.items():
        of_class = [n for n, unit in plant.units.items() if unit.cls == need.cls and unit.serves(training=training)]
        found[role] = [name for name in of_class if (name == need.unit if need.unit else name not in bound)]
    return found


def taken(line: Line, at: Stamp, batch: str = "") -> dict[str, str]:
    """The units that `batch`, or a new one without it, cannot have now, each with why in words."""
    found = {unit: f"used by batch {other.batch}" for other in line.live() for unit in other.units.values()}
    ahead = waiting(line)
    dirty = not_clean(line, at) if ahead else {}
    for other in ahead:
        if other.batch == batch:
            break
        kept, _ = _choose(line.book.plant, line.recipe(other), found, dirty, other.training)
        found |= dict.fromkeys(kept.values(), f"kept for batch {other.batch}, which waits longer")
    return found


def allocate(
    plant: Plant,
    recipe: Recipe,
    gone: Mapping[str, str],
    dirty: Mapping[str, str] = MappingProxyType({}),
    *,
    training: bool = False,
) -> dict[str, str]:
    """One unit of the right class for each role, none of which is `gone`, nor `dirty` where the recipe wants a clean
    one. Raises `unit.occupied`, naming why, `unit.dirty`, or `training.unit`."""
    chosen, missing = _choose(plant, recipe, gone, dirty, training)
    for role, fitting in missing.items():
        need = recipe.units[role]
        if training and not fitting:
            raise LinesideError(
                "training.unit",
                f"No unit of class {f'{need.cls} {need.unit}'.strip()} on this box is for training.",
                effect="Nothing was started. Training never uses equipment that the plant does not give for it.",
                todo="Let an engineer say so in the plant file: `training: only` for a simulated unit, "
                "`training: allowed` for a real one.",
            )
        clean = recipe.units[role].clean and not training
        soiled = [f"{name} is {dirty[name]}" for name in fitting if clean and name in dirty and name not in gone]
        if soiled:
            raise LinesideError(
                "unit.dirty",
                f"No clean unit of class {f'{need.cls} {need.unit}'.strip()} is free: {'; '.join(soiled)}.",
                todo="Run a recipe with a step that cleans it, or let the batch wait for another one. Where its recipe "
                "allows that, a batch that waits is amended to take the dirty one.",
            )
        busy = ", ".join(f"{name} is {gone[name]}" for name in fitting if name in gone)
        raise LinesideError(
            "unit.occupied",
            f"No free unit of class {f'{need.cls} {need.unit}'.strip()}{': ' + busy if busy else ' on this box'}.",
            todo="Wait until it is free, let the batch wait in the queue, or start it on another box.",
        )
    return chosen


def turn(line: Line, recipe: Recipe, at: Stamp, batch: str = "", *, training: bool = False) -> Turn:
    """What a waiting `batch`, or a new one without it, waits for now."""
    plant, gone = line.book.plant, taken(line, at, batch)
    dirty = not_clean(line, at)
    _, missing = _choose(plant, recipe, gone, dirty, training)
    gone = {**dirty, **gone}
    said = [" or ".join(f"{name}, {gone[name]}" for name in fitting if name in gone) for fitting in missing.values()]
    nowhere = [f"a {recipe.units[role].cls}" for role, fitting in missing.items() if gone.keys().isdisjoint(fitting)]
    mine = set(_all_usable(plant, recipe, training))
    place = 1
    for other in waiting(line):
        if other.batch == batch:
            break
        place += not mine.isdisjoint(_all_usable(plant, line.recipe(other), other.training))
    return Turn(tuple(dict.fromkeys(one for one in (*said, *nowhere) if one)), place)


def _choose(
    plant: Plant, recipe: Recipe, gone: Mapping[str, str], dirty: Mapping[str, str], training: bool
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """A unit for as many roles as can have one, and for each other what could have taken it. Roles that want a clean
    one choose first: what is left does for the others, and not the other way round."""
    fitting = usable(plant, recipe, training=training)
    chosen: dict[str, str] = {}
    for role in sorted(fitting, key=lambda role: not recipe.units[role].clean):
        unfit = dirty if recipe.units[role].clean and not training else {}
        free = (n for n in fitting[role] if n not in gone and n not in unfit and n not in chosen.values())
        if (unit := next(free, None)) is not None:
            chosen[role] = unit
    missing = {role: units for role, units in fitting.items() if role not in chosen}
    return {role: chosen[role] for role in fitting if role in chosen}, missing


def _all_usable(plant: Plant, recipe: Recipe, training: bool) -> list[str]:
    fitting = usable(plant, recipe, training=training).values()
    return list(dict.fromkeys(unit for units in fitting for unit in units))
