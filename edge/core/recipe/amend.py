"""What of a control recipe may be amended while its batch is under way, and the recipe that comes of it.

A recipe says in `amendments` what may be changed, and how far. A change is a few texts, so that a row can hold it: the
sealed recipe and its changes give the amended one, in every version the same, as its seal bears out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.core.recipe.model import Amendments, Bound, Limit, Recipe, Scan, Step, Tolerance
from edge.core.recipe.read import STEPS_MAX, RecipeDocument
from edge.core.terms import duration_s

STEP_CHARS_MAX: Final = 4_096
TEXT_CHARS_MAX: Final = 256
NUMBERS: Final = frozenset(
    {
        "value",
        "target",
        "quantity",
        "rate",
        "times",
        "limit.low",
        "limit.high",
        "tolerance.below",
        "tolerance.above",
    }
)
"""Fields of a step that are numbers and may have bounds ..."""
DURATIONS: Final = frozenset({"duration", "timeout", "warn_after", "on_delay"})
"""... and those that are durations."""
UNCHANGED: Final = "Nothing was requested; the batch goes on as it is."
Kind = Literal["number", "integer", "duration", "choice", "text", "bool"]
_STEP: TypeAdapter[Step] = TypeAdapter(Step, config=ConfigDict(defer_build=True))


@dataclass(frozen=True, slots=True)
class Change:
    """One change, all of it text. "value": `subject` is "$parameter", or a step and its `field`; it was `old` and is
    `new`, within `low` and `high`. "add": the step `subject` comes after step `field`, and `new` is what it says, as
    JSON. "skip": step `subject` is left out once. "dirty": role `subject` is played by unit `new`, which is not known
    to be clean because of `old`."""

    kind: Literal["value", "add", "skip", "dirty"]
    subject: str
    field: str = ""
    old: str = ""
    new: str = ""
    unit: str = ""
    low: str = ""
    high: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A value that the recipe lets be amended: what it is now, and how far it may go."""

    subject: str
    field: str
    kind: Kind
    value: str
    unit: str
    low: str
    high: str
    why: str
    choices: tuple[str, ...] = ()


def offers(recipe: Recipe) -> list[Offer]:
    """The values that may be amended, as the recipe lists them."""
    return [_offer(recipe, bound) for bound in recipe.amendments.bounds] if recipe.amendments else []


def allowed(recipe: Recipe) -> Amendments:
    """What the recipe lets be amended; nothing, when it does not say."""
    return recipe.amendments or Amendments()


# Requests --------------------------------------------------------------------------------------------------------


def value_change(recipe: Recipe, subject: str, field: str, text: str) -> Change:
    """The change of one value to `text` as typed. Raises `amendment.*` when it is not offered or beyond its bounds."""
    offer = next((one for one in offers(recipe) if (one.subject, one.field) == (subject, field)), None)
    if offer is None:
        what = f"the {field} of step {subject[:40]}" if field else subject[:64]
        raise LinesideError(
            "amendment.not_offered",
            f"The recipe does not let {what} be amended.",
            effect=UNCHANGED,
            todo="Choose one of the values that are shown, or let quality decide about the batch.",
        )
    change = _to(offer, text)
    if change.new == offer.value:
        raise LinesideError(
            "amendment.same", f"It is {offer.value} {offer.unit} already.".replace(" .", "."), effect=UNCHANGED,
            todo="Enter another value.",
        )  # fmt: skip
    return change


def parameter_change(recipe: Recipe, name: str, text: str) -> Change:
    """The change of a parameter to `text` within its own range, before a batch begins. Raises `amendment.*`."""
    parameter = recipe.parameters.get(name)
    if parameter is None:
        raise LinesideError(
            "amendment.no_parameter",
            f"The recipe has no parameter {name[:64]}.",
            effect=UNCHANGED,
            todo="Name one of these: " + (", ".join(recipe.parameters) or "none") + ".",
        )
    low, high = ("" if end is None else _said(end) for end in (parameter.low, parameter.high))
    now = (parameter.type, _said(parameter.value), parameter.unit)
    return _to(Offer(f"${name}", "", *now, low, high, parameter.why, parameter.choices), text)


