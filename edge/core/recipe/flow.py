"""What is wrong with the way through a recipe and with its formulas: names, types, units, and values that are used
before they are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from edge.core.document import Path, closest
from edge.core.errors import LinesideError, Place
from edge.core.formula import Formula, compile_formula, names_in
from edge.core.plant import Plant, numeric, unknown_unit
from edge.core.recipe.model import PASSES_MAX, Loop, Parallel, Select, Service, Step, Wait, order
from edge.core.recipe.read import RecipeDocument
from edge.core.recipe.values import ITERATION, number_of, variables
from edge.core.terms import MEASURES, same_dimension

SILENT: Final = frozenset({"calculate", "select", "loop", "call", "parallel"})
"""Phases that take no time by themselves."""


def flow_problems(document: RecipeDocument, plant: Plant | None) -> Iterator[LinesideError]:
    """Every problem of selections, loops, calculations and conditions, on any plant or on this one."""
    yield from _Flow(document, plant).problems()


def takes_time(steps: Sequence[Step]) -> bool:
    """True when somebody or something is waited for on every way through the steps."""
    return any(_waits(step) for step in steps)


def _waits(step: Step) -> bool:
    if isinstance(step, Select):
        ways = [branch.steps for branch in step.branches] + [step.else_ or ()]
        return all(takes_time(way) for way in ways)
    if isinstance(step, Loop):
        return not step.while_ and takes_time(step.steps)
    return step.phase not in SILENT or any(takes_time(steps) for _, steps in step.inner())


class _Flow:
    def __init__(self, document: RecipeDocument, plant: Plant | None) -> None:
        self._document = document
        self._recipe = document.recipe
        self._plant = plant
        self._variables = variables(self._recipe)
        self._recorded = set(self._recipe.recorded())
        self._used: dict[str, list[tuple[Path, Formula]]] = {}
        """Step id -> its formulas that can be read, with their paths."""

    def problems(self) -> Iterator[LinesideError]:
        yield from self._readings()
        for path, step in self._document.steps():
            for inner, text in step.formulas().items():
                yield from self._formula(step, text, (*path, *inner))
        yield from self._recorded_twice()
        for path, step in self._document.steps():
            match step:
                case Loop():
                    yield from self._loop(step, path)
                case Select():
                    yield from self._select(step, path)
                case Wait() | Service() if step.until:
                    yield from self._until(step)
                case _:
                    pass
        paths = {step.id: path for path, step in self._document.steps()}
        unknown: dict[tuple[str, str], LinesideError] = {}
        self._walk(self._recipe.main(), frozenset(), paths, unknown)
        yield from unknown.values()

    # Names, types and units ------------------------------------------------------------------------------------

    def _readings(self) -> Iterator[LinesideError]:
        for name, unit in self._recipe.readings.items():
            place = self._document.place(("readings", name))
            role, _, tag_name = name.partition(".")
            need = self._recipe.units.get(role)
            if need is None or not tag_name:
                yield LinesideError(
                    "recipe.unknown_role",
                    f"The reading {name[:80]!r}: {role[:64]!r} is not a role in `units`.",
                    todo=f"Write role.tag. {closest(role, list(self._recipe.units))}",
                    place=place,
                )
                continue
            if unit not in MEASURES:
                yield unknown_unit(unit, place)
                continue
            for unit_name, one in (self._plant.units if self._plant else {}).items():
                if one.cls != need.cls:
                    continue
                tag = one.tags.get(tag_name)
                if tag is None:
                    yield LinesideError(
                        "recipe.unbound_tag",
                        f"Formulas use {name[:80]!r}; the unit {unit_name} has no tag {tag_name[:64]!r}.",
                        todo=closest(tag_name, list(one.tags)),
                        place=place,
                    )
                elif not numeric(tag):
                    yield LinesideError(
                        "recipe.tag_type",
                        f"Formulas treat {name!r} as a number; it is a {tag.type}.",
                        todo="Use a tag that is a number.",
                        place=place,
                    )
                elif not same_dimension(unit, tag.unit):
                    yield LinesideError(
                        "recipe.wrong_unit",
                        f"Formulas use {name!r} in {unit or 'no unit'}; it is in {tag.unit or 'no unit'}.",
                        todo=f"Give a unit that {tag.unit or 'no unit'} can be converted to.",
                        place=place,
                    )
                else:
                    continue
                break  # one unit of a class tells enough

    def _recorded_twice(self) -> Iterator[LinesideError]:
        asked = {name for used in self._used.values() for _, formula in used for name in formula.names}
        first: dict[str, tuple[Step, tuple[str, str]]] = {}
        for path, step in self._document.steps():
            for name, what in step.records().items():
                other, before = first.setdefault(name, (step, what))
                if before != what and name in asked:
                    shown = [f"{kind}{f' in {unit}' if unit else ''}" for kind, unit in (before, what)]
                    yield LinesideError(
                        "recipe.value_twice",
                        f"Step {step.id} records {name!r} as a {shown[1]}, step {other.id} as a {shown[0]}, and a "
                        "formula uses it.",
                        todo="Give one of them another name, or both the same unit.",
                        place=self._document.place((*path, "name")),
                    )
                if name == ITERATION and name in asked:
                    yield LinesideError(
                        "recipe.reserved_name",
                        f"Step {step.id} records {name!r}; in formulas that is the pass of a loop.",
                        todo="Give the value another name.",
                        place=self._document.place((*path, "name")),
                    )

    def _formula(self, step: Step, text: str, path: Path) -> Iterator[LinesideError]:
        place = self._document.place(path)
        wanted = "number" if path[-1] == "formula" else "bool"
        try:
            formula = compile_formula(text, self._variables, wanted)  # type: ignore[arg-type]
        except LinesideError as refused:
            yield self._undeclared(text, place) or _at(refused, place, step)
            return
        self._used.setdefault(step.id, []).append((path, formula))
        around = isinstance(step, Loop) or self._recipe.loop_of(step.id) is not None
        if ITERATION in formula.names and not around:
            yield LinesideError(
                "recipe.no_loop",
                f"Step {step.id} uses the pass of a loop ({ITERATION}), and it stands in none.",
                todo="Put it into a loop, or use another value.",
                place=place,
            )

    def _undeclared(self, text: str, place: Place) -> LinesideError | None:
        """A tag in a formula that `readings` does not give a unit."""
        try:
            names = names_in(text)
        except LinesideError:
            return None
        for name in names:
            role, dot, _ = name.partition(".")
            if dot and name not in self._variables and role in self._recipe.units:
                near = closest(name, list(self._recipe.readings))
                return LinesideError(
                    "recipe.undeclared_reading",
                    f"The formula uses the reading {name!r}, and `readings` does not say in which unit.",
                    todo=near if near.startswith("Did") else f'Add it, for example `readings: {{{name}: "%"}}`.',
                    place=place,
                )
        return None

    # Selections, loops and waits ---------------------------------------------------------------------------------

    def _select(self, step: Select, path: Path) -> Iterator[LinesideError]:
        if step.else_ is None:
            yield LinesideError(
                "recipe.no_else",
                f"Step {step.id} does not say what is done when none of its conditions is true.",
                todo="Add `else` with steps, or `else: []` when nothing is to be done.",
                place=self._document.place(path),
            )
        if not step.branches:
            yield LinesideError(
                "recipe.branches",
                f"Step {step.id} has nothing to choose from.",
                todo="Add a branch with `when` and `steps`.",
                place=self._document.place((*path, "branches")),
            )
        for where, formula in self._used.get(step.id, []):
            if not formula.names:
                yield LinesideError(
                    "recipe.constant_condition",
                    f"Step {step.id} chooses by a condition that is always the same.",
                    todo="Compare a value with something.",
                    place=self._document.place(where),
                )

    def _loop(self, step: Loop, path: Path) -> Iterator[LinesideError]:
        yield from self._times(step, path)
        if not takes_time(step.steps):
            yield LinesideError(
                "recipe.busy_loop",
                f"Step {step.id} has a way round on which nothing takes time and nobody does anything.",
                todo="Put a step into it that waits, or that a person does.",
                place=self._document.place((*path, "steps")),
            )
        inside = {name for one in _all(step.steps) for name in one.records()}
        changing = inside | set(self._recipe.readings) | {ITERATION}
        for where, formula in self._used.get(step.id, []):
            if not changing & set(formula.names):
                yield LinesideError(
                    "recipe.constant_condition",
                    f"Step {step.id} goes round by a condition that nothing in the loop changes: it would end at once, "
                    "or by `times` alone.",
                    todo="Use a value that is recorded in the loop, a reading, or `iteration`.",
                    place=self._document.place(where),
                )

    def _times(self, step: Loop, path: Path) -> Iterator[LinesideError]:
        place = self._document.place((*path, "times"))
        times: float | None = step.times if isinstance(step.times, float) else None
        if isinstance(step.times, str):
            parameter = self._recipe.parameters.get(step.times.removeprefix("$"))
            if parameter is None:
                return  # said with the other unknown parameters
            try:
                times = number_of(parameter)[0] if parameter.type == "integer" else None
            except LinesideError:
                times = None
        if times is None or not times.is_integer() or not 1 <= times <= PASSES_MAX:
            yield LinesideError(
                "recipe.times",
                f"Step {step.id} does not say how often it goes round at most.",
                todo=f"Give `times` as a whole number from 1 to {PASSES_MAX}, or a parameter of type integer.",
                place=place,
            )

    def _until(self, step: Wait | Service) -> Iterator[LinesideError]:
        beside = {
            one.id
            for _, parallel in self._document.steps()
            if isinstance(parallel, Parallel)
            for one in _all(s for _, steps in parallel.inner() for s in steps)
        }
        for where, formula in self._used.get(step.id, []):
            if where[-1] != "until":
                continue
            if not set(formula.names) & set(self._recipe.readings) and step.id not in beside:
                yield LinesideError(
                    "recipe.constant_condition",
                    f"Step {step.id} waits for a condition that no reading changes.",
                    todo="Use a reading, declared in `readings`.",
                    place=self._document.place(where),
                )

    # Values before they are there --------------------------------------------------------------------------------

    def _walk(
        self,
        steps: Sequence[Step],
        known: frozenset[str],
        paths: Mapping[str, Path],
        unknown: dict[tuple[str, str], LinesideError],
    ) -> frozenset[str]:
        """Which names are recorded after the steps on every way, when `known` are before."""
        for step in order(steps)[0]:
            before = known

            def ask(names: frozenset[str], key: str = "", step: Step = step) -> None:
                for path, formula in self._used.get(step.id, []):
                    if not key or path[-1] == key:
                        for name in formula.names:
                            if name in self._recorded and name not in names:
                                unknown.setdefault((step.id, name), self._not_yet(step, name, path))

            match step:
                case Loop():
                    ask(known, "while")
                    after = self._walk(step.steps, known, paths, unknown)
                    ask(after, "until")
                    known = known if step.while_ else after
                case Select():
                    ask(known)
                    ways = [branch.steps for branch in step.branches] + [step.else_ or ()]
                    known = frozenset.intersection(*(self._walk(way, known, paths, unknown) for way in ways))
                case _:
                    ask(known)
                    for _, inside in step.inner():
                        known |= self._walk(inside, before, paths, unknown)
            known |= frozenset(step.records())
        return known

    def _not_yet(self, step: Step, name: str, path: Path) -> LinesideError:
        return LinesideError(
            "recipe.not_recorded",
            f"Step {step.id} uses {name!r}, and on some way to it no step has recorded that.",
            todo="Record it before, on every way.",
            place=self._document.place(path),
        )


def _at(refused: LinesideError, place: Place, step: Step) -> LinesideError:
    """A formula's refusal, at its place in the recipe."""
    refused.what = f"Step {step.id}: {refused.what}"
    refused.place = place
    return refused


def _all(steps: Iterator[Step] | Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for _, inside in step.inner():
            yield from _all(inside)
