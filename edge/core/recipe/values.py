"""The numbers, durations and texts of a recipe, in the unit that somebody needs them in."""

from __future__ import annotations

import re
from typing import Final

from edge.core.errors import LinesideError
from edge.core.formula import Variable, names_in
from edge.core.recipe.model import Limit, Number, Parameter, Ramp, Recipe, Set
from edge.core.terms import convert, duration_s

ITERATION: Final = "iteration"
"""The name that stands for a loop's pass in formulas."""
_NAMED = re.compile(r"\$([A-Za-z][A-Za-z0-9_]{0,63})")


def resolve(recipe: Recipe, number: Number, unit: str, to: str) -> float:
    """`number` expressed in `to`. A literal is given in `unit`, a "$parameter" in its own unit.

    Raises `recipe.unknown_parameter` and `unit.mismatch`; never for a recipe that `check_recipe` finds clean.
    """
    if not isinstance(number, str):
        return convert(number, unit, to)
    value, given = number_of(_parameter(recipe, number))
    return convert(value, given, to)


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


def ramp_end_in(recipe: Recipe, step: Ramp, unit: str) -> float:
    """Where a ramp ends, in the tag's `unit`."""
    return resolve(recipe, step.value, step.unit or unit, unit)


def ramp_step_in(recipe: Recipe, step: Ramp, unit: str) -> float:
    """By how much one write of a ramp may change the set-point, in the tag's `unit`."""
    per_s = duration_s(f"1 {step.per}")
    given = step.unit or unit
    rate = resolve(recipe, step.rate, given, unit) - resolve(recipe, 0.0, given, unit)  # a difference: 1 K is 1 degC
    return abs(rate) / per_s * seconds(recipe, step.every)


def seconds(recipe: Recipe, duration: str) -> float:
    """A duration, or "$name" of one, in seconds. Raises `unit.duration`, and as `resolve`."""
    return resolve(recipe, duration, "s", "s") if duration.startswith("$") else duration_s(duration)


def whole(recipe: Recipe, number: Number) -> int:
    """A whole number, or "$name" of one."""
    return round(resolve(recipe, number, "", ""))


def said(recipe: Recipe, text: str) -> str:
    """A text for a person, with the value and unit of each parameter in the place of its "$name"."""

    def value(match: re.Match[str]) -> str:
        parameter = recipe.parameters.get(match[1])
        return shown(parameter) if parameter else match[0]

    return _NAMED.sub(value, text)


def named_in(text: str) -> list[str]:
    """The names of parameters in a text."""
    return _NAMED.findall(text)


def shown(parameter: Parameter) -> str:
    """A parameter's value for a person."""
    value = parameter.value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g} {parameter.unit}".strip() if isinstance(value, float) else value


def number_of(parameter: Parameter) -> tuple[float, str]:
    """A parameter's value as a number, and its unit; a duration is in seconds."""
    value = parameter.value
    if parameter.type == "duration" and isinstance(value, str):
        return duration_s(value), "s"
    if isinstance(value, bool) or not isinstance(value, float):
        raise LinesideError(
            "recipe.parameter_type",
            f"The parameter is {shown(parameter)[:40]!r}, which is no number.",
            todo="Use a parameter that is a number.",
        )
    return value, parameter.unit


def variable_of(parameter: Parameter) -> Variable:
    """What a parameter is in a formula."""
    if parameter.type in {"number", "integer"}:
        return Variable("number", parameter.unit)
    if parameter.type == "duration":
        return Variable("number", "s")
    return Variable("bool" if parameter.type == "bool" else "text")


def variables_in(recipe: Recipe, formula: str) -> dict[str, Variable]:
    """What the names in a formula of the recipe are: as `variables`, whatever the size of the recipe."""
    found: dict[str, Variable] = {}
    for name in names_in(formula):
        if name in recipe.readings:
            found[name] = Variable("number", recipe.readings[name])
        elif name in recipe.recorded():
            found[name] = Variable(*recipe.recorded()[name])
        elif name.startswith("$") and name[1:] in recipe.parameters:
            found[name] = variable_of(recipe.parameters[name[1:]])
        elif name == ITERATION:
            found[name] = Variable("number")
    return found


def variables(recipe: Recipe) -> dict[str, Variable]:
    """All that a formula of the recipe may name. `iteration` has a value inside a loop alone."""
    found = {ITERATION: Variable("number")}
    found |= {name: Variable(kind, unit) for name, (kind, unit) in recipe.recorded().items()}
    found |= {f"${name}": variable_of(parameter) for name, parameter in recipe.parameters.items()}
    return found | {name: Variable("number", unit) for name, unit in recipe.readings.items()}


def _parameter(recipe: Recipe, named: str) -> Parameter:
    parameter = recipe.parameters.get(named.removeprefix("$"))
    if parameter is None:
        raise LinesideError(
            "recipe.unknown_parameter",
            f"There is no parameter called {named!r}.",
            todo="Add it to `parameters`, or correct its name.",
        )
    return parameter