def _to(offer: Offer, text: str) -> Change:
    """The change of a value to `text` as typed. Raises `amendment.value` and `amendment.out_of_bounds`."""
    new = _typed(offer, text.strip())
    size = _size(offer.kind, new)
    low, high = (_size(offer.kind, end) if end else None for end in (offer.low, offer.high))
    if size is not None and ((low is not None and size < low) or (high is not None and size > high)):
        raise LinesideError(
            "amendment.out_of_bounds",
            f"{new} {offer.unit} is outside {offer.low or 'any'} to {offer.high or 'any'} {offer.unit}, ".replace(
                "  ", " "
            )
            + "the bounds that the recipe sets.",
            effect=UNCHANGED,
            todo="Enter a value within the bounds.",
        )
    value, unit, low_, high_ = offer.value, offer.unit, offer.low, offer.high
    return Change("value", offer.subject, offer.field, value, new, unit, low_, high_, offer.why)


def step_to_add(recipe: Recipe, after: str, text: str) -> Change:
    """The change that puts the step in `text` (JSON) behind step `after`. Raises `amendment.*`."""
    why, step = "", None
    try:
        raw = orjson.loads(text) if len(text) <= STEP_CHARS_MAX else None
        step = _STEP.validate_python(raw)
    except orjson.JSONDecodeError:
        why = "it is not JSON"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:200]
    if step is not None and step.next is not None:
        why = "it says which step follows, and that follows from its place"
    if step is None or why:
        raise LinesideError(
            "amendment.step", f"The step to add cannot be read: {why}.", effect=UNCHANGED, todo="Correct it."
        )
    if step.phase not in allowed(recipe).add:
        raise LinesideError(
            "amendment.not_offered",
            f"The recipe does not let a step of the kind {step.phase} be added.",
            effect=UNCHANGED,
            todo="Add one of these: " + (", ".join(allowed(recipe).add) or "none") + ".",
        )
    known = recipe.steps()
    if step.id in known or after not in known or len(known) >= STEPS_MAX:
        what = f"there is a step {step.id} already" if step.id in known else f"there is no step {after[:40]} to follow"
        raise LinesideError(
            "amendment.place",
            f"The step cannot be added: {what}.",
            effect=UNCHANGED,
            todo="Give it another id or place.",
        )
    said = step.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Change("add", step.id, after, new=orjson.dumps(said).decode())


def step_to_skip(recipe: Recipe, step_id: str) -> Change:
    """The change that leaves a step out once. Raises `amendment.not_offered`; a scan of the patient is never one."""
    step = recipe.steps().get(step_id)
    if step is None or step_id not in allowed(recipe).skip or guards_identity(step):
        raise LinesideError(
            "amendment.not_offered",
            f"The recipe does not let step {step_id[:40]} be skipped.",
            effect=UNCHANGED,
            todo="Do the step, or let quality decide about the batch.",
        )
    return Change("skip", step_id, old=step.title)


def dirty_unit(recipe: Recipe, role: str, unit: str, why: str) -> Change:
    """The change that lets this unit, not clean because of `why`, play the role. Raises `amendment.*`."""
    if role not in allowed(recipe).dirty:
        raise LinesideError(
            "amendment.not_offered",
            f"The recipe does not let {role[:64]} be played by a dirty unit, or it was allowed already.",
            effect=UNCHANGED,
            todo="Clean the unit, or let quality decide about the batch.",
        )
    if not why:
        raise LinesideError(
            "amendment.same",
            f"{unit[:64]} is clean, or is no unit that could play {role[:64]}.",
            effect=UNCHANGED,
            todo="Start the batch: a clean unit needs no amendment.",
        )
    return Change("dirty", role, old=why, new=unit)


def guards_identity(step: Step) -> bool:
    """True for a scan of the patient identity, and for what has one in it."""
    if isinstance(step, Scan) and step.expect == "patient":
        return True
    return any(guards_identity(one) for _, steps in step.inner() for one in steps)


