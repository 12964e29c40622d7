"""Steps that go on by hand, and manual mode: two people, blind and signed; the box never does the same beside them."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from typing import Any

import pytest

from edge.core import by_hand, mode
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.line import effects
from edge.core.mode import HAND, IN_STATES, MODES, HandAct, Mode
from edge.core.review import as_built, as_text
from edge.core.terms import Act, Quality, Reading, Role, State
from tests.core.parts import PLANT, VirtualLine, kinds, recipe

SET: dict[str, Any] = {"id": "010", "phase": "set", "title": "Warm", "tag": "reactor.setpoint", "value": 37.0}
RAMP: dict[str, Any] = {
    "id": "010",
    "phase": "ramp",
    "title": "Heat",
    "tag": "reactor.setpoint",
    "value": 37.0,
    "rate": 5.0,
    "per": "h",
}
LIMIT = {"low": 36.0, "high": 38.0}
WAIT: dict[str, Any] = {
    "id": "010",
    "phase": "wait",
    "title": "Warm enough",
    "tag": "reactor.temperature",
    "limit": LIMIT,
    "timeout": "2 h",
}
KEEP: dict[str, Any] = {
    "id": "010",
    "phase": "hold",
    "title": "Keep warm",
    "tag": "reactor.temperature",
    "limit": LIMIT,
    "duration": "10 h",
    "by_hand_every": "30 min",
}
WEIGH: dict[str, Any] = {
    "id": "010",
    "phase": "weigh",
    "title": "Weigh glucose",
    "text": "Weigh it.",
    "name": "glucose",
    "target": 90.0,
    "unit": "g",
    "tolerance": {"below": 5, "above": 5},
    "balance": "reactor.weight",
    "steady": 0.5,
}
UNTIL: dict[str, Any] = {"id": "010", "phase": "wait", "title": "Warm", "until": "reactor.temperature > 36.0"}
SUM: dict[str, Any] = {
    "id": "010",
    "phase": "calculate",
    "title": "Twice",
    "formula": "2.0 * reactor.temperature",
    "name": "twice",
    "unit": "degC",
}
CHOOSE: dict[str, Any] = {
    "id": "010",
    "phase": "select",
    "title": "Warm or cold",
    "branches": [
        {
            "when": "reactor.temperature > 36.0",
            "steps": [{"id": "011", "phase": "instruct", "title": "Go", "text": "Go."}],
        }
    ],
    "else": [],
}
AFTER: dict[str, Any] = {"id": "090", "phase": "instruct", "title": "Then", "text": "Go on."}
TAG = "BR-1.temperature"


def made(*steps: dict[str, Any], **more: Any) -> VirtualLine:
    """A line whose batch has begun these steps, while nothing can be read."""
    readings = (
        {"reactor.temperature": "degC"}
        if any("reactor.temperature" in str(s.get("until", s.get("formula", s.get("branches", "")))) for s in steps)
        else {}
    )
    line = VirtualLine(recipe([*steps, AFTER], readings=readings, **more))
    line.start()
    return line


def switch(
    line: VirtualLine, act: HandAct, *, person: str = "ana", role: Role = Role.OPERATOR, reason: str = ""
) -> list[ev.Event]:
    signed = line.signed(person, role)
    return line.do(cm.SwitchMode(session="S", batch="B1", step="010", act=act, reason=reason, signed=signed))


def take(line: VirtualLine) -> list[ev.Event]:
    return switch(line, HandAct.TAKE)


def manual(line: VirtualLine) -> list[ev.Event]:
    return switch(line, HandAct.MANUAL, person="chi", role=Role.SUPERVISOR, reason="the valve sticks")


def entry(
    line: VirtualLine,
    text: str,
    *,
    person: str = "ana",
    role: Role = Role.OPERATOR,
    verifies: bool = False,
    **more: Any,
) -> list[ev.Event]:
    signed = line.signed(person, role)
    return line.do(
        cm.EnterByHand(
            session="S", batch="B1", step="010", part="", text=text, verifies=verifies, signed=signed, **more
        )
    )


def verify(
    line: VirtualLine, text: str, person: str = "ben", role: Role = Role.VERIFIER, **more: Any
) -> list[ev.Event]:
    return entry(line, text, person=person, role=role, verifies=True, **more)


def both(line: VirtualLine, text: str) -> list[ev.Event]:
    return [*entry(line, text), *verify(line, text)]


def code(line: VirtualLine, does: Any, *arguments: Any, **more: Any) -> str:
    before = (line.line, len(line.rows))
    with pytest.raises(LinesideError) as refused:
        does(line, *arguments, **more)
    assert (line.line, len(line.rows)) == before, "a refused command changed something"
    assert refused.value.what
    assert refused.value.todo
    return refused.value.code


def good(line: VirtualLine, value: float, tag: str = TAG, unit: str = "degC") -> None:
    line.readings[tag] = Reading(value, unit, Quality.GOOD, "2026-01-01T00:00:00Z", line.now_s)


def bad(line: VirtualLine, tag: str = TAG) -> None:
    line.readings[tag] = Reading(0.0, "degC", Quality.BAD, "2026-01-01T00:00:00Z", line.now_s, "No connection.")


def run(line: VirtualLine) -> Any:
    return line.batch().steps["010"]


# A value -------------------------------------------------------------------------------------------------------------


def test_a_wait_goes_on_with_a_value_that_two_people_entered() -> None:
    line = made(WAIT)
    bad(line)
    assert line.note("010", "bad_quality", 0.0, Quality.BAD)
    assert line.batch().state is State.HELD
    assert kinds(take(line)) == ["SignatureMade", "ModeChanged", "ExceptionRaised"]
    changed = next(e for e in said(line) if isinstance(e, ev.ModeChanged))
    assert (changed.cause, changed.tag, changed.connection, changed.quality) == ("equipment", TAG, "plc", "bad")
    assert "No connection" in changed.trouble
    assert effects(line.line).watches == ()
    assert code(line, entry, "36.9") == "hand.state"  # nothing moves while the batch is held
    line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.RESUME, reason="by hand"))
    assert line.batch().state is State.RUNNING
    assert effects(line.line).watches == ()
    assert kinds(entry(line, "36.9")) == ["SignatureMade", "HandEntered"]
    assert kinds(verify(line, "36.9")) == [
        "SignatureMade", "HandVerified", "ValueRecorded", "StepCompleted", "StepActivated",
    ]  # fmt: skip
    assert line.active() == ["090"]
    (record,) = as_built((n, ev.decode(data)) for n, data in enumerate(line.rows, 1)).values()
    (datum,) = record.steps[0].data
    assert (datum.value, datum.source, datum.unit) == (36.9, HAND, "degC")
    assert [x.code for x in record.exceptions] == ["reading.bad_quality", "step.by_hand"]
    assert "BY HAND, not measured: BR-1.temperature = 36.9 degC, entered by ana, verified by ben" in as_text(record)
    assert line.refold() == line.line


def said(line: VirtualLine) -> list[ev.Event]:
    """What the rows say, read back."""
    return [ev.decode(data).event for data in line.rows]


def test_two_entries_that_differ_are_refused_told_and_neither_is_taken() -> None:
    line = made(WAIT)
    take(line)
    entry(line, "36.9")
    refused = verify(line, "36.8", command_id="again")
    assert kinds(refused) == ["HandRefused", "ExceptionRaised"]
    assert "36.9" not in line.line.answered["again"]  # the second person does not learn the first one's entry
    assert "differ" in line.line.answered["again"]
    assert verify(line, "36.8", command_id="again") == []  # a repeated request gets its answer and does nothing
    assert run(line).hand.part == ""
    assert code(line, verify, "36.9") == "step.moved_on"  # the first entry is gone too: both read the device again
    both(line, "37.1")
    assert line.active() == ["090"]


def test_who_may_do_what_by_hand() -> None:
    line = made(WAIT)
    assert code(line, switch, HandAct.TAKE, person="ben", role=Role.VERIFIER) == "people.not_permitted"
    assert code(line, switch, HandAct.MANUAL, reason="x") == "people.not_permitted"
    assert code(line, switch, HandAct.MANUAL, person="chi", role=Role.SUPERVISOR) == "hand.reason"
    take(line)
    assert code(line, entry, "36.9", person="ben", role=Role.VERIFIER) == "people.not_permitted"
    assert code(line, verify, "36.9") == "step.moved_on"  # there is nothing to verify yet
    entry(line, "36.9", person="ben", role=Role.SUPERVISOR)
    assert code(line, entry, "36.9") == "step.moved_on"  # it waits for the second person
    assert code(line, verify, "36.9", person="ben") == "signature.same_person"
    assert code(line, verify, "36.9", person="ana", role=Role.OPERATOR) == "people.not_permitted"
    assert code(line, verify, "tepid", person="chi", role=Role.SUPERVISOR) == "entry.number"
    verify(line, "36.9", person="chi", role=Role.QUALITY)
    assert line.active() == ["090"]


@pytest.mark.parametrize("text", ["-3", "61", "nan", "1e999", "", "\x00", "36,9", "٣٧"])
def test_what_is_no_plausible_value_is_not_taken(text: str) -> None:
    line = made(WAIT)
    take(line)
    assert code(line, entry, text).startswith(("entry.", "hand.implausible"))


def test_what_can_be_used_is_not_entered_by_hand_and_the_recipe_or_the_plant_can_forbid_it() -> None:
    line = made(WAIT)
    good(line, 35.0)
    assert code(line, take) == "hand.usable"
    assert code(made(WAIT | {"by_hand": "never"}), take) == "hand.never"
    assert code(made(WAIT | {"by_hand": "never"}), manual) == "hand.never"
    assert code(made(WAIT, by_hand="never"), take) == "hand.never"
    line = made(WAIT)
    unit = PLANT.units["BR-1"].model_copy(update={"by_hand": False})
    plant = PLANT.model_copy(update={"units": {**PLANT.units, "BR-1": unit}})
    line.line = replace(line.line, book=replace(line.line.book, plant=plant))
    assert code(line, take) == "hand.never"


def test_a_value_outside_the_limit_leaves_the_wait_waiting_and_it_is_asked_again() -> None:
    line = made(WAIT)
    take(line)
    assert kinds(both(line, "35.0")) == ["SignatureMade", "HandEntered", "SignatureMade", "HandVerified"]
    assert line.active() == ["010"]
    both(line, "36.5")
    assert line.active() == ["090"]


def test_when_the_equipment_is_back_nothing_of_it_is_mixed_in_before_somebody_signs_so() -> None:
    line = made(WAIT)
    take(line)
    entry(line, "36.9")
    good(line, 37.0)
    assert line.note("010", "met", 37.0) == []
    assert line.active() == ["010"]
    assert code(line, switch, HandAct.RETURN) == "hand.reason"
    back = switch(line, HandAct.RETURN, reason="the cable is in again")
    assert kinds(back) == ["SignatureMade", "ModeChanged"]
    assert run(line).hand is None
    assert [watch.tag for watch in effects(line.line).watches] == [TAG]
    line.note("010", "met", 37.0)
    assert line.active() == ["090"]
    assert line.refold() == line.line


def test_a_watched_value_is_asked_for_at_the_recipes_interval_and_judged() -> None:
    line = made(KEEP)
    take(line)
    (due,) = [t for t in effects(line.line).timers if t.timer.startswith("by hand")]
    assert (due.timer, due.length_s) == (mode.LATE, 1800.0)  # it is due at once
    both(line, "37.0")
    assert {t.timer: t.length_s for t in effects(line.line).timers} == {
        "duration": 36000.0,
        mode.DUE: 1800.0,
        mode.LATE: 3600.0,
    }
    assert code(line, entry, "37.0") == "step.moved_on"  # nothing is due
    line.now_s += 1700
    assert timer(line, mode.DUE, 1700) == []  # never early
    line.now_s += 100
    assert kinds(timer(line, mode.DUE, 1800)) == ["TimerDue"]
    assert timer(line, mode.DUE, 1800) == []
    line.now_s += 1800
    assert kinds(timer(line, mode.LATE, 3600)) == ["TimerDue", "ExceptionRaised"]
    assert kinds(both(line, "38.5"))[-2:] == ["ValueRecorded", "ExceptionRaised"]
    assert line.batch().exceptions[-1].code == "limit.outside"
    line.now_s += 1800
    timer(line, mode.DUE, 1800)
    assert kinds(both(line, "37.5"))[-2:] == ["ValueRecorded", "LimitRestored"]
    line.crash(boot="boot-2")
    assert line.batch().cause == "dark"
    for person, role in (("ana", Role.OPERATOR), ("ben", Role.VERIFIER)):
        signed = line.signed(person, role)
        line.do(cm.EnterDark(session="S", batch="B1", minutes=5, verifies=person == "ben", signed=signed))
    assert {t.timer for t in effects(line.line).timers} == {"duration", mode.DUE, mode.LATE}
    assert line.refold() == line.line


def timer(line: VirtualLine, name: str, low_s: float) -> list[ev.Event]:
    return line.do(cm.PassTimer(batch="B1", step="010", timer=name, low_s=low_s, high_s=low_s))


def test_a_weighing_by_hand_is_entered_twice_and_says_so() -> None:
    line = made(WEIGH)
    line.confirm("010", part="empty")
    bad(line, "BR-1.weight")
    line.note("010", "bad_quality", 0.0, Quality.BAD)
    take(line)
    line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.RESUME, reason="by hand"))
    assert code(line, lambda one: one.confirm("010")) == "step.by_hand"
    assert code(line, lambda one: one.enter("010", "10")) == "step.by_hand"
    both(line, "10.5")
    assert code(line, entry, "9.5") == "entry.weight"
    rows = both(line, "101")
    weighed = next(e for e in rows if isinstance(e, ev.Weighed))
    recorded = [e for e in rows if isinstance(e, ev.ValueRecorded)]
    assert (weighed.net, weighed.source) == (90.5, HAND)
    assert [(e.name, e.source, e.quality) for e in recorded] == [("glucose.gross", HAND, HAND), ("glucose", HAND, HAND)]
    assert line.batch().values["glucose"].value == 90.5
    assert line.active() == ["090"]


def test_what_a_formula_reads_can_be_entered_by_hand_and_the_record_says_which_value_was() -> None:
    for step, kind in ((UNTIL, ev.ConditionMet), (SUM, ev.ValueRecorded), (CHOOSE, ev.BranchTaken)):
        line = made(step)
        if step is UNTIL:
            line.do(cm.AskCondition(batch="B1", step="010", bad=True))
        assert line.batch().state is State.HELD
        take(line)
        resumed = line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.RESUME, reason="by hand"))
        assert line.batch().state is State.RUNNING, kinds(resumed)
        rows = both(line, "36.9")
        (decided,) = [e for e in rows if isinstance(e, kind)]
        assert [(one["source"], one["quality"]) for one in decided.inputs] == [(f"{TAG} by hand", HAND)]
        assert "010" not in line.active() or step is CHOOSE
        assert line.refold() == line.line


# A write -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["refused", "unknown"])
def test_a_write_by_hand_takes_the_place_of_the_question_and_is_never_sent(outcome: str) -> None:
    line = made(SET)
    assert code(line, take) == "hand.write_open"  # its outcome is awaited: it may still be sent
    line.conclude("010", outcome)
    assert line.batch().state is State.HELD
    rows = take(line)
    assert kinds(rows) == [
        "SignatureMade", "ModeChanged", "QuestionAnswered", "ExceptionRaised", "BatchStateChanged", "BatchStateChanged",
    ]  # fmt: skip
    assert line.batch().state is State.RUNNING
    assert effects(line.line).writes == ()
    assert code(line, entry, "36.0") == "hand.not_as_wanted"
    entry(line, "37.0")
    assert code(line, switch, HandAct.RETURN, reason="x") == "hand.claimed"  # the box would do it once more
    verify(line, "37")
    assert line.active() == ["090"]
    assert effects(line.line).writes == ()


def test_a_write_that_nobody_has_done_yet_can_go_back_to_the_box_under_a_number_of_its_own() -> None:
    line = made(SET)
    line.conclude("010", "refused")
    take(line)
    switch(line, HandAct.RETURN, reason="the cable is in again")
    (write,) = effects(line.line).writes
    assert (write.attempt, write.value) == (2, 37.0)
    line.conclude("010", "confirmed", attempt=2)
    assert line.active() == ["090"]


@pytest.mark.parametrize("state", [State.HELD, State.PAUSED])
@pytest.mark.parametrize("step", [SET, RAMP], ids=["set", "ramp"])
def test_nothing_is_written_for_a_step_that_goes_back_to_the_box_while_its_batch_stands_still(
    step: dict[str, Any], state: State
) -> None:
    line = made(step)
    if step is SET:
        line.conclude("010", "refused")
    bad(line)
    take(line)
    line.line = replace(line.line, batches={"B1": replace(line.batch(), state=state)})
    assert code(line, switch, HandAct.RETURN, reason="mended") == "hand.state"
    assert effects(line.line).writes == ()
    line.line = replace(line.line, batches={"B1": replace(line.batch(), state=State.RUNNING)})
    switch(line, HandAct.RETURN, reason="mended")
    assert line.batch().steps["010"].hand is None


def test_a_ramp_by_hand_stops_stepping_and_back_again_goes_on_from_where_it_stands() -> None:
    line = made(RAMP)
    bad(line)
    take(line)
    assert effects(line.line).timers == ()
    assert timer(line, "duration", 3600.0) == []
    good(line, 36.9)
    switch(line, HandAct.RETURN, reason="back")
    line.now_s += 60
    timer(line, "duration", 60.0)
    (write,) = effects(line.line).writes
    assert write.value == pytest.approx(36.9 + 5 / 60)
    assert write.attempt == 2


def every_crash(line: VirtualLine) -> list[VirtualLine]:
    """The line as another runtime finds it after each of its rows."""
    found = []
    begun = next(n for n, e in enumerate(said(line), 1) if isinstance(e, ev.BatchStarted))
    for count in range(begun, len(line.rows) + 1):
        cut = VirtualLine(line.recipe)
        cut.rows = line.rows[:count]
        cut.line = replace(cut.refold(), book=line.line.book)
        cut.crash()
        found.append(cut)
    return found


def sent_after_a_claim() -> list[str]:
    """Writes that the box would send in any run after somebody said that they did them by hand."""
    line = made(SET)
    line.conclude("010", "unknown")
    take(line)
    entry(line, "37.0")
    verify(line, "37.0")
    found = []
    for one in every_crash(line):
        claimed = any(isinstance(e, ev.HandEntered) for e in said(one))
        for act in (HandAct.MANUAL, HandAct.RETURN, HandAct.TAKE, HandAct.RETURN):
            try:
                switch(one, act, person="chi", role=Role.SUPERVISOR, reason="x")
            except LinesideError:
                continue
            if claimed:
                found += [f"{act}: {w.tag}" for w in effects(one.line).writes]
        if claimed:
            found += [w.tag for w in effects(one.line).writes]
    return found


def test_what_was_done_by_hand_is_never_sent_wherever_the_power_goes() -> None:
    assert sent_after_a_claim() == []


def test_planted_a_return_that_forgets_what_was_done_by_hand_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = by_hand.refusal

    def forgetful(*arguments: Any) -> LinesideError | None:
        why = honest(*arguments)
        return None if why is not None and why.code == "hand.claimed" else why

    monkeypatch.setattr(by_hand, "refusal", forgetful)
    assert sent_after_a_claim() != []


def test_planted_by_hand_while_a_write_is_under_way_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that refusal the box and the person would do the same."""

    def sent_beside() -> bool:
        line = made(SET)
        try:
            take(line)
        except LinesideError:
            return False
        return bool(effects(line.line).writes) and run(line).hand is not None

    assert not sent_beside()
    honest = by_hand.refusal

    def careless(*arguments: Any) -> LinesideError | None:
        why = honest(*arguments)
        return None if why is not None and why.code == "hand.write_open" else why

    monkeypatch.setattr(by_hand, "refusal", careless)
    assert sent_beside()


