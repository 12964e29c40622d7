"""Steps in which people answer one thing after another: what is asked next, and whether a result is within its limit.

A form is a fixed sequence of asks for a batch; the open one is the first that no row has answered. Everything here is
a question to the head and the recipe: `edge.core.decide` makes the rows, `edge.picture` shows the ask.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Literal

from edge.core.errors import LinesideError
from edge.core.line import BY_HAND, Batch, OpenResult, StepRun
from edge.core.numbers import TRAINING_PREFIX
from edge.core.quick import dataclass
from edge.core.recipe.model import (
    MICROBIOLOGY,
    NEGATIVE_TO_DATE,
    Clearance,
    Custody,
    Dispose,
    Form,
    Label,
    Limit,
    Place,
    Recipe,
    Record,
    Sample,
    Sign,
    Step,
    Test,
    Transfer,
    Weigh,
)
from edge.core.recipe.values import limit_in, resolve
from edge.core.recipe.values import said as spoken
from edge.core.terms import PENDING, Role, Value
from edge.core.training import FROM_TRAINING, LABEL, looks_like_training

TEXT_CHARS_MAX: Final = 256
COUNT_MAX: Final = 1_000_000
PRINTS_MAX: Final = 9
"""So often the labels of one step are printed; a printer that needs more is mended first."""
LABELS_GOOD: Final = "all are good"
PRINT_AGAIN: Final = "print again"
KEPT: Final = "Your entry was not taken; the step is unchanged."
Result = Record | Test
"""What says how a result is typed and judged."""
_NUMBER: Final = re.compile(r"(<=|>=|<|>)?\s*([0-9.eE+\-]+)")


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing that a form waits for. `part` names the answer within the step; a "reading" is the box's to take."""

    part: str
    kind: Literal["confirm", "value", "choice", "scan", "sign", "reading"]
    text: str
    role: Role = Role.OPERATOR
    unit: str = ""
    low: float | None = None
    high: float | None = None
    category: str = "major"
    choices: tuple[str, ...] = ()
    result: Result | None = None
    """How the entry is typed and judged; a plain number otherwise."""
    whole: bool = False
    """A count."""
    prefix: str = ""
    exactly: str = ""
    """The code to scan."""
    unlike: str = ""
    """A code that was scanned before and is wrong here."""
    meaning: str = ""
    limit: Limit | None = None


def asks(recipe: Recipe, batch: Batch, step: Step, run: StepRun) -> tuple[Ask, ...]:
    """All that the step asks for, in order; nothing for a step that is no form and no signature."""
    found: Iterator[Ask]
    match step:
        case Sign():
            found = _signatures(recipe, step.text, step.meaning, step.roles)
        case Weigh():
            found = _weigh(recipe, step, run)
        case Sample():
            found = _sample(recipe, batch, step, run)
        case Label():
            found = _label(recipe, batch, step, run)
        case Transfer():
            found = _transfer(recipe, batch, step, run)
        case Custody():
            found = _custody(recipe, step)
        case Clearance():
            found = _clearance(recipe, step)
        case Dispose():
            found = _dispose(recipe, batch, step)
        case _:
            return ()
    return tuple(found)


def open_ask(recipe: Recipe, batch: Batch, step: Step, run: StepRun) -> Ask | None:
    """The first that is not answered yet; None when the step has all it needs."""
    signed = len(run.signed)
    for ask in asks(recipe, batch, step, run):
        if ask.kind == "sign":
            if signed == 0:
                return ask
            signed -= 1
        elif ask.part not in run.given:
            return ask
    return None


# What each phase asks for ------------------------------------------------------------------------------------


def _signatures(recipe: Recipe, text: str, meaning: str, roles: tuple[Role, ...]) -> Iterator[Ask]:
    for place, role in enumerate(roles, 1):
        yield Ask(f"signature {place}", "sign", spoken(recipe, text), role, meaning=spoken(recipe, meaning))


def weight_limits(recipe: Recipe, step: Weigh) -> tuple[float, float, float]:
    """Target, lowest and highest net weight of a weighing, in its unit."""
    target = resolve(recipe, step.target, step.unit, step.unit)
    if step.tolerance is None:
        return target, target, target
    ends = []
    for number in (step.tolerance.below, step.tolerance.above):
        if step.tolerance.unit == "%":
            ends.append(target * resolve(recipe, number, "%", "%") / 100.0)
        else:
            ends.append(resolve(recipe, number, step.tolerance.unit, step.unit))
    return target, target - ends[0], target + ends[1]