# The amended recipe ----------------------------------------------------------------------------------------------


def amended(recipe: Recipe, changes: Sequence[Change]) -> Recipe:
    """The recipe with these changes, one after the other; what is skipped stays in it."""
    data = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for change in changes:
        match change.kind:
            case "value" if change.subject.startswith("$"):
                parameter = recipe.parameters[change.subject[1:]]
                kind: Kind = parameter.type
                data["parameters"][change.subject[1:]]["value"] = _stored(kind, change.new)
            case "value":
                *outer, last = change.field.split(".")
                place = _sequence_of(data["procedure"], change.subject)
                inner = next(step for step in place if step["id"] == change.subject)
                for key in outer:
                    inner = inner[key]
                inner[last] = _stored("duration" if change.field in DURATIONS else "number", change.new)
            case "add":
                steps = _sequence_of(data["procedure"], change.field)
                at = next(n for n, step in enumerate(steps) if step["id"] == change.field)
                added = orjson.loads(change.new)
                if "next" in steps[at]:
                    added["next"] = steps[at].pop("next")
                steps.insert(at + 1, added)
            case "dirty":
                del data["units"][change.subject]["clean"]
                data["units"][change.subject]["unit"] = change.new
                data["amendments"]["dirty"].remove(change.subject)
            case "skip":
                pass
    return Recipe.model_validate(data)


def _sequence_of(part: Any, step_id: str) -> list[dict[str, Any]]:
    """The list in which a step stands, in a recipe's plain data. Raises StopIteration for none."""
    return next(_sequences(part, step_id))


def _sequences(part: Any, step_id: str) -> Iterator[list[dict[str, Any]]]:
    if isinstance(part, list):
        if any(isinstance(one, dict) and one.get("id") == step_id and "phase" in one for one in part):
            yield part
        for one in part:
            yield from _sequences(one, step_id)
    elif isinstance(part, dict):
        for one in part.values():
            yield from _sequences(one, step_id)


# Values as texts -------------------------------------------------------------------------------------------------


def _offer(recipe: Recipe, bound: Bound) -> Offer:
    """A bound of a checked recipe, with what it is about."""
    kind, value, unit, choices = _about(recipe, bound)
    low, high = ("" if end is None else _said(end) for end in (bound.low, bound.high))
    subject = f"${bound.parameter}" if bound.parameter else str(bound.step)
    return Offer(subject, bound.field, kind, value, unit, low, high, bound.why, choices)


def _about(recipe: Recipe, bound: Bound) -> tuple[Kind, str, str, tuple[str, ...]]:
    """Kind, value, unit and choices of what a bound is about. Raises `amendment.bound` when there is no such thing."""
    parameter = recipe.parameters.get(bound.parameter) if bound.parameter else None
    if parameter is not None and bound.step is None and not bound.field:
        return parameter.type, _said(parameter.value), parameter.unit, parameter.choices
    step = recipe.steps().get(bound.step) if bound.step else None
    value: object = step if bound.parameter is None else None
    unit = ""
    for key in bound.field.split("."):
        value = getattr(value, key, None)
        if isinstance(value, Limit | Tolerance):
            unit = value.unit
    if bound.field in DURATIONS and isinstance(value, str) and value and not value.startswith("$"):
        return "duration", value, "", ()
    if bound.field in NUMBERS and isinstance(value, float):
        kind: Kind = "integer" if bound.field == "times" else "number"
        return kind, _said(value), unit or getattr(step, "unit", ""), ()
    raise LinesideError(
        "amendment.bound",
        f"{bound.step or bound.parameter or 'nothing'} has no value {bound.field[:40]!r} that could be amended.",
        todo="Name a `parameter`; or a `step` and its `field`, a number or duration that stands there: "
        + ", ".join(sorted(NUMBERS | DURATIONS))
        + ".",
    )


def _said(value: float | bool | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value).removesuffix(".0") if isinstance(value, float) else value


