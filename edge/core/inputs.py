"""Which inputs make formulas true or false: found by trying, within bounds, in an order that depends on nothing else.

An input is what a formula names and nobody works out: an entered or scanned value, or a reading. What several steps
record (a running sum, a mark that is set later) counts as one, too: then what is found is a way to try.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Final

from edge.core.errors import LinesideError
from edge.core.formula import Formula, Given, Variable, compile_formula, literals_in
from edge.core.quick import dataclass
from edge.core.recipe import limit_in
from edge.core.recipe.model import Calculate, Loop, Recipe, Record, Sample, Scan
from edge.core.recipe.values import ITERATION, number_of, variables, whole
from edge.core.terms import Value

TRIED_MAX: Final = 4_000
"""So many combinations of inputs are tried for one wish, of those within their limits and of all."""

Wish = tuple[str, str, bool]
"""A formula, the step that it belongs to, and what is to come out of it."""
Inputs = Mapping[str, Value]
NOTHING: Final[Inputs] = MappingProxyType({})


@dataclass(frozen=True)
class InputFinder:
    """Finds inputs for the formulas of one recipe. `within` gives the plausible range of a reading in the unit in
    which formulas name it."""

    recipe: Recipe
    within: Callable[[str], tuple[float | None, float | None]]

    def find(self, wishes: Sequence[Wish], given: Inputs = NOTHING) -> Inputs | None:
        """Inputs that fulfil all wishes together with those given already, among them values that the box worked out;
        None when none of the combinations tried does."""
        wanted = [(self.formula(text), step, result) for text, step, result in wishes]
        known = frozenset(given)
        names = sorted({name for formula, _, _ in wanted for name in self.inputs_of(formula, known)} - known)
        asked = sorted({step for formula, step, _ in wanted if ITERATION in formula.names})
        spaces: list[list[Value]] = [self._candidates(name, wanted, given) for name in names]
        spaces += [[float(number) for number in range(1, self._times(step) + 1)] for step in asked]
        usual = [space[:1] for space in spaces[: len(names)]] + spaces[len(names) :]  # a later pass before odd values
        right = [self._right(name, space) for name, space in zip(names, spaces, strict=False)] + spaces[len(names) :]
        tried = (itertools.islice(_outward(one), TRIED_MAX) for one in (usual, right, spaces))
        for chosen in itertools.chain.from_iterable(tried):
            found = dict(zip(names, chosen, strict=False))
            numbers = dict(zip(asked, chosen[len(names) :], strict=True))
            inputs = {**given, **found}
            if all(self._holds(formula, result, inputs, numbers.get(step)) for formula, step, result in wanted):
                return found
        return None

    def formula(self, text: str) -> Formula:
        """The formula as the recipe's other formulas are read."""
        return compile_formula(text, self._variables)

    def inputs_of(self, formula: Formula, seen: frozenset[str] = frozenset()) -> set[str]:
        """The inputs that its result depends on, also through values that the box works out."""
        found: set[str] = set()
        for name in formula.names:
            inner = self._worked_out.get(name)
            if inner is not None and name not in seen:
                found |= self.inputs_of(self.formula(inner.formula), seen | {name})
            elif inner is None and not name.startswith("$") and name != ITERATION:
                found.add(name)
        return found

    def _holds(self, formula: Formula, result: bool, inputs: Inputs, number: Value | None) -> bool:
        try:
            return self._value(formula, inputs, number) is result
        except LinesideError:
            return False  # no usable result for these inputs

    def _value(
        self, formula: Formula, inputs: Inputs, number: Value | None, seen: frozenset[str] = frozenset()
    ) -> Value:
        given: dict[str, Given] = {}
        for name in formula.names:
            variable = self._variables[name]
            if name in inputs:
                given[name] = Given(inputs[name], variable.unit)
            elif name.startswith("$"):
                parameter = self.recipe.parameters[name[1:]]
                value, unit = (
                    number_of(parameter) if parameter.type == "duration" else (parameter.value, parameter.unit)
                )
                given[name] = Given(value, unit)
            elif name == ITERATION:
                given[name] = Given(number if number is not None else 1.0)
            elif name not in seen and (step := self._worked_out.get(name)):
                value = self._value(self.formula(step.formula), inputs, number, seen | {name})
                given[name] = Given(value, variable.unit)
        return formula.value(given)

    def _times(self, step: str) -> int:
        steps = self.recipe.steps()
        loop = steps[step] if isinstance(steps[step], Loop) else steps.get(self.recipe.loop_of(step) or "")
        return min(whole(self.recipe, loop.times), 100) if isinstance(loop, Loop) else 1

    def _candidates(self, name: str, wanted: Sequence[tuple[Formula, str, bool]], given: Inputs) -> list[Value]:
        variable = self._variables[name]
        texts = [formula.text for formula, _, _ in wanted] + [step.formula for step in self._worked_out.values()]
        literals = list(dict.fromkeys(literal for text in texts for literal in literals_in(text)))
        if self._is_number(name):
            numbers = [one for one in literals if isinstance(one, float)]
            numbers += [number for number in self._parameters if number not in numbers]
            others = sorted({one for formula, _, _ in wanted for one in self.inputs_of(formula)} - {name})
            numbers += [number for one in others if isinstance(number := given.get(one), float)]
            numbers += [mid(*self._range(one, self._variables[one])) for one in others if self._is_number(one)]
            return list(self._numbers(name, variable, numbers))
        if variable.kind == "bool":
            return [True, False]
        return [*self._texts(name), *(one for one in literals if isinstance(one, str))]

    def _is_number(self, name: str) -> bool:
        return self._variables[name].kind == "number"

    def _right(self, name: str, space: Sequence[Value]) -> Sequence[Value]:
        """Those of the values that are within the limits of the name; all, when none is."""
        if not self._is_number(name):
            return space
        low, high = self._range(name, self._variables[name])
        return [one for one in space if isinstance(one, float) and inside(one, low, high)] or space

    def _numbers(self, name: str, variable: Variable, literals: Sequence[float]) -> Iterator[Value]:
        low, high = self._range(name, variable)
        found = dict.fromkeys([mid(low, high)])
        for one in [*literals, *(end for end in (low, high) if end is not None)]:
            step = max(abs(one) * 0.05, 0.5)
            found |= dict.fromkeys((one, one + step, one - step, one * 2, one / 2))
        found |= dict.fromkeys((0.0, 1.0))
        yield from sorted(found, key=lambda one: not inside(one, low, high))  # stable: what is all right comes first

    def _texts(self, name: str) -> list[Value]:
        for step in self._recording.get(name, ()):
            if isinstance(step, Record) and step.choices:
                return [*step.accept, *(one for one in step.choices if one not in step.accept)]
            if isinstance(step, Scan) and step.prefix:
                return [f"{step.prefix}1", f"{step.prefix}2"]
        return ["as planned"]

    def _range(self, name: str, variable: Variable) -> tuple[float | None, float | None]:
        for step in self._recording.get(name, ()):
            tests = step.tests if isinstance(step, Sample) else ()
            limit = next((one.limit for one in tests if one.name == name), getattr(step, "limit", None))
            if limit is not None:
                return limit_in(self.recipe, limit, variable.unit)
        return self.within(name) if name in self.recipe.readings else (None, None)

    @cached_property
    def _variables(self) -> dict[str, Variable]:
        return variables(self.recipe)

    @cached_property
    def _parameters(self) -> list[float]:
        return [number_of(one)[0] for one in self.recipe.parameters.values() if one.type in {"number", "duration"}]

    @cached_property
    def _worked_out(self) -> dict[str, Calculate]:
        return {
            name: steps[0]
            for name, steps in self._recording.items()
            if len(steps) == 1 and isinstance(steps[0], Calculate)
        }

    @cached_property
    def _recording(self) -> dict[str, list[object]]:
        found: dict[str, list[object]] = {}
        for step in self.recipe.in_order():
            for name in step.records():
                found.setdefault(name, []).append(step)
        return found


def inside(value: float, low: float | None, high: float | None) -> bool:
    """True when low <= value <= high, open ends always satisfied."""
    return (low is None or value >= low) and (high is None or value <= high)


def mid(low: float | None, high: float | None) -> float:
    """A value well inside."""
    if low is not None and high is not None:
        return (low + high) / 2
    if low is not None:
        return low + max(abs(low) * 0.1, 1.0)
    return high - max(abs(high) * 0.1, 1.0) if high is not None else 1.0


def _outward(spaces: Sequence[Sequence[Value]]) -> Iterator[tuple[Value, ...]]:
    """Every combination, those that differ little from the first values before others."""
    for far in range(max((len(space) for space in spaces), default=1)):
        for places in itertools.product(*(range(min(far + 1, len(space))) for space in spaces)):
            if max(places, default=0) == far:
                yield tuple(space[place] for space, place in zip(spaces, places, strict=True))
