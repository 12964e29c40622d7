"""Out of trend (OOT): what earlier batches of a recipe came to, and what is expected of the next one because of it.

A series is one figure that every batch gives: what a step recorded, or what a monitor showed at one of its points.
Batches that are complete are kept (`Kept`); a batch that begins pins what they say (`Reference`), and is judged by that
alone until it ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Final

from edge.core.quick import dataclass
from edge.core.recipe.model import (
    MONITOR_POINTS_MAX,
    TREND_BATCHES_MAX,
    Monitor,
    Recipe,
    Step,
    rule_of,
)
from edge.core.recipe.model import Trend as Rule

RECIPES_KEPT: Final = 30
SERIES_MAX: Final = 200
"""So many figures of one batch are kept; what comes after them is compared with nothing."""
TIMER: Final = "=trend"
"""Before the number of a monitor's point, in the name of its timer: no sampling plan is called so."""
_END_OF_STEP: Final = re.compile(r"[#: ]")


@dataclass(frozen=True, slots=True)
class Reference:
    """What earlier batches say of one series."""

    n: int
    mean: float
    deviation: float
    """The standard deviation of the sample; 0 of a single one."""
    low: float
    high: float

    def band(self, rule: Rule) -> tuple[float, float]:
        """Between what a new one is expected."""
        if rule.band == "range":
            return self.low, self.high
        wide = rule.deviations * self.deviation
        return self.mean - wide, self.mean + wide


@dataclass(frozen=True, slots=True)
class Kept:
    """A batch that is complete, and its figures by their series."""

    batch: str
    version: str
    seal: str
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Trending:
    """Of a batch under way: what it is compared with, what it came to so far, and which monitors are out of trend."""

    of: Mapping[str, Reference] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    out: tuple[str, ...] = ()


Trends = Mapping[str, tuple[Kept, ...]]
"""By recipe, the newest batch last."""


def series(step: str, iteration: int, point: int, unit: str) -> str:
    """The name of a series. A figure in another unit is another series."""
    return step + (f"#{iteration}" if iteration > 1 else "") + (f":{point}" if point else "") + f" {unit}"


def comparable(recipe: Recipe, seal: str, kept: Sequence[Kept]) -> list[Kept]:
    """The batches of the same recipe, or of a version that the recipe says it can be compared with."""
    return [one for one in kept if one.seal == seal or one.version in recipe.comparable]


def references(recipe: Recipe, kept: Sequence[Kept]) -> Iterator[tuple[str, Reference]]:
    """What these batches, the newest last, say of each series for which the recipe has a rule."""
    rules = {step.id: rule for step in recipe.in_order() if (rule := rule_of(step)) is not None}
    found: dict[str, list[float]] = {}
    for one in reversed(kept):
        for name, value in one.figures.items():
            rule = rules.get(_END_OF_STEP.split(name, maxsplit=1)[0])
            if rule is not None and len(found.setdefault(name, [])) < rule.batches:
                found[name].append(value)
    for name in list(found)[:SERIES_MAX]:
        yield name, _reference(found[name])


def _reference(values: Sequence[float]) -> Reference:
    n = len(values)
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in values) / (n - 1)) if n > 1 else 0.0
    return Reference(n, mean, spread, min(values), max(values))


def outside(value: float, low: float, high: float) -> bool:
    """Whether the value lies outside by more than the rounding of what was worked out."""
    return not low <= value <= high and not any(math.isclose(value, end, abs_tol=1e-12) for end in (low, high))


def judged(trending: Trending, name: str, step: str, value: float | None, *, out: bool) -> Trending:
    """With one more figure, as long as there are not too many, and with what is known of the step now."""
    figures = dict(trending.figures)
    if value is not None and (name in figures or len(figures) < SERIES_MAX):
        figures[name] = value
    others = tuple(one for one in trending.out if one != step)
    return replace(trending, figures=figures, out=(*others, step) if out else others)


def with_batch(trends: Trends, recipe: str, batch: Kept) -> Trends:
    """The kept batches with one more; of each recipe the newest, and of recipes those used last."""
    kept = (*trends.get(recipe, ()), batch)[-TREND_BATCHES_MAX:]
    others = {name: one for name, one in trends.items() if name != recipe}
    while len(others) >= RECIPES_KEPT:
        del others[next(iter(others))]
    return {**others, recipe: kept}


def corrected(trends: Trends, recipe: str, batch: str, name: str, value: float) -> Trends:
    """The kept batches once a figure of one of them was corrected."""
    kept = trends.get(recipe, ())
    if not any(one.batch == batch and name in one.figures for one in kept):
        return trends
    right = (replace(one, figures={**one.figures, name: value}) if one.batch == batch else one for one in kept)
    return {**trends, recipe: tuple(right)}


def next_point(step: Step, passed: Sequence[str]) -> int:
    """The number of a monitor's next point; 0 when there is none."""
    if not isinstance(step, Monitor) or step.trend is None:
        return 0
    told = [int(one.partition(":")[2]) for one in passed if one.startswith(f"{TIMER}:")]
    following = 1 + max(told, default=0)
    return following if following <= MONITOR_POINTS_MAX else 0


def expected(rule: Rule, of: Reference | None, unit: str) -> str:
    """What is expected of a figure, in a sentence for whoever does the step."""
    n = of.n if of is not None else 0
    if of is None or n < rule.least:
        return f"Trend: {n} earlier {'batch' if n == 1 else 'batches'}; compared from {rule.least} on."
    low, high = of.band(rule)
    return f"Trend of {n} earlier batches: {low:.4g} to {high:.4g} {unit}".rstrip() + "."
