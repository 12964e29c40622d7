"""Deciding about trends: what a batch that begins is compared with, and what each of its figures is judged by.

All that a judgement needs is in rows before it: the figures of earlier batches, and what this one pinned of them.
"""

from __future__ import annotations

import math

from edge.core import events as ev
from edge.core.decision import Decision
from edge.core.line import Batch, StepRun, elapsed, tag_name
from edge.core.recipe.model import MONITOR_POINTS_MAX, Monitor, Recipe, Step, rule_of
from edge.core.recipe.values import seconds
from edge.core.trend import TIMER, Reference, comparable, next_point, outside, references, series


def pin_trend(decision: Decision, batch_id: str, recipe: Recipe, name: str, seal: str) -> None:
    """Say what the batch that begins is compared with. `name` is its recipe's, which has this seal."""
    if not any(rule_of(step) for step in recipe.in_order()):
        return
    kept = comparable(recipe, seal, decision.line.trends.get(name, ()))
    found: list[dict[str, str | int | float]] = [
        {"series": one, "n": it.n, "mean": it.mean, "deviation": it.deviation, "low": it.low, "high": it.high}
        for one, it in references(recipe, kept)
    ]
    decision.emit(ev.TrendPinned(batch=batch_id, batches=[one.batch for one in kept], series=found))


def judge_recorded(decision: Decision, batch_id: str, step: Step) -> None:
    """Compare what the step has recorded in this pass, if it has a rule and recorded a number."""
    if rule_of(step) is None or isinstance(step, Monitor):
        return
    batch = decision.line.batches[batch_id]
    run = batch.steps[step.id]
    for name in step.records():
        known = batch.values.get(name)
        mine = known is not None and (known.step, known.iteration) == (step.id, run.iteration)
        if known is not None and mine and isinstance(known.value, float):
            _judge(decision, batch, step, run, name, known.value, known.unit)


def take_point(decision: Decision, batch_id: str, step_id: str) -> None:
    """A monitor's points that are due by now. Of those that passed in the dark or while the batch stood, only the last
    can still be taken; the others are counted."""
    batch = decision.line.batches[batch_id]
    run, recipe = batch.steps[step_id], decision.recipe(batch)
    step = recipe.steps()[step_id]
    rule, number = rule_of(step), next_point(step, run.passed)
    if rule is None or not isinstance(step, Monitor) or not number:
        return
    passed = elapsed(run.since, run.before_boot, decision.now.at)
    last = min(math.floor(passed.low_s / (seconds(recipe, rule.every) / batch.speed)), MONITOR_POINTS_MAX)
    if last < number:
        return
    high_s = -1.0 if passed.high_s == math.inf else passed.high_s
    timer = f"{TIMER}:{last}"
    decision.emit(ev.TimerDue(batch=batch_id, step=step_id, timer=timer, low_s=passed.low_s, high_s=high_s))
    full_name = tag_name(batch.units, step.tag)
    reading = decision.now.reading(full_name)
    usable = reading is not None and reading.good and isinstance(reading.value, int | float)
    value = float(reading.value) if reading is not None and usable else None
    unit = reading.unit if reading is not None else ""
    _judge(decision, batch, step, run, full_name, value, unit, point=last, missed=last - number)


def _judge(
    decision: Decision,
    batch: Batch,
    step: Step,
    run: StepRun,
    name: str,
    value: float | None,
    unit: str,
    *,
    point: int = 0,
    missed: int = 0,
) -> None:
    rule = rule_of(step)
    assert rule is not None
    of = batch.trend.of.get(series(step.id, run.iteration, point, unit), Reference(0, 0.0, 0.0, 0.0, 0.0))
    low, high = of.band(rule) if of.n >= rule.least else (None, None)
    found = "not usable" if value is None else "too few" if low is None else "within"
    if value is not None and low is not None and high is not None and outside(value, low, high):
        found = "outside"
    decision.emit(
        ev.TrendJudged(
            batch=batch.batch,
            step=step.id,
            name=name,
            point=point,
            missed=missed,
            value=value,
            unit=unit,
            found=found,
            of=of.n,
            least=rule.least,
            low=low,
            high=high,
        )
    )
    if found == "outside" and step.id not in batch.trend.out:  # a monitor that stays there is told once
        what = (
            f"{run.title}: {value:g} {unit}".rstrip()
            + f" is out of trend: {low:g} to {high:g} {unit}".rstrip()
            + f" is expected from {of.n} earlier batches."
        )
        decision.raise_exception(batch.batch, step.id, rule.category, "trend.outside", what)
