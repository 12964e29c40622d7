"""What is wrong with a recipe, all of it in one run: by itself, and on the plant of a box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final

from pydantic import BaseModel

from edge.core import gs1
from edge.core.document import Path, closest
from edge.core.errors import LinesideError, Place
from edge.core.formula import names_in
from edge.core.plant import Plant, Tag, Unit, numeric, unknown_unit
from edge.core.recipe import (
    amend,
    check_cleaning,
    check_expiry,
    check_forms,
    check_methods,
    check_sampling,
    check_services,
    check_trend,
)
from edge.core.recipe.flow import flow_problems
from edge.core.recipe.model import (
    Calculate,
    Call,
    Hold,
    Invoke,
    Label,
    Limit,
    Monitor,
    Number,
    Parallel,
    Parameter,
    Ramp,
    Record,
    Scan,
    Service,
    Set,
    Sign,
    Step,
    Wait,
    Weigh,
    order,
)
from edge.core.recipe.read import RecipeDocument
from edge.core.recipe.values import limit_in, named_in, number_of, resolve, seconds, shown
from edge.core.terms import MEASURES, duration_s, same_dimension

DURATION_S_MAX: Final = 10 * 366 * 86_400.0
Tagged = Set | Ramp | Invoke | Wait | Hold | Monitor | Weigh | Label


def check_recipe(document: RecipeDocument, plant: Plant | None) -> list[LinesideError]:
    """Every problem of a recipe that was read, in the order of the file; none means that it can be executed.

    With a plant also: whether some unit of each role's class has the tags, in fitting units, within range and
    writable. Without one only what can be said of any plant.
    """
    found = list(_Check(document, plant).problems())
    return sorted(found, key=lambda problem: (problem.place.line, problem.place.column) if problem.place else (0, 0))


def remarks(document: RecipeDocument) -> list[LinesideError]:
    """What does not stop a recipe but looks like an oversight: parameters and roles that nothing uses."""
    recipe = document.recipe
    used = {name for _, step in document.steps() for name in _parameters_of(step)}
    used |= {name for text in _texts(document.document.data.get("sampling")) for name in named_in(text)}
    roles = {tag.partition(".")[0] for _, step in document.steps() if (tag := _tag_of(step))}
    roles |= {role for _, step in document.steps() for role in _roles_of(step)}
    readings = {name for _, step in document.steps() for text in step.formulas().values() for name in _names(text)}
    roles |= {name.partition(".")[0] for name in readings}
    found = [
        LinesideError(
            "recipe.unused_parameter",
            f"No step uses the parameter {name!r}.",
            effect="The recipe can be executed.",
            todo=f"Write ${name} where its value belongs, or remove it.",
            place=document.place(("parameters", name)),
        )
        for name in recipe.parameters
        if name not in used
    ]
    found += [
        LinesideError(
            "recipe.unused_reading",
            f"No formula uses the reading {name[:80]!r}.",
            effect="The recipe can be executed.",
            todo="Remove it from `readings`.",
            place=document.place(("readings", name)),
        )
        for name in recipe.readings
        if name not in readings
    ]
    found += [
        LinesideError(
            "recipe.unused_role",
            f"No step uses a tag of the role {name!r}; a unit is allocated all the same.",
            effect="The recipe can be executed.",
            todo="Remove it if no unit is needed.",
            place=document.place(("units", name)),
        )
        for name in recipe.units
        if name not in roles
    ]
    for path, step in document.steps():
        found += _shared_units(document, step, path)
        if told := check_forms.remark(step, document.place(path)):
            found.append(told)
    found += check_expiry.remarks(document)
    return found


def _shared_units(document: RecipeDocument, step: Step, path: Path) -> Iterator[LinesideError]:
    """Units that more than one branch commands, by different tags. Each role is a unit of its own: the one that was
    allocated when the batch started."""
    first: dict[str, int] = {}
    told: set[str] = set()
    for place, branch in enumerate(step.branches if isinstance(step, Parallel) else ()):
        for role in dict.fromkeys(
            one.tag.partition(".")[0] for one in _all(branch) if isinstance(one, Set | Ramp | Invoke)
        ):
            if first.setdefault(role, place) != place and role not in told:
                told.add(role)
                yield LinesideError(
                    "recipe.shared_unit",
                    f"Branches {first[role] + 1} and {place + 1} of step {step.id} both command {role!r}, at the "
                    "same time.",
                    effect="The recipe can be executed.",
                    todo="Command a unit in one branch only, unless what they set does not depend on each other.",
                    place=document.place((*path, "branches", place)),
                )


def _all(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for _, inside in step.inner():
            yield from _all(inside)


def _tag_of(step: Step) -> str:
    if isinstance(step, Weigh | Label):
        return step.balance if isinstance(step, Weigh) else step.printer
    return step.tag if isinstance(step, Set | Ramp | Invoke | Wait | Hold | Monitor) else ""


def _tag_key(step: Step) -> str:
    """The key of the step that names its tag."""
    return "balance" if isinstance(step, Weigh) else "printer" if isinstance(step, Label) else "tag"


def _limit_of(step: Step) -> Limit | None:
    return step.limit if isinstance(step, Record | Wait | Hold | Monitor | Calculate) else None


def _numbers(step: Step) -> Iterator[Number]:
    if isinstance(step, Set):
        yield step.value
    if limit := _limit_of(step):
        yield from (number for number in (limit.low, limit.high) if number is not None)


def _parameters_of(step: Step) -> Iterator[str]:
    """The names of the parameters that the step itself uses, in literals, texts and formulas."""
    for text in (*_texts(_own(step)), *step.formulas().values()):
        yield from named_in(text)


def _own(step: Step) -> dict[str, object]:
    """What the step itself says, without the steps inside it."""
    inside = {path[0] for path, _ in step.inner()}
    fields = {field.alias or name: name for name, field in type(step).model_fields.items()}
    return {alias: getattr(step, name) for alias, name in fields.items() if alias not in inside}


def _texts(data: object) -> Iterator[str]:
    if isinstance(data, str):
        yield data
        return
    said = dict(data) if isinstance(data, BaseModel) else data
    for inner in said.values() if isinstance(said, dict) else said if isinstance(said, list | tuple) else ():
        yield from _texts(inner)


def _roles_of(step: Step) -> Iterator[str]:
    """The roles that a step names otherwise than by a tag."""
    yield from step.cleans
    if isinstance(step, Call):
        yield from step.units.values()
    if isinstance(unit := getattr(step, "unit", None), str) and step.phase == "service":
        yield unit
    for key in ("source", "target"):
        if place := getattr(getattr(step, key, None), "unit", None):
            yield place


def _surely(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps that are done once whenever the sequence is done: not those in a selection or a loop."""
    for step in steps:
        yield step
        if isinstance(step, Parallel | Call):
            for _, inside in step.inner():
                yield from _surely(inside)


