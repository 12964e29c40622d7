"""What is wrong with the steps of people and material by themselves: see `edge.core.forms`.

`Asked` is what the checker of recipes lends: positions, and sentences that other steps use too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from edge.core.document import Path, closest
from edge.core.errors import LinesideError, Place
from edge.core.recipe.model import (
    Alarm,
    Clearance,
    Custody,
    Dispose,
    Hold,
    Invoke,
    Label,
    Limit,
    Monitor,
    Number,
    Parameter,
    Ramp,
    Recipe,
    Record,
    Sample,
    Service,
    Sign,
    Step,
    Test,
    Transfer,
    Weigh,
)
from edge.core.recipe.values import limit_in, resolve
from edge.core.terms import MEASURES, Role, same_dimension
from edge.core.zpl import COPIES_MAX, layout, problem

FACTS: Final = ("batch", "order", "patient", "recipe", "version", "title")
"""What a label may say of its batch."""
NUMBERS: Final = frozenset({"number", "integer"})
"""The types of parameters that may stand for a number."""
STEPS_OF_A_RAMP_MAX: Final = 10_000


class Asked(Protocol):
    """What the checks of steps need of the checker."""

    def place(self, path: Path) -> Place: ...
    def unknown_unit(self, unit: str, path: Path) -> LinesideError: ...
    def unknown_names(self, step: Step, path: Path) -> Iterator[LinesideError]: ...


def numbers_of(step: Step) -> Iterator[tuple[Number, Path, str]]:
    """The numbers of such a step, each with its path from there and the unit that it is given in."""
    match step:
        case Weigh():
            yield step.target, ("target",), step.unit
            if step.steady is not None:
                yield step.steady, ("steady",), step.unit
            if step.tolerance is not None:
                yield step.tolerance.below, ("tolerance", "below"), step.tolerance.unit
                yield step.tolerance.above, ("tolerance", "above"), step.tolerance.unit
        case Sample():
            yield step.quantity, ("quantity",), step.unit
            for place, test in enumerate(step.tests):
                yield from _ends(test.limit, ("tests", place, "limit"), test.unit)
        case Transfer():
            yield from _ends(step.limit, ("limit",), step.unit)
        case Hold() | Monitor() if step.alarm is not None:
            yield step.alarm.deadband, ("alarm", "deadband"), step.alarm.unit or step.limit.unit
        case Ramp():
            yield step.value, ("value",), step.unit
            yield step.rate, ("rate",), step.unit
        case Service():
            for place, report in enumerate(step.reports):
                yield from _ends(report.limit, ("reports", place, "limit"), report.unit)
        case Invoke():
            for place, result in enumerate(step.results):
                yield from _ends(result.limit, ("results", place, "limit"), result.unit)
        case _:
            return


def _ends(limit: Limit | None, path: Path, unit: str) -> Iterator[tuple[Number, Path, str]]:
    if limit is not None:
        for end in ("low", "high"):
            if (number := getattr(limit, end)) is not None:
                yield number, (*path, end), limit.unit or unit


def result_problems(
    asked: Asked, recipe: Recipe, step: Step, result: Record | Test, path: Path
) -> Iterator[LinesideError]:
    """Whether a result can be typed and judged as it says."""
    if result.type == "negative_to_date" and (result.limit or result.choices or result.accept or result.unit):
        yield LinesideError(
            "recipe.microbiology",
            f"The result {result.name!r} of step {step.id} is negative to date, negative or positive; "
            "a limit, a unit or choices mean nothing there.",
            todo="Remove them.",
            place=asked.place((*path, "type")),
        )
    if result.type == "at_most" and (result.limit is None or result.limit.high is None):
        yield LinesideError(
            "recipe.at_most",
            f"The result {result.name!r} of step {step.id} is at most something, and nothing says what.",
            todo="Add `limit` with `high`.",
            place=asked.place(path),
        )
    if isinstance(result, Test):
        yield from _test(asked, recipe, step, result, path)


def _test(asked: Asked, recipe: Recipe, step: Step, test: Test, path: Path) -> Iterator[LinesideError]:
    if test.unit not in MEASURES:
        yield asked.unknown_unit(test.unit, (*path, "unit"))
        return
    if (test.type == "choice") != bool(test.choices) or not set(test.accept) <= set(test.choices):
        yield LinesideError(
            "recipe.choices",
            f"The result {test.name!r} of step {step.id} is of type {test.type} and has {len(test.choices)} choices.",
            todo="Give `type: choice` together with `choices`, and accept only what can be chosen.",
            place=asked.place((*path, "type")),
        )
    if test.limit is not None:
        yield from limit_problems(asked, recipe, step, test.limit, test.unit, (*path, "limit"))
        if test.type not in {"number", "at_most"}:
            yield LinesideError(
                "recipe.not_a_number",
                f"The result {test.name!r} of step {step.id} is a {test.type}; a limit means nothing there.",
                todo="Use `type: number` or `at_most`, or remove `limit`.",
                place=asked.place((*path, "limit")),
            )


def limit_problems(
    asked: Asked, recipe: Recipe, step: Step, limit: Limit, unit: str, path: Path
) -> Iterator[LinesideError]:
    """Whether the limit of a value in `unit` is one."""
    if limit.low is None and limit.high is None:
        yield LinesideError(
            "recipe.limit_open",
            f"The limit of step {step.id} is open at both ends.",
            todo="Give `low`, `high` or both.",
            place=asked.place(path),
        )
    elif limit.unit not in MEASURES:
        yield asked.unknown_unit(limit.unit, (*path, "unit"))
    elif not same_dimension(limit.unit or unit, unit):
        yield _wrong_unit(asked, step, limit.unit, unit, (*path, "unit"))
    else:
        try:
            low, high = limit_in(recipe, limit, unit)
        except LinesideError:
            return  # said with the parameter: it is not there, no number or of another kind
        if low is not None and high is not None and low > high:
            yield LinesideError(
                "recipe.limit_upside_down",
                f"The low end {low:g} is above the high end {high:g} {unit}".rstrip() + ".",
                todo="Exchange the two.",
                place=asked.place((*path, "low")),
            )


def no_number(asked: Asked, step: Step, number: str, given: Parameter, path: Path) -> LinesideError:
    """That a parameter stands where a number must."""
    return LinesideError(
        "recipe.parameter_type",
        f"Step {step.id} uses {number!r} as a number; the parameter is a {given.type}.",
        todo="Name a parameter of type number or integer.",
        place=asked.place(path),
    )


def _wrong_unit(asked: Asked, step: Step, unit: str, wanted: str, path: Path) -> LinesideError:
    return LinesideError(
        "recipe.wrong_unit",
        f"Step {step.id} gives {unit or 'no unit'}; the value is in {wanted or 'no unit'}.",
        todo=f"Give it in {wanted or 'no unit'}.",
        place=asked.place(path),
    )


def problems(asked: Asked, recipe: Recipe, step: Step, path: Path) -> Iterator[LinesideError]:
    """Every problem of the step that needs no plant. What depends on an unknown name is not judged."""
    unit = getattr(step, "unit", "")
    if isinstance(step, Weigh | Sample | Transfer | Ramp) and unit not in MEASURES:
        yield asked.unknown_unit(unit, (*path, "unit"))
        return
    yield from asked.unknown_names(step, path)
    named = [number for number, _, _ in numbers_of(step) if isinstance(number, str)]
    if any(number.removeprefix("$") not in recipe.parameters for number in named):
        return
    wrong = list(_dimensions(asked, recipe, step, path))
    yield from wrong
    match step:
        case Record():
            yield from result_problems(asked, recipe, step, step, path)
        case Weigh():
            yield from _weigh(asked, recipe, step, path, judge=not wrong)
        case Sample():
            yield from _sample(asked, recipe, step, path)
        case Label():
            yield from _label(asked, step, path)
        case Transfer():
            yield from _transfer(asked, recipe, step, path)
        case Custody():
            yield from _signers(asked, step, (step.gives, step.takes), path, "takes")
        case Clearance():
            if not step.checks:
                yield LinesideError(
                    "recipe.no_checks",
                    f"Step {step.id} clears the line and says nothing that is to be looked at.",
                    todo="Name in `checks` what must be gone.",
                    place=asked.place((*path, "checks")),
                )
            yield from _signers(asked, step, step.roles, path, "roles")
        case Sign():
            yield from _signers(asked, step, step.roles, path, "roles", least=1)
        case Dispose():
            yield from _dispose(asked, recipe, step, path)
        case Hold() | Monitor() if step.alarm is not None and not wrong:
            yield from _alarm(asked, recipe, step, step.alarm, path)
        case Ramp() if not wrong:
            rate = resolve(recipe, step.rate, step.unit, step.unit)
            if rate <= 0:
                yield LinesideError(
                    "recipe.ramp_rate",
                    f"Step {step.id} ramps by {rate:g} {step.unit} per {step.per}; it would never arrive.",
                    todo="Give a rate above 0; the direction follows from where the set-point stands.",
                    place=asked.place((*path, "rate")),
                )
        case _:
            return


def _alarm(asked: Asked, recipe: Recipe, step: Hold | Monitor, alarm: Alarm, path: Path) -> Iterator[LinesideError]:
    unit = alarm.unit or step.limit.unit
    if alarm.unit not in MEASURES:
        yield asked.unknown_unit(alarm.unit, (*path, "alarm", "unit"))
        return
    if step.limit.unit not in MEASURES:
        return  # said with the limit
    if not same_dimension(unit, step.limit.unit or unit):
        yield _wrong_unit(asked, step, alarm.unit, step.limit.unit, (*path, "alarm", "unit"))
        return
    inwards = resolve(recipe, alarm.deadband, unit, unit)
    low, high = limit_in(recipe, step.limit, unit)
    if inwards < 0 or (low is not None and high is not None and low + 2 * inwards > high):
        yield LinesideError(
            "recipe.alarm_deadband",
            f"The alarm of step {step.id} could never be over: no value is inside its limit by {inwards:g} {unit}."
            if inwards > 0
            else f"The alarm of step {step.id} would be over while the value is still outside its limit.",
            todo="Give a deadband from 0 to less than half of the limit's width.",
            place=asked.place((*path, "alarm", "deadband")),
        )


def _dimensions(asked: Asked, recipe: Recipe, step: Step, path: Path) -> Iterator[LinesideError]:
    """Parameters that are no numbers, or in units of another kind than the number that they stand for."""
    for number, inner, unit in numbers_of(step):
        if not isinstance(number, str):
            continue
        given = recipe.parameters[number.removeprefix("$")]
        if given.type not in NUMBERS:
            yield no_number(asked, step, number, given, (*path, *inner))
        elif unit in MEASURES and not same_dimension(given.unit, unit):
            yield _wrong_unit(asked, step, given.unit, unit, (*path, *inner))


def _weigh(asked: Asked, recipe: Recipe, step: Weigh, path: Path, *, judge: bool) -> Iterator[LinesideError]:
    if not same_dimension(step.unit, "kg"):
        yield _wrong_unit(asked, step, step.unit, "kg", (*path, "unit"))
        return
    if step.tolerance is None:
        yield LinesideError(
            "recipe.weigh_tolerance",
            f"Step {step.id} weighs without a tolerance: nothing says which weight is right.",
            todo='Add `tolerance`, for example {below: 1, above: 1, unit: "%"}.',
            place=asked.place(path),
        )
    elif step.tolerance.unit != "%" and not same_dimension(step.tolerance.unit, step.unit):
        yield _wrong_unit(asked, step, step.tolerance.unit, step.unit, (*path, "tolerance", "unit"))
    elif judge:
        for end in ("below", "above"):
            if resolve(recipe, getattr(step.tolerance, end), step.tolerance.unit, step.tolerance.unit) < 0:
                yield LinesideError(
                    "recipe.weigh_tolerance",
                    f"The tolerance {end} of step {step.id} is negative.",
                    todo="Give by how much the weight may miss the target, from 0 on.",
                    place=asked.place((*path, "tolerance", end)),
                )
    if judge and resolve(recipe, step.target, step.unit, step.unit) <= 0:
        yield LinesideError(
            "recipe.weigh_target",
            f"Step {step.id} weighs nothing.",
            todo="Give a target above 0.",
            place=asked.place((*path, "target")),
        )
    if bool(step.balance) != (step.steady is not None):
        yield LinesideError(
            "recipe.weigh_steady",
            f"Step {step.id} "
            + (
                "takes weights from a balance without saying when it stands still."
                if step.balance
                else "says when the balance stands still, and names no balance."
            ),
            todo="Give both `balance` and `steady`, or neither: then a person types and a second one signs.",
            place=asked.place((*path, "balance" if step.balance else "steady")),
        )
    if step.checked_by is step.role and not step.balance:
        yield LinesideError(
            "recipe.weigh_checked",
            f"In step {step.id} the role {step.role.value} types the weights and checks them.",
            todo="Let another role check them.",
            place=asked.place((*path, "checked_by")),
        )


def _sample(asked: Asked, recipe: Recipe, step: Sample, path: Path) -> Iterator[LinesideError]:
    if not step.tests and not step.retain:
        yield LinesideError(
            "recipe.sample_result",
            f"Step {step.id} takes a sample, and nothing says what it is for.",
            todo="Add `tests`, or `retain: true` for a sample that is only kept.",
            place=asked.place(path),
        )
    yield from _label_facts(asked, step, step.label, (*FACTS, "sample", "number"), (*path, "label"))
    names = [step.name, *(test.name for test in step.tests)]
    for place, test in enumerate(step.tests):
        yield from result_problems(asked, recipe, step, test, (*path, "tests", place))
        if test.name in names[: place + 1]:
            yield LinesideError(
                "recipe.duplicate_result",
                f"Step {step.id} records {test.name!r} twice.",
                todo="Give each result a name of its own.",
                place=asked.place((*path, "tests", place, "name")),
            )


def _label(asked: Asked, step: Label, path: Path) -> Iterator[LinesideError]:
    yield from _label_facts(asked, step, step.content, FACTS, (*path, "content"))
    if not step.content:
        yield LinesideError(
            "recipe.label_content",
            f"Step {step.id} prints labels with nothing on them.",
            todo="Name in `content` what stands on a label, for example {Batch: batch}.",
            place=asked.place((*path, "content")),
        )
    if step.code:
        yield from _label_facts(asked, step, {"code": step.code}, FACTS, path)
    if not step.printer:
        for key in ("code", "template"):
            if getattr(step, key):
                yield LinesideError(
                    "recipe.label_unprinted",
                    f"Step {step.id} gives `{key}` and names no printer that could print it.",
                    todo=f"Give `printer`, or remove `{key}`.",
                    place=asked.place((*path, key)),
                )
        return
    if not step.code or step.copies > COPIES_MAX:
        yield LinesideError(
            "recipe.label_printed",
            f"Step {step.id} prints {step.copies} labels " + ("at once." if step.code else "without a code."),
            todo=f"Give `code`: what can be scanned from a label, for example batch; and at most {COPIES_MAX} copies.",
            place=asked.place((*path, "copies" if step.code else "printer")),
        )
    elif wrong := problem(step.template or layout(step.content), step.content):
        yield LinesideError(
            "recipe.label_template",
            f"The template of step {step.id} {wrong[0]}.",
            todo=wrong[1],
            place=asked.place((*path, "template" if step.template else "content")),
        )


def _label_facts(
    asked: Asked, step: Step, content: Mapping[str, str], facts: tuple[str, ...], path: Path
) -> Iterator[LinesideError]:
    for title, fact in content.items():
        if "$" not in fact and fact not in facts:
            yield LinesideError(
                "recipe.label_fact",
                f"Step {step.id} wants {fact[:40]!r} on a label; that is no fact of a batch.",
                todo=f"Use one of {', '.join(facts)}, or a text with a $parameter. {closest(fact, list(facts))}",
                place=asked.place((*path, title)),
            )


def _transfer(asked: Asked, recipe: Recipe, step: Transfer, path: Path) -> Iterator[LinesideError]:
    for key, place in (("from", step.source), ("to", step.target)):
        if (place.unit is None) == (not place.prefix):
            yield LinesideError(
                "recipe.transfer_place",
                f"Step {step.id} does not say which container or unit its `{key}` is.",
                todo="Give either `unit`, a role in `units`, or `prefix`, how a container's code begins.",
                place=asked.place((*path, key)),
            )
        elif place.unit is not None and place.unit not in recipe.units:
            yield LinesideError(
                "recipe.unknown_role",
                f"Step {step.id} uses {place.unit[:80]!r}, which is not a role in `units`.",
                todo=closest(place.unit, list(recipe.units)),
                place=asked.place((*path, key, "unit")),
            )
    if step.source.unit is not None and step.source.unit == step.target.unit:
        yield LinesideError(
            "recipe.transfer_place",
            f"Step {step.id} takes from {step.source.unit} what it puts there.",
            todo="Correct `from` or `to`.",
            place=asked.place((*path, "to")),
        )
    if step.limit is not None:
        yield from limit_problems(asked, recipe, step, step.limit, step.unit, (*path, "limit"))


def _signers(
    asked: Asked, step: Step, roles: tuple[Role, ...], path: Path, key: str, *, least: int = 2
) -> Iterator[LinesideError]:
    if len(roles) < least and least > 1:
        yield LinesideError(
            "recipe.no_signer",
            f"Step {step.id} needs {least} signatures, and asks for {len(roles)}.",
            todo="Name one role for each signature, for example [operator, verifier].",
            place=asked.place((*path, key)),
        )
    if Role.AUDITOR in roles:
        yield LinesideError(
            "recipe.signer_reads",
            f"Step {step.id} wants an auditor to sign; an auditor only reads.",
            todo="Name a role that works at the line.",
            place=asked.place((*path, key)),
        )


def _dispose(asked: Asked, recipe: Recipe, step: Dispose, path: Path) -> Iterator[LinesideError]:
    open_names: dict[str, None] = {}
    for one in recipe.in_order():
        if one.id == step.id:
            break
        if isinstance(one, Record) and (one.pending or one.type == "negative_to_date"):
            open_names[one.name] = None
        elif isinstance(one, Sample):
            open_names |= {t.name: None for t in one.tests if t.later or t.type == "negative_to_date"}
    if step.of not in open_names:
        yield LinesideError(
            "recipe.dispose_of",
            f"Step {step.id} waits for the result {step.of!r}; no step before it leaves such a result open.",
            todo=closest(step.of, list(open_names)) or "Let a step before it record it with `pending: true`.",
            place=asked.place((*path, "of")),
        )


def remark(step: Step, place: Place) -> LinesideError | None:
    """What does not stop the recipe but looks like an oversight."""
    if isinstance(step, Label) and not step.reconcile:
        return LinesideError(
            "recipe.label_reconcile",
            f"Step {step.id} prints labels and does not count them again.",
            effect="The recipe can be executed. A label that is missing is not noticed.",
            todo="Add `reconcile: true`.",
            place=place,
        )
    for result in step.tests if isinstance(step, Sample) else (step,) if isinstance(step, Record) else ():
        if "category" in result.model_fields_set and not result.accept and result.type != "negative_to_date":
            return LinesideError(
                "recipe.category_unused",
                f"The result {result.name!r} of step {step.id} says `category`, and everything is accepted there.",
                effect="The recipe can be executed; no exception record is raised.",
                todo="Give `accept`, or write `category` into the `limit`, whose exception record it then is of.",
                place=place,
            )
    return None
