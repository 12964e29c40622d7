"""What the parts of a recipe are called for a process engineer: in a chart, and in a sentence about a change.

One table over the fields of the model. A field that is not in it would show under its key; a test lets none through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from edge.core.quick import dataclass
from edge.core.recipe.model import Attachment, Limit, Recipe, SamplingPlan, Step, Test, Tolerance, Trend, UseWithin
from edge.core.recipe.values import said, shown


@dataclass(frozen=True, slots=True)
class Word:
    """`says` names a field in a sentence; `chart` shows its value, `{}`, in a chart, which leaves it out when empty."""

    says: str
    chart: str = ""


WORDS: Final[Mapping[str, Word]] = {
    "tag": Word("tag", "{}"),
    "value": Word("value", "to {}"),
    "limit": Word("limit", "{}"),
    "limit.low": Word("lower {} limit"),
    "limit.high": Word("upper {} limit"),
    "limit.unit": Word("unit of the {} limit"),
    "limit.why": Word("why of the {} limit"),
    "limit.placeholder": Word("placeholder mark of the {} limit"),
    "limit.category": Word("exception category of the {} limit"),
    "cleans": Word("units that are clean afterwards", "cleans {}"),
    "clean": Word("whether it must be clean"),
    "dirty": Word("roles that a dirty unit may play"),
    "attachments": Word("attachments", "attached: {}"),
    "file": Word("name of the file"),
    "sha256": Word("content of the file"),
    "trend": Word("trend", "trend: {}"),
    "trend.every": Word("time between two points of the trend"),
    "trend.category": Word("exception category of the trend"),
    "trend.why": Word("why of the trend"),
    "batches": Word("most batches that count"),
    "least": Word("fewest batches that count"),
    "band": Word("what is expected from them"),
    "deviations": Word("standard deviations"),
    "comparable": Word("versions that can be compared"),
    "sampling": Word("sampling plan"),
    "at": Word("step at whose begin a sample is due"),
    "during": Word("step during which samples are due"),
    "passes": Word("passes in which a sample is due"),
    "outside": Word("step whose limit, when it is left, makes a sample due"),
    "within": Word("time after which a sample is overdue"),
    "material": Word("kind of sample", "{}"),
    "label": Word("content of the label", "labelled {}"),
    "alarm": Word("alarm", "alarm: {}"),
    "alarm.unit": Word("unit of the alarm's deadband"),
    "use_within": Word("time within which it must be used", "to be used {}"),
    "time": Word("time within which it must be used"),
    "use_within.until": Word("step until which it must be used"),
    "warn_before": Word("time before its expiry at which it is warned"),
    "on_expiry": Word("what happens when it expires"),
    "priority": Word("priority of the alarm"),
    "cause": Word("cause"),
    "effect": Word("effect"),
    "todo": Word("what the person does"),
    "deadband": Word("deadband of the alarm"),
    "duration": Word("duration", "for {}"),
    "until": Word("end", "until {}"),
    "timeout": Word("longest time", "at most {}"),
    "on_delay": Word("delay before an exception", "an exception after {}"),
    "on_bad_quality": Word("what happens when a value is bad", "when a value is bad: {}"),
    "by_hand": Word("who may do it by hand", "by hand: {}"),
    "by_hand_every": Word("time between entries by hand", "by hand an entry every {}"),
    "on_restart": Word("what happens after a restart", "after a restart: {}"),
    "formula": Word("formula", "= {}"),
    "name": Word("name of the recorded value", "{}"),
    "unit": Word("unit"),
    "type": Word("kind of value"),
    "choices": Word("choices", "one of: {}"),
    "accept": Word("choices that are all right", "all right: {}"),
    "category": Word("exception category"),
    "expect": Word("what the code must be", "the code must be: {}"),
    "prefix": Word("beginning of the code", "begins with {}"),
    "coding": Word("coding of the code", "coded as {}"),
    "meaning": Word("meaning of the signature", "“{}”"),
    "roles": Word("who signs", "signed by {}"),
    "times": Word("most passes", "at most {} passes"),
    "while": Word("condition for another pass", "while {}"),
    "warn_after": Word("time after which the screen reminds", "a reminder after {}"),
    "pending": Word("whether the result may come later", "the result may come later: {}"),
    "later": Word("whether the result may come later", "the result may come later: {}"),
    "tolerance": Word("tolerance", "tolerance: {}"),
    "below": Word("tolerance below", "{} below"),
    "above": Word("tolerance above", "{} above"),
    "target": Word("target", "target {}"),
    "balance": Word("balance", "on balance {}"),
    "steady": Word("steadiness of the balance", "steady within {}"),
    "steady_for": Word("time for which the balance must be steady", "steady for {}"),
    "checked_by": Word("who checks what was typed", "checked by {}"),
    "quantity": Word("quantity", "{}"),
    "container": Word("container", "into {}"),
    "tests": Word("tests", "tests: {}"),
    "retain": Word("whether a part is retained", "a part is retained: {}"),
    "content": Word("content of the label", "says {}"),
    "copies": Word("copies", "{} copies"),
    "printer": Word("label printer", "printed on {}"),
    "code": Word("what the code says", "its code says {}"),
    "template": Word("template of the label", "laid out as {}"),
    "reconcile": Word("whether labels are reconciled", "labels are reconciled: {}"),
    "from": Word("where it comes from", "from {}"),
    "to": Word("where it goes to", "to {}"),
    "what": Word("what is handed over", "{}"),
    "gives": Word("who hands over", "given by {}"),
    "takes": Word("who takes over", "taken by {}"),
    "checks": Word("checks", "checks: {}"),
    "of": Word("result that is decided about", "of {}"),
    "rate": Word("rate", "by {}"),
    "per": Word("time that the rate is for", "per {}"),
    "every": Word("time between two writes", "a write every {}"),
    "service": Word("service", "service {}"),
    "service.unit": Word("unit", "of {}"),
    "procedure": Word("procedure", "procedure {}"),
    "report": Word("report value", "report {}"),
    "reports": Word("report values that are recorded", "records {}"),
    "arguments": Word("what the method is given", "with {}"),
    "results": Word("what the method answers, as recorded", "records {}"),
    "timeouts": Word("longest times of states", "at most {}"),
    "on_timeout": Word("what happens when it takes too long", "when it takes too long: {}"),
    "on_held": Word("what happens when the module holds", "when the module holds: {}"),
    "on_aborted": Word("what happens when the module aborts", "when the module aborts: {}"),
    "library_operation": Word("name"),
    "operation": Word("called operation", "operation {}"),
    "operation.operation": Word("name"),
    "version": Word("version", "version {}"),
    "units": Word("unit role"),
    "parameters": Word("parameter"),
    "service.parameters": Word("parameter", "with {}"),
    "readings": Word("unit of the reading"),
    "class": Word("class of unit"),
    "when": Word("condition"),
    "else": Word("what is done when no condition is true"),
    "branches": Word("branches"),
    "steps": Word("steps"),
    "operations": Word("operations"),
    "unit_procedure": Word("name"),
    "recipe": Word("name"),
    "id": Word("id"),
    "title": Word("title"),
    "text": Word("text for the person"),
    "why": Word("why"),
    "role": Word("who does it"),
    "next": Word("the step that follows"),
    "phase": Word("phase"),
    "placeholder": Word("placeholder mark"),
    "amendments": Word("what may be amended in a batch under way"),
    "bounds": Word("bounds of an amendment"),
    "parameter": Word("parameter"),
    "step": Word("step"),
    "field": Word("what of the step"),
    "skip": Word("steps that may be skipped"),
    "add": Word("phases of which a step may be added"),
    "adopt": Word("whether a batch under way may go over to this version"),
    "signed_by": Word("who agrees to an amendment"),
    "made_from": Word("origin"),
    "made_from.recipe": Word("master"),
    "seal": Word("seal of the master"),
    "site": Word("whether a site fills it"),
    "made_from.site": Word("site"),
    "site_version": Word("version of the site file"),
    "site_seal": Word("seal of the site file"),
    "low": Word("lower end of its range"),
    "high": Word("upper end of its range"),
}
"""By the field's name in a file; before it, where another word is needed, the key of what it stands in and a dot."""
MEASURED: Final = frozenset({"value", "target", "quantity", "steady", "rate"})
"""Fields that are given in the step's unit."""
HEADINGS: Final = frozenset({"id", "title", "why", "role", "next", "phase", "text", "unit", "steps"})
"""Fields of a step that a chart shows in another way than as a line in the box, or not at all."""

