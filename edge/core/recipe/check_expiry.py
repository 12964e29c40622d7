"""What is wrong with the times within which material must be used: what they say, and whether the way is too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from edge.core.document import Path, closest
from edge.core.errors import LinesideError
from edge.core.recipe.model import (
    Hold,
    Loop,
    Parallel,
    Ramp,
    Recipe,
    Sample,
    Scan,
    Select,
    Step,
    Transfer,
    UseWithin,
    Wait,
    order,
)
from edge.core.recipe.read import RecipeDocument
from edge.core.recipe.values import named_in, seconds, shown
from edge.core.terms import span

CLOSE_SHARE: Final = 0.8
"""A way that takes more than this share of the time leaves people little."""
TIME_S_MAX: Final = 10 * 366 * 86_400.0


def problems(document: RecipeDocument) -> Iterator[LinesideError]:
    """Every time that cannot be one, end that is never reached, and way that takes longer than the time."""
    for path, step, limit in _limits(document):
        where: Path = (*path, "use_within")
        if limit.until is not None and limit.until not in document.recipe.steps():
            yield LinesideError(
                "recipe.unknown_until",
                f"What step {step.id} takes is to be used until step {limit.until!r} is done, which is not there.",
                todo=closest(limit.until, sorted(document.recipe.steps())),
                place=document.place((*where, "until")),
            )
            continue
        time_s = _length(document.recipe, limit.time)
        warn_s = _length(document.recipe, limit.warn_before) if limit.warn_before else 0.0
        if time_s is None or warn_s is None:
            continue  # said with the other unknown parameters
        if not 0 < time_s <= TIME_S_MAX or not 0 <= warn_s < time_s:
            yield LinesideError(
                "recipe.use_within",
                f"What step {step.id} takes: {limit.time[:40]!r} is no time between 0 and ten years, or "
                "`warn_before` is no shorter time.",
                todo='Write a number, a space and s, min, h or d, for example "4 h".',
                place=document.place((*where, "time")),
            )
            continue
        way_s = shortest_s(document.recipe, step.id, limit.until)
        if way_s is None:
            yield LinesideError(
                "recipe.until_not_after",
                f"What step {step.id} takes is to be used until step {limit.until} is done, and that does not follow "
                "it on every way.",
                todo="Name a step that follows, or the selection, loop or parallel that it stands in.",
                place=document.place((*where, "until")),
            )
        elif way_s > time_s:
            yield LinesideError(
                "recipe.expires_before",
                f"What step {step.id} takes expires after {_said(document.recipe, limit.time)}; "
                f"{_end(limit)} comes {span(way_s)} after it at the earliest.",
                todo="Take it later, use it earlier, or correct the times.",
                place=document.place((*where, "time")),
            )


def remarks(document: RecipeDocument) -> Iterator[LinesideError]:
    """Ways that leave little of the time."""
    for path, step, limit in _limits(document):
        time_s, way_s = _length(document.recipe, limit.time), shortest_s(document.recipe, step.id, limit.until)
        if time_s is not None and way_s is not None and CLOSE_SHARE * time_s < way_s <= time_s:
            yield LinesideError(
                "recipe.expires_close",
                f"What step {step.id} takes expires after {_said(document.recipe, limit.time)}; "
                f"{_end(limit)} comes {span(way_s)} after it at the earliest, and people need time too.",
                effect="The recipe can be executed.",
                todo="Take it later, use it earlier, or correct the times.",
                place=document.place((*path, "use_within", "time")),
            )


def shortest_s(recipe: Recipe, taken: str, until: str | None) -> float | None:
    """How long it is at least from the end of step `taken` to the end of step `until`, or of the recipe: what waits,
    holds and ramps take by themselves. None when `until` does not follow on every way."""
    total_s = 0.0
    for steps, here in reversed(_way_to(recipe.main(), taken)):
        sequence = order(steps)[0]
        places = [one.id for one in sequence]
        if here.id not in places:
            return 0.0  # it is never reached, which is said elsewhere
        if here.id == until != taken:
            return total_s
        for step in sequence[places.index(here.id) + 1 :]:
            if until is not None and (to_s := _up_to(recipe, step, until)) is not None:
                return total_s + to_s
            total_s += _least_s(recipe, step)
    return total_s if until is None else None


def _way_to(steps: Sequence[Step], taken: str) -> list[tuple[Sequence[Step], Step]]:
    """The sequences around step `taken`, outermost first, each with the step of it that is or holds `taken`."""
    for step in steps:
        if step.id == taken:
            return [(steps, step)]
        for _, inside in step.inner():
            if way := _way_to(inside, taken):
                return [(steps, step), *way]
    return []


def _up_to(recipe: Recipe, step: Step, until: str) -> float | None:
    """How long it is from the beginning of `step` to the end of `until`, which is it or surely inside it."""
    if step.id == until:
        return _least_s(recipe, step)
    if isinstance(step, Select) or (isinstance(step, Loop) and step.while_):
        return None
    for _, inside in step.inner():
        passed_s = 0.0
        for one in order(inside)[0]:
            if (to_s := _up_to(recipe, one, until)) is not None:
                return passed_s + to_s
            passed_s += _least_s(recipe, one)
    return None


def _least_s(recipe: Recipe, step: Step) -> float:
    """How long a step takes at least, whoever does it: a loop is gone round once."""
    if isinstance(step, Wait | Hold | Ramp):
        text = step.every if isinstance(step, Ramp) else step.duration
        return (_length(recipe, text) or 0.0) if text else 0.0
    if isinstance(step, Loop) and step.while_:
        return 0.0
    ways = [sum(_least_s(recipe, one) for one in order(steps)[0]) for _, steps in step.inner()]
    if isinstance(step, Select):
        return min([*ways, *([] if step.else_ else [0.0])])
    return max(ways, default=0.0) if isinstance(step, Parallel) else sum(ways)


def _limits(document: RecipeDocument) -> Iterator[tuple[Path, Step, UseWithin]]:
    for path, step in document.steps():
        if isinstance(step, Scan | Sample | Transfer) and step.use_within is not None:
            yield path, step, step.use_within


def _length(recipe: Recipe, text: str) -> float | None:
    """A duration; None when it names a parameter that is not there, 0 when it is none."""
    if any(name not in recipe.parameters for name in named_in(text)):
        return None
    try:
        return seconds(recipe, text)
    except LinesideError:
        return 0.0


def _end(limit: UseWithin) -> str:
    return f"the end of step {limit.until}" if limit.until else "the end of the recipe"


def _said(recipe: Recipe, text: str) -> str:
    return shown(recipe.parameters[text[1:]]) if text.startswith("$") else text
