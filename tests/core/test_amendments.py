"""A batch under way is amended: signed, with a reason, within bounds; what was done stays as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from edge.core import amending, checkpoint
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.line import Book, effects
from edge.core.recipe import read_recipe, seal
from edge.core.recipe.amend import Change, amended, offers
from edge.core.recipe.draw import as_terminal
from edge.core.review import AsBuilt, as_built, as_text
from edge.core.terms import Act, Role, State
from tests.core.parts import PLANT, STEPS, VirtualLine, recipe

WATCH = {"step": "052", "field": "limit.high", "low": 37.0, "high": 39.0, "why": "cells stand 39 degC"}
BOUNDS = [
    WATCH,
    {"step": "051", "field": "duration", "low": "1 h", "high": "4 h"},
    {"step": "030", "field": "value", "low": 30.0, "high": 50.0},
    {"step": "040", "field": "timeout", "low": "30 min", "high": "3 h"},
    {"step": "060", "field": "limit.low", "low": 70.0, "high": 90.0},
    {"parameter": "least", "low": 1.0, "high": 9.0},
]
AMENDMENTS: dict[str, Any] = {"bounds": BOUNDS, "skip": ["060", "052", "010"], "add": ["instruct", "record"]}
MORE: dict[str, Any] = {"parameters": {"least": {"value": 5.0, "unit": "%"}}}
HIGHER = Change("value", "052", "limit.high", new="38.5")
EXTRA = {"id": "055", "phase": "instruct", "title": "Look closer", "text": "Look."}


def line_at(step: str, **terms: Any) -> VirtualLine:
    made = VirtualLine(recipe(amendments=AMENDMENTS | terms, **MORE))
    made.start()
    made.to_step(step)
    return made


def request(line: VirtualLine, *changes: Change, reason: str = "the cells are warm", **other: Any) -> list[ev.Event]:
    facts = {"signed": line.signed("ana", Role.OPERATOR), "adopts": "", "from_step": "", "batch": "B1"} | other
    return line.do(cm.RequestAmendment(session="S", changes=changes, reason=reason, **facts))


def settle(
    line: VirtualLine, person: str = "quinn", role: Role = Role.QUALITY, *, agree: bool = True, reason: str = ""
) -> list[ev.Event]:
    asked = line.batch().requested
    facts = {"batch": "B1", "amendment": asked.amendment if asked else "A1", "signed": line.signed(person, role)}
    return line.do(cm.SettleAmendment(session="S", agree=agree, reason=reason, **facts))


def make(line: VirtualLine, *changes: Change, **other: Any) -> ev.AmendmentMade:
    request(line, *changes, **other)
    return next(event for event in settle(line) if isinstance(event, ev.AmendmentMade))


def record(line: VirtualLine) -> AsBuilt:
    return as_built((seq, decode(row)) for seq, row in enumerate(line.rows, 1))["B1"]


def watched(line: VirtualLine) -> float | None:
    (watch,) = [one for one in effects(line.line).watches if one.step == "052"]
    return watch.high


def test_nothing_changes_before_the_last_signature_and_then_the_running_monitor_has_its_new_limit() -> None:
    line = line_at("052")
    signature, asked = request(line, HIGHER)
    assert isinstance(signature, ev.SignatureMade)
    assert isinstance(asked, ev.AmendmentRequested)
    (change,) = asked.changes
    assert (change["old"], change["new"], change["low"], change["high"], change["why"]) == (
        "38", "38.5", "37", "39", "cells stand 39 degC",
    )  # fmt: skip
    assert asked.differences == ["step 052: upper temperature limit 38.0 → 38.5"]
    assert watched(line) == 38.0
    assert line.batch().amended == ""
    signature, made, raised = settle(line)
    assert isinstance(signature, ev.SignatureMade)
    assert isinstance(made, ev.AmendmentMade)
    assert isinstance(raised, ev.ExceptionRaised)
    assert (raised.code, raised.category) == ("recipe.amended", "major")
    assert watched(line) == 38.5
    assert made.remaining == ["050", "051", "052", "060", "070"]
    assert (made.was_seal, made.new_seal) == ("seal", line.batch().amended)
    assert seal(line.line.recipe(line.batch())) == made.new_seal
    assert line.refold() == line.line
    built = record(line)
    (one,) = built.amendments
    assert (one.state, one.requested_by, one.agreed, one.reason) == (
        "made", "ana", ["quinn as quality"], "the cells are warm",
    )  # fmt: skip
    text = as_text(built)
    for said in ("38.0 → 38.5", "bounds 37 to 39", "requested by ana", "quinn as quality", "the cells are warm"):
        assert said in text
    assert built.seal == "seal"


def test_the_timer_of_a_step_under_way_follows_its_new_duration() -> None:
    line = line_at("051")
    since = line.batch().steps["051"].since
    made = make(line, Change("value", "051", "duration", new="3 h"))
    assert made.lengths == {"051": [10_800.0, 0.0]}
    run = line.batch().steps["051"]
    assert (run.duration_s, run.since) == (10_800.0, since)
    line.two_hours()
    assert "051" in line.active(), "two hours are not enough any more"
    line.now_s += 3600
    line.do(cm.PassTimer(batch="B1", step="051", timer="duration", low_s=10_800.0, high_s=10_800.0))
    assert "060" in line.active()


def test_a_step_is_added_done_and_stands_in_the_record() -> None:
    line = line_at("051")
    make(line, Change("add", "055", "050", new=orjson.dumps(EXTRA).decode()))
    line.two_hours()
    assert line.active() == ["055"]
    line.confirm("055")
    assert line.active() == ["060"]
    assert [step.step for step in record(line).steps][-2:] == ["055", "060"]


def test_a_step_to_come_is_left_out_once() -> None:
    line = line_at("051")
    make(line, Change("skip", "060"))
    assert line.batch().skips == {"060": "A1"}
    line.two_hours()
    assert line.active() == ["070"]
    assert line.batch().skips == {}
    (built,) = [step for step in record(line).steps if step.step == "060"]
    assert (built.state, built.decided) == ("skipped", ["left out by amendment A1"])
    drawn = as_terminal(line.recipe, record(line))
    assert "skipped, ended 2026" in drawn


def test_a_step_under_way_is_left_out_where_nothing_is_written() -> None:
    line = line_at("060")
    events = [*request(line, Change("skip", "060")), *settle(line)]
    assert [type(event).__name__ for event in events[-2:]] == ["StepSkipped", "StepActivated"]
    assert line.active() == ["070"]
    assert [(step.step, step.state) for step in record(line).steps][-2:] == [("060", "skipped"), ("070", "active")]


def test_a_skip_in_a_loop_is_for_the_pass_under_way_alone() -> None:
    inside = [{"id": "110", "phase": "instruct", "title": "Feed", "text": "Feed."}, EXTRA | {"id": "120"}]
    loop = {"id": "100", "phase": "loop", "title": "Days", "times": 3, "steps": inside}
    line = VirtualLine(recipe([loop], amendments={"skip": ["120"]}))
    line.start()
    line.confirm("110")
    line.confirm("120")
    make(line, Change("skip", "120"))
    line.confirm("110")
    assert line.batch().steps["110"].iteration == 3
    assert line.refold() == line.line
    line.confirm("110")
    assert line.active() == ["100", "120"]
    line.confirm("120")
    assert line.batch().state is State.COMPLETE
    states = [(step.iteration, step.state) for step in record(line).steps if step.step == "120"]
    assert states == [(1, "done"), (2, "skipped"), (3, "done")]


def test_the_passes_of_a_loop_under_way_are_more_but_never_fewer_than_were_begun() -> None:
    inside = [{"id": "110", "phase": "instruct", "title": "Feed", "text": "Feed."}]
    loop = {"id": "100", "phase": "loop", "title": "Days", "times": 2, "steps": inside}
    bounds = [{"step": "100", "field": "times", "low": 1, "high": 5}]
    line = VirtualLine(recipe([loop], amendments={"bounds": bounds}))
    line.start()
    line.confirm("110")
    with pytest.raises(LinesideError, match=r"amendment\.begun"):
        request(line, Change("value", "100", "times", new="1"))
    make(line, Change("value", "100", "times", new="3"))
    line.confirm("110")
    line.confirm("110")
    assert line.batch().state is State.COMPLETE


@pytest.mark.parametrize(
    ("at", "changes", "code"),
    [
        ("052", [Change("value", "052", "limit.high", new="39.5")], "amendment.out_of_bounds"),
        ("052", [Change("value", "052", "limit.high", new="38")], "amendment.same"),
        ("052", [Change("value", "052", "limit.high", new="warm")], "amendment.value"),
        ("052", [Change("value", "052", "limit.low", new="35")], "amendment.not_offered"),
        ("052", [Change("value", "070", "limit.low", new="35")], "amendment.not_offered"),
        ("052", [Change("value", "051", "duration", new="soon")], "amendment.value"),
        ("052", [Change("value", "030", "value", new="36")], "amendment.done"),
        ("052", [Change("value", "040", "timeout", new="2 h")], "amendment.done"),
        ("030", [Change("value", "030", "value", new="36")], "amendment.begun"),
        ("010", [Change("value", "030", "value", new="48")], "guard.out_of_range"),
        ("052", [Change("skip", "010")], "amendment.done"),
        ("052", [Change("skip", "052")], "amendment.begun"),
        ("052", [Change("skip", "070")], "amendment.not_offered"),
        ("052", [Change("skip", "020")], "amendment.not_offered"),
        ("052", [Change("add", "055", "030", new=orjson.dumps(EXTRA).decode())], "amendment.done"),
        ("052", [Change("add", "060", "050", new=orjson.dumps(EXTRA | {"id": "060"}).decode())], "amendment.place"),
        ("052", [Change("add", "055", "999", new=orjson.dumps(EXTRA).decode())], "amendment.place"),
        ("052", [Change("add", "055", "050", new="{")], "amendment.step"),
        ("052", [Change("add", "055", "050", new='{"phase": "instruct"}')], "amendment.step"),
        ("052", [Change("add", "055", "050", new=orjson.dumps(EXTRA | {"next": "070"}).decode())], "amendment.step"),
        ("052", [Change("add", "055", "050", new=" " * 5000)], "amendment.step"),
        ("052", [Change("add", "055", "050", new=orjson.dumps(EXTRA | {"phase": "sign"}).decode())], "amendment.step"),
        ("052", [], "amendment.empty"),
        ("052", [HIGHER] * 11, "amendment.empty"),
        ("052", [HIGHER, Change("value", "052", "limit.high", new="38.7")], "amendment.twice"),
        ("052", [HIGHER, Change("value", "052", "limit.high", new="99")], "amendment.out_of_bounds"),
    ],
)
def test_what_is_refused(at: str, changes: list[Change], code: str) -> None:
    line = line_at(at)
    before = line.line
    with pytest.raises(LinesideError) as refusal:
        request(line, *changes)
    assert refusal.value.code == code
    assert refusal.value.todo
    assert line.line == before


def test_a_recipe_that_says_nothing_lets_nothing_be_amended() -> None:
    line = VirtualLine()
    line.start()
    line.to_step("052")
    for change in (HIGHER, Change("skip", "060"), Change("add", "055", "050", new=orjson.dumps(EXTRA).decode())):
        with pytest.raises(LinesideError, match=r"amendment\.not_offered"):
            request(line, change)


def test_who_asks_never_agrees_and_nobody_without_the_role_does() -> None:
    line = line_at("052")
    line.do(cm.OpenSession(session="Q", person="ben", roles=(Role.QUALITY,), method="badge and PIN"))
    with pytest.raises(LinesideError, match=r"people\.not_permitted"):
        request(line, HIGHER, signed=line.signed("ben", Role.VERIFIER))
    with pytest.raises(LinesideError, match=r"amendment\.reason"):
        request(line, HIGHER, reason=" ")
    request(line, HIGHER, signed=line.signed("quinn", Role.QUALITY))
    for person, role, code in (
        ("quinn", Role.QUALITY, "signature.same_person"),
        ("ben", Role.OPERATOR, "signature.role"),
        ("ben", Role.AUDITOR, "signature.role"),
    ):
        with pytest.raises(LinesideError) as refusal:
            settle(line, person, role)
        assert refusal.value.code == code
    with pytest.raises(LinesideError, match=r"amendment\.open"):
        request(line, HIGHER)
    assert watched(line) == 38.0
    settle(line, "sue", Role.SUPERVISOR)
    assert watched(line) == 38.5
    with pytest.raises(LinesideError, match=r"amendment\.closed"):
        settle(line)


def test_the_recipe_says_whose_signatures_it_takes() -> None:
    line = line_at("052", signed_by=["supervisor", "quality"], category="critical")
    request(line, HIGHER)
    agreed = settle(line, "sue", Role.SUPERVISOR)[-1]
    assert isinstance(agreed, ev.AmendmentAgreed)
    assert agreed.needs == ["quality"]
    assert watched(line) == 38.0
    with pytest.raises(LinesideError, match=r"signature\.same_person"):
        settle(line, "sue", Role.QUALITY)
    with pytest.raises(LinesideError, match=r"signature\.role"):
        settle(line, "tom", Role.SUPERVISOR)
    raised = settle(line)[-1]
    assert isinstance(raised, ev.ExceptionRaised)
    assert raised.category == "critical"
    assert record(line).amendments[0].agreed == ["sue as supervisor", "quinn as quality"]


def test_it_is_refused_with_a_reason_and_nothing_has_changed() -> None:
    line = line_at("052")
    request(line, HIGHER)
    with pytest.raises(LinesideError, match=r"amendment\.reason"):
        settle(line, agree=False)
    settle(line, agree=False, reason="not needed")
    assert (watched(line), line.batch().requested) == (38.0, None)
    assert "refused by quinn as quality: not needed" in as_text(record(line))
    request(line, HIGHER)
    settle(line, "ana", Role.OPERATOR, agree=False, reason="withdrawn")
    assert [one.amendment for one in record(line).amendments] == ["A1", "A2"]


def test_what_was_overtaken_is_not_made() -> None:
    line = line_at("060")
    request(line, Change("value", "060", "limit.low", new="75"))
    line.enter("060", "91")
    with pytest.raises(LinesideError) as refusal:
        settle(line)
    assert refusal.value.code == "amendment.overtaken"
    assert "is done" in refusal.value.what


def test_what_would_come_out_otherwise_than_it_was_shown_is_not_made() -> None:
    line = line_at("052")
    request(line, HIGHER)
    asked = line.batch().requested
    assert asked is not None
    other = replace(line.batch(), requested=replace(asked, new_seal="0" * 64))
    line.line = replace(line.line, batches={"B1": other})
    with pytest.raises(LinesideError, match=r"amendment\.overtaken"):
        settle(line)


def test_a_batch_that_is_held_is_amended_and_one_that_ended_is_not() -> None:
    line = line_at("052")
    line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.HOLD, reason="so"))
    make(line, HIGHER)
    assert line.batch().state is State.HELD
    request(line, Change("skip", "060"))
    line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.ABORT, reason="so"))
    assert line.batch().requested is None
    with pytest.raises(LinesideError, match=r"amendment\.state"):
        request(line, HIGHER)


def test_a_corrected_value_is_judged_by_the_limit_that_was_in_force() -> None:
    loop = {"id": "100", "phase": "loop", "title": "Days", "times": 2, "steps": [STEPS[5], EXTRA]}
    bounds = [{"step": "060", "field": "limit.low", "low": 50, "high": 90}]
    line = VirtualLine(recipe([loop], amendments={"bounds": bounds}))
    line.start()
    line.enter("060", "85")
    line.confirm("055")
    make(line, Change("value", "060", "limit.low", new="60"))
    known = line.batch().values["viability"]
    signed = line.signed("ben", Role.OPERATOR)
    facts = {"name": "viability", "was_seq": known.seq, "text": "70", "reason": "typing error"}
    events = line.do(cm.CorrectValue(session="S", batch="B1", signed=signed, **facts))
    (corrected,) = [event for event in events if isinstance(event, ev.ValueCorrected)]
    assert (corrected.low, corrected.within) == (80.0, False)


# Parameters -------------------------------------------------------------------------------------------------------


def with_parameter() -> VirtualLine:
    steps = [
        {"id": "010", "phase": "instruct", "title": "Clear", "text": "Clear."},
        {"id": "020", "phase": "set", "title": "Warm", "tag": "reactor.setpoint", "value": "$warm"},
        {"id": "030", "phase": "instruct", "title": "Look", "text": "At $warm."},
        {"id": "040", "phase": "set", "title": "Warm", "tag": "reactor.setpoint", "value": "$warm"},
    ]
    bounds = [{"parameter": "warm", "low": 30, "high": 50}]
    line = VirtualLine(
        recipe(steps, parameters={"warm": {"value": 37.0, "unit": "degC"}}, amendments={"bounds": bounds})
    )
    line.start()
    return line


def test_a_parameter_is_amended_while_nothing_that_uses_it_was_begun() -> None:
    line = with_parameter()
    make(line, Change("value", "$warm", new="36"))
    (intended,) = [one for one in line.confirm("010") if isinstance(one, ev.CommandIntended)]
    assert intended.value == 36.0


def test_a_pending_write_and_what_was_done_are_not_changed_by_a_parameter() -> None:
    line = with_parameter()
    with pytest.raises(LinesideError, match=r"guard\.out_of_range"):
        request(line, Change("value", "$warm", new="46"))
    line.confirm("010")
    with pytest.raises(LinesideError, match=r"amendment\.begun"):
        request(line, Change("value", "$warm", new="36"))
    line.conclude("020", "confirmed")
    with pytest.raises(LinesideError, match=r"amendment\.done"):
        request(line, Change("value", "$warm", new="36"))


# Crashes ----------------------------------------------------------------------------------------------------------


def test_a_restart_keeps_the_amended_recipe_also_from_a_checkpoint() -> None:
    line = line_at("052")
    make(line, HIGHER)
    request(line, Change("skip", "060"))
    line.line = line.refold()
    line.line.book.amended.clear()
    line.crash("boot-2")
    assert watched(line) == 38.5
    data = b"".join(checkpoint.parts(line.line, bytes(32)))
    back, _ = checkpoint.read(data, Book(PLANT, line.line.book.recipes, line.line.book.effective))
    assert back == line.line
    assert seal(back.recipe(back.batches["B1"])) == line.batch().amended
    settle(line)
    assert line.batch().skips == {"060": "A2"}


def test_a_recipe_that_comes_out_otherwise_than_signed_is_not_run() -> None:
    line = line_at("052")
    make(line, HIGHER)
    forged = Book(PLANT, {"seal": recipe(amendments=AMENDMENTS, **MORE | {"why": "another"})}, frozenset({"seal"}))
    line.line = replace(line.line, book=forged)
    with pytest.raises(LinesideError, match=r"amendment\.unreadable"):
        line.line.recipe(line.batch())


def test_an_amendment_of_one_batch_leaves_the_other_as_it_is() -> None:
    line = line_at("052")
    line.start("B2")
    line.do(cm.ConfirmStep(session="S", batch="B2", step="010"))
    other = line.batch("B2")
    make(line, HIGHER)
    assert line.batch("B2") == other
    assert line.line.recipe(other) is line.line.book.recipes["seal"]


# Another version --------------------------------------------------------------------------------------------------


def second(steps: list[dict[str, Any]] | None = None, **more: Any) -> tuple[str, Any]:
    terms = {"amendments": {"adopt": True}, "version": "2"} | MORE | more
    made = recipe([*STEPS[:6], EXTRA, STEPS[6]] if steps is None else steps, **terms)
    return seal(made), made


def line_with(new: tuple[str, Any], step: str = "052") -> VirtualLine:
    line = line_at(step)
    book = line.line.book
    known = {**book.recipes, new[0]: new[1]}
    line.line = replace(line.line, book=Book(PLANT, known, frozenset(known)))
    line.do(cm.LoadRecipe(recipe="R", version="2", title="A recipe", seal=new[0]))
    return line


def test_a_batch_goes_over_to_another_version_from_a_step_on() -> None:
    new = second()
    line = line_with(new)
    make(line, Change("value", "060", "limit.low", new="75"))
    made = make(line, adopts=new[0], from_step="060")
    batch = line.batch()
    assert (batch.seal, batch.version, batch.changes, batch.amended) == (new[0], "2", (), "")
    assert made.remaining == ["050", "051", "052", "060", "055", "070"]
    assert made.dropped
    line.two_hours()
    raised = [one.code for one in line.enter("060", "78") if isinstance(one, ev.ExceptionRaised)]
    assert raised == ["limit.outside"], "what was amended of the old version went with it"
    assert line.active() == ["055"]
    assert line.refold().batches == line.line.batches
    two = record(line).amendments[1]
    assert (two.adopts, two.from_step, two.new_seal) == ("2", "060", new[0])
    assert any("055" in sentence for sentence in two.differences)
    assert any("75.0 → 80.0" in sentence for sentence in two.differences)


@pytest.mark.parametrize(
    ("change", "from_step", "reason"),
    [
        ({}, "040", "was begun already"),
        ({}, "999", "no step '999'"),
        ({"steps": [*STEPS[:4], EXTRA, *STEPS[4:]]}, "060", "step 055 .* was not done"),
        ({"steps": [*STEPS[:4], STEPS[4] | {"title": "Grow"}, *STEPS[5:]]}, "060", "is another one there"),
        ({"units": {"reactor": {"class": "mixer"}}}, "060", "needs other units"),
        ({"steps": [*STEPS[:3], *STEPS[5:]]}, "060", "is under way, and it does not have that"),
    ],
)
def test_a_version_that_does_not_fit_what_was_done_is_refused_with_the_reason(
    change: dict[str, Any], from_step: str, reason: str
) -> None:
    new = second(**change)
    line = line_with(new)
    with pytest.raises(LinesideError, match=reason) as refusal:
        request(line, adopts=new[0], from_step=from_step)
    assert refusal.value.code == "amendment.conflict"


def test_a_version_is_adopted_only_when_it_says_so_and_is_one_of_this_recipe() -> None:
    new = second(amendments=AMENDMENTS)
    line = line_with(new)
    with pytest.raises(LinesideError, match=r"amendment\.not_offered"):
        request(line, adopts=new[0], from_step="060")
    with pytest.raises(LinesideError, match=r"amendment\.no_version"):
        request(line, adopts="0" * 64, from_step="060")


def test_values_that_nobody_recorded_are_missed_before_it_is_too_late() -> None:
    asks = {
        "id": "065",
        "phase": "calculate",
        "title": "Twice",
        "name": "twice",
        "formula": "before * 2.0",
        "unit": "%",
    }
    early = STEPS[5] | {"id": "005", "name": "before"}
    new = second([early, *STEPS[:6], asks, STEPS[6]])
    line = line_with(new)
    with pytest.raises(LinesideError) as refusal:
        request(line, adopts=new[0], from_step="060")
    assert [one.what for one in refusal.value.others] == ["step 065 uses before, and nothing has recorded that."]


# The language -----------------------------------------------------------------------------------------------------


def test_the_seal_of_a_recipe_without_amendments_is_as_before() -> None:
    assert seal(recipe()) == seal(recipe(amendments=None))
    assert seal(recipe()) != seal(recipe(amendments={}))


def test_what_is_offered_is_what_the_recipe_says() -> None:
    offered = {f"{one.subject} {one.field}".strip(): one for one in offers(recipe(amendments=AMENDMENTS, **MORE))}
    assert set(offered) == {
        "052 limit.high", "051 duration", "030 value", "040 timeout", "060 limit.low", "$least",
    }  # fmt: skip
    assert (offered["$least"].kind, offered["$least"].value, offered["$least"].unit) == ("number", "5", "%")


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"bounds": [{"parameter": "none", "low": 1}]}, "amendment.bound"),
        ({"bounds": [{"step": "030", "field": "title", "low": 1}]}, "amendment.bound"),
        ({"bounds": [{"step": "030", "field": "limit.low", "low": 1}]}, "amendment.bound"),
        ({"bounds": [{"parameter": "least", "step": "030", "field": "value", "low": 1}]}, "amendment.bound"),
        ({"bounds": [WATCH, WATCH]}, "amendment.bounds"),
        ({"bounds": [WATCH | {"low": 38.5}]}, "amendment.bounds"),
        ({"bounds": [WATCH | {"low": 40.0}]}, "amendment.bounds"),
        ({"bounds": [WATCH | {"low": "warm"}]}, "amendment.bounds"),
        ({"bounds": [{"step": "052", "field": "limit.high"}]}, "amendment.bounds"),
        ({"bounds": [{"step": "051", "field": "duration", "low": "soon"}]}, "amendment.bounds"),
        ({"skip": ["020"]}, "amendment.skip"),
        ({"skip": ["999"]}, "amendment.skip"),
    ],
)
def test_the_checker_finds_what_could_never_be_amended(terms: dict[str, Any], code: str) -> None:
    from edge.core.recipe import check_recipe

    made = recipe(amendments=terms, **MORE)
    data = orjson.dumps(made.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    assert code in {found.code for found in check_recipe(read_recipe(data, "r"), PLANT)}


def test_an_amended_recipe_reads_back_as_the_same() -> None:
    made = recipe(amendments=AMENDMENTS, **MORE)
    other = amended(made, [HIGHER, Change("value", "$least", new="7"), Change("add", "055", "050", new=orjson.dumps(EXTRA).decode())])  # fmt: skip  # noqa: E501
    data = orjson.dumps(other.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    assert seal(read_recipe(data, "r").recipe) == seal(other)
    assert other.parameters["least"].value == 7.0
    assert [step.id for step in other.main()][-3:] == ["055", "060", "070"]


# Planted bugs -----------------------------------------------------------------------------------------------------


def test_planted_bug_a_done_step_that_may_be_changed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amending, "standing", lambda *_: "todo")
    with pytest.raises(pytest.fail.Exception):
        test_what_is_refused("052", [Change("value", "040", "timeout", new="2 h")], "amendment.done")