def _weigh(recipe: Recipe, step: Weigh, run: StepRun) -> Iterator[Ask]:
    target, low, high = weight_limits(recipe, step)
    text, unit, name = spoken(recipe, step.text), step.unit, step.name
    wanted = f"{target:g} {unit} ({low:g} to {high:g})"
    if step.balance and BY_HAND not in run.given:
        yield Ask("empty", "confirm", "Put the empty container on the balance.", step.role)
        yield Ask(f"{name}.tare", "reading", "Lineside waits until the balance stands still: tare.", unit=unit)
        yield Ask("filled", "confirm", f"{text} Weigh in {wanted}.", step.role)
        yield Ask(f"{name}.gross", "reading", "Lineside waits until the balance stands still: gross.", unit=unit)
        return
    yield Ask(f"{name}.tare", "value", "Enter what the empty container weighs.", step.role, unit)
    tare = run.given.get(f"{name}.tare", 0.0)
    tare = tare if isinstance(tare, float) else 0.0
    full = f"{text} Weigh in {wanted}. Enter what the full container weighs."
    yield Ask(f"{name}.gross", "value", full, step.role, unit, tare + low, tare + high)
    gross = run.given.get(f"{name}.gross", 0.0)
    seen = f"The balance showed {tare:g} {unit} empty and {gross:g} {unit} full."
    yield Ask("signature 1", "sign", seen, step.checked_by, meaning="Weights read off the balance and checked")


def _result(recipe: Recipe, result: Result, name: str, text: str, role: Role) -> Ask:
    low, high = (None, None) if result.limit is None else limit_in(recipe, result.limit, result.unit)
    choices = choices_of(result)
    kind: Literal["value", "choice"] = "choice" if choices else "value"
    return Ask(
        name, kind, text, role, result.unit, low, high, result.category, choices, result=result, limit=result.limit
    )


def choices_of(result: Result) -> tuple[str, ...]:
    """What may be chosen; nothing for what is typed."""
    return MICROBIOLOGY if result.type == "negative_to_date" else result.choices


def sample_facts(recipe: Recipe, step: Sample, run: StepRun) -> dict[str, str]:
    """What a sample's label may say besides."""
    return {"sample": spoken(recipe, step.title), "number": str(run.iteration)}


def _sample(recipe: Recipe, batch: Batch, step: Sample, run: StepRun) -> Iterator[Ask]:
    if step.label:
        content = label_content(recipe, batch, step.label, sample_facts(recipe, step, run))
        lines = "; ".join(f"{title}: {text}" for title, text in content.items())
        told = f"Print a label with: {lines}. Enter how many were printed."
        yield Ask(f"{step.name}.printed", "value", told, step.role, "1", low=1.0, category="minor", whole=True)
    least = resolve(recipe, step.quantity, step.unit, step.unit)
    text = spoken(recipe, step.text)
    of = f" of {spoken(recipe, step.material)}" if step.material else ""
    plan = f"At least {least:g} {step.unit}{of} into {spoken(recipe, step.container)}."
    plan += f" Bring it to {spoken(recipe, step.to)}." if step.to else ""
    yield Ask(step.name, "scan", f"{text} {plan} Scan the code on its label.", step.role, prefix=step.prefix)
    how_much = f"{plan} Enter how much was taken."
    yield Ask(f"{step.name}.quantity", "value", how_much, step.role, step.unit, low=least, category="minor")
    for test in step.tests:
        if not test.later:
            told = spoken(recipe, test.text) or f"Enter the result: {test.name}."
            yield _result(recipe, test, test.name, told, step.role)