def _is_duration(value: object) -> bool:
    try:
        return isinstance(value, str) and duration_s(value) > 0
    except LinesideError:
        return False


def _end_of(end: float | str | None) -> float | None:
    """An end of a parameter's range, as `number_of` gives its value."""
    return duration_s(end) if isinstance(end, str) else end


def _names(formula: str) -> list[str]:
    try:
        return names_in(formula)
    except LinesideError:
        return []


class _Check:
    def __init__(self, document: RecipeDocument, plant: Plant | None) -> None:
        self._document = document
        self._recipe = document.recipe
        self._plant = plant
        self._where: dict[str, Path] = {}
        """Step id -> path of the first step that has it."""
        for path, step in document.steps():
            self._where.setdefault(step.id, path)

    def problems(self) -> Iterator[LinesideError]:
        yield from self._parameters()
        yield from self._roles()
        for path, step in self._document.steps():
            yield from self._told(self._step(path, step), path)
            yield from self._told(check_trend.problems(self, self._recipe, step, path), path)
        yield from self._told(check_sampling.problems(self, self._recipe), ("sampling",))
        shape = [*self._ids(), *self._monitors()]
        for path, sequence in self._sequences():
            shape += self._sequence(path, sequence)
        yield from self._told(amend.problems(self._document), ("amendments",))
        yield from self._told(flow_problems(self._document, self._plant), ("procedure",))
        yield from self._told(check_expiry.problems(self._document), ("procedure",))
        yield from check_cleaning.problems(self._document, self._plant)
        yield from shape or self._deadlock()  # who waits for whom is known only when the order is

    def _told(self, found: Iterator[LinesideError], path: Path) -> Iterator[LinesideError]:
        """What is found. What ends the search, a parameter that is not what its step takes, is told with the rest."""
        try:
            yield from found
        except LinesideError as error:
            error.place = error.place or self._document.place(path)
            yield error

    # The recipe as a whole -------------------------------------------------------------------------------------

    def _ids(self) -> Iterator[LinesideError]:
        for path, step in self._document.steps():
            first = self._where[step.id]
            if first != path:
                line = self._document.place((*first, "id")).line
                yield LinesideError(
                    "recipe.duplicate_step",
                    f"The step id {step.id!r} stands here a second time; the first is on line {line}.",
                    todo="Give this step another id.",
                    place=self._document.place((*path, "id")),
                )

    def _roles(self) -> Iterator[LinesideError]:
        wanted: dict[str, int] = {}
        for role, need in self._recipe.units.items():
            if "." in role:
                yield LinesideError(
                    "recipe.dotted_role",
                    f"The role {role!r} has a dot in it, which separates a role from its tag.",
                    todo="Use a hyphen.",
                    place=self._document.place(("units", role)),
                )
            if self._plant is None:
                continue
            if need.unit and (self._plant.units.get(need.unit) is None or self._plant.units[need.unit].cls != need.cls):
                yield LinesideError(
                    "recipe.unbound_unit",
                    f"The role {role!r} is bound to {need.unit!r}; the plant {self._plant.plant} has no such unit of "
                    f"class {need.cls!r}.",
                    todo=closest(need.unit, list(self._units(need.cls))),
                    place=self._document.place(("units", role, "unit")),
                )
            wanted[need.cls] = wanted.get(need.cls, 0) + 1
            units = self._units(need.cls)
            if len(units) < wanted[need.cls]:
                yield LinesideError(
                    "recipe.unbound_role",
                    f"The role {role!r} needs a unit of class {need.cls!r}; the plant {self._plant.plant} "
                    + (f"has no more than {len(units)}." if units else "has none."),
                    todo=closest(need.cls, sorted({unit.cls for unit in self._plant.units.values()} - {need.cls})),
                    place=self._document.place(("units", role, "class")),
                )

    def _units(self, cls: str) -> dict[str, Unit]:
        return {name: unit for name, unit in self._plant.units.items() if unit.cls == cls} if self._plant else {}

    def _parameters(self) -> Iterator[LinesideError]:
        for name, parameter in self._recipe.parameters.items():
            path: Path = ("parameters", name)
            if parameter.unit not in MEASURES:
                yield self._unknown_unit(parameter.unit, (*path, "unit"))
            wrong = self._parameter_type(name, parameter)
            if wrong is not None:
                yield wrong
                continue
            if parameter.type not in {"number", "integer", "duration"}:
                continue
            value = number_of(parameter)[0]
            low, high = (_end_of(end) for end in (parameter.low, parameter.high))
            if low is not None and high is not None and low > high:
                yield self._upside_down(low, high, number_of(parameter)[1], (*path, "low"))
            elif (low is not None and value < low) or (high is not None and value > high):
                yield LinesideError(
                    "recipe.parameter_outside",
                    f"The value {value:g} of {name!r} is outside its own range {_span(low, high)}.",
                    todo="Correct the value or the range.",
                    place=self._document.place((*path, "value")),
                )

    def _parameter_type(self, name: str, parameter: Parameter) -> LinesideError | None:
        """What does not go with the parameter's type, if something does not."""
        value, kind = parameter.value, parameter.type
        ends = [end for end in (parameter.low, parameter.high) if end is not None]
        number = kind in {"number", "integer"}
        fits = {
            "number": isinstance(value, float),
            "integer": isinstance(value, float) and value.is_integer(),
            "text": isinstance(value, str),
            "choice": isinstance(value, str) and value in parameter.choices,
            "duration": _is_duration(value),
            "bool": isinstance(value, bool),
        }[kind]
        key, what, todo = "", "", ""
        if not fits:
            key, what = "value", f"{shown(parameter)[:40]!r} is not a value of type {kind}"
            todo = {
                "choice": "Give one of `choices`.",
                "duration": 'Write a number, a space and s, min, h or d, for example "12 h".',
                "bool": "Write true or false.",
                "integer": "Give a whole number.",
            }.get(kind, "Correct the value, or give its `type`.")
        elif any(isinstance(end, str) == number or (kind == "duration" and not _is_duration(end)) for end in ends):
            key, what, todo = "low", "`low` and `high` are of another type", "Give them as the value is given."
        elif ends and not number and kind != "duration":
            key, what, todo = "low", f"a {kind} has no range", "Remove `low` and `high`."
        elif parameter.choices and kind != "choice":
            key, what, todo = "choices", f"a {kind} has no choices", "Give `type: choice`, or remove `choices`."
        elif parameter.unit and not number:
            key, what, todo = "unit", f"a {kind} has no unit", "Remove `unit`."
        if not key:
            return None
        return LinesideError(
            "recipe.parameter_type",
            f"The parameter {name!r}: {what}.",
            todo=todo,
            place=self._document.place(("parameters", name, key)),
        )

    # One step --------------------------------------------------------------------------------------------------

    def _step(self, path: Path, step: Step) -> Iterator[LinesideError]:
        must = "duration" if isinstance(step, Hold) else "timeout" if isinstance(step, Service) else ""
        for key in ("duration", "timeout", "on_delay", "warn_after", "every", "steady_for", "by_hand_every"):
            if (text := getattr(step, key, "")) or key == must:
                yield from self._duration(step, key, text, path)
        if isinstance(step, Wait):
            yield from self._wait(step, path)
        elif isinstance(step, Record | Set | Calculate) and step.unit not in MEASURES:
            yield self._unknown_unit(step.unit, (*path, "unit"))
            return  # nothing can be compared with it
        elif isinstance(step, Record):
            yield from self._record(step, path)
        elif isinstance(step, Scan) and step.expect == "patient" and step.prefix:
            yield LinesideError(
                "recipe.patient_prefix",
                f"Step {step.id} expects the patient identity and also gives a prefix, which would mean nothing.",
                todo="Remove `prefix`.",
                place=self._document.place((*path, "prefix")),
            )
        elif isinstance(step, Scan) and step.coding == "gs1" and not _is_of_gs1(step):
            yield LinesideError(
                "recipe.gs1_prefix",
                f"Step {step.id} wants a GS1 code, and none could be taken: it expects the patient identity, or "
                "`prefix` is not made of whole elements, or says a date of expiry.",
                todo='Write `prefix` as whole elements, for example "(01)09501101530003", or leave it out.',
                place=self._document.place((*path, "coding")),
            )
        elif isinstance(step, Sign) and not step.roles:
            yield LinesideError(
                "recipe.no_signer",
                f"Step {step.id} asks nobody to sign: `roles` is empty.",
                todo="Name one role for each signature, for example [operator, verifier].",
                place=self._document.place((*path, "roles")),
            )
        elif isinstance(step, Parallel):
            yield from self._parallel(step, path)
        yield from check_forms.problems(self, self._recipe, step, path)
        if isinstance(step, Service):
            yield from check_services.problems(self, self._recipe, self._plant, step, path)
        if isinstance(step, Invoke):
            told = {"arguments": step.arguments}, {"results": step.results}
            yield from check_services.told_problems(self, self._recipe, step, *told, path)
        unknown = list(self._unknown_parameters(step, path))
        yield from unknown
        if unknown or any(self.unknown_names(step, path)):
            return  # what depends on the value cannot be judged
        if limit := _limit_of(step):
            yield from self._limit(step, limit, path)
        if isinstance(step, Tagged) and _tag_of(step):
            yield from self._bind(step, path)

    def _duration(self, step: Step, key: str, text: str, path: Path) -> Iterator[LinesideError]:
        if text.startswith("$") and text[1:] not in self._recipe.parameters:
            return  # said with the other unknown parameters
        try:
            length_s = seconds(self._recipe, text)
            fits = 0 < length_s <= DURATION_S_MAX or (key == "on_delay" and length_s == 0)
        except LinesideError:
            fits = False
        if not fits:
            yield LinesideError(
                "recipe.duration",
                f"The {key} {text[:40]!r} of step {step.id} is not a duration between 0 and ten years.",
                todo='Write a number, a space and s, min, h or d, for example "12 h".',
                place=self._document.place((*path, key)),
            )

    def _wait(self, step: Wait, path: Path) -> Iterator[LinesideError]:
        place = self._document.place(path)
        ends = [step.duration, step.tag, step.until]
        if sum(map(bool, ends)) != 1:
            yield LinesideError(
                "recipe.wait_end",
                f"Step {step.id} waits for "
                + ("more than one thing; which of them ends it is not said." if any(ends) else "nothing."),
                todo="Give either `duration`, or `tag`, `limit` and `timeout`, or `until` and `timeout`.",
                place=place,
            )
        elif step.until and not step.timeout:
            yield LinesideError(
                "recipe.wait_timeout",
                f"Step {step.id} waits for a condition without a time-out: it might wait for ever.",
                todo='Add `timeout`, for example "4 h".',
                place=place,
            )
        elif step.tag and not step.limit:
            yield LinesideError(
                "recipe.wait_limit",
                f"Step {step.id} waits on {step.tag!r} without saying for which value.",
                todo="Add `limit`.",
                place=place,
            )
        if step.tag and not step.timeout:
            yield LinesideError(
                "recipe.wait_timeout",
                f"Step {step.id} waits on {step.tag!r} without a time-out: it might wait for ever.",
                todo='Add `timeout`, for example "4 h".',
                place=place,
            )
        if not step.tag and (step.limit or (step.timeout and not step.until)):
            yield LinesideError(
                "recipe.wait_tag",
                f"Step {step.id} gives a limit or a time-out, but no tag that they belong to.",
                todo="Add `tag`, or remove them.",
                place=place,
            )

    def _record(self, step: Record, path: Path) -> Iterator[LinesideError]:
        unknown = [choice for choice in step.accept if choice not in step.choices]
        if unknown:
            yield LinesideError(
                "recipe.accept",
                f"Step {step.id} accepts {unknown[0]!r}, which is not one of its choices.",
                todo="Accept only what can be chosen.",
                place=self._document.place((*path, "accept")),
            )
        if (step.type == "choice") != bool(step.choices) or len(set(step.choices)) < len(step.choices):
            yield LinesideError(
                "recipe.choices",
                f"Step {step.id} is of type {step.type} and has {len(set(step.choices))} different choices.",
                todo="Give `type: choice` together with `choices`, each once.",
                place=self._document.place((*path, "choices")),
            )
        if step.type not in {"number", "at_most", "negative_to_date"} and (step.limit or step.unit):
            yield LinesideError(
                "recipe.not_a_number",
                f"Step {step.id} records a {step.type}; a limit or a unit means nothing there.",
                todo="Use `type: number`, or remove `limit` and `unit`.",
                place=self._document.place((*path, "limit" if step.limit else "unit")),
            )

    def _unknown_parameters(self, step: Step, path: Path) -> Iterator[LinesideError]:
        literals = set()
        for number in _numbers(step):
            name = number.removeprefix("$") if isinstance(number, str) else ""
            literals.add(name)
            if name and name not in self._recipe.parameters:
                limit = _limit_of(step)
                key = ("value",) if limit is None else ("limit", "low" if limit.low == number else "high")
                yield LinesideError(
                    "recipe.unknown_parameter",
                    f"Step {step.id} uses {number!r}; there is no such parameter.",
                    todo=closest(name, list(self._recipe.parameters)),
                    place=self._document.place((*path, *key)),
                )

        own = _own(step)
        formulas = {inner[0] for inner in step.formulas()}
        for field in own.keys() - formulas - {"limit", "value"}:
            for name in dict.fromkeys(named_in(" ".join(_texts(own[field])))):
                if name not in self._recipe.parameters and name not in literals:
                    yield LinesideError(
                        "recipe.unknown_parameter",
                        f"Step {step.id} uses '${name}'; there is no such parameter.",
                        todo=closest(name, list(self._recipe.parameters)),
                        place=self._document.place((*path, field)),
                    )

    def _limit(self, step: Step, limit: Limit, path: Path) -> Iterator[LinesideError]:
        here = (*path, "limit")
        if limit.low is None and limit.high is None:
            yield LinesideError(
                "recipe.limit_open",
                f"The limit of step {step.id} is open at both ends.",
                todo="Give `low`, `high` or both.",
                place=self._document.place(here),
            )
        if limit.unit not in MEASURES:
            yield self._unknown_unit(limit.unit, (*here, "unit"))
            return
        unit = step.unit if isinstance(step, Record | Calculate) else limit.unit
        if isinstance(step, Record | Calculate) and limit.unit and not same_dimension(limit.unit, unit):
            yield self._wrong_unit(step, limit.unit, unit, "value", (*here, "unit"))
            return
        wrong = False
        for end in ("low", "high"):
            number = getattr(limit, end)
            given = self._recipe.parameters[number.removeprefix("$")] if isinstance(number, str) else None
            if given is not None and given.type not in check_forms.NUMBERS:
                wrong = True
                yield check_forms.no_number(self, step, number, given, (*here, end))
                continue
            parameter = given.unit if given is not None else None
            if parameter is None or not (isinstance(step, Record | Calculate) or unit):
                continue  # a literal; or a parameter measured against the tag's own unit, see _on
            if parameter in MEASURES and not same_dimension(parameter, unit):
                wrong = True
                yield self._wrong_unit(step, parameter, unit, "limit", (*here, end))
        if not wrong and limit.low is not None and limit.high is not None:
            low, high = self._ends(limit, unit)
            if low is not None and high is not None and low > high:
                yield self._upside_down(low, high, unit, (*here, "low"))

    def _ends(self, limit: Limit, unit: str) -> tuple[float | None, float | None]:
        if not unit and (of := self._parameter_unit(limit.low) or self._parameter_unit(limit.high)):
            unit = of
        try:
            return limit_in(self._recipe, limit, unit)
        except LinesideError:
            return None, None  # dimensions differ, which is told on its own

    def _parameter_unit(self, number: Number | None) -> str | None:
        if not isinstance(number, str):
            return None
        return self._recipe.parameters[number.removeprefix("$")].unit

    def _parallel(self, step: Parallel, path: Path) -> Iterator[LinesideError]:
        writers: dict[str, int] = {}
        for index, branch in enumerate(step.branches):
            sets = [
                (where, one)
                for where, one in self._inside((*path, "branches", index), branch)
                if isinstance(one, Set | Ramp | Invoke)
            ]
            for where, one in sets:
                if writers.setdefault(one.tag, index) != index:
                    yield LinesideError(
                        "recipe.parallel_write",
                        f"Step {one.id} writes {one.tag!r}, which another branch of {step.id} writes too; "
                        "which of them comes last is left to chance.",
                        todo="Write it in one branch only.",
                        place=self._document.place((*where, "tag")),
                    )
        yield from check_services.side_by_side(self, step, path)
        if len(step.branches) < 2:
            yield LinesideError(
                "recipe.branches",
                f"Step {step.id} has {len(step.branches)} branches; a parallel needs two.",
                todo="Add a branch, or write the steps without `parallel`.",
                place=self._document.place((*path, "branches")),
            )

    def _inside(self, path: Path, steps: Sequence[Step]) -> Iterator[tuple[Path, Step]]:
        for index, step in enumerate(steps):
            yield (*path, index), step
            for inner, sequence in step.inner():
                yield from self._inside((*path, index, *inner), sequence)

    # Steps in order --------------------------------------------------------------------------------------------

    def _sequences(self) -> Iterator[tuple[Path, Sequence[Step]]]:
        """The main sequence, then each inside a step, with the path of what holds it."""
        yield ("procedure",), self._recipe.main()
        for path, step in self._document.steps():
            for inner, sequence in step.inner():
                yield (*path, *inner), sequence

    def _monitors(self) -> Iterator[LinesideError]:
        beside: dict[int, set[str]] = {}  # id() of a monitor -> the steps of the branches beside it
        for _, parallel in self._document.steps():
            if not isinstance(parallel, Parallel):
                continue
            inside = [{one.id for one in _surely(branch)} for branch in parallel.branches]
            for index, branch in enumerate(parallel.branches):
                if monitors := [one for one in branch if isinstance(one, Monitor)]:
                    others = set[str]().union(*inside[:index], *inside[index + 1 :])
                    beside |= {id(one): others for one in monitors}
        for path, step in self._document.steps():
            if isinstance(step, Monitor) and step.until not in beside.get(id(step), ()):
                yield LinesideError(
                    "recipe.monitor_until",
                    f"Step {step.id} monitors until {step.until!r}, which is not a step in a branch beside it, "
                    "or stands in a selection or a loop there.",
                    todo="Put the monitor into a branch of the parallel whose other branch has that step; "
                    "where that stands in a selection or a loop, name the selection or loop.",
                    place=self._document.place((*path, "until")),
                )

    def _sequence(self, path: Path, steps: Sequence[Step]) -> Iterator[LinesideError]:
        if not steps:
            yield LinesideError(
                "recipe.no_steps",
                "There are no steps here.",
                todo="Add a step, or remove the branch.",
                place=self._document.place(path),
            )
            return
        ids = {step.id for step in steps}
        strays = [step for step in steps if step.next is not None and step.next not in ids]
        for step in strays:
            yield LinesideError(
                "recipe.unknown_next",
                f"Step {step.id} is followed by {step.next!r}, which is not a step of the same sequence.",
                todo=closest(str(step.next), sorted(ids)),
                place=self._document.place((*self._where[step.id], "next")),
            )
        if strays:
            return  # what can be reached is not known
        done, back = order(steps)
        if back is not None:
            yield LinesideError(
                "recipe.cycle",
                f"After step {done[-1].id} comes step {back.id} again: the recipe would never end.",
                todo="Correct `next`.",
                place=self._document.place((*self._where[done[-1].id], "next")),
            )
            return  # the steps after a cycle are not reached because of it
        reached = {step.id for step in done}
        for step in steps:
            if step.id not in reached:
                yield LinesideError(
                    "recipe.unreachable",
                    f"Step {step.id} is never reached: a `next` before it leads past it.",
                    todo="Remove it, or correct `next`.",
                    place=self._document.place(self._where[step.id]),
                )

    def _deadlock(self) -> Iterator[LinesideError]:
        """Monitors that wait for each other, or for a step that waits for them."""
        after = TopologicalSorter[str]()

        def link(steps: Sequence[Step], before: str | None) -> str | None:
            for step in order(steps)[0]:
                after.add(step.id, *([before] if before else ()))
                if isinstance(step, Monitor):
                    after.add(step.id, step.until)
                else:
                    after.add(step.id, *filter(None, [link(inside, before) for _, inside in step.inner()]))
                before = step.id
            return before

        link(self._recipe.main(), None)
        try:
            after.prepare()
        except CycleError as error:
            ring = sorted(set(error.args[1]))
            steps = self._recipe.steps()
            monitor = next(one for one in ring if isinstance(steps[one], Monitor))
            yield LinesideError(
                "recipe.monitor_deadlock",
                f"These steps wait for each other and would never end: {', '.join(ring)}.",
                todo="Let each monitor watch until a step that does not wait for it.",
                place=self._document.place((*self._where[monitor], "until")),
            )

    # On the plant ----------------------------------------------------------------------------------------------

    def _bind(self, step: Tagged, path: Path) -> Iterator[LinesideError]:
        """Whether the step can be done on every unit that may be allocated to its role."""
        role, dot, name = _tag_of(step).partition(".")
        place = self._document.place((*path, _tag_key(step)))
        need = self._recipe.units.get(role)
        if not dot or not name or need is None:
            yield LinesideError(
                "recipe.unknown_role",
                f"Step {step.id} uses {_tag_of(step)[:80]!r}; {role[:64]!r} is not a role in `units`.",
                todo=f"Write role.tag. {closest(role, list(self._recipe.units))}",
                place=place,
            )
            return
        for unit_name, unit in self._units(need.cls).items():
            tag = unit.tags.get(name)
            found = (
                list(self._on(step, tag, path))
                if tag
                else [
                    LinesideError(
                        "recipe.unbound_tag",
                        f"Step {step.id} uses {_tag_of(step)[:80]!r}; the unit {unit_name} has no tag {name[:64]!r}.",
                        todo=closest(name, list(unit.tags)),
                        place=place,
                    )
                ]
            )
            if tag and isinstance(step, Set | Ramp) and unit.watchdog is not None and unit.watchdog.tag == name:
                found.append(
                    LinesideError(
                        "recipe.watchdog",
                        f"Step {step.id} writes {_tag_of(step)[:80]!r}, the watchdog of the unit {unit_name}.",
                        todo="Leave it to the box, which writes it as long as it decides.",
                        place=place,
                    )
                )
            if found:
                yield from found
                return  # one unit of a class tells enough

    def _on(self, step: Step, tag: Tag, path: Path) -> Iterator[LinesideError]:
        """What is wrong with a step on this very tag."""
        if isinstance(step, Invoke):
            yield from check_methods.problems(self, self._recipe, step, tag, path)
            return
        if isinstance(step, Label):
            if tag.type != "text" or tag.access != "write" or tag.method is not None:
                yield LinesideError(
                    "recipe.printer",
                    f"Step {step.id} prints at {step.printer!r}, a {tag.type} with access {tag.access}.",
                    todo="Name the printer's tag for labels: `type: text` with `access: write`.",
                    place=self._document.place((*path, "printer")),
                )
            return
        if not numeric(tag):
            yield LinesideError(
                "recipe.tag_type",
                f"Step {step.id} treats {_tag_of(step)!r} as a number; it is a {tag.type}.",
                todo="Use a tag that is a number.",
                place=self._document.place((*path, _tag_key(step))),
            )
            return
        limit = _limit_of(step)
        if isinstance(step, Weigh):
            if not same_dimension(step.unit, tag.unit):
                yield self._wrong_unit(step, step.unit, tag.unit, _tag_of(step), (*path, "unit"))
        elif isinstance(step, Set | Ramp):
            yield from self._set_on(step, tag, path)
        elif limit is not None and limit.unit in MEASURES:
            yield from self._limit_on(step, limit, tag, path)

    def _set_on(self, step: Set | Ramp, tag: Tag, path: Path) -> Iterator[LinesideError]:
        if tag.access != "write":
            yield LinesideError(
                "recipe.read_only",
                f"Step {step.id} sets {step.tag!r}, which can only be read.",
                todo="Set the set-point tag instead.",
                place=self._document.place((*path, "tag")),
            )
        parameter = self._parameter_unit(step.value)
        unit = step.unit if parameter is None else parameter
        if parameter is not None and step.unit and not same_dimension(step.unit, tag.unit):
            yield self._wrong_unit(step, step.unit, tag.unit, _tag_of(step), (*path, "unit"))
        if not same_dimension(unit, tag.unit):
            key = "value" if parameter is not None or not step.unit else "unit"
            yield self._wrong_unit(step, unit, tag.unit, _tag_of(step), (*path, key))
            return
        value = resolve(self._recipe, step.value, unit, tag.unit)
        yield from self._outside(step, value, tag, (*path, "value"))
        if tag.type == "int" and not value.is_integer():
            yield LinesideError(
                "recipe.not_whole",
                f"Step {step.id} sets {step.tag!r} to {value:g}; it takes whole numbers.",
                todo="Give a whole number.",
                place=self._document.place((*path, "value")),
            )

    def _limit_on(self, step: Step, limit: Limit, tag: Tag, path: Path) -> Iterator[LinesideError]:
        for end in ("low", "high"):
            number: Number | None = getattr(limit, end)
            if number is None:
                continue
            parameter = self._parameter_unit(number)
            unit = limit.unit if parameter is None else parameter
            here = (*path, "limit", "unit" if parameter is None and limit.unit else end)
            if not same_dimension(unit, tag.unit):
                yield self._wrong_unit(step, unit, tag.unit, _tag_of(step), here)
                return
            value = resolve(self._recipe, number, unit, tag.unit)
            yield from self._outside(step, value, tag, (*path, "limit", end))

    def _outside(self, step: Step, value: float, tag: Tag, path: Path) -> Iterator[LinesideError]:
        slack = 1e-9 * max(abs(value), 1.0)  # unit conversions round
        if (tag.low is not None and value < tag.low - slack) or (tag.high is not None and value > tag.high + slack):
            yield LinesideError(
                "recipe.outside_plant",
                f"Step {step.id} gives {value:g} {tag.unit}".rstrip()
                + f"; {_tag_of(step)!r} goes {_span(tag.low, tag.high)} {tag.unit}".rstrip()
                + ".",
                todo="Correct the value, or the range in the plant file.",
                place=self._document.place(path),
            )

    # For `check_forms` -------------------------------------------------------------------------------------------

    def place(self, path: Path) -> Place:
        """Where `path` stands."""
        return self._document.place(path)

    def unknown_unit(self, unit: str, path: Path) -> LinesideError:
        """The sentence about a unit of measure that Lineside does not know."""
        return self._unknown_unit(unit, path)

    def unknown_names(self, step: Step, path: Path) -> Iterator[LinesideError]:
        """Parameters that the step's own numbers name and that are not there."""
        for number, inner, _ in check_forms.numbers_of(step):
            unknown = isinstance(number, str) and number.removeprefix("$") not in self._recipe.parameters
            if unknown and inner[0] in {"limit", "value"}:  # those in other fields are told with their fields
                yield LinesideError(
                    "recipe.unknown_parameter",
                    f"Step {step.id} uses {number!r}; there is no such parameter.",
                    todo=closest(str(number).removeprefix("$"), list(self._recipe.parameters)),
                    place=self._document.place((*path, *inner)),
                )

    # Sentences that occur more than once -----------------------------------------------------------------------

    def _unknown_unit(self, unit: str, path: Path) -> LinesideError:
        return unknown_unit(unit, self._document.place(path))

    def _wrong_unit(self, step: Step, unit: str, wanted: str, of: str, path: Path) -> LinesideError:
        return LinesideError(
            "recipe.wrong_unit",
            f"Step {step.id} gives {unit or 'no unit'}; the {of} is in {wanted or 'no unit'}."
            if not _tag_of(step)
            else f"Step {step.id} gives {unit or 'no unit'}; {of!r} is in {wanted or 'no unit'}.",
            todo=f"Give it in {_same_as(wanted)}.",
            place=self._document.place(path),
        )

    def _upside_down(self, low: float, high: float, unit: str, path: Path) -> LinesideError:
        return LinesideError(
            "recipe.limit_upside_down",
            f"The low end {low:g} is above the high end {high:g} {unit}".rstrip() + ".",
            todo="Exchange the two.",
            place=self._document.place(path),
        )


def _span(low: float | None, high: float | None) -> str:
    if low is None:
        return f"up to {high:g}"
    return f"from {low:g}" if high is None else f"from {low:g} to {high:g}"


def _same_as(unit: str) -> str:
    return " or ".join(one or "no unit" for one in MEASURES if same_dimension(one, unit)) or unit


def _is_of_gs1(step: Scan) -> bool:
    """Whether some GS1 code could be what the step wants."""
    found = gs1.elements(step.prefix) if step.prefix else {}
    return step.expect == "lot" and found is not None and gs1.EXPIRY not in found and "$" not in step.prefix