TOGETHER: Final = ("tag", "name", "value", "limit", "duration")
"""Fields that read as one line, in this order."""


def word(field: str, inside: str = "") -> Word:
    """What the field is called; `inside` is the key of the thing that it stands in."""
    return WORDS.get(f"{inside}.{field}") or WORDS.get(field) or Word(field.replace("_", " "))


def number(recipe: Recipe, value: object, unit: str = "") -> str:
    """A value with its unit; a parameter's own value, and which parameter it is. A dagger as in `span`."""
    if isinstance(value, str) and value.startswith("$"):
        parameter = recipe.parameters.get(value[1:])
        mark = "†" if parameter and parameter.placeholder else ""
        if parameter is None:
            return value
        said = shown(parameter).removesuffix(" 1") if parameter.unit == "1" else shown(parameter)
        return f"{said}{mark} ({value[1:].replace('_', ' ')})"
    if isinstance(value, float):
        value = repr(value).removesuffix(".0")
    return f"{value} {unit}".strip()


def span(recipe: Recipe, limit: Limit, unit: str = "") -> str:
    """A limit in words: "36.5 to 37.5 degC", "at least 5 %"; a dagger when the process owner must still set it."""
    unit = limit.unit or unit
    unit = "" if unit == "1" else unit
    named = any(isinstance(end, str) for end in (limit.low, limit.high))  # by parameters, which have units themselves
    low = "" if limit.low is None else number(recipe, limit.low, unit if named else "")
    high = "" if limit.high is None else number(recipe, limit.high, unit if named else "")
    ends = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else "open"
    return f"{ends} {'' if named else unit}".rstrip() + ("†" if limit.placeholder else "")


