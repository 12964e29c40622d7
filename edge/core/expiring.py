"""Material that may be used for a time: the rows that say when its clock begins, warns, runs out and ends.

The clock counts what may have passed: between two boots that is the most that the box may have been off, and without a
trusted time nobody knows how long that was. Material that may be expired is treated as expired.
"""

from __future__ import annotations

from math import inf
from typing import Final

from edge.core import events as ev
from edge.core.decision import Decision
from edge.core.line import ExpiryClock, StepRun, elapsed
from edge.core.recipe.model import Sample, Scan, Step, Transfer, UseWithin
from edge.core.recipe.values import seconds
from edge.core.terms import Elapsed, span

WARN_SHARE: Final = 0.8
"""After this share of its time it is warned, where the recipe does not say when."""


def use_within(step: Step | None) -> UseWithin | None:
    """How long what the step takes may be used; None when for any time."""
    return step.use_within if isinstance(step, Sample | Scan | Transfer) else None


def passed_step(d: Decision, batch_id: str, step: Step, run: StepRun) -> None:
    """A step is done or left out: it ends the clocks that run until then, and may begin one."""
    look(d, batch_id)
    for clock in list(d.line.batches[batch_id].clocks.values()):
        if clock.until == step.id:
            low_s, high_s = _said(elapsed(clock.since, clock.before_boot, d.now.at))
            d.emit(
                ev.ExpiryEnded(
                    batch=batch_id,
                    step=clock.step,
                    material=clock.material,
                    by=step.id,
                    low_s=low_s,
                    high_s=high_s,
                    iteration=clock.iteration,
                )
            )
    limit = use_within(step)
    if limit is None or run.state != "done":
        return
    batch = d.line.batches[batch_id]
    recipe, scanned = d.recipe(batch), run.given.get(getattr(step, "name", ""))
    time_s = seconds(recipe, limit.time)
    warn_s = time_s - seconds(recipe, limit.warn_before) if limit.warn_before else WARN_SHARE * time_s
    d.emit(
        ev.ExpiryBegun(
            batch=batch_id,
            step=step.id,
            material=f"{run.title} ({scanned})" if isinstance(scanned, str) else run.title,
            until=limit.until or "",
            use_within_s=time_s / batch.speed,
            warn_after_s=warn_s / batch.speed,
            iteration=run.iteration,
        )
    )


def look(d: Decision, batch_id: str) -> None:
    """Warn of what expires soon, and say what has run out or may have."""
    for clock in list(d.line.batches[batch_id].clocks.values()):
        passed = elapsed(clock.since, clock.before_boot, d.now.at)
        if clock.expired or passed.high_s < min(clock.warn_after_s, clock.use_within_s):
            continue
        if passed.high_s >= clock.use_within_s:
            _expire(d, batch_id, clock, passed)
        elif not clock.near:
            low_s, high_s = _said(passed)
            d.emit(
                ev.ExpiryNear(
                    batch=batch_id,
                    step=clock.step,
                    material=clock.material,
                    low_s=low_s,
                    high_s=high_s,
                    iteration=clock.iteration,
                )
            )


def _expire(d: Decision, batch_id: str, clock: ExpiryClock, passed: Elapsed) -> None:
    low_s, high_s = _said(passed)
    d.emit(
        ev.ExpiryPassed(
            batch=batch_id,
            step=clock.step,
            material=clock.material,
            low_s=low_s,
            high_s=high_s,
            iteration=clock.iteration,
        )
    )
    limit = use_within(d.recipe(d.line.batches[batch_id]).steps().get(clock.step))
    what = f"{clock.material}: to be used within {span(clock.use_within_s)}; "
    if passed.high_s == inf:
        what += f"{span(low_s)} have passed at least, and nobody knows for how long the box was off."
    elif passed.high_s - low_s < 1:
        what += f"{span(low_s)} have passed."
    else:
        what += f"between {span(low_s)} and {span(high_s)} have passed."
    # a version that the batch went over to may not have the step any more
    category, on_expiry = (limit.category, limit.on_expiry) if limit else ("critical", "hold")
    d.raise_exception(batch_id, clock.step, category, "material.expired", what)
    if on_expiry == "hold" or passed.high_s == inf:
        d.hold(batch_id, "expiry", what)


def left_s(clock: ExpiryClock, passed: Elapsed) -> float:
    """How long the material may certainly still be used; 0 when it may be expired."""
    return max(0.0, clock.use_within_s - passed.high_s)


def expires_in(clock: ExpiryClock, passed: Elapsed) -> str:
    """A sentence about material that expires soon or is expired; empty when there is time."""
    if clock.expired:
        return f"{clock.material} is or may be expired. Quality decides about it."
    return f"{clock.material} expires in {span(left_s(clock, passed))}." if clock.near else ""


def _said(passed: Elapsed) -> tuple[float, float]:
    return passed.low_s, -1.0 if passed.high_s == inf else passed.high_s
