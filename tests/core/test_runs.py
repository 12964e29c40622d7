"""What a batch knows of its steps without going through them is what one finds who does."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest

from edge.core.line import StepRun, Steps
from edge.core.recipe import read_recipe
from edge.core.recipe.model import Step
from edge.core.terms import ClockQuality, Stamp

AT = Stamp("2026-11-22T10:00:00.000000Z", ClockQuality.SYNCED, 1.0, "b")
RECIPE = b"""\
recipe: TEN
version: "1"
title: Ten
procedure:
  - unit_procedure: Here
    operations:
      - operation: All
        steps:
"""


@cache
def ten_steps() -> tuple[Step, ...]:
    steps = "".join(f'          - {{id: "{n}", phase: instruct, title: T, text: Do it.}}\n' for n in range(10))
    return read_recipe(RECIPE + steps.encode(), "ten.yaml").recipe.main()


def first_not_passed(runs: Steps, way: tuple[Step, ...], iteration: int) -> int:
    """From the beginning, step by step."""
    for place, step in enumerate(way):
        run = runs.get(step.id)
        if run is None or run.iteration != iteration or run.state == "active":
            return place
    return len(way)


def go_on(seed: int) -> None:
    """Activate, complete, skip and repeat steps at random, nearly in order, and ask in between."""
    chance, way = random.Random(seed), ten_steps()
    runs = Steps({})
    for _ in range(60):
        place = min(first_not_passed(runs, way, 1), 9) if chance.random() < 0.8 else chance.randrange(10)
        was = runs.get(way[place].id)
        iteration = was.iteration if was and chance.random() < 0.8 else chance.choice((1, 2))
        state = "done" if was and was.state == "active" else chance.choice(("active", "active", "skipped"))
        run = StepRun(way[place].id, "instruct", "T", iteration, 1, AT, 0.0, 0.0)
        runs = runs.with_run(replace(run, state=state))
        if chance.random() < 0.7:
            assert runs.active() == [one for one in runs.values() if one.state == "active"]
        if chance.random() < 0.7:
            for iteration in (1, 2):
                assert runs.passed(way, iteration) == first_not_passed(runs, way, iteration)


def test_who_is_active_and_what_is_passed_is_as_if_all_were_looked_at() -> None:
    for seed in range(60):
        go_on(seed)


def test_that_is_seen_when_it_is_forgotten_that_a_step_is_active_again(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Steps.with_run

    def careless(self: Steps, run: StepRun) -> Steps:
        made = whole(self, run)
        made._passed = self._passed.copy()
        return made

    monkeypatch.setattr(Steps, "with_run", careless)
    with pytest.raises(AssertionError):
        test_who_is_active_and_what_is_passed_is_as_if_all_were_looked_at()


def test_one_head_does_not_know_what_another_found() -> None:
    """A decision that is refused leaves heads behind that never were."""
    way = ten_steps()
    done = StepRun("0", "instruct", "T", 1, 1, AT, 0.0, 0.0, state="done")
    before = Steps({}).with_run(replace(done, state="active"))
    assert before.passed(way, 1) == 0
    never = before.with_run(done)
    assert (never.passed(way, 1), before.passed(way, 1)) == (1, 0)
    assert (never.active(), before.active()) == ([], [before["0"]])
