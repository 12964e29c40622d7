"""What a rehearsal saw: for people, for machines, and to be attached to an approval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, Literal, get_args

from edge.core.quick import dataclass

Aspect = Literal["steps", "limits", "branches", "people", "questions", "time-outs", "quality", "modules"]
ASPECTS: Final[tuple[Aspect, ...]] = get_args(Aspect)


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that must be seen at a step."""

    step: str
    aspect: Aspect
    what: str


@dataclass(frozen=True, slots=True)
class Played:
    """One batch from its start to where it ended."""

    name: str
    ended: str
    """Its state, and why it did not come to its end; "complete" when it did."""
    took_s: float
    rows: int
    well: bool
    """It ended as it was meant to."""


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception record, once for each step and code in a batch."""

    played: str
    at_s: float
    step: str
    category: str
    code: str
    what: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What a rehearsal saw. It depends on recipe, plant, cell and version alone."""

    recipe: str
    version: str
    title: str
    seal: str
    plant: str
    lineside: str
    semantics: int
    speed: float
    steps: int
    took_s: float
    """The process when all is well, with `PERSON_S` for each thing that a person does."""
    played: tuple[Played, ...]
    points: tuple[tuple[Point, str], ...]
    """Each point, and why it was not covered; empty when it was."""
    exceptions: tuple[Raised, ...]
    made_up: tuple[str, ...]
    """Tags that the cell does not have: their readings were made up to suit the recipe."""
    titles: Mapping[str, str]

    @property
    def not_covered(self) -> tuple[tuple[Point, str], ...]:
        return tuple((point, why) for point, why in self.points if why)

    @property
    def ok(self) -> bool:
        """Everything was seen, and every batch ended as it was meant to."""
        return not self.not_covered and all(one.well for one in self.played)

    def coverage(self) -> dict[Aspect, tuple[int, int]]:
        """Of each aspect: how many points were covered, of how many."""
        of = Counter(point.aspect for point, _ in self.points)
        missed = Counter(point.aspect for point, _ in self.not_covered)
        return {aspect: (of[aspect] - missed[aspect], of[aspect]) for aspect in ASPECTS}


# For people and machines -------------------------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """The report as one JSON object; the same for the same recipe, plant and version."""
    return {
        "recipe": report.recipe,
        "version": report.version,
        "title": report.title,
        "seal": report.seal,
        "plant": report.plant,
        "lineside": report.lineside,
        "semantics": report.semantics,
        "speed": report.speed,
        "steps": report.steps,
        "ok": report.ok,
        "process_s": round(report.took_s, 3),
        "coverage": {aspect: {"seen": seen, "of": of} for aspect, (seen, of) in report.coverage().items()},
        "points": [asdict(point) | {"seen": not why, "why": why} for point, why in report.points],
        "batches": [asdict(one) for one in report.played],
        "exceptions": [asdict(one) for one in report.exceptions],
        "made_up": list(report.made_up),
    }


def as_text(report: Report) -> str:
    """The report for a person who approves the recipe."""
    played, aborted = len(report.played), sum(one.ended == "aborted" for one in report.played)
    raised_in_all = sum(one.times for one in report.exceptions)
    lines = [
        f"Rehearsal of {report.recipe} {report.version}: {report.title}",
        f"  seal {report.seal}",
        f"  on plant {report.plant}, Lineside {report.lineside}, semantics {report.semantics}, speed {report.speed:g}",
        f"  when all is well it takes {said_s(report.took_s)} of process time",
        f"  {played} batches, {aborted} of them aborted on purpose; {raised_in_all} exception records raised",
        "",
        "Seen",
    ]
    for aspect, (seen, of) in report.coverage().items():
        if of:
            lines.append(f"  {aspect:<10} {seen:>5} of {of}" + ("" if seen == of else "   <- not all"))
    if report.not_covered:
        lines += ["", "Not seen"]
        for point, why in report.not_covered:
            lines.append(f"  step {point.step} ({report.titles[point.step]}), {point.aspect}: {point.what}: {why}")
    bad = [one for one in report.played if not one.well]
    if bad:
        lines += ["", "Did not end as it should"]
        lines += [f"  {one.name}: {one.ended}, after {said_s(one.took_s)}" for one in bad]
    if report.made_up:
        lines += ["", "Not simulated; readings were made up to suit the recipe"]
        lines += [f"  {tag}" for tag in report.made_up]
    well = [one for one in report.exceptions if one.played == report.played[0].name]
    if well:
        lines += ["", "Exceptions raised although all was well"]
        lines += [f"  {said_s(one.at_s)}, step {one.step}, {one.category}: {one.what}" for one in well]
    raised = [one for one in report.exceptions if one not in well]
    if raised:
        lines += ["", "Exceptions raised on purpose (of each step and kind the first)"]
        first = {(one.step, one.code): one for one in reversed(raised)}
        order = {step: place for place, step in enumerate(report.titles)}
        for one in sorted(first.values(), key=lambda one: (order.get(one.step, len(order)), one.at_s)):
            lines.append(f"  step {one.step}, {one.category}, {one.code}: {one.what}")
    verdict = "Everything was seen." if report.ok else "NOT all was seen, or a batch did not end as it should."
    return "\n".join([*lines, "", verdict])


def said_s(seconds: float) -> str:
    """A time for a person."""
    for unit, length_s in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= length_s:
            return f"{seconds / length_s:.3g} {unit}"
    return f"{seconds:.3g} s"
