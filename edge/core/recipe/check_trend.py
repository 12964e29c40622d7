"""What is wrong with the trends of a recipe: which values are compared with those of earlier batches, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edge.core.document import Path
from edge.core.errors import LinesideError
from edge.core.recipe.check_forms import Asked
from edge.core.recipe.model import Monitor, Recipe, Record, Step, rule_of
from edge.core.recipe.values import seconds

EVERY_S_MIN: Final = 60.0
EVERY_S_MAX: Final = 366 * 86_400.0


def problems(asked: Asked, recipe: Recipe, step: Step, path: Path) -> Iterator[LinesideError]:
    """Every problem of the step's rule, if it has one."""
    rule = rule_of(step)
    if rule is None:
        return
    inside: Path = (*path, "trend")
    if rule.least > rule.batches:
        yield LinesideError(
            "recipe.trend_least",
            f"Step {step.id} is compared with {rule.batches} batches at most, but not before there are {rule.least}.",
            todo="Make `least` at most `batches`.",
            place=asked.place((*inside, "least")),
        )
    if isinstance(step, Record) and (step.type != "number" or step.pending):
        why = "may come later" if step.pending else f"is of type {step.type}"
        yield LinesideError(
            "recipe.trend_value",
            f"The result of step {step.id} {why}: it cannot be compared when the step is done.",
            todo="Remove `trend`; only numbers that are there at once are compared.",
            place=asked.place(inside),
        )
    if not isinstance(step, Monitor):
        if rule.every:
            yield LinesideError(
                "recipe.trend_every",
                f"Step {step.id} records one value: `every` is for monitors.",
                todo="Remove `every`.",
                place=asked.place((*inside, "every")),
            )
        return
    try:
        length_s = seconds(recipe, rule.every)
    except LinesideError:
        length_s = 0.0
    if not EVERY_S_MIN <= length_s <= EVERY_S_MAX:
        yield LinesideError(
            "recipe.trend_every",
            f"{rule.every[:40]!r} of step {step.id} is not a duration between a minute and a year.",
            todo="Say how often the value is compared, for example `every: 1 d`; a hundred times at most.",
            place=asked.place((*inside, "every") if rule.every else inside),
        )
