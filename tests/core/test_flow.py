"""Selections, loops, calculations and conditions as they run: what was decided, from which values, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.line import effects
from edge.core.review import as_text, batch_record
from edge.core.terms import Act, Quality, Reading, Role, State
from tests.core.parts import VirtualLine, recipe

READINGS = {"reactor.temperature": "K"}
TAG = "BR-1.temperature"


def line_of(*steps: dict[str, Any], **more: Any) -> VirtualLine:
    """A batch of these steps, started, with a good reading of 37 degC."""
    made = [{"title": f"Step {n}", "id": f"s{n}", **step} for n, step in enumerate(steps)]
    core = VirtualLine(recipe(made, readings=READINGS, **more))
    core.readings[TAG] = good(37.0)
    core.start()
    return core


def good(value: float) -> Reading:
    return Reading(value, "degC", Quality.GOOD, "", 0.0)


def bad() -> Reading:
    return Reading(37.0, "degC", Quality.BAD, "", 0.0, "the cable is out")


def record(core: VirtualLine, step: str, text: str, iteration: int = 0) -> list[ev.Event]:
    return core.do(cm.EnterValue(session="S", batch="B1", step=step, text=text, iteration=iteration))


def confirm(core: VirtualLine, step: str, iteration: int = 0) -> list[ev.Event]:
    return core.do(cm.ConfirmStep(session="S", batch="B1", step=step, iteration=iteration))


def resume(core: VirtualLine) -> list[ev.Event]:
    return core.do(cm.ActOnBatch(session="S", batch="B1", act=Act.RESUME, reason="mended"))


def active(core: VirtualLine) -> set[tuple[str, int]]:
    return {(run.step, run.iteration) for run in core.batch().active()}


def of(rows: list[ev.Event], kind: type[Any]) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


COUNT = {"phase": "record", "text": "Count.", "name": "vcd", "unit": "1e6/mL"}
LOOK = {"phase": "instruct", "text": "Look."}


def test_a_calculation_says_its_value_and_what_it_came_from() -> None:
    core = line_of(
        COUNT,
        {
            "phase": "calculate",
            "formula": "vcd * $share + reactor.temperature",
            "name": "x",
            "unit": "mL",
            "limit": {"high": 300, "category": "minor"},
        },
        LOOK,
        parameters={"share": {"value": 2.0}},
    )
    rows = record(core, "s0", "4")
    (made,) = of(rows, ev.ValueRecorded)[1:]
    assert (made.value, made.unit, made.source, made.within) == (pytest.approx(318.15), "mL", "calculated", False)
    assert made.inputs == [
        {"name": "vcd", "value": 4.0, "unit": "1e6/mL", "quality": "good", "source": "step s0"},
        {"name": "$share", "value": 2.0, "unit": "", "quality": "good", "source": "parameter"},
        {"name": "reactor.temperature", "value": 37.0, "unit": "degC", "quality": "good", "source": TAG},
    ]
    assert [(row.code, row.category) for row in of(rows, ev.ExceptionRaised)] == [("limit.outside", "minor")]
    assert active(core) == {("s2", 1)}
    assert core.refold() == core.line


def test_a_value_that_cannot_be_used_holds_and_is_asked_again() -> None:
    core = line_of(LOOK, {"phase": "calculate", "formula": "reactor.temperature", "name": "t", "unit": "K"}, LOOK)
    core.readings[TAG] = bad()
    rows = confirm(core, "s0")
    assert not of(rows, ev.ValueRecorded)
    assert [row.code for row in of(rows, ev.ExceptionRaised)] == ["formula.not_usable"]
    assert "the cable is out" in of(rows, ev.ExceptionRaised)[0].what
    assert core.batch().state is State.HELD
    assert of(resume(core), ev.ExceptionRaised)
    assert core.batch().state is State.HELD
    core.readings[TAG] = good(20.0)
    (made,) = of(resume(core), ev.ValueRecorded)
    assert made.value == pytest.approx(293.15)
    assert active(core) == {("s2", 1)}


def test_a_value_that_cannot_be_used_can_be_left_out() -> None:
    step = {"phase": "calculate", "formula": "1 / (reactor.temperature - 310.15)", "name": "t"}
    core = line_of(LOOK, {**step, "on_bad_quality": "continue"}, LOOK)
    rows = confirm(core, "s0")
    assert [row.code for row in of(rows, ev.ExceptionRaised)] == ["formula.not_usable"]
    assert core.batch().values == {}
    assert active(core) == {("s2", 1)}


def select(**more: Any) -> dict[str, Any]:
    ways = [("a", "vcd < 3", "hungry"), ("b", "vcd < 10 && reactor.temperature > 300", "growing")]
    branches = [{"when": when, "title": title, "steps": [{"id": i, "title": i, **LOOK}]} for i, when, title in ways]
    return {"phase": "select", "branches": branches, "else": [{"id": "c", "title": "c", **LOOK}], **more}


@pytest.mark.parametrize(("entered", "taken", "asked"), [("2", 0, 1), ("5", 1, 2), ("20", -1, 1)])
def test_exactly_one_branch_is_taken_and_the_row_says_why(entered: str, taken: int, asked: int) -> None:
    core = line_of(COUNT, select(), LOOK)
    (row,) = of(record(core, "s0", entered), ev.BranchTaken)
    assert row.branch == taken
    assert row.formula == ("vcd < 3", "vcd < 10 && reactor.temperature > 300", "")[taken]
    assert len(row.inputs) == max(asked, 2 if taken else 1)
    way = "abc"[taken]
    assert active(core) == {("s1", 1), (way, 1)}
    confirm(core, way)
    assert active(core) == {("s2", 1)}
    assert set("abc") & set(core.batch().steps) == {way}
    assert f"took {'else' if taken < 0 else f'branch {taken + 1}'}" in text_of(core)


def test_a_branch_is_not_chosen_again_when_the_values_change_or_the_power_goes() -> None:
    core = line_of(COUNT, select(), LOOK)
    record(core, "s0", "5")
    core.readings[TAG] = good(0.0)
    rows = core.do(cm.StartRuntime(version="t"))
    core.do(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="badge and PIN"))
    assert not of([*rows, *confirm(core, "b")], ev.BranchTaken)
    assert active(core) == {("s2", 1)}


@pytest.mark.parametrize("quality", ["hold", "continue"])
def test_a_condition_that_cannot_be_asked_is_never_false(quality: str) -> None:
    core = line_of(COUNT, select(on_bad_quality=quality), LOOK)
    core.readings[TAG] = bad()
    rows = record(core, "s0", "5")
    assert of(rows, ev.ExceptionRaised)
    if quality == "hold":
        assert not of(rows, ev.BranchTaken)
        assert core.batch().state is State.HELD
        core.readings[TAG] = good(37.0)
        assert of(resume(core), ev.BranchTaken)[0].branch == 1
    else:
        (row,) = of(rows, ev.BranchTaken)
        assert (row.branch, row.formula) == (-1, "")
        assert "the cable is out" in row.why


def loop(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"phase": "loop", "times": 3, "steps": [{"title": "in the loop", **step} for step in steps], **more}


def test_a_loop_goes_round_until_its_condition_and_every_key_is_another() -> None:
    core = line_of(loop({**COUNT, "id": "a"}, {**LOOK, "id": "b"}, until="vcd > 9 || iteration >= 3"), LOOK)
    for number, entered in ((1, "2"), (2, "10")):
        assert active(core) == {("s0", 1), ("a", number)}
        rows = record(core, "a", entered, number)
        assert {row.iteration for row in rows} == {number}
        rows = confirm(core, "b", number)
    (ended,) = of(rows, ev.LoopEnded)
    assert (ended.passes, ended.formula) == (2, "vcd > 9 || iteration >= 3")
    assert ended.inputs[0] == {
        "name": "vcd", "value": 10.0, "unit": "1e6/mL", "quality": "good", "source": "step a, iteration 2",
    }  # fmt: skip
    assert active(core) == {("s1", 1)}
    text = text_of(core)
    assert "a  iteration 2  in the loop" in text
    assert "ended after pass 2: vcd > 9 || iteration >= 3, with vcd = 10.0 1e6/mL (step a, iteration 2)" in text
    assert core.refold() == core.line


def test_while_may_make_no_pass_at_all() -> None:
    core = line_of(COUNT, loop({**LOOK, "id": "a"}, **{"while": "vcd < 3 && iteration < 2"}), LOOK)
    rows = record(core, "s0", "5")
    assert of(rows, ev.LoopEnded)[0].passes == 0
    assert active(core) == {("s2", 1)}


def test_the_bound_ends_a_loop_and_says_so() -> None:
    core = line_of(
        loop({**COUNT, "id": "a"}, until="vcd > 9", times="$days", category="critical"), LOOK, parameters=DAYS
    )
    record(core, "a", "1")
    rows = record(core, "a", "2")
    assert [row.code for row in of(rows, ev.ExceptionRaised)] == ["loop.bound"]
    assert of(rows, ev.LoopEnded)[0].formula == ""
    assert core.batch().state is State.HELD
    resume(core)
    assert active(core) == {("s1", 1)}


DAYS = {"days": {"type": "integer", "value": 2}}


def test_a_number_of_passes_needs_no_condition() -> None:
    core = line_of(loop({**LOOK, "id": "a"}), LOOK)
    for _ in range(3):
        rows = confirm(core, "a")
    assert not of(rows, ev.ExceptionRaised)
    assert active(core) == {("s1", 1)}


def test_loops_in_loops_count_through_the_batch() -> None:
    inner = loop({**LOOK, "id": "a"}, times=2)
    core = line_of(loop({**inner, "id": "inner"}, times=2), LOOK)
    seen = []
    for _ in range(4):
        seen.append(next(one for one in active(core) if one[0] == "a")[1])
        confirm(core, "a")
    assert seen == [1, 2, 3, 4]
    assert active(core) == {("s1", 1)}
    assert core.refold() == core.line


def test_what_was_shown_in_an_earlier_pass_is_not_taken_in_this_one() -> None:
    core = line_of(loop({**LOOK, "id": "a"}), LOOK)
    confirm(core, "a", 1)
    with pytest.raises(LinesideError) as refused:
        confirm(core, "a", 1)
    assert refused.value.code == "step.not_active"
    late = {"batch": "B1", "step": "a", "iteration": 1}
    assert core.do(cm.PassTimer(timer="duration", low_s=1e9, high_s=1e9, **late)) == []
    assert core.do(cm.NoteReading(finding="met", reading=good(1.0), **late)) == []


def test_a_write_in_a_loop_is_made_once_in_each_pass() -> None:
    warm = {"id": "a", "phase": "set", "tag": "reactor.setpoint", "value": 37.0}
    core = line_of(loop(warm, {**LOOK, "id": "b"}, times=2), LOOK)
    keys = []
    for number in (1, 2):
        (write,) = effects(core.line).writes
        keys.append((write.step, write.iteration, write.attempt))
        done = cm.ConcludeWrite(
            batch="B1", step="a", iteration=number, attempt=1, tag=write.tag, outcome="unknown", reading=1.0, why="lost"
        )
        core.do(replace(done, iteration=3 - number))  # of another pass: nothing
        assert effects(core.line).writes == (write,)
        core.do(done)
        (question,) = core.batch().questions
        assert question == ("a.1", "a.2.1")[number - 1]
        core.answer(question, "happened")
        confirm(core, "b")
    assert keys == [("a", 1, 1), ("a", 2, 1)]
    assert active(core) == {("s1", 1)}


def test_a_wait_ends_when_its_condition_is_true() -> None:
    core = line_of({"phase": "wait", "until": "reactor.temperature > 320", "timeout": "$long"}, LOOK, parameters=LONG)
    (condition,) = effects(core.line).conditions
    assert condition.tags == (TAG,)
    assert effects(core.line).timers[0].length_s == 7200.0
    ask = cm.AskCondition(batch="B1", step="s0", bad=True)
    assert core.do(ask) == []
    core.readings[TAG] = bad()
    assert core.do(replace(ask, bad=False)) == []
    assert core.do(ask)
    assert core.batch().state is State.HELD
    core.readings[TAG] = good(50.0)
    resume(core)
    rows = core.do(ask)
    assert of(rows, ev.ConditionMet)[0].inputs[0]["value"] == 50.0
    assert active(core) == {("s1", 1)}


LONG = {"long": {"type": "duration", "value": "2 h"}}


def cut(core: VirtualLine) -> list[ev.Event]:
    rows = core.do(cm.StartRuntime(version="t"))
    core.do(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR, Role.SUPERVISOR), method="badge and PIN"))
    return rows


def test_a_step_for_which_a_power_cut_matters_holds() -> None:
    core = line_of({"phase": "wait", "duration": "2 h", "on_restart": "hold"}, LOOK)
    rows = cut(core)
    assert [row.code for row in of(rows, ev.ExceptionRaised)] == ["step.restart"]
    assert (core.batch().state, core.batch().cause) == (State.HELD, "power")
    resume(core)
    assert active(core) == {("s0", 1)}
    core.do(cm.StopRuntime())
    assert not of(cut(core), ev.ExceptionRaised)  # a clean stop is no power cut


@pytest.mark.parametrize(("answer", "left_s"), [("happened", 3600.0), ("again", 7200.0)])
def test_or_a_person_signs_how_it_goes_on(answer: Any, left_s: float) -> None:
    core = line_of({"phase": "wait", "duration": "2 h", "on_restart": "ask"}, LOOK)
    core.now_s += 3600
    (asked,) = of(cut(core), ev.QuestionRaised)
    assert core.batch().state is State.HELD
    core.answer(asked.question, answer)
    (timer,) = effects(core.line).timers
    run = core.batch().steps["s0"]
    assert run.attempt == (2 if answer == "again" else 1)
    passed = core.now_s - timer.since.boottime_s
    assert timer.length_s - passed == pytest.approx(left_s)
    assert f"answered {answer!r} by ana" in text_of(core)
    assert core.refold() == core.line


def test_parameters_stand_in_texts() -> None:
    core = line_of({**LOOK, "title": "Add $medium"}, LOOK, parameters={"medium": {"type": "text", "value": "DMEM"}})
    assert core.batch().steps["s0"].title == "Add DMEM"


def text_of(core: VirtualLine) -> str:
    record = batch_record(list(enumerate(map(decode, core.rows), 1)), "B1")
    assert record is not None
    return as_text(record)
