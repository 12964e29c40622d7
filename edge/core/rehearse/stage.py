"""What all batches of one rehearsal have in common: the cell, what must be seen, what was, and how to come there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, Self

from edge.core import commands as cm
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import RowBody
from edge.core.expiring import use_within
from edge.core.formula import names_in
from edge.core.inputs import InputFinder, Inputs, Wish
from edge.core.line import (
    Line,
    StepRun,
    tag_name,
)
from edge.core.plant import Plant
from edge.core.quick import dataclass
from edge.core.recipe.model import (
    Calculate,
    Loop,
    Recipe,
    Select,
    Service,
    Step,
    Wait,
)
from edge.core.recipe.values import ITERATION
from edge.core.rehearse.report import Aspect, Played, Point, Raised
from edge.core.terms import Role, Value, convert

EXPIRES: Final = "it expires"
Points = Iterable[tuple[Aspect, str]]


class Cell(Protocol):
    """Equipment in virtual time."""

    def read(self, tag: str) -> Value | None:
        """What a tag shows; None when the cell does not have it."""

    def write(self, tag: str, value: Value) -> bool:
        """Let a set-point act; False when the cell does not have it."""

    def pass_s(self, elapsed_s: float) -> None:
        """Let time pass."""

    def still(self, tag: str) -> bool:
        """True when what the tag shows does not change any more by itself."""

    def fork(self) -> Self:
        """The same cell, which from here on goes another way."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a batch is led somewhere: values that are entered and readings that are shown, and what they are for."""

    inputs: Inputs
    wishes: tuple[Wish, ...] = ()


@dataclass(frozen=True, slots=True)
class Phase:
    """How a phase is rehearsed."""

    points: Callable[[Any, Any], Points]
    """What must be seen besides that it is carried out."""
    act: Callable[[Any, Any, StepRun], bool] = lambda _play, _step, _run: False
    """Do the next thing at an active step of this phase; False when there is nothing to do."""
    wishes: Callable[[Any, Any, str], Sequence[Wish]] = lambda _stage, _step, _what: ()
    """What formulas of the step must come out how for one of its points."""


