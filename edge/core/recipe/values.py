"""The numbers of a recipe in the unit that somebody needs them in."""

from __future__ import annotations

from edge.core.errors import LinesideError
from edge.core.recipe.model import Limit, Number, Recipe, Set
from edge.core.terms import convert


def resolve(recipe: Recipe, number: Number, unit: str, to: str) -> float:
    """`number` expressed in `to`. A literal is given in `unit`, a "$parameter" in its own unit.

    Raises `recipe.unknown_parameter` and `unit.mismatch`; never for a recipe that `check_recipe` finds clean.
    """
    if not isinstance(number, str):
        return convert(number, unit, to)
    parameter = recipe.parameters.get(number.removeprefix("$"))
    if parameter is None:
        raise LinesideError(
            "recipe.unknown_parameter",
            f"There is no parameter called {number!r}.",
            todo="Add it to `parameters`, or correct its name.",
        )
    return convert(parameter.value, parameter.unit, to)


def limit_in(recipe: Recipe, limit: Limit, unit: str) -> tuple[float | None, float | None]:
    """The limit's ends in `unit` (a tag's or a record step's own unit); None where it is open.

    A limit without a unit is given in `unit`."""
    given = limit.unit or unit
    low = None if limit.low is None else resolve(recipe, limit.low, given, unit)
    high = None if limit.high is None else resolve(recipe, limit.high, given, unit)
    return low, high


def set_point_in(recipe: Recipe, step: Set, unit: str) -> float:
    """What a set step writes, in the tag's `unit`. A step without a unit gives its number in the tag's."""
    return resolve(recipe, step.value, step.unit or unit, unit)