# Manual mode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [WAIT, KEEP, RAMP])
def test_in_manual_mode_the_box_does_nothing_and_a_second_person_completes_the_step(step: dict[str, Any]) -> None:
    line = made(step)
    good(line, 35.0)
    assert kinds(manual(line)) == ["SignatureMade", "ModeChanged", "ExceptionRaised"]
    assert (line.batch().exceptions[-1].code, line.batch().exceptions[-1].category) == ("step.manual", "major")
    wanted = effects(line.line)
    assert (wanted.watches, wanted.writes, wanted.timers, wanted.conditions, wanted.alarms) == ((), (), (), (), ())
    for name in ("duration", "timeout"):
        assert timer(line, name, 1e9) == []
    assert line.note("010", "met", 37.0) == []
    assert code(line, entry, "") == "entry.empty"
    entry(line, "Warmed it with the blanket")
    assert code(line, verify, "yes", person="ana", role=Role.SUPERVISOR) == "signature.same_person"
    rows = verify(line, "")
    assert kinds(rows) == ["SignatureMade", "HandVerified", "StepCompleted", "StepActivated"]
    assert line.active() == ["090"]
    assert line.refold() == line.line


def test_a_step_in_manual_mode_can_go_back_to_automatic() -> None:
    line = made(WAIT)
    manual(line)
    assert code(line, take) == "hand.mode"
    switch(line, HandAct.RETURN, reason="mended")
    assert [watch.tag for watch in effects(line.line).watches] == [TAG]