def facts(recipe: Recipe, step: Step) -> list[str]:
    """What a step says apart from its heading and what stands inside it, a line each; the equipment's in one line."""
    found: dict[str, str] = {}
    unit = getattr(step, "unit", "")
    inside = {path[0] for path, _ in step.inner()}
    for field, info in type(step).model_fields.items():
        key = info.alias or field
        value: Any = getattr(step, field)
        template = word(key, step.phase).chart
        if key in HEADINGS or key in inside or not template or value in ("", None, ()) or value == info.default:
            continue
        measured = unit if field in MEASURED else ""
        found[key] = template.format(_said(recipe, value, measured if not isinstance(value, Limit) else unit))
    plans = [one for one in recipe.sampling.values() if step.id in (one.at, one.during, one.outside)]
    found |= {f"sampling {one.title}": f"sample: {one.title}, {_due(recipe, one)}" for one in plans}
    together = " ".join(found.pop(key) for key in TOGETHER if key in found)
    own = [_due(recipe, recipe.sampling[name]) for name, one in recipe.planned().items() if one.id == step.id]
    if own:
        found.pop("warn_after")  # it is when the sample is overdue
    lines = [*own, together, *found.values(), f"done by {step.role}" if step.role != "operator" else ""]
    return [line for line in lines if line]


def _due(recipe: Recipe, plan: SamplingPlan) -> str:
    return f"{said(recipe, plan.when())}, within {number(recipe, plan.within)}"


def _said(recipe: Recipe, value: object, unit: str) -> str:
    if isinstance(value, Limit):
        return span(recipe, value, unit)
    if isinstance(value, Attachment):
        return value.title or value.file
    if isinstance(value, UseWithin):
        until = f" until step {value.until}" if value.until else ""
        warned = f", warned {number(recipe, value.warn_before)} before" if value.warn_before else ""
        mild = "" if value.on_expiry == "hold" else ", expired: the batch goes on"
        return f"within {number(recipe, value.time)}{until}{warned}{mild}"
    if isinstance(value, Tolerance):
        ends = [number(recipe, end, value.unit) for end in (value.below, value.above)]
        said = f"± {ends[0]}" if ends[0] == ends[1] else f"− {ends[0]}, + {ends[1]}"
        return said + ("†" if value.placeholder else "")
    if isinstance(value, Trend):
        band = "the range" if value.band == "range" else f"± {value.deviations:g} standard deviations"
        every = f", every {value.every}" if value.every else ""
        return f"{band} of {value.least} to {value.batches} earlier batches{every}"
    if isinstance(value, Test):
        kind = "" if value.type == "number" else value.type.replace("_", " ")
        limits = "" if value.limit is None else span(recipe, value.limit, value.unit)
        later = "later" if value.later else ""
        return f"{value.name} " + ", ".join(part for part in (kind, limits, *value.choices, later) if part)
    if isinstance(value, BaseModel):
        value = {info.alias or field: getattr(value, field) for field, info in type(value).model_fields.items()}
        value = {key: one for key, one in value.items() if one not in ("", None, (), False)}
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_said(recipe, one, '')}" for key, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ("; " if any(isinstance(one, Test) for one in value) else ", ").join(
            _said(recipe, one, "") for one in value
        )
    return number(recipe, value, unit)


def dagger(step: Step) -> str:
    """A dagger for a step with a value that the process owner must still set."""
    return " †" if getattr(step, "placeholder", False) else ""
