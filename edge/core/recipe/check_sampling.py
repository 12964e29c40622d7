"""What is wrong with the sampling plans of a recipe: when samples are due, and what is done with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edge.core.document import Path, closest
from edge.core.errors import LinesideError
from edge.core.recipe import check_forms
from edge.core.recipe.model import SAMPLING, Hold, Loop, Monitor, Recipe, SamplingPlan
from edge.core.recipe.values import named_in, seconds

PLANS_MAX: Final = 50


def problems(asked: check_forms.Asked, recipe: Recipe) -> Iterator[LinesideError]:
    """Every problem of the plans that needs no plant."""
    if len(recipe.sampling) > PLANS_MAX:
        yield LinesideError(
            "recipe.sampling_plans",
            f"The recipe has {len(recipe.sampling)} sampling plans, more than {PLANS_MAX}.",
            todo="Take several tests from one sample.",
            place=asked.place(("sampling",)),
        )
        return
    recorded = {name: step.id for step in recipe.in_order() for name in step.records()}
    for name, plan in recipe.sampling.items():
        path: Path = ("sampling", name)
        step = recipe.planned()[name]
        yield from check_forms.problems(asked, recipe, step, path)
        named = dict.fromkeys(named_in(plan.model_dump_json()))
        for one in (one for one in named if one not in recipe.parameters):
            yield LinesideError(
                "recipe.unknown_parameter",
                f"The sampling plan {name} uses {'$' + one!r}; there is no such parameter.",
                todo=closest(one, list(recipe.parameters)),
                place=asked.place(path),
            )
        for result in (name, *(test.name for test in plan.tests)):
            if result in recorded:
                yield LinesideError(
                    "recipe.duplicate_result",
                    f"{result!r} is recorded by {recorded[result]} and by the sampling plan {name}.",
                    todo="Give it another name in one of them.",
                    place=asked.place(path),
                )
            recorded[result] = f"{SAMPLING}/{name}"
        yield from _when(asked, recipe, name, plan, path)


def _when(
    asked: check_forms.Asked, recipe: Recipe, name: str, plan: SamplingPlan, path: Path
) -> Iterator[LinesideError]:
    in_sequence = {step.id: step for step in recipe.in_order()}
    for key in ("at", "during", "outside"):
        of = getattr(plan, key)
        if of is not None and of not in in_sequence:
            yield LinesideError(
                "recipe.sampling_step",
                f"The sampling plan {name} names step {of!r}, which is not there.",
                todo=closest(of, sorted(in_sequence)),
                place=asked.place((*path, key)),
            )
            return
    ways = [plan.at is not None, bool(plan.every), bool(plan.passes), plan.outside is not None]
    if sum(ways) != 1 or (plan.during is not None) != (bool(plan.every) or bool(plan.passes)):
        yield LinesideError(
            "recipe.sampling_when",
            f"The sampling plan {name} says "
            + ("more than one" if sum(ways) > 1 else "no whole")
            + " time of sampling.",
            todo="Give either `at`, or `during` and `every`, or `during` and `passes`, or `outside`.",
            place=asked.place(path),
        )
        return
    if plan.passes and (not isinstance(in_sequence[plan.during or ""], Loop) or min(plan.passes) < 1):
        yield LinesideError(
            "recipe.sampling_passes",
            f"The sampling plan {name} samples in passes of step {plan.during}, which is no loop, or in pass 0.",
            todo="Name a loop, and passes from 1 on.",
            place=asked.place((*path, "passes")),
        )
    if plan.outside is not None and not isinstance(in_sequence[plan.outside], Monitor | Hold):
        yield LinesideError(
            "recipe.sampling_outside",
            f"The sampling plan {name} samples when the limit of step {plan.outside} is left; that step watches none.",
            todo="Name a `monitor` or a `hold`.",
            place=asked.place((*path, "outside")),
        )
    yield from _times(asked, recipe, name, plan, path)


def _times(
    asked: check_forms.Asked, recipe: Recipe, name: str, plan: SamplingPlan, path: Path
) -> Iterator[LinesideError]:
    lengths: dict[str, float] = {}
    for key, text in (("every", plan.every), ("within", plan.within)):
        if not text:
            continue
        try:
            lengths[key] = seconds(recipe, text)
        except LinesideError:
            lengths[key] = 0.0
        if not 60.0 <= lengths[key] <= 366 * 86_400.0:
            yield LinesideError(
                "recipe.sampling_time",
                f"{text[:40]!r} of the sampling plan {name} is not a duration between a minute and a year.",
                todo='Write a number, a space and min, h or d, for example "24 h".',
                place=asked.place((*path, key)),
            )
            return
    if lengths.get("every", float("inf")) < lengths["within"]:
        yield LinesideError(
            "recipe.sampling_time",
            f"The next sample of the plan {name} is due before the one before it is overdue.",
            todo="Make `within` shorter than `every`.",
            place=asked.place((*path, "within")),
        )