def test_a_weighing_in_manual_mode_still_leaves_its_weights_in_the_record() -> None:
    line = made(WEIGH)
    manual(line)
    both(line, "10")
    both(line, "100")
    assert line.batch().values["glucose"].value == 90.0
    assert line.active() == ["010"]
    both(line, "Weighed in the other room")
    assert line.active() == ["090"]


def test_steps_in_which_the_box_does_nothing_are_not_done_by_hand() -> None:
    line = made(AFTER | {"id": "010"})
    assert code(line, take) == "hand.nothing"
    assert code(line, manual) == "hand.nothing"


# Every state, every mode, every command ------------------------------------------------------------------------------


def test_every_state_mode_and_act_is_as_the_tables_say() -> None:
    base = made(WAIT)
    bad(base)
    for state in State:
        for now in Mode:
            for act in HandAct:
                line = VirtualLine(base.recipe)
                line.readings = base.readings
                line.line = base.line
                if now is not Mode.AUTOMATIC:
                    take(line) if now is Mode.SEMI_AUTOMATIC else manual(line)
                if act is HandAct.VERIFY and now is not Mode.AUTOMATIC:
                    entry(line, "36.0")
                line.line = replace(line.line, batches={"B1": replace(line.batch(), state=state)})
                does: Any = {
                    HandAct.TAKE: lambda one: switch(one, HandAct.TAKE, reason="x"),
                    HandAct.MANUAL: manual,
                    HandAct.RETURN: lambda one: switch(one, HandAct.RETURN, reason="x"),
                    HandAct.ENTER: lambda one: entry(one, "36.0"),
                    HandAct.VERIFY: lambda one: verify(one, "36.0"),
                }[act]
                if state in IN_STATES[act] and (now, act) in MODES:
                    does(line)
                    after = line.batch().steps["010"]
                    mode_after = after.hand.mode if after.hand else Mode.AUTOMATIC
                    assert after.state == "done" or mode_after is MODES[now, act], (state, now, act)
                else:
                    wanted = "hand.state" if state not in IN_STATES[act] else "hand.mode"
                    assert code(line, does) == wanted, (state, now, act)


def test_every_mode_says_in_its_docstring_what_it_permits() -> None:
    tree = ast.parse(inspect.getsource(mode))
    modes = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Mode")
    told = {
        before.targets[0].id: after.value.value
        for before, after in zip(modes.body, modes.body[1:], strict=False)
        if isinstance(before, ast.Assign)
        and isinstance(before.targets[0], ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
    for one in Mode:
        text = " ".join(told[one.name].lower().split())
        for act in HandAct:
            assert (act.value in text) == ((one, act) in MODES), (one, act)


def test_every_state_says_whether_a_step_of_it_may_be_switched() -> None:
    import edge.core.terms as terms

    tree = ast.parse(inspect.getsource(terms))
    states = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "State")
    told = {
        before.targets[0].id: " ".join(after.value.value.split())
        for before, after in zip(states.body, states.body[1:], strict=False)
        if isinstance(before, ast.Assign)
        and isinstance(before.targets[0], ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }
    for state in State:
        assert ("switched" in told[state.name]) == (state in IN_STATES[HandAct.TAKE]), state
        assert ("entries by hand" in told[state.name].lower()) == (state in IN_STATES[HandAct.ENTER]), state
