"""What is wrong with a recipe, all of it in one run: by itself, and on the plant of a box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final

from edge.core.document import Path, closest
from edge.core.errors import LinesideError
from edge.core.plant import Plant, Tag, numeric, unknown_unit
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


class _Check:
    def __init__(self, document: RecipeDocument, plant: Plant | None) -> None:
        self._document = document
        self._recipe = document.recipe
        self._plant = plant
        self._where: dict[str, Path] = {}
        """Step id -> path of the first step that has it."""

    def problems(self) -> Iterator[LinesideError]:
        yield from self._names()
        yield from self._parameters()
        for path, step in self._document.steps():
            yield from self._step(path, step)
        for path, sequence in self._sequences():
            yield from self._sequence(path, sequence)

    # The recipe as a whole -------------------------------------------------------------------------------------

    def _names(self) -> Iterator[LinesideError]:
        for path, step in self._document.steps():
            first = self._where.setdefault(step.id, path)
            if first != path:
                line = self._document.place((*first, "id")).line
                yield LinesideError(
                    "recipe.duplicate_step",
                    f"The step id {step.id!r} stands here a second time; the first is on line {line}.",
                    todo="Give this step another id.",
                    place=self._document.place((*path, "id")),
                )
        for role, need in self._recipe.units.items():
            place = self._document.place(("units", role))
            if "." in role:
                yield LinesideError(
                    "recipe.dotted_role",
                    f"The role {role!r} has a dot in it, which separates a role from its tag.",
                    todo="Use a hyphen.",
                    place=place,
                )
            if self._plant and not any(unit.cls == need.cls for unit in self._plant.units.values()):
                yield LinesideError(
                    "recipe.unbound_class",
                    f"The role {role!r} needs a unit of class {need.cls!r}; the plant {self._plant.plant} has none.",
                    todo=closest(need.cls, sorted({unit.cls for unit in self._plant.units.values()})),
                    place=self._document.place(("units", role, "class")),
                )

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
        tags: list[Tag] = []
        if isinstance(step, Tagged) and step.tag:
            problems, tags = self._bind(step, path)
            yield from problems
        if limit := _limit_of(step):
            yield from self._limit(step, limit, path)
        if tags:
            # A role is bound to a unit when the batch starts: one unit that fits is enough.
            each = [list(self._on(step, tag, path)) for tag in tags]
            yield from min(each, key=len)

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
        if step.unit not in MEASURES:
            yield self._unknown_unit(step.unit, (*path, "unit"))
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
        if unit not in MEASURES:
            return
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
        for index, branch in enumerate(step.branches):
            others = {
                inner.id
                for other, steps in enumerate(step.branches)
                if other != index
                for _, inner in self._inside((), steps)
            }
            for position, inner in enumerate(branch):
                if isinstance(inner, Monitor) and inner.until not in others:
                    yield self._monitor_until(inner, (*path, "branches", index, position))

    def _inside(self, path: Path, steps: Sequence[Step]) -> Iterator[tuple[Path, Step]]:
        for index, step in enumerate(steps):
            yield (*path, index), step
            if isinstance(step, Parallel):
                for b, branch in enumerate(step.branches):
                    yield from self._inside((*path, index, "branches", b), branch)

    def _monitor_until(self, step: Monitor, path: Path) -> LinesideError:
        return LinesideError(
            "recipe.monitor_until",
            f"Step {step.id} monitors until {step.until!r}, which is not a step in a branch beside it.",
            todo="Put the monitor into a branch of the parallel whose other branch has that step.",
            place=self._document.place((*path, "until")),
        )

    # Steps in order --------------------------------------------------------------------------------------------

    def _sequences(self) -> Iterator[tuple[Path, list[tuple[Path, Step]]]]:
        """The main sequence, then each branch, as (path, steps)."""
        top: list[tuple[Path, Step]] = [(path, step) for path, step in self._document.steps() if len(path) == 6]
        yield ("procedure",), top
        for path, step in self._document.steps():
            if isinstance(step, Parallel):
                for index, branch in enumerate(step.branches):
                    here = (*path, "branches", index)
                    yield here, [((*here, position), one) for position, one in enumerate(branch)]

    def _sequence(self, path: Path, steps: list[tuple[Path, Step]]) -> Iterator[LinesideError]:
        if not steps:
            yield LinesideError(
                "recipe.no_steps",
                "There are no steps here.",
                todo="Add a step, or remove the branch.",
                place=self._document.place(path),
            )
            return
        index_of = {step.id: index for index, (_, step) in reversed(list(enumerate(steps)))}
        for here, step in steps:
            if path == ("procedure",) and isinstance(step, Monitor):
                yield self._monitor_until(step, here)
            if step.next is not None and step.next not in index_of:
                yield LinesideError(
                    "recipe.unknown_next",
                    f"Step {step.id} is followed by {step.next!r}, which is not a step of the same sequence.",
                    todo=closest(step.next, list(index_of)),
                    place=self._document.place((*here, "next")),
                )
                return  # what can be reached is not known
        visited: list[int] = []
        index = 0
        while index < len(steps):
            visited.append(index)
            after = steps[index][1].next
            index = index + 1 if after is None else index_of[after]
            if index in visited:
                here, step = steps[visited[-1]]
                yield LinesideError(
                    "recipe.cycle",
                    f"After step {step.id} comes step {steps[index][1].id} again: the recipe would never end.",
                    todo="Correct `next`.",
                    place=self._document.place((*here, "next")),
                )
                return  # the steps after a cycle are not reached because of it
        for index, (here, step) in enumerate(steps):
            if index not in visited:
                yield LinesideError(
                    "recipe.unreachable",
                    f"Step {step.id} is never reached: a `next` before it leads past it.",
                    todo="Remove it, or correct `next`.",
                    place=self._document.place(here),
                )
        if path == ("procedure",):
            yield from self._deadlock()

    def _deadlock(self) -> Iterator[LinesideError]:
        """Monitors that wait for each other, or for a step that waits for them."""
        ends = TopologicalSorter[str]()
        where = self._where

        def order(steps: Sequence[Step], before: str | None) -> str | None:
            for step in steps:
                ends.add(step.id, *([before] if before else []))
                if isinstance(step, Monitor):
                    ends.add(step.id, step.until)
                elif isinstance(step, Parallel):
                    for branch in step.branches:
                        if last := order(branch, before):
                            ends.add(step.id, last)
                before = step.id
            return before

        order([step for path, step in self._document.steps() if len(path) == 6 and step.next is None], None)
        try:
            ends.prepare()
        except CycleError as error:
            ring: list[str] = error.args[1]
            if any(step.next for _, step in self._document.steps()) or not all(one in where for one in ring):
                return
            monitor = next(one for one in ring if self._is_monitor(one))
            yield LinesideError(
                "recipe.monitor_deadlock",
                f"These steps wait for each other and would never end: {', '.join(sorted(set(ring)))}.",
                todo="Let each monitor watch until a step that does not wait for it.",
                place=self._document.place((*where[monitor], "until")),
            )

    def _is_monitor(self, step_id: str) -> bool:
        return any(isinstance(step, Monitor) and step.id == step_id for _, step in self._document.steps())

    # On the plant ----------------------------------------------------------------------------------------------

    def _bind(self, step: Tagged, path: Path) -> tuple[list[LinesideError], list[Tag]]:
        """The tags that `step.tag` may become on this plant, or what stands in the way."""
        role, dot, name = step.tag.partition(".")
        place = self._document.place((*path, "tag"))
        need = self._recipe.units.get(role)
        if not dot or not name or need is None:
            return [
                LinesideError(
                    "recipe.unknown_role",
                    f"Step {step.id} uses {step.tag[:80]!r}; {role[:64]!r} is not a role in `units`.",
                    todo=f"Write role.tag. {closest(role, list(self._recipe.units))}",
                    place=place,
                )
            ], []
        units = [unit for unit in self._plant.units.values() if unit.cls == need.cls] if self._plant else []
        tags = [unit.tags[name] for unit in units if name in unit.tags]
        if units and not tags:
            return [
                LinesideError(
                    "recipe.unbound_tag",
                    f"Step {step.id} uses {step.tag[:80]!r}; no unit of class {need.cls!r} has a tag {name[:64]!r}.",
                    todo=closest(name, sorted({tag for unit in units for tag in unit.tags})),
                    place=place,
                )
            ], []
        return [], tags

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
        if step.unit not in MEASURES:
            yield self._unknown_unit(step.unit, (*path, "unit"))
            return
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
