"""The rehearsal: a whole recipe on the pure engine and a cell in virtual time, with all that can go right and wrong.

People do what each step asks, and once what it forbids; limits are left, readings fail, time-outs pass, writes are
refused or get no answer; every branch is taken. What must be seen is listed beforehand (`Point`), and only rows count:
a point is covered when the engine said so, not when somebody tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge.core import commands as cm
from edge.core.decide import decide
from edge.core.decision import Now
from edge.core.events import RowBody
from edge.core.guard import permitting
from edge.core.line import SEMANTICS, Line
from edge.core.plant import Plant
from edge.core.recipe.model import Recipe
from edge.core.rehearse.phases import PHASES
from edge.core.rehearse.play import Play
from edge.core.rehearse.report import Played, Point, Report, as_json, as_text
from edge.core.rehearse.stage import Cell, Stage, Way

__all__ = ["PHASES", "Cell", "Played", "Point", "Report", "as_json", "as_text", "rehearse"]

PLAYED_MAX: Final = 1_000
"""So many batches are played at most; each but the last few covers something new."""


def rehearse(
    recipe: Recipe,
    seal: str,
    plant: Plant,
    cell: Cell,
    *,
    lineside: str,
    speed: float = 1.0,
    decide: Callable[[Line, cm.Command, Now], list[RowBody]] = decide,
    progress: Callable[[str, int, int], object] = lambda _what, _done, _of: None,
) -> Report:
    """Rehearse a recipe that `check_recipe` finds clean on this plant; `progress` hears what, how many and of how many.

    Raises `rehearse.phase` for a phase that nobody taught to rehearse, and what starting a batch refuses."""
    stage = Stage(recipe, seal, permitting(plant), speed, decide, PHASES)
    played: list[Played] = []

    def play(name: str, way: Way, *, trying: bool, bad: str = "") -> None:
        progress("seen", len(stage.covered), len(stage.points))
        played.append(Play(stage, cell.fork(), name, way, trying=trying, bad=bad).run())
        played.extend(stage.forked)
        stage.forked.clear()

    play("all is well", stage.usual(), trying=False)
    given_up: set[Point] = set()
    while goal := next((p for p in stage.points if p not in stage.covered and p not in given_up), None):
        if len(played) >= PLAYED_MAX:
            break
        way = stage.way_to(goal)
        if way is None:
            stage.missed[goal] = f"no values were found that lead there: {stage.said(goal)}"
            given_up.add(goal)
            continue
        before = len(stage.covered)
        play(
            f"to see step {goal.step}, {goal.what}", way, trying=True, bad=goal.step if goal.aspect == "quality" else ""
        )
        if len(stage.covered) == before:
            given_up.add(goal)
    return Report(
        recipe=recipe.recipe,
        version=recipe.version,
        title=recipe.title,
        seal=seal,
        plant=plant.plant,
        lineside=lineside,
        semantics=SEMANTICS,
        speed=speed,
        steps=len(recipe.steps()),
        took_s=played[0].took_s,
        played=tuple(played),
        points=tuple(
            (point, "" if point in stage.covered else stage.missed.get(point, "no batch came to it"))
            for point in stage.points
        ),
        exceptions=tuple(stage.exceptions.values()),
        made_up=tuple(sorted(stage.made_up)),
        titles={step.id: step.title for step in recipe.in_order()},
    )
