"""Steps that ask people for one thing after another, results that come later, ramps: from recipe to record."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.forms import open_ask
from edge.core.limits import Watcher
from edge.core.line import Watch, effects
from edge.core.plant import Plant
from edge.core.review import as_text, batch_record
from edge.core.terms import Act, Quality, Reading, Role, State
from tests.core.parts import PLANT, VirtualLine, kinds, recipe

SCALE = Plant.model_validate(
    {
        "plant": "TEST",
        "connections": {"plc": {"driver": "sim"}},
        "units": {
            **PLANT.model_dump(mode="json", by_alias=True)["units"],
            "SC-1": {"class": "scale", "tags": {"weight": {"connection": "plc", "address": "w", "unit": "g"}}},
        },
    }
)
TOLERANCE = {"below": 1, "above": 1, "unit": "%", "category": "critical", "why": "The formula says so."}
WEIGH = {"phase": "weigh", "text": "Add salt.", "name": "salt", "target": 2.0, "unit": "kg", "tolerance": TOLERANCE}
BALANCE = {**WEIGH, "balance": "scale.weight", "steady": 0.002, "steady_for": "3 s"}


def line_of(*steps: dict[str, Any], **more: Any) -> VirtualLine:
    numbered = [{"id": f"{place}0", "title": f"Step {place}", **step} for place, step in enumerate(steps, 1)]
    units = {"reactor": {"class": "bioreactor"}, "scale": {"class": "scale"}}
    return VirtualLine(recipe=recipe(numbered, units=units, **more))


@pytest.fixture(autouse=True)
def _with_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.core.parts.PLANT", SCALE)


def refused(line: VirtualLine, command: cm.Command) -> str:
    with pytest.raises(LinesideError) as error:
        line.do(command)
    return error.value.code


def sign(line: VirtualLine, step: str, person: str, role: Role) -> list[ev.Event]:
    return line.do(cm.SignStep(session="S", batch="B1", step=step, signed=line.signed(person, role)))


def ask(line: VirtualLine, step: str) -> Any:
    batch = line.batch()
    return open_ask(line.recipe, batch, line.recipe.steps()[step], batch.steps[step])


def record(line: VirtualLine) -> str:
    built = batch_record(((seq, decode(data)) for seq, data in enumerate(line.rows, 1)), "B1")
    assert built is not None
    assert line.refold() == line.line
    return as_text(built)


# Weighing ------------------------------------------------------------------------------------------------------------


def steady(line: VirtualLine, grams: float, finding: Any = "steady", quality: Quality = Quality.GOOD) -> list[ev.Event]:
    reading = Reading(grams, "g", quality, "", line.now_s)
    return line.do(cm.NoteReading(batch="B1", step="10", finding=finding, reading=reading))


def test_a_balance_gives_tare_and_gross_and_the_net_weight_is_judged() -> None:
    line = line_of(BALANCE)
    line.start()
    assert effects(line.line).watches == (), "nothing is on the balance yet"
    assert steady(line, 500.0) == [], "nobody said that the container stands there"
    assert kinds(line.confirm("10", part="empty")) == ["StepConfirmed"]
    (watch,) = effects(line.line).watches
    assert (watch.tag, watch.kind, watch.high, watch.delay_s) == ("SC-1.weight", "steady", 2.0, 3.0)
    steady(line, 500.0)
    assert refused(line, cm.ConfirmStep(session="S", batch="B1", step="10", part="empty")) == "step.moved_on"
    line.confirm("10", part="filled")
    made = steady(line, 2505.0)
    assert kinds(made) == ["ValueRecorded", "Weighed", "ValueRecorded", "StepCompleted", "BatchStateChanged"]
    weighed, net = made[1], made[2]
    assert isinstance(weighed, ev.Weighed)
    assert isinstance(net, ev.ValueRecorded)
    assert (weighed.tare, weighed.gross, weighed.net, weighed.source) == (0.5, 2.505, 2.005, "SC-1.weight")
    assert (net.name, net.value, net.low, net.high, net.within) == ("salt", 2.005, 1.98, 2.02, True)
    assert line.batch().state is State.COMPLETE
    assert "salt = 2.005 kg  limit 1.98 to 2.02" in record(line)
    assert "tare 0.5" in record(line)


def test_a_weight_outside_its_tolerance_raises_and_holds_as_its_category_says() -> None:
    line = line_of(BALANCE, {"phase": "instruct", "text": "Go on."})
    line.start()
    line.confirm("10")
    steady(line, 500.0)
    line.confirm("10")
    steady(line, 2600.0)
    assert [(x.code, x.category) for x in line.batch().exceptions] == [("limit.outside", "critical")]
    assert line.batch().state is State.HELD


def test_without_a_balance_a_second_person_signs_what_was_typed() -> None:
    line = line_of(WEIGH)
    line.start()
    line.enter("10", "0.5")
    assert refused(line, cm.EnterValue(session="S", batch="B1", step="10", text="0.4")) == "entry.weight"
    line.enter("10", "2.5")
    own = cm.SignStep(session="S", batch="B1", step="10", signed=line.signed("ana", Role.VERIFIER))
    assert refused(line, own) == "signature.own_entry"
    made = sign(line, "10", "ben", Role.VERIFIER)
    assert kinds(made)[:4] == ["SignatureMade", "Weighed", "ValueRecorded", "StepCompleted"]
    assert line.batch().exceptions == ()


@pytest.mark.parametrize("on_bad_quality", ["hold", "continue"])
def test_a_balance_that_cannot_be_read_holds_or_gives_way_to_two_people(on_bad_quality: str) -> None:
    line = line_of({**BALANCE, "on_bad_quality": on_bad_quality})
    line.start()
    line.confirm("10")
    steady(line, 0.0, "bad_quality", Quality.BAD)
    if on_bad_quality == "hold":
        assert line.batch().state is State.HELD
        line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.RESUME, reason=""))
        assert len(effects(line.line).watches) == 1
        return
    assert effects(line.line).watches == ()
    assert ask(line, "10").part == "salt.tare"
    for text in ("0.5", "2.5"):
        line.enter("10", text)
    sign(line, "10", "ben", Role.VERIFIER)
    assert line.batch().state is State.COMPLETE
    assert "typed, not read" in record(line)


def test_a_weight_is_steady_only_when_all_of_it_stayed_within_the_band() -> None:
    watch = Watch("B1", "10", "SC-1.weight", "steady", None, 2.0, 3.0, outside=False, hold_on_bad=True)
    watcher = Watcher(watch, 0.0)

    def look(at_s: float, grams: float, quality: Quality = Quality.GOOD) -> str | None:
        return watcher.look(Reading(grams, "g", quality, "", at_s), at_s)

    assert look(0.0, 100.0) is None
    assert look(2.0, 101.0) is None
    assert look(2.5, 103.0) is None, "three grams within a band of two"
    assert look(5.4, 103.5) is None, "less than three seconds since it moved"
    assert look(5.5, 103.5) == "steady"
    creeping = Watcher(watch, 0.0)
    found = [creeping.look(Reading(100.0 + at, "g", Quality.GOOD, "", at), float(at)) for at in range(10)]
    assert found == [None] * 10, "it creeps: never two readings far apart, but it never stands still"
    look(6.0, 103.5, Quality.BAD)
    assert look(6.1, 103.5) is None, "what was before a lost reading does not count"


def test_a_weight_that_moves_is_waited_for_and_one_that_cannot_be_read_is_not() -> None:
    watch = Watch("B1", "10", "SC-1.weight", "steady", None, 2.0, 3.0, outside=False, hold_on_bad=True)
    watcher = Watcher(watch, 0.0)

    def look(at_s: float, quality: Quality) -> str | None:
        return watcher.look(Reading(100.0, "g", quality, "", at_s), at_s)

    assert look(1.0, Quality.GOOD) is None
    assert [look(at_s, Quality.UNCERTAIN) for at_s in (2.0, 30.0, 119.0)] == [None, None, None]
    assert look(121.9, Quality.BAD) is None
    assert look(122.1, Quality.BAD) == "bad_quality", "three seconds without any weight"
    assert look(123.0, Quality.GOOD) is None, "what moved before does not count as rest"
    assert look(126.0, Quality.GOOD) == "steady"
    assert look(130.0, Quality.UNCERTAIN) is None
    assert look(249.9, Quality.UNCERTAIN) is None
    assert look(253.0, Quality.UNCERTAIN) == "bad_quality", "it never comes to rest"
    until = Watcher(Watch("B1", "10", "BR-1.ph", "until", 1.0, 2.0, 3.0, outside=False, hold_on_bad=True), 0.0)
    assert until.look(Reading(5.0, "pH", Quality.UNCERTAIN, "", 3.0), 3.0) == "bad_quality"


# Results -------------------------------------------------------------------------------------------------------------

ENDOTOXIN = {
    "phase": "record", "text": "Enter it.", "name": "endotoxin", "type": "at_most", "unit": "EU/mL",
    "limit": {"high": 0.5, "category": "critical"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "kept", "within"),
    [
        ("0.4", 0.4, True),
        ("< 0.5", "< 0.5", True),
        ("<0.5", "< 0.5", True),
        ("≤ 0.5", "<= 0.5", True),
        ("< 1", "< 1", False),
        ("> 0.1", "> 0.1", False),
        ("0.6", 0.6, False),
    ],
)
def test_a_result_below_a_bound_is_kept_as_typed_and_judged(typed: str, kept: Any, within: bool) -> None:
    line = line_of(ENDOTOXIN)
    line.start()
    recorded = line.enter("10", typed)[0]
    assert isinstance(recorded, ev.ValueRecorded)
    assert (recorded.value, recorded.within, recorded.high) == (kept, within, 0.5)
    assert bool(line.batch().exceptions) is not within


def test_a_pending_result_is_open_and_is_added_signed_when_the_batch_is_complete() -> None:
    line = line_of({**ENDOTOXIN, "pending": True})
    line.start()
    assert kinds(line.enter("10", "pending")) == ["ResultPending", "StepCompleted", "BatchStateChanged"]
    assert line.batch().state is State.COMPLETE
    assert "Result open: step 10" in record(line)
    wrong = line.signed("eve", Role.AUDITOR)
    add = {"session": "S", "batch": "B1", "result": "10.endotoxin"}
    assert refused(line, cm.AddResult(text="0.4", signed=wrong, **add)) == "people.not_permitted"
    right = line.signed("qua", Role.QUALITY)
    assert refused(line, cm.AddResult(text="pending", signed=right, **add)) == "entry.number"
    made = line.do(cm.AddResult(text="0.9", signed=right, **add))
    assert kinds(made) == ["SignatureMade", "ResultAdded", "ExceptionRaised"]
    assert line.batch().open_results == {}
    assert line.batch().state is State.COMPLETE
    assert refused(line, cm.AddResult(text="0.4", signed=right, **add)) == "result.closed"
    assert "endotoxin = 0.9" in record(line)
    assert "OUT OF LIMIT" in record(line)


def test_negative_to_date_stays_open_and_positive_is_an_exception() -> None:
    sterility = {"phase": "record", "text": "Enter it.", "name": "sterility", "type": "negative_to_date"}
    line = line_of(sterility)
    line.start()
    made = line.enter("10", "negative to date")
    assert kinds(made)[:2] == ["ValueRecorded", "ResultPending"]
    add = {"session": "S", "batch": "B1", "result": "10.sterility", "signed": line.signed("qua", Role.QUALITY)}
    assert refused(line, cm.AddResult(text="negative to date", **add)) == "entry.choice"
    assert kinds(line.do(cm.AddResult(text="positive", **add)))[1:] == ["ResultAdded", "ExceptionRaised"]


def test_a_batch_with_an_open_result_stays_in_the_head() -> None:
    line = line_of({**ENDOTOXIN, "pending": True})
    for number in range(30):
        line.start(f"B{number}")
        text = "pending" if number == 0 else "0.1"
        line.do(cm.EnterValue(session="S", batch=f"B{number}", step="10", text=text))
    assert "B0" in line.line.batches
    assert len(line.line.batches) == 21


def test_a_disposition_waits_for_the_open_result_and_a_signature() -> None:
    line = line_of({**ENDOTOXIN, "pending": True}, {"phase": "dispose", "text": "Judge it.", "of": "endotoxin"})
    line.do(cm.OpenSession(session="Q", person="qua", roles=(Role.QUALITY,), method="badge and PIN"))
    line.start()
    line.enter("10", "pending")
    assert refused(line, cm.EnterValue(session="S", batch="B1", step="20", text="0.1")) == "people.role"
    assert kinds(line.do(cm.EnterValue(session="Q", batch="B1", step="20", text="0.1"))) == ["ResultAdded"]
    sign(line, "20", "qua", Role.QUALITY)
    assert line.batch().state is State.COMPLETE


# Samples, labels, transfers, custody, clearance --------------------------------------------------------------------


def test_a_sample_is_taken_by_its_plan_and_its_later_results_are_open() -> None:
    tests = [{"name": "density", "unit": "1e6/mL", "limit": {"low": 1}}, {"name": "sterility", "later": True,
             "type": "negative_to_date"}]  # fmt: skip
    sample = {"phase": "sample", "text": "Take it.", "name": "sample", "quantity": 5.0, "unit": "mL",
              "container": "a 10 mL tube", "prefix": "S-", "tests": tests}  # fmt: skip
    line = line_of(sample)
    line.start()
    assert kinds(line.scan("10", "X-1")) == ["ScanRefused", "ExceptionRaised"]
    line.scan("10", "S-1")
    made = line.enter("10", "4")
    assert [x.category for x in line.batch().exceptions] == ["minor", "minor"], made
    made = line.enter("10", "2")
    assert kinds(made) == ["ValueRecorded", "ResultPending", "StepCompleted", "BatchStateChanged"]
    assert list(line.batch().open_results) == ["10.sterility"]


def test_labels_are_reconciled_to_the_last_one() -> None:
    label = {"phase": "label", "text": "Label.", "name": "labels", "content": {"Batch": "batch", "For": "$who"},
             "copies": 3, "reconcile": True}  # fmt: skip
    line = line_of(label, parameters={"who": {"type": "text", "value": "the clinic"}})
    line.start()
    assert refused(line, cm.EnterValue(session="S", batch="B1", step="10", text="2.5")) == "entry.count"
    made = line.enter("10", "3")
    assert isinstance(made[1], ev.LabelsPrinted)
    assert made[1].content == {"Batch": "B1", "For": "the clinic"}
    line.enter("10", "1")
    line.enter("10", "1")
    assert [x.code for x in line.batch().exceptions] == ["limit.outside"]
    assert "Batch: B1" in record(line)


def test_a_transfer_goes_from_one_place_to_another() -> None:
    transfer = {"phase": "transfer", "text": "Move it.", "name": "moved", "from": {"prefix": "BAG-"},
                "to": {"unit": "reactor"}, "unit": "mL", "limit": {"low": 90, "high": 110}}  # fmt: skip
    line = line_of(transfer)
    line.start()
    line.scan("10", "BAG-7")
    assert kinds(line.scan("10", "BR-2")) == ["ScanRefused", "ExceptionRaised"]
    line.scan("10", "BR-1")
    made = line.enter("10", "100")
    assert isinstance(made[1], ev.Transferred)
    assert (made[1].source, made[1].target, made[1].quantity) == ("BAG-7", "BR-1", 100.0)
    assert "from BAG-7 to BR-1" in record(line)


def test_what_comes_from_a_container_cannot_go_into_the_same() -> None:
    transfer = {"phase": "transfer", "text": "Move it.", "name": "moved", "from": {"prefix": "BAG-"},
                "to": {"prefix": "BAG-"}, "unit": "mL"}  # fmt: skip
    line = line_of(transfer)
    line.start()
    line.scan("10", "BAG-7")
    assert kinds(line.scan("10", "BAG-7")) == ["ScanRefused", "ExceptionRaised"]


def test_custody_passes_between_two_people_who_both_sign() -> None:
    line = line_of({"phase": "custody", "text": "The bag.", "what": "apheresis bag"})
    line.start()
    sign(line, "10", "ana", Role.OPERATOR)
    again = cm.SignStep(session="S", batch="B1", step="10", signed=line.signed("ana", Role.VERIFIER))
    assert refused(line, again) == "signature.same_person"
    made = sign(line, "10", "ben", Role.VERIFIER)
    assert kinds(made)[:3] == ["SignatureMade", "CustodyPassed", "StepCompleted"]
    assert "apheresis bag: from ana to ben" in record(line)


def test_a_clearance_is_confirmed_check_by_check_and_signed_by_two() -> None:
    line = line_of({"phase": "clearance", "text": "Clear.", "checks": ["No labels.", "No bags."]})
    line.start()
    line.confirm("10", part="check 1")
    assert refused(line, cm.ConfirmStep(session="S", batch="B1", step="10", part="check 1")) == "step.moved_on"
    early = cm.SignStep(session="S", batch="B1", step="10", signed=line.signed("ana", Role.OPERATOR))
    assert refused(line, early) == "step.other_entry"
    line.confirm("10", part="check 2")
    sign(line, "10", "ana", Role.OPERATOR)
    sign(line, "10", "ben", Role.VERIFIER)
    assert line.batch().state is State.COMPLETE


# Ramps and waiting for people ----------------------------------------------------------------------------------------

RAMP = {"phase": "ramp", "tag": "reactor.setpoint", "value": 33.0, "unit": "degC", "rate": 2.0, "per": "h",
        "every": "30 min"}  # fmt: skip


def ramp_line(reads: float | None = 35.5) -> VirtualLine:
    line = line_of(RAMP)
    if reads is not None:
        line.readings["BR-1.temperature"] = Reading(reads, "degC", Quality.GOOD, "", 0.0)
    line.start()
    return line


def half_an_hour(line: VirtualLine) -> list[ev.Event]:
    line.now_s += 1800
    return line.do(cm.PassTimer(batch="B1", step="10", timer="duration", low_s=1800, high_s=1800))


def test_a_ramp_writes_step_by_step_to_its_end() -> None:
    line = ramp_line()
    written = []
    for attempt in (1, 2, 3):
        assert effects(line.line).writes == ()
        intended = half_an_hour(line)
        assert kinds(intended) == ["TimerDue", "CommandIntended"]
        assert isinstance(intended[1], ev.CommandIntended)
        written.append(intended[1].value)
        made = line.conclude("10", "confirmed", attempt)
    assert written == [34.5, 33.5, 33.0]
    assert kinds(made) == ["CommandConfirmed", "StepCompleted", "BatchStateChanged"]
    assert line.refold() == line.line


def test_a_crash_in_the_middle_of_a_ramp_asks_and_the_answer_goes_on_from_there() -> None:
    line = ramp_line()
    half_an_hour(line)
    line.conclude("10", "confirmed")
    half_an_hour(line)
    made = line.crash()
    assert "QuestionRaised" in kinds(made)
    assert effects(line.line).writes == ()
    made = line.answer("10.2", "happened")
    assert "RampStepped" in kinds(made)
    assert half_an_hour(line)[1].value == 33.0  # type: ignore[attr-defined]


def test_a_ramp_does_not_begin_from_where_it_cannot_read() -> None:
    line = ramp_line(None)
    assert kinds(half_an_hour(line))[0] == "ExceptionRaised"
    assert line.batch().state is State.HELD
    line.readings["BR-1.temperature"] = Reading(34.0, "degC", Quality.GOOD, "", 0.0)
    line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.RESUME, reason=""))
    assert half_an_hour(line)[1].value == 33.0  # type: ignore[attr-defined]


def test_a_step_that_waits_too_long_for_people_says_so_and_goes_on() -> None:
    line = line_of({"phase": "instruct", "text": "Do it.", "warn_after": "30 min"})
    line.start()
    line.now_s += 1800
    made = line.do(cm.PassTimer(batch="B1", step="10", timer="timeout", low_s=1800, high_s=1800))
    assert kinds(made) == ["TimerDue", "ExceptionRaised"]
    assert (line.batch().state, line.batch().exceptions[0].category) == (State.RUNNING, "minor")
    line.confirm("10")
    assert line.batch().state is State.COMPLETE
