"""A step that calls a method of the equipment: once, with the arguments of the recipe; what it answers is recorded.

The call is a write like any other: intended in a durable row, then made, then its outcome; in doubt it is asked about.
"""

from __future__ import annotations

import json

from edge.core.decision import Decision
from edge.core.guard import call_text
from edge.core.line import Batch, tag_name
from edge.core.recipe.model import Invoke
from edge.core.serve import plain_value, record_report
from edge.core.terms import Quality, Reading, Value


def call(d: Decision, batch: Batch, step: Invoke, iteration: int) -> None:
    """Intend the call."""
    full_name = tag_name(batch.units, step.tag)
    tag = d.line.book.plant.tag(full_name)
    recipe, method = d.recipe(batch), tag.method if tag else None
    given = {
        name: plain_value(recipe, step.arguments[name], one.unit)
        for name, one in (method.arguments if method else {}).items()
        if name in step.arguments
    }
    d.intend(batch.batch, step.id, iteration, 1, full_name, call_text(given))


def answered(d: Decision, batch: Batch, step: Invoke, answer: Value | None) -> None:
    """The method was carried out: record what it answered, as far as that is known, and go on."""
    full_name = tag_name(batch.units, step.tag)
    tag = d.line.book.plant.tag(full_name)
    values = json.loads(answer) if isinstance(answer, str) else {}
    for result in step.results:
        one = tag.method.results.get(result.report) if tag and tag.method else None
        if one is None or result.report not in values:
            what = f"{step.title}: what {full_name} answered as {result.report} is not known."
            d.raise_exception(batch.batch, step.id, "major", "method.no_answer", what)
            continue
        reading = Reading(values[result.report], one.unit, Quality.GOOD, "", d.now.at.boottime_s)
        record_report(d, batch, d.recipe(batch), step, result, full_name, reading)
    d.complete(batch.batch, step.id)