class Stage:
    """What all batches of one rehearsal have in common: what must be seen, and what was."""

    def __init__(
        self,
        recipe: Recipe,
        seal: str,
        plant: Plant,
        speed: float,
        decide: Callable[[Line, cm.Command, Now], list[RowBody]],
        phases: Mapping[type, Phase],
    ) -> None:
        self.recipe, self.seal, self.plant, self.speed, self.decide = recipe, seal, plant, speed, decide
        self.phases = phases
        self.units = _bound(recipe, plant)
        self.finder = InputFinder(recipe, self.reading_range)
        self.covered: set[Point] = set()
        self.missed: dict[Point, str] = {}
        self.exceptions: dict[tuple[str, str, str], Raised] = {}
        self.made_up: set[str] = set()
        self.forked: list[Played] = []
        self.ways = dict(_ways(recipe.main(), ()))
        for name, plan in recipe.sampling.items():
            self.ways[recipe.planned()[name].id] = self.ways[plan.at or plan.during or plan.outside or ""]
        steps = [*recipe.in_order(), *recipe.planned().values()]
        self.points = tuple(dict.fromkeys(point for step in steps for point in self.points_of(step)))
        self.wanted = frozenset(self.points)

    def points_of(self, step: Step) -> Iterator[Point]:
        phase = self.phases.get(type(step))
        if phase is None:
            raise LinesideError(
                "rehearse.phase",
                f"Step {step.id} is of a phase, {step.phase}, that cannot be rehearsed.",
                effect="Nothing was rehearsed.",
                todo="Say so to the maintainers of Lineside; they teach each phase to rehearse.",
            )
        yield Point(step.id, "steps", "carried out")
        for aspect, what in phase.points(self, step):
            yield Point(step.id, aspect, what)
        if use_within(step) is not None:
            yield Point(step.id, "time-outs", EXPIRES)

    def cover(self, step: str, aspect: Aspect, what: str, seen: object = True, why: str = "") -> None:
        """This was seen; or it was tried, and why it was not."""
        point = Point(step, aspect, what)
        if point in self.wanted and seen:
            self.covered.add(point)
        elif why:
            self.missed[point] = why

    def open(self, step: str, aspect: Aspect, what: str) -> bool:
        """True while it must be seen and was not."""
        point = Point(step, aspect, what)
        return point in self.wanted and point not in self.covered

    # Inputs ------------------------------------------------------------------------------------------------------

    def usual(self) -> Way:
        """How loops end by their condition, what is waited for comes true, and what is calculated is within limits."""
        found: dict[str, Value] = {}
        every: list[Wish] = []
        for step in self.recipe.in_order():
            wishes = [*self.phases[type(step)].wishes(self, step, "met")] if isinstance(step, Calculate) else []
            if isinstance(step, Loop | Wait | Service) and step.until and ITERATION not in names_in(step.until):
                wishes = [(step.until, step.id, True)]
            if wishes:
                found = {**(self.finder.find(wishes, found) or self.finder.find(wishes) or {}), **found}
                every += wishes
        return Way(found, tuple(every))

    def way_to(self, goal: Point) -> Way | None:
        """How to come to a point; None when no way was found."""
        wishes = self.wishes(goal)
        inputs = self.finder.find(wishes)
        return None if inputs is None else Way(inputs, tuple(wishes))

    def entered(self, way: Way, name: str, known: Inputs) -> Value | None:
        """What is entered as a value on a way, now that these other values are known; None when the way does not say.

        Running sums come out otherwise than the way supposed: then another value than planned fulfils the wishes for
        which it is the last one to be entered."""
        planned = way.inputs.get(name)
        if planned is None:
            return None
        there = frozenset(known) | frozenset(self.recipe.readings) | {ITERATION}
        asked = [(one, self.finder.formula(one[0])) for one in way.wishes]
        last = [
            one for one, it in asked if ITERATION not in it.names and self.finder.inputs_of(it, there) - there == {name}
        ]
        given = {**way.inputs, **known}
        if self.finder.find(last, {**given, name: planned}) is not None:
            return planned
        found = self.finder.find(last, {one: value for one, value in given.items() if one != name})
        return planned if found is None else found.get(name, planned)

    def wishes(self, goal: Point) -> list[Wish]:
        step = self.recipe.steps()[goal.step]
        phase = self.phases[type(step)]
        return [*self.ways[step.id], *phase.wishes(self, step, goal.what)]

    def said(self, goal: Point) -> str:
        """What the wishes for a point are, in a sentence."""
        told = [f"{text!r} must be {'true' if result else 'false'}" for text, _, result in self.wishes(goal)]
        return " and ".join(told) + "."

    def readings_of(self, step: Step) -> list[str]:
        """The readings that the step's own formulas name."""
        named = {name for text in step.formulas().values() for name in names_in(text)}
        return sorted(named & set(self.recipe.readings))

    def reading_range(self, named: str) -> tuple[float | None, float | None]:
        """The plausible range of a reading in the unit in which formulas name it."""
        tag = self.plant.tag(tag_name(self.units, named))
        if tag is None:
            return None, None
        unit = self.recipe.readings.get(named, tag.unit)
        low, high = (None if end is None else convert(end, tag.unit, unit) for end in (tag.low, tag.high))
        return low, high


def _bound(recipe: Recipe, plant: Plant) -> dict[str, str]:
    """The units that a batch gets when all are free; empty for a role without one."""
    chosen = {role: need.unit for role, need in recipe.units.items()}
    for role, need in recipe.units.items():
        free = (name for name, unit in plant.units.items() if unit.cls == need.cls and name not in chosen.values())
        chosen[role] = need.unit or next(free, "")
    return chosen


def _ways(sequence: Sequence[Step], wishes: tuple[Wish, ...]) -> Iterator[tuple[str, tuple[Wish, ...]]]:
    """For each step: which formulas must come out how so that the batch comes to it."""
    for step in sequence:
        yield step.id, wishes
        if isinstance(step, Select):
            for place, branch in enumerate(step.branches):
                yield from _ways(branch.steps, (*wishes, *branch_wishes(step, place)))
            yield from _ways(step.else_ or (), (*wishes, *branch_wishes(step, -1)))
        elif isinstance(step, Loop):
            yield from _ways(step.steps, (*wishes, *([(step.while_, step.id, True)] if step.while_ else [])))
        else:
            for _, inner in step.inner():
                yield from _ways(inner, wishes)


def branch_wishes(step: Select, taken: int) -> list[Wish]:
    before = step.branches[:taken] if taken >= 0 else step.branches
    chosen = [(step.branches[taken].when, step.id, True)] if taken >= 0 else []
    return [*((one.when, step.id, False) for one in before), *chosen]


def branch_name(place: int) -> str:
    return f"branch {place + 1}" if place >= 0 else "else"


def who(role: Role, number: int = 1) -> str:
    return f"{role.value}-{number}"