def _stored(kind: Kind, text: str) -> float | bool | str:
    """A value as the recipe's file holds it."""
    if kind in {"number", "integer"}:
        return float(text)
    return text == "yes" if kind == "bool" else text


def _size(kind: Kind, text: str) -> float | None:
    """What is compared with bounds; None for what has no size."""
    if kind == "duration":
        return duration_s(text)
    return float(text) if kind in {"number", "integer"} else None


def _typed(offer: Offer, text: str) -> str:
    """What was typed, as a value of this kind. Raises `amendment.value`."""
    fits, todo = bool(text) and len(text) <= TEXT_CHARS_MAX and text.isprintable(), "Enter a value."
    if fits and offer.kind in {"number", "integer"}:
        text, todo = text.replace("\N{MINUS SIGN}", "-"), 'Use digits and a point, for example "12.5".'
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        fits = abs(number) < float("inf") and (offer.kind == "number" or number.is_integer())
        text = _said(number)
    elif fits and offer.kind == "duration":
        todo = 'Write a number, a space and s, min, h or d, for example "12 h".'
        try:
            fits = duration_s(text) > 0
        except LinesideError:
            fits = False
    elif fits and offer.kind == "choice":
        fits, todo = text in offer.choices, "Choose one of: " + ", ".join(offer.choices) + "."
    elif fits and offer.kind == "bool":
        fits, todo = text in {"yes", "no"}, "Enter yes or no."
    if not fits:
        raise LinesideError(
            "amendment.value", f"{text[:40]!r} is not a value of the kind {offer.kind}.", effect=UNCHANGED, todo=todo
        )
    return text


# The checker's part ----------------------------------------------------------------------------------------------


def problems(document: RecipeDocument) -> Iterator[LinesideError]:
    """What is wrong with the amendments that a recipe allows."""
    recipe = document.recipe
    if recipe.amendments is None:
        return
    seen: set[tuple[str, str]] = set()
    for number, bound in enumerate(recipe.amendments.bounds):
        place = document.place(("amendments", "bounds", number))
        try:
            offer = _offer(recipe, bound)
            wrong = _unfit(offer)
        except LinesideError as error:
            if error.code != "unit.duration":
                error.place = place
                yield error
                continue
            wrong = error.what
        if (offer.subject, offer.field) in seen:
            wrong = "it has bounds already"
        seen.add((offer.subject, offer.field))
        if wrong:
            yield LinesideError(
                "amendment.bounds",
                f"The bounds of {offer.subject} {offer.field}".rstrip() + f" do not fit: {wrong}.",
                todo="Correct the bounds.",
                place=place,
            )
    for number, step_id in enumerate(recipe.amendments.skip):
        step = recipe.steps().get(step_id)
        if step is None or guards_identity(step):
            yield LinesideError(
                "amendment.skip",
                f"Step {step_id} cannot be one that is skipped: "
                + ("the patient identity is matched in it." if step else "there is no such step."),
                todo="Remove it from `skip`.",
                place=document.place(("amendments", "skip", number)),
            )

    for number, role in enumerate(recipe.amendments.dirty):
        need = recipe.units.get(role)
        if need is None or not need.clean:
            yield LinesideError(
                "amendment.dirty",
                f"{role} cannot be a role that is given a dirty unit: "
                + ("it wants no clean one." if need else "there is no such role."),
                todo="Name roles with `clean: true`.",
                place=document.place(("amendments", "dirty", number)),
            )


def _unfit(offer: Offer) -> str:
    """Why bounds do not go with what they are about; empty when they do."""
    try:
        now, low, high = (_size(offer.kind, text) if text else None for text in (offer.value, offer.low, offer.high))
    except ValueError:
        return "there are texts where numbers must be"
    if now is None:
        return f"a {offer.kind} has no low and high" if offer.low or offer.high else ""
    if low is None and high is None:
        return "they are open at both ends"
    if low is not None and high is not None and low > high:
        return "the low end is above the high end"
    inside = (low is None or now >= low) and (high is None or now <= high)
    return "" if inside else f"{offer.value} itself is outside"
