"""What is wrong with a recipe, all of it in one run: by itself, and on the plant of a box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final

from edge.core.document import Path, closest
from edge.core.errors import LinesideError
from edge.core.plant import Plant, Tag, Unit, numeric, unknown_unit
from edge.core.recipe.model import Hold, Limit, Monitor, Number, Parallel, Record, Scan, Set, Sign, Step, Wait
from edge.core.recipe.read import RecipeDocument
from edge.core.recipe.values import limit_in, resolve
from edge.core.terms import MEASURES, duration_s, same_dimension

DURATION_S_MAX: Final = 10 * 366 * 86_400.0
Tagged = Set | Wait | Hold | Monitor


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
    numbers = {number for _, step in document.steps() for number in _numbers(step)}
    roles = {tag.partition(".")[0] for _, step in document.steps() if (tag := _tag_of(step))}
    found = [
        LinesideError(
            "recipe.unused_parameter",
            f"No step uses the parameter {name!r}.",
            effect="The recipe can be executed.",
            todo=f"Write ${name} where its value belongs, or remove it.",
            place=document.place(("parameters", name)),
        )
        for name in recipe.parameters
        if f"${name}" not in numbers
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
    return found


def _tag_of(step: Step) -> str:
    return step.tag if isinstance(step, Set | Wait | Hold | Monitor) else ""


def _limit_of(step: Step) -> Limit | None:
    return step.limit if isinstance(step, Record | Wait | Hold | Monitor) else None


def _numbers(step: Step) -> Iterator[Number]:
    if isinstance(step, Set):
        yield step.value
    if limit := _limit_of(step):
        yield from (number for number in (limit.low, limit.high) if number is not None)


def _order(steps: Sequence[Step]) -> tuple[list[Step], Step | None]:
    """The steps in the order in which they are done, and the one that would then come a second time, if any."""
    index_of = {step.id: index for index, step in enumerate(steps)}
    order: dict[int, None] = {}
    index = 0
    while index < len(steps):
        if index in order:
            return [steps[i] for i in order], steps[index]
        order[index] = None
        after = steps[index].next
        index = index + 1 if after is None else index_of[after]
    return [steps[i] for i in order], None


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
            yield from self._step(path, step)
        shape = [*self._ids(), *self._monitors()]
        for path, sequence in self._sequences():
            shape += self._sequence(path, sequence)
        yield from shape or self._deadlock()  # who waits for whom is known only when the order is

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
            low, high = parameter.low, parameter.high
            if low is not None and high is not None and low > high:
                yield self._upside_down(low, high, parameter.unit, (*path, "low"))
            elif (low is not None and parameter.value < low) or (high is not None and parameter.value > high):
                yield LinesideError(
                    "recipe.parameter_outside",
                    f"The value {parameter.value:g} of {name!r} is outside its own range {_span(low, high)}.",
                    todo="Correct the value or the range.",
                    place=self._document.place((*path, "value")),
                )

    # One step --------------------------------------------------------------------------------------------------

    def _step(self, path: Path, step: Step) -> Iterator[LinesideError]:
        for key in ("duration", "timeout", "on_delay"):
            if text := getattr(step, key, ""):
                yield from self._duration(step, key, text, path)
        if isinstance(step, Wait):
            yield from self._wait(step, path)
        elif isinstance(step, Record | Set) and step.unit not in MEASURES:
            yield self._unknown_unit(step.unit, (*path, "unit"))
            return  # nothing can be compared with it
        elif isinstance(step, Hold) and not step.duration:
            yield from self._duration(step, "duration", "", path)
        elif isinstance(step, Record):
            yield from self._record(step, path)
        elif isinstance(step, Scan) and step.expect == "patient" and step.prefix:
            yield LinesideError(
                "recipe.patient_prefix",
                f"Step {step.id} expects the patient identity and also gives a prefix, which would mean nothing.",
                todo="Remove `prefix`.",
                place=self._document.place((*path, "prefix")),
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
        unknown = list(self._unknown_parameters(step, path))
        yield from unknown
        if unknown:
            return  # what depends on the value cannot be judged
        if limit := _limit_of(step):
            yield from self._limit(step, limit, path)
        if isinstance(step, Tagged) and step.tag:
            yield from self._bind(step, path)

    def _duration(self, step: Step, key: str, text: str, path: Path) -> Iterator[LinesideError]:
        try:
            fits = 0 < duration_s(text) <= DURATION_S_MAX or (key == "on_delay" and duration_s(text) == 0)
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
        if bool(step.duration) == bool(step.tag):
            yield LinesideError(
                "recipe.wait_end",
                f"Step {step.id} waits for "
                + ("a duration and for a tag; which of them ends it is not said." if step.tag else "nothing."),
                todo="Give either `duration`, or `tag`, `limit` and `timeout`.",
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
        if not step.tag and (step.limit or step.timeout):
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
        if step.type != "number" and (step.limit or step.unit):
            yield LinesideError(
                "recipe.not_a_number",
                f"Step {step.id} records a {step.type}; a limit or a unit means nothing there.",
                todo="Use `type: number`, or remove `limit` and `unit`.",
                place=self._document.place((*path, "limit" if step.limit else "unit")),
            )

    def _unknown_parameters(self, step: Step, path: Path) -> Iterator[LinesideError]:
        for number in _numbers(step):
            name = number.removeprefix("$") if isinstance(number, str) else ""
            if name and name not in self._recipe.parameters:
                limit = _limit_of(step)
                key = ("value",) if limit is None else ("limit", "low" if limit.low == number else "high")
                yield LinesideError(
                    "recipe.unknown_parameter",
                    f"Step {step.id} uses {number!r}; there is no such parameter.",
                    todo=closest(name, list(self._recipe.parameters)),
                    place=self._document.place((*path, *key)),
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
        unit = step.unit if isinstance(step, Record) else limit.unit
        if isinstance(step, Record) and limit.unit and not same_dimension(limit.unit, unit):
            yield self._wrong_unit(step, limit.unit, unit, "value", (*here, "unit"))
            return
        wrong = False
        for end in ("low", "high"):
            parameter = self._parameter_unit(getattr(limit, end))
            if parameter is None or not (isinstance(step, Record) or unit):
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
                (where, one) for where, one in self._inside((*path, "branches", index), branch) if isinstance(one, Set)
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
            if isinstance(step, Parallel):
                for b, branch in enumerate(step.branches):
                    yield from self._inside((*path, index, "branches", b), branch)

    # Steps in order --------------------------------------------------------------------------------------------

    def _sequences(self) -> Iterator[tuple[Path, Sequence[Step]]]:
        """The main sequence, then each branch, with the path of what holds it."""
        yield ("procedure",), self._recipe.main()
        for path, step in self._document.steps():
            if isinstance(step, Parallel):
                for index, branch in enumerate(step.branches):
                    yield (*path, "branches", index), branch

    def _monitors(self) -> Iterator[LinesideError]:
        beside: dict[int, set[str]] = {}  # id() of a monitor -> the steps of the branches beside it
        for _, parallel in self._document.steps():
            if not isinstance(parallel, Parallel):
                continue
            inside = [{one.id for _, one in self._inside((), branch)} for branch in parallel.branches]
            for index, branch in enumerate(parallel.branches):
                if monitors := [one for one in branch if isinstance(one, Monitor)]:
                    others = set[str]().union(*inside[:index], *inside[index + 1 :])
                    beside |= {id(one): others for one in monitors}
        for path, step in self._document.steps():
            if isinstance(step, Monitor) and step.until not in beside.get(id(step), ()):
                yield LinesideError(
                    "recipe.monitor_until",
                    f"Step {step.id} monitors until {step.until!r}, which is not a step in a branch beside it.",
                    todo="Put the monitor into a branch of the parallel whose other branch has that step.",
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
        order, back = _order(steps)
        if back is not None:
            yield LinesideError(
                "recipe.cycle",
                f"After step {order[-1].id} comes step {back.id} again: the recipe would never end.",
                todo="Correct `next`.",
                place=self._document.place((*self._where[order[-1].id], "next")),
            )
            return  # the steps after a cycle are not reached because of it
        reached = {step.id for step in order}
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
            for step in _order(steps)[0]:
                after.add(step.id, *([before] if before else ()))
                if isinstance(step, Monitor):
                    after.add(step.id, step.until)
                elif isinstance(step, Parallel):
                    after.add(step.id, *filter(None, [link(branch, before) for branch in step.branches]))
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
        role, dot, name = step.tag.partition(".")
        place = self._document.place((*path, "tag"))
        need = self._recipe.units.get(role)
        if not dot or not name or need is None:
            yield LinesideError(
                "recipe.unknown_role",
                f"Step {step.id} uses {step.tag[:80]!r}; {role[:64]!r} is not a role in `units`.",
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
                        f"Step {step.id} uses {step.tag[:80]!r}; the unit {unit_name} has no tag {name[:64]!r}.",
                        todo=closest(name, list(unit.tags)),
                        place=place,
                    )
                ]
            )
            if found:
                yield from found
                return  # one unit of a class tells enough

    def _on(self, step: Step, tag: Tag, path: Path) -> Iterator[LinesideError]:
        """What is wrong with a step on this very tag."""
        if not numeric(tag):
            yield LinesideError(
                "recipe.tag_type",
                f"Step {step.id} treats {_tag_of(step)!r} as a number; it is a {tag.type}.",
                todo="Use a tag that is a number.",
                place=self._document.place((*path, "tag")),
            )
            return
        limit = _limit_of(step)
        if isinstance(step, Set):
            yield from self._set_on(step, tag, path)
        elif limit is not None and limit.unit in MEASURES:
            yield from self._limit_on(step, limit, tag, path)

    def _set_on(self, step: Set, tag: Tag, path: Path) -> Iterator[LinesideError]:
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
