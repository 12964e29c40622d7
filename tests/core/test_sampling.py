"""Sampling plans: samples that are due at a step, by the clock, in a pass or after a limit; overdue, missed, taken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge.core import commands as cm
from edge.core import decide, line
from edge.core import events as ev
from edge.core.events import decode
from edge.core.forms import open_ask
from edge.core.recipe import check_recipe, read_recipe, seal
from edge.core.recipe.compare import compare
from edge.core.recipe.words import facts
from edge.core.review import as_text, batch_record
from edge.core.terms import State
from edge.exchange import export, read
from tests.core.parts import VirtualLine, kinds, recipe
from tests.core.test_rehearse import not_seen
from tests.core.test_rehearse import played as rehearsal
from tests.core.test_rehearse import recipe as of_steps

GROW: dict[str, Any] = {"id": "010", "phase": "wait", "title": "Grow", "duration": "80 h"}
LOOK: dict[str, Any] = {"id": "020", "phase": "instruct", "title": "Look", "text": "Look at it."}
DAILY: dict[str, Any] = {
    "title": "Daily sample", "during": "010", "every": "24 h", "within": "2 h", "category": "major",
    "text": "Take it at the port.", "material": "cell culture", "quantity": 5, "unit": "mL", "container": "a tube",
    "prefix": "S-", "to": "the laboratory", "label": {"Batch": "batch", "Sample": "sample", "No.": "number"},
    "tests": [
        {"name": "density", "unit": "1e6/mL", "limit": {"low": 0.5, "category": "major"}},
        {"name": "sterility", "type": "negative_to_date", "later": True},
    ],
}  # fmt: skip
DAY_S = 86_400.0


def made(*steps: dict[str, Any], **plans: dict[str, Any]) -> VirtualLine:
    return VirtualLine(recipe=recipe(list(steps or (GROW, LOOK)), units={}, sampling=plans or {"daily": DAILY}))


def pass_to(played: VirtualLine, now_s: float, batch: str = "B1") -> list[ev.Event]:
    """Let time pass, and tell every timer that is due, as the engine does."""
    played.now_s, told = now_s, []
    while due := [
        (timer, line.elapsed(timer.since, timer.before_boot, played.stamp()).low_s)
        for timer in line.effects(played.line).timers
        if line.elapsed(timer.since, timer.before_boot, played.stamp()).low_s >= timer.length_s
    ]:
        timer, passed_s = min(due, key=lambda one: one[0].length_s)
        told += played.do(
            cm.PassTimer(
                batch=batch,
                step=timer.step,
                timer=timer.timer,
                low_s=passed_s,
                high_s=passed_s,
                iteration=timer.iteration,
            )
        )
    return told


def take(played: VirtualLine, name: str = "daily", density: str = "2.5", code: str = "S-1") -> list[ev.Event]:
    step, events = f"sampling/{name}", []
    while step in played.active():
        batch = played.batch()
        ask = open_ask(played.recipe, batch, played.recipe.steps()[step], batch.steps[step])
        assert ask is not None
        text = {f"{name}.printed": "1", f"{name}.quantity": "5"}.get(ask.part, density)
        events += played.scan(step, code) if ask.kind == "scan" else played.enter(step, text)
    return events


def test_a_sample_is_due_by_the_clock_and_taken_labelled_with_a_result_that_comes_later() -> None:
    played = made()
    played.start()
    assert played.active() == ["010"]
    assert pass_to(played, 100 + DAY_S - 1) == []
    assert kinds(pass_to(played, 100 + DAY_S)) == ["TimerDue", "StepActivated"]
    run = played.batch().steps["sampling/daily"]
    assert (run.title, run.phase, run.iteration, run.timeout_s) == ("Daily sample", "sample", 1, 7_200.0)
    events = take(played)
    (label,) = (event for event in events if isinstance(event, ev.LabelsPrinted))
    assert label.content == {"Batch": "B1", "Sample": "Daily sample", "No.": "1"}
    assert "ResultPending" in kinds(events)
    pass_to(played, 100 + 2 * DAY_S)
    assert played.batch().steps["sampling/daily"].iteration == 2
    take(played, code="S-2", density="0.1")
    assert [x.code for x in played.batch().exceptions] == ["limit.outside"]
    pass_to(played, 100 + 3 * DAY_S)
    take(played, code="S-3")
    pass_to(played, 100 + 80 * 3_600)
    played.confirm("020")
    assert played.batch().state is State.COMPLETE
    assert sorted(played.batch().open_results) == [
        "sampling/daily.sterility", "sampling/daily.sterility.2", "sampling/daily.sterility.3",
    ]  # fmt: skip
    assert played.refold() == played.line


def test_one_that_nobody_takes_is_overdue_then_missed_and_the_batch_waits_for_the_last() -> None:
    played = made()
    played.start()
    pass_to(played, 100 + DAY_S)
    pass_to(played, 100 + DAY_S + 7_200)
    assert [(x.code, x.category) for x in played.batch().exceptions] == [("sample.overdue", "major")]
    pass_to(played, 100 + 2 * DAY_S)
    assert [x.code for x in played.batch().exceptions][1:] == ["sample.missed"]
    assert played.batch().steps["sampling/daily"].iteration == 2
    pass_to(played, 100 + 3 * DAY_S)
    pass_to(played, 100 + 80 * 3_600)
    played.confirm("020")
    assert played.batch().state is State.RUNNING, "the last sample is not taken"
    take(played)
    assert played.batch().state is State.COMPLETE
    built = batch_record(((seq, decode(data)) for seq, data in enumerate(played.rows, 1)), "B1")
    assert built is not None
    assert [one.state for one in built.steps if one.step == "sampling/daily"] == ["missed", "missed", "done"]
    assert "sample 1 was not taken until the next one was due" in as_text(built)


@pytest.mark.parametrize(
    ("when", "due"),
    [({"at": "020"}, [False, True]), ({"at": "010"}, [True, True]), ({"during": "005", "passes": [2]}, [False, True])],
)
def test_a_sample_is_due_at_a_step_or_in_a_pass(when: dict[str, Any], due: list[bool]) -> None:
    loop = {"id": "005", "phase": "loop", "title": "Twice", "times": 2, "steps": [{**LOOK, "id": "010"}]}
    steps = [loop] if "passes" in when else [{**LOOK, "id": "010"}, LOOK]
    plan = {key: value for key, value in DAILY.items() if key not in {"during", "every"}} | when
    played = made(*steps, daily=plan)
    played.start()
    seen = ["sampling/daily" in played.active()]
    played.confirm("010")
    seen.append("sampling/daily" in played.active())
    assert seen == due


def test_a_sample_is_due_when_a_limit_is_left() -> None:
    hold = {"id": "010", "phase": "hold", "title": "Keep", "duration": "1 h", "tag": "reactor.temperature",
            "limit": {"low": 36, "high": 38}}  # fmt: skip
    plan = {key: value for key, value in DAILY.items() if key not in {"during", "every"}} | {"outside": "010"}
    played = VirtualLine(recipe=recipe([hold], sampling={"daily": plan}))
    played.start(patient="")
    assert "sampling/daily" not in played.active()
    played.note("010", "outside", 39.0)
    assert "sampling/daily" in played.active()


def test_what_is_due_survives_a_crash_after_every_decision() -> None:
    played, cuts = made(), []
    played.start()
    cuts.append(len(played.rows))
    pass_to(played, 100 + DAY_S)
    cuts.append(len(played.rows))
    for code in ("1", "S-1", "5", "2.5"):
        (played.scan if code == "S-1" else played.enter)("sampling/daily", code)
        cuts.append(len(played.rows))
    for cut in cuts:
        other = made()
        other.rows, other.now_s = played.rows[:cut], played.now_s
        other.crash()
        pass_to(other, 100 + DAY_S)
        take(other)
        run = other.batch().steps["sampling/daily"]
        assert (run.state, run.iteration) == ("done", 1)


def test_samples_of_a_time_in_the_dark_are_missed_and_none_is_forgotten() -> None:
    played = made()
    played.start()
    pass_to(played, 100 + DAY_S)
    take(played)
    played.now_s = 100 + 10 * DAY_S
    played.crash()
    over = [*pass_to(played, 100 + 10 * DAY_S)]
    assert "020" in played.active(), "the step came to its end in the dark"
    missed = [event for event in over if isinstance(event, ev.ExceptionRaised)]
    assert [event.code for event in missed] == ["sample.missed"]
    assert "a sample was due while nobody could be asked" in missed[0].what
    assert played.batch().steps["sampling/daily"].iteration == 2


def test_planted_bug_a_sample_that_was_not_taken_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def quiet(self: Any, batch_id: str, step: Any, _plan: Any) -> None:
        run = self.line.batches[batch_id].steps.get(step.id)
        self.activate(batch_id, step, run.iteration + 1 if run else 1)

    monkeypatch.setattr(decide._Decision, "sample_due", quiet)
    with pytest.raises(AssertionError):
        test_one_that_nobody_takes_is_overdue_then_missed_and_the_batch_waits_for_the_last()


# The file ------------------------------------------------------------------------------------------------------------


def codes(**plan: Any) -> list[str]:
    content = {
        "recipe": "R", "version": "1", "title": "t",
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [GROW, LOOK]}]}],
        "sampling": {"daily": {key: value for key, value in {**DAILY, **plan}.items() if value is not None}},
    }  # fmt: skip
    found = check_recipe(read_recipe(json.dumps(content, indent=1).encode(), "r.yaml"), None)
    assert all(one.place and one.place.line > 1 and one.todo for one in found)
    return [one.code for one in found]


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ({}, ""),
        ({"during": "030"}, "recipe.sampling_step"),
        ({"at": "010"}, "recipe.sampling_when"),
        ({"every": None}, "recipe.sampling_when"),
        ({"every": None, "passes": [1]}, "recipe.sampling_passes"),
        ({"during": None, "every": None, "outside": "010"}, "recipe.sampling_outside"),
        ({"every": "1 h"}, "recipe.sampling_time"),
        ({"within": "soon"}, "recipe.sampling_time"),
        ({"tests": None}, "recipe.sample_result"),
        ({"label": {"Batch": "bach"}}, "recipe.label_fact"),
        ({"quantity": "$much"}, "recipe.unknown_parameter"),
        ({"to": "$where"}, "recipe.unknown_parameter"),
        ({"unit": "stone"}, "unit.unknown"),
        ({"tests": [{"name": "daily"}]}, "recipe.duplicate_result"),
    ],
)
def test_what_is_wrong_with_a_plan_is_told(plan: dict[str, Any], code: str) -> None:
    assert codes(**plan)[:1] == ([code] if code else [])


def test_the_seal_covers_it_batchml_brings_it_back_and_a_change_is_told_in_words() -> None:
    plain, planned = recipe([GROW, LOOK]), recipe([GROW, LOOK], sampling={"daily": DAILY})
    assert seal(plain) != seal(planned)
    assert seal(read_recipe(read(export(planned), "x.xml").text.encode(), "x").recipe) == seal(planned)
    other = recipe([GROW, LOOK], sampling={"daily": {**DAILY, "every": "12 h"}})
    (change,) = compare(planned, other)
    assert "sampling plan daily" in change.text
    assert "24 h" in change.text
    assert "12 h" in change.text
    assert "sample: Daily sample, every 24 h during step 010, within 2 h" in facts(planned, planned.steps()["010"])


def test_a_rehearsal_takes_every_sample_and_sees_one_overdue() -> None:
    whole = rehearsal(of_steps(GROW, LOOK, sampling={"daily": DAILY}))
    assert not_seen(whole) == set()
    never = rehearsal(of_steps(GROW, LOOK, sampling={"daily": {**DAILY, "every": "4 d"}}))
    assert {step for step, _ in not_seen(never)} == {"sampling/daily"}