def label_content(
    recipe: Recipe, batch: Batch, content: Mapping[str, str], more: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The lines of a label: what each says of this batch."""
    facts = {
        "batch": batch.batch,
        "order": batch.order,
        "patient": batch.patient,
        "recipe": batch.recipe,
        "version": batch.version,
        "title": recipe.title,
        **more,
    }
    said = {title: facts.get(named, spoken(recipe, named)) for title, named in content.items()}
    return {**LABEL, **said} if batch.training else said


def labels_printed(step: Label, run: StepRun) -> float:
    """How many labels of the step there are: what a person said, or what the printer confirmed and a person counted."""
    counts = (f"{step.name}.print", f"{step.name}.count ")
    return sum(value for part, value in run.given.items() if part.startswith(counts) and isinstance(value, float | int))


def label_code(recipe: Recipe, batch: Batch, step: Label) -> str:
    """What the code on the label says."""
    code = label_content(recipe, batch, {"code": step.code})["code"] if step.code else ""
    return f"{TRAINING_PREFIX}{code}" if code and batch.training and not looks_like_training(code) else code


def _label(recipe: Recipe, batch: Batch, step: Label, run: StepRun) -> Iterator[Ask]:
    if step.printer:
        yield from _printed_labels(recipe, batch, step, run)
    else:
        yield from _labels_by_hand(recipe, batch, step)
    if step.reconcile:
        yield Ask(f"{step.name}.used", "value", "Enter how many labels were used.", step.role, "1", whole=True)
        void = "Destroy the labels that are left. Enter how many."
        yield Ask(f"{step.name}.void", "value", void, step.role, "1", whole=True)


def _printed_labels(recipe: Recipe, batch: Batch, step: Label, run: StepRun) -> Iterator[Ask]:
    """Attempt after attempt. One whose outcome nobody knew is counted by a person; what was said of it is "doubt"."""
    name, copies = step.name, f"{step.copies} label" + ("" if step.copies == 1 else "s")
    for attempt in range(1, PRINTS_MAX + 1):
        doubt = run.given.get(f"{name}.doubt {attempt}")
        if doubt is None or f"{name}.print {attempt}" in run.given:
            yield Ask(
                f"{name}.print {attempt}", "reading", f"Lineside prints {copies} and looks whether they came out."
            )
        else:
            told = "Enter how many labels came out of the printer, spoilt ones too; 0 for none."
            yield Ask(f"{name}.count {attempt}", "value", told, step.role, "1", whole=True)
        if doubt == PRINT_AGAIN:
            continue
        told = f"{spoken(recipe, step.text)} Look at the labels. Are they whole and can they be read?"
        offered = (LABELS_GOOD, PRINT_AGAIN) if attempt < PRINTS_MAX else (LABELS_GOOD,)
        checked = Test(name="check", type="choice", choices=(LABELS_GOOD, PRINT_AGAIN))
        yield Ask(f"{name}.check {attempt}", "choice", told, step.role, choices=offered, result=checked)
        if run.given.get(f"{name}.check {attempt}") != PRINT_AGAIN:
            break
        why = Test(name="reason", type="text")
        yield Ask(f"{name}.reason {attempt}", "value", "Why are labels printed again?", step.role, result=why)
        again = f"{copies} more of step {step.id}."
        yield Ask(f"again {attempt}", "sign", again, step.role, meaning="Labels are printed again, and all are counted")
    if code := label_code(recipe, batch, step):
        yield Ask(f"{name}.code", "scan", "Scan the code on one of the labels.", step.role, exactly=code)


def _labels_by_hand(recipe: Recipe, batch: Batch, step: Label) -> Iterator[Ask]:
    lines = "; ".join(f"{title}: {text}" for title, text in label_content(recipe, batch, step.content).items())
    copies = f"{step.copies} label" + ("" if step.copies == 1 else "s")
    text = f"{spoken(recipe, step.text)} Print {copies} with: {lines}."
    yield Ask(f"{step.name}.printed", "value", f"{text} Enter how many were printed.", step.role, "1", whole=True)


def _transfer(recipe: Recipe, batch: Batch, step: Transfer, run: StepRun) -> Iterator[Ask]:
    text, name = spoken(recipe, step.text), step.name

    def scan(part: str, place: Place, told: str, unlike: str) -> Ask:
        code = batch.units.get(place.unit, place.unit) if place.unit else ""
        return Ask(part, "scan", told, step.role, prefix=place.prefix, exactly=code, unlike=unlike)

    yield scan(f"{name}.from", step.source, f"{text} Scan where it comes from.", "")
    source = run.given.get(f"{name}.from", "")
    yield scan(f"{name}.to", step.target, f"{text} Scan where it goes to.", str(source))
    low, high = (None, None) if step.limit is None else limit_in(recipe, step.limit, step.unit)
    category = step.limit.category if step.limit else "major"
    yield Ask(name, "value", "Enter how much went over.", step.role, step.unit, low, high, category, limit=step.limit)


def _custody(recipe: Recipe, step: Custody) -> Iterator[Ask]:
    what, text = spoken(recipe, step.what), spoken(recipe, step.text)
    yield Ask("gives", "sign", text, step.gives, meaning=f"Handed over: {what}")
    yield Ask("takes", "sign", text, step.takes, meaning=f"Taken over: {what}")


def _clearance(recipe: Recipe, step: Clearance) -> Iterator[Ask]:
    count = len(step.checks)
    for place, check in enumerate(step.checks, 1):
        yield Ask(f"check {place}", "confirm", f"{place} of {count}: {spoken(recipe, check)}", step.role)
    yield from _signatures(recipe, step.text, "Line clearance done and verified", step.roles)


def _dispose(recipe: Recipe, batch: Batch, step: Dispose) -> Iterator[Ask]:
    text = spoken(recipe, step.text)
    for opened in batch.open_results.values():
        if opened.name == step.of and (spec := result_spec(recipe, opened)) is not None:
            final = without_waiting(spec)
            yield replace(_result(recipe, final, opened.result, text, step.role), choices=choices_left(final))
    yield Ask("signature 1", "sign", text, step.role, meaning=f"Result assessed: {step.of}")


# Results -----------------------------------------------------------------------------------------------------


def result_spec(recipe: Recipe, opened: OpenResult) -> Result | None:
    """How an open result is typed and judged."""
    return result_of(recipe, opened.step, opened.name)


def result_of(recipe: Recipe, step_id: str, name: str) -> Result | None:
    """How the result `name` of a step is typed and judged; None when no person enters it there."""
    step = recipe.steps().get(step_id)
    if isinstance(step, Record):
        return step if step.name == name else None
    return next((t for t in step.tests if t.name == name), None) if isinstance(step, Sample) else None


def without_waiting(result: Result) -> Result:
    """The same result, which must now be there."""
    change = {"later": False} if isinstance(result, Test) else {"pending": False}
    return result.model_copy(update=change)


def choices_left(result: Result) -> tuple[str, ...]:
    """What may be chosen for a result that was open: no longer what would leave it open."""
    return tuple(choice for choice in choices_of(result) if choice != NEGATIVE_TO_DATE)


def parse_result(result: Result, text: str, choices: tuple[str, ...] | None = None) -> Value:
    """The typed text as the value that the result asks for; `PENDING` where it may come later. Raises `entry.*`."""
    text = printable(text)
    if result.pending and text.lower() == PENDING:
        return PENDING
    offered = choices_of(result) if choices is None else choices
    if offered:
        if text not in offered:
            raise LinesideError(
                "entry.choice",
                f"{text[:40]!r} is not one of the choices.",
                effect=KEPT,
                todo="Choose one of: " + ", ".join(offered) + ".",
            )
        return text
    if result.type == "text":
        return text
    return parse_number(text, bounded=result.type == "at_most")


def printable(text: str) -> str:
    """The text without space around it. Raises `entry.empty` when nothing usable is left."""
    text = text.strip()
    if not text or len(text) > TEXT_CHARS_MAX or not text.isprintable():
        raise LinesideError("entry.empty", "Nothing usable was entered.", effect=KEPT, todo="Enter the value.")
    return text


def parse_number(text: str, *, bounded: bool = False) -> float | str:
    """A finite number; with `bounded` also one behind <, <=, > or >=, which stays as it was typed. Raises `entry.*`."""
    plain = text.replace("\N{MINUS SIGN}", "-").replace("≤", "<=").replace("≥", ">=")
    match = _NUMBER.fullmatch(plain)
    number = math.nan
    if match and (bounded or not match[1]):
        try:
            number = float(match[2])
        except ValueError:
            number = math.nan
    if match is None or not math.isfinite(number):
        example = 'for example "0.5" or "< 0.5"' if bounded else 'for example "12.5"'
        raise LinesideError(
            "entry.number",
            f"{text[:40]!r} is not a number.",
            effect=KEPT,
            todo=f"Use digits and a point, {example}.",
        )
    return f"{match[1]} {match[2]}" if match[1] else number


def parse_count(text: str) -> float:
    """A whole number from 0 on. Raises `entry.*`."""
    number = parse_number(printable(text))
    if not isinstance(number, float) or not number.is_integer() or not 0 <= number <= COUNT_MAX:
        raise LinesideError(
            "entry.count", f"{text.strip()[:40]!r} is not a count.", effect=KEPT, todo="Enter a whole number."
        )
    return number


def is_within(result: Result, value: Value, low: float | None, high: float | None) -> bool:
    """True when it is certainly within low..high, or one that is accepted. "< 0.5" is only known to be below."""
    if result.type == "negative_to_date":
        return value != MICROBIOLOGY[-1]
    if isinstance(value, str) and result.type == "at_most":
        sign, _, number = value.partition(" ")
        if sign.startswith("<"):
            return low is None and (high is None or float(number) <= high)
        return high is None and (low is None or float(number) >= low)
    if isinstance(value, float):
        return (low is None or value >= low) and (high is None or value <= high)
    return not result.accept or value in result.accept


def leaves_open(result: Result, value: Value) -> bool:
    """True when somebody must still say what the result is in the end."""
    return value == PENDING or (result.type == "negative_to_date" and value == NEGATIVE_TO_DATE)


def is_form(step: Step) -> bool:
    """True for a step that asks for one thing after another."""
    return isinstance(step, Form)


def code_refusal(ask: Ask, text: str, *, training: bool) -> str:
    """Why a scanned code is not what the ask expects, in a sentence; empty when it is."""
    if looks_like_training(text) and not training:
        return FROM_TRAINING
    if not text or len(text) > TEXT_CHARS_MAX or not text.isprintable():
        return "The code cannot be read. Nothing was started."
    if ask.exactly and text != ask.exactly:
        return f"This is not {ask.exactly}. Nothing was started."
    if not text.startswith(ask.prefix):
        return f"This is not the right one: its code should begin with {ask.prefix}. Nothing was started."
    if ask.unlike and text == ask.unlike:
        return "This is where it comes from; it cannot go to the same place. Nothing was started."
    return ""
