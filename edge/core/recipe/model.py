"""What a recipe is made of (ISA-88 procedural model), as frozen documents.

procedure -> unit procedure -> operation -> phases (steps). Every step has an id, text, unique in the recipe.
A tag is written "role.tag" where `role` is a key of `units`; a value may be a number in the step's unit or
"$parameter". A `placeholder: true` marks a value that the process owner must still set (shown with a dagger).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from edge.core.plant import Frozen, Name
from edge.core.terms import Role

StepId = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z_\-]{0,31}$")]
Why = Annotated[str, Field(max_length=2000)]
Text = Annotated[str, Field(max_length=2000)]
Number = float | Annotated[str, Field(pattern=r"^\$[A-Za-z][A-Za-z0-9_]{0,63}$")]
"""A literal, or "$name" of a parameter of the same dimension."""


class Limit(Frozen):
    """What a value must stay within, in `unit` (the step's unit when empty). Either end may be open."""

    low: Number | None = None
    high: Number | None = None
    unit: str = ""
    why: Why = ""
    placeholder: bool = False
    category: Literal["minor", "major", "critical"] = "major"
    """Of the exception record that is raised when the value is outside."""


class Parameter(Frozen):
    """A recipe parameter: a number with unit and permitted range."""

    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    why: Why = ""
    placeholder: bool = False


class UnitNeed(Frozen):
    """A role of the recipe that one unit of this class plays; bound when the batch starts."""

    cls: Name = Field(alias="class")


class _Step(Frozen):
    id: StepId
    title: Text
    why: Why = ""
    role: Role = Role.OPERATOR
    next: StepId | None = None
    """The step that follows in the same sequence; the one listed next when absent."""


class Instruct(_Step):
    """A person reads, does and confirms."""

    phase: Literal["instruct"]
    text: Text


class Record(_Step):
    """A person enters a value."""

    phase: Literal["record"]
    text: Text
    name: Name
    type: Literal["number", "text", "choice"] = "number"
    unit: str = ""
    choices: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    """The choices that are all right; another one raises an exception record of this `category`. All, when empty."""
    category: Literal["minor", "major", "critical"] = "critical"
    limit: Limit | None = None


class Scan(_Step):
    """A person scans a code. `expect: patient` must equal the batch's patient identity (no role overrides it);
    `expect: lot` takes a code that starts with `prefix` and records it as `name`."""

    phase: Literal["scan"]
    text: Text
    name: Name
    expect: Literal["patient", "lot"] = "lot"
    prefix: str = ""


class Set(_Step):
    """The box writes a set-point: intent, write, read-back, outcome."""

    phase: Literal["set"]
    tag: str
    value: Number
    unit: str = ""


class Wait(_Step):
    """Until a reading is within `limit`, or for `duration`; `timeout` bounds the former."""

    phase: Literal["wait"]
    duration: str = ""
    tag: str = ""
    limit: Limit | None = None
    timeout: str = ""
    on_bad_quality: Literal["hold", "continue"] = "hold"
    placeholder: bool = False


class Hold(_Step):
    """Keep `tag` within `limit` for `duration`. Outside raises an exception record; time goes on."""

    phase: Literal["hold"]
    duration: str
    tag: str
    limit: Limit
    on_bad_quality: Literal["hold", "continue"] = "hold"
    placeholder: bool = False


class Monitor(_Step):
    """Watch `tag` against `limit` until step `until` is done. Stands in a branch beside that step."""

    phase: Literal["monitor"]
    tag: str
    limit: Limit
    until: StepId
    on_delay: str = "2 s"
    on_bad_quality: Literal["hold", "continue"] = "hold"


class Sign(_Step):
    """One or two people sign what was shown, with a meaning."""

    phase: Literal["sign"]
    text: Text
    meaning: Text
    roles: tuple[Role, ...] = (Role.OPERATOR,)
    """One signature per entry, each by another person who has that role."""


class Parallel(_Step):
    """All branches at once; done when each is done."""

    phase: Literal["parallel"]
    branches: tuple[tuple[Step, ...], ...]


Step = Annotated[Instruct | Record | Scan | Set | Wait | Hold | Monitor | Sign | Parallel, Field(discriminator="phase")]
Parallel.model_rebuild()


class Operation(Frozen):
    """A named stretch of phases."""

    operation: Text
    steps: tuple[Step, ...]


class UnitProcedure(Frozen):
    """What one unit role does."""

    unit_procedure: Text
    operations: tuple[Operation, ...]


class Recipe(Frozen):
    """A whole recipe as written; `edge.core.recipe.read_recipe` makes it, `seal` names its content."""

    recipe: Name
    version: str = Field(pattern=r"^[0-9]+(\.[0-9]+)*$")
    title: Text
    why: Why = ""
    units: Mapping[Name, UnitNeed] = Field(default_factory=dict)
    parameters: Mapping[Name, Parameter] = Field(default_factory=dict)
    procedure: tuple[UnitProcedure, ...]

    def main(self) -> tuple[Step, ...]:
        """The main sequence: every operation's steps, joined in order."""
        return tuple(s for up in self.procedure for op in up.operations for s in op.steps)

    def in_order(self) -> Iterator[Step]:
        """Every step once, as the file lists them: a parallel, then its branches, then what follows."""
        yield from _in_order(self.main())

    def sequences(self) -> Iterator[Sequence[Step]]:
        """The main sequence (operations joined in order), then each parallel branch, outermost first."""
        main = self.main()
        yield main
        yield from _branches(main)

    def steps(self) -> Mapping[str, Step]:
        """Every step by id, parallel ones included."""
        return self._by_id

    @cached_property  # asked for at every look at the head
    def _by_id(self) -> Mapping[str, Step]:
        return {step.id: step for sequence in self.sequences() for step in sequence}


def _branches(sequence: Sequence[Step]) -> Iterator[Sequence[Step]]:
    for step in sequence:
        if isinstance(step, Parallel):
            for branch in step.branches:
                yield branch
                yield from _branches(branch)


def _in_order(sequence: Sequence[Step]) -> Iterator[Step]:
    for step in sequence:
        yield step
        if isinstance(step, Parallel):
            for branch in step.branches:
                yield from _in_order(branch)
