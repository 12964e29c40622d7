"""Material that may be used for a time: its clock, the warning, the end, power cuts, and what the checker says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge.core import commands as cm
from edge.core import darkness, expiring, line
from edge.core import events as ev
from edge.core.checkpoint import parts, read
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.recipe import check_recipe, read_recipe, remarks, seal
from edge.core.recipe.check_expiry import shortest_s
from edge.core.recipe.compare import compare
from edge.core.recipe.words import facts
from edge.core.review import as_text, batch_record
from edge.core.terms import Act, ClockQuality, Elapsed, Role, Stamp, State
from edge.exchange import export
from edge.exchange import read as from_batchml
from edge.picture import picture
from edge.wire import Picture, Sync
from tests.core.parts import VirtualLine, kinds, recipe
from tests.core.test_rehearse import not_seen
from tests.core.test_rehearse import played as rehearsal
from tests.core.test_rehearse import recipe as of_steps

VIAL: dict[str, Any] = {
    "id": "010", "phase": "scan", "title": "Vector", "text": "Scan it.", "name": "vector", "prefix": "V-",
    "use_within": {"time": "4 h", "until": "030"},
}  # fmt: skip
MIX: dict[str, Any] = {"id": "020", "phase": "instruct", "title": "Mix", "text": "Mix."}
USE: dict[str, Any] = {"id": "030", "phase": "instruct", "title": "Use", "text": "Use it."}
LAST: dict[str, Any] = {"id": "040", "phase": "instruct", "title": "Clean", "text": "Clean up."}
HOUR_S = 3_600.0


def vial(**more: Any) -> dict[str, Any]:
    return {**VIAL, "use_within": {**VIAL["use_within"], **more}}


def made(*steps: dict[str, Any]) -> VirtualLine:
    played = VirtualLine(recipe=recipe(list(steps or (VIAL, MIX, USE, LAST)), units={}))
    played.start(patient="")
    return played


def taken(*steps: dict[str, Any]) -> VirtualLine:
    played = made(*steps)
    assert kinds(played.scan("010", "V-1"))[1:3] == ["StepCompleted", "ExpiryBegun"]
    return played


def pass_s(played: VirtualLine, seconds: float) -> list[ev.Event]:
    """Let time pass, and tell every timer that is due, as the engine does."""
    played.now_s, told = played.now_s + seconds, []
    while due := [one for one in line.effects(played.line).timers if one.left_s(played.stamp()) <= 0]:
        passed = due[0].passed(played.stamp())
        timer = {"batch": due[0].batch, "step": due[0].step, "timer": due[0].timer, "iteration": due[0].iteration}
        told += played.do(cm.PassTimer(**timer, low_s=passed.low_s, high_s=passed.high_s))
    return told


def off_line(played: VirtualLine, boot: str, dark: Elapsed) -> list[ev.Event]:
    """The machine is off; `dark` is what the box knows of how long."""
    real = line.between
    with pytest.MonkeyPatch.context() as patched:
        for module in ("edge.core.line", "edge.core.decide"):
            patched.setattr(f"{module}.between", lambda a, b: dark if a and a.boot != b.boot else real(a, b))
        return played.crash(boot)


def shown(played: VirtualLine) -> Picture:
    none: dict[str, str] = {}
    return picture(
        played.line, played.readings.get, played.stamp(), box="b", made_seq=played.line.seq,
        sync=Sync(hub="off", copied="off"), person=None, people=(), connections=none, drafts={}, notices=(),
    )  # fmt: skip


def test_it_is_warned_runs_out_with_an_exception_and_holds_also_while_the_batch_is_held() -> None:
    played = taken()
    clock = played.batch().clocks["010.1"]
    assert (clock.material, clock.use_within_s, clock.warn_after_s) == ("Vector (V-1)", 4 * HOUR_S, 3.2 * HOUR_S)
    assert pass_s(played, 3.1 * HOUR_S) == []
    (line_shown,) = shown(played).batches[0].expiries
    assert (line_shown.left_s, line_shown.near) == (pytest.approx(0.9 * HOUR_S), False)
    assert kinds(pass_s(played, 0.1 * HOUR_S)) == ["ExpiryNear"]
    assert shown(played).notices == ("Batch B1: Vector (V-1) expires in 48 min.",)
    played.do(cm.ActOnBatch(session="S", batch="B1", act=Act.HOLD, reason=""))
    assert kinds(pass_s(played, HOUR_S)) == ["ExpiryPassed", "ExceptionRaised"], "it is held already"
    assert [(x.code, x.category) for x in played.batch().exceptions] == [("material.expired", "critical")]
    assert played.batch().exceptions[0].what == "Vector (V-1): to be used within 4 h; 4.2 h have passed."
    assert shown(played).batches[0].expiries[0].expired
    assert "may be expired" in shown(played).notices[0]
    assert pass_s(played, HOUR_S) == [], "once"
    assert played.refold() == played.line
    assert read(b"".join(parts(played.line, b"\0" * 32)), played.line.book)[0] == played.line


@pytest.mark.parametrize(("on_expiry", "state"), [("hold", State.HELD), ("exception", State.RUNNING)])
def test_the_recipe_says_what_it_means_for_the_batch(on_expiry: str, state: State) -> None:
    played = taken(vial(on_expiry=on_expiry, category="major", warn_before="1 h"), MIX, USE)
    assert kinds(pass_s(played, 3 * HOUR_S)) == ["ExpiryNear"]
    pass_s(played, HOUR_S)
    batch = played.batch()
    assert (batch.state, batch.exceptions[0].category) == (state, "major")
    assert batch.cause == ("expiry" if state is State.HELD else "")


def test_what_is_used_in_time_ends_its_clock_and_the_record_says_when() -> None:
    played = taken()
    played.confirm("020")
    pass_s(played, 2 * HOUR_S)
    assert kinds(played.confirm("030"))[:3] == ["StepConfirmed", "StepCompleted", "ExpiryEnded"]
    assert pass_s(played, 9 * HOUR_S) == []
    played.confirm("040")
    built = batch_record(((seq, decode(data)) for seq, data in enumerate(played.rows, 1)), "B1")
    assert built is not None
    assert "Vector (V-1): to be used within 4 h, until step 030 is done" in as_text(built)
    assert "Vector (V-1) was used: 2 h have passed when step 030 was done" in as_text(built)


def test_the_last_moment_is_not_passed_over_when_nobody_looked() -> None:
    played = taken(VIAL, USE)
    played.now_s += 4 * HOUR_S
    assert "ExpiryPassed" in kinds(played.confirm("030")), "the step is done before the timer was told"


def test_each_pass_of_a_loop_has_its_own_and_the_end_of_the_batch_ends_what_has_no_step() -> None:
    steps = [{**VIAL, "use_within": {"time": "4 h"}}, MIX]
    played = made({"id": "005", "phase": "loop", "title": "Twice", "times": 2, "steps": steps}, LAST)
    played.scan("010", "V-1")
    pass_s(played, HOUR_S)
    played.confirm("020")
    played.scan("010", "V-2")
    assert [*played.batch().clocks] == ["010.1", "010.2"]
    assert kinds(pass_s(played, 2.5 * HOUR_S)) == ["ExpiryNear"]
    gone = pass_s(played, 0.5 * HOUR_S)
    assert [(e.material, e.iteration) for e in gone if isinstance(e, ev.ExpiryPassed)] == [("Vector (V-1)", 1)]
    played.do(cm.OpenSession(session="Q", person="sue", roles=(Role.SUPERVISOR,), method="badge and PIN"))
    played.do(cm.ActOnBatch(session="Q", batch="B1", act=Act.RESUME, reason="Another vial is used."))
    played.confirm("020")
    played.confirm("040")
    assert (played.batch().state, played.batch().clocks) == (State.COMPLETE, {})
    assert pass_s(played, 9 * HOUR_S) == []


# Power ---------------------------------------------------------------------------------------------------------------


def test_the_clock_counts_what_the_power_cut_may_have_taken() -> None:
    played = taken()
    pass_s(played, HOUR_S)
    played.confirm("020")
    assert "ExpiryPassed" not in kinds(off_line(played, "boot-2", Elapsed(HOUR_S, 2 * HOUR_S)))
    assert kinds(pass_s(played, 0.0)) == []
    (left,) = shown(played).batches[0].expiries
    assert left.left_s == pytest.approx(HOUR_S), "the most that the box may have been off"
    assert kinds(pass_s(played, 0.2 * HOUR_S)) == ["ExpiryNear"]
    pass_s(played, 0.8 * HOUR_S)
    assert "between 3 h and 4 h have passed" in played.batch().exceptions[-1].what
    assert played.refold() == played.line


def test_planted_bug_the_clock_stands_while_the_power_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def lit(before: Elapsed, since: Stamp, last: Stamp, gap: Elapsed) -> Elapsed:
        del gap
        return Elapsed(
            before.low_s + last.boottime_s - since.boottime_s, before.high_s + last.boottime_s - since.boottime_s
        )

    monkeypatch.setattr(line, "_carried", lit)
    with pytest.raises(AssertionError):
        test_the_clock_counts_what_the_power_cut_may_have_taken()


def test_planted_bug_the_least_is_counted_and_not_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    real = line._carried

    def least(*facts: Any) -> Elapsed:
        low_s = real(*facts).low_s
        return Elapsed(low_s, low_s)

    monkeypatch.setattr(line, "_carried", least)
    with pytest.raises(AssertionError):
        test_the_clock_counts_what_the_power_cut_may_have_taken()


@pytest.mark.parametrize("on_expiry", ["hold", "exception"])
def test_without_a_trusted_time_it_is_treated_as_expired_and_the_batch_is_held(on_expiry: str) -> None:
    played = taken(vial(on_expiry=on_expiry), MIX, USE)
    pass_s(played, HOUR_S)
    played.confirm("020")
    assert {"ExpiryPassed", "ExceptionRaised"} <= {*kinds(played.crash("boot-2"))}, "before anything goes on"
    assert played.batch().state is State.HELD
    assert "1 h have passed at least, and nobody knows for how long the box was off" in played.batch().reason


def signed_in(played: VirtualLine, person: str, role: Role) -> None:
    played.do(cm.OpenSession(session="S", person=person, roles=(role,), method="badge and PIN"))


def enter_dark(played: VirtualLine, minutes: int, person: str, role: Role, *, verifies: bool = False) -> list[ev.Event]:
    signed_in(played, person, role)
    signed = played.signed(person, role)
    return played.do(cm.EnterDark(session="S", batch="B1", minutes=minutes, verifies=verifies, signed=signed))


def cut_without_a_clock() -> VirtualLine:
    """An hour after the vial was taken the power goes, and no clock says for how long."""
    played = taken(VIAL, {"id": "020", "phase": "wait", "title": "Mix", "duration": "2 h"}, USE)
    pass_s(played, HOUR_S)
    played.crash("boot-2")
    assert played.batch().state is State.HELD
    return played


def test_two_people_say_how_long_the_box_was_off_and_everything_goes_on_with_that() -> None:
    played = cut_without_a_clock()
    card = shown(played).batches[0]
    assert card.dark is not None
    assert (card.dark.verifies, "Two people enter" in card.next_action) == (False, True)
    assert kinds(enter_dark(played, 90, "ana", Role.OPERATOR)) == ["SignatureMade", "DarkEntered"]
    after = shown(played).batches[0].dark
    assert after is not None
    assert (after.verifies, after.entered_by) == (True, "ana")
    assert "minutes" not in type(after).model_fields, "the second person does not see it"
    assert played.batch().clocks["010.1"].expired, "one person's word changes nothing"
    assert kinds(enter_dark(played, 90, "ben", Role.VERIFIER, verifies=True)) == ["SignatureMade", "DarkVerified"]
    clock = played.batch().clocks["010.1"]
    assert (clock.expired, clock.before_boot) == (False, Elapsed(89 * 60, 91 * 60))
    assert shown(played).batches[0].dark is None
    assert played.refold() == played.line
    assert read(b"".join(parts(played.line, b"\0" * 32)), played.line.book)[0] == played.line
    signed_in(played, "sue", Role.SUPERVISOR)
    played.do(cm.ActOnBatch(session="S", batch="B1", act=Act.RESUME, reason="Half an hour, by the clock on the wall."))
    assert "StepCompleted" in kinds(pass_s(played, 31 * 60)), "of two hours 89 minutes are certain, and these"
    assert kinds(pass_s(played, 1.5 * HOUR_S))[-1:] == ["ExpiryNear"]
    assert "ExpiryPassed" in kinds(pass_s(played, 0.5 * HOUR_S))
    built = batch_record(((seq, decode(data)) for seq, data in enumerate(played.rows, 1)), "B1")
    assert built is not None
    assert "entered by hand by ana, verified by ben (verifier)" in as_text(built)


def test_what_was_expired_all_the_same_stays_expired() -> None:
    played = cut_without_a_clock()
    enter_dark(played, 240, "ana", Role.OPERATOR)
    assert kinds(enter_dark(played, 240, "ben", Role.VERIFIER, verifies=True)) == ["SignatureMade", "DarkVerified"]
    assert played.batch().clocks["010.1"].expired


MIX_2H: dict[str, Any] = {"id": "010", "phase": "wait", "title": "Mix", "duration": "2 h"}


def waiting_without_a_clock(*steps: dict[str, Any]) -> VirtualLine:
    """The power goes while it waits, and no clock says for how long."""
    played = VirtualLine(recipe([MIX_2H, *steps]))
    played.start()
    pass_s(played, HOUR_S)
    signed_in(played, "ben", Role.VERIFIER)  # a row, so that this hour is certain
    made = played.crash("boot-2")
    assert "time.unbounded" in [one.code for one in made if isinstance(one, ev.ExceptionRaised)]
    assert (played.batch().state, played.batch().cause) == (State.HELD, "dark")
    return played


def test_a_wait_across_a_dark_time_without_a_bound_is_held_until_two_people_say_how_long_it_was() -> None:
    played = waiting_without_a_clock(USE)
    assert "Two people enter" in shown(played).batches[0].next_action
    with pytest.raises(LinesideError) as refused:
        played.do(cm.ActOnBatch(session="S", batch="B1", act=Act.RESUME, reason="go on"))
    assert refused.value.code == "batch.dark"
    enter_dark(played, 30, "ana", Role.OPERATOR)
    enter_dark(played, 31, "ben", Role.VERIFIER, verifies=True)
    assert played.batch().state is State.HELD, "they differ"
    enter_dark(played, 30, "ana", Role.OPERATOR)
    assert "BatchStateChanged" in kinds(enter_dark(played, 30, "ben", Role.VERIFIER, verifies=True))
    assert played.batch().state is State.RUNNING
    assert pass_s(played, 30 * 60) == [], "29 minutes of the dark are certain"
    assert "StepCompleted" in kinds(pass_s(played, 61))
    assert played.refold() == played.line


def test_planted_bug_a_wait_that_goes_on_with_the_least_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.core.darkness.look", lambda *_: None)
    with pytest.raises(AssertionError):
        test_a_wait_across_a_dark_time_without_a_bound_is_held_until_two_people_say_how_long_it_was()


def test_an_answer_about_a_write_does_not_let_a_wait_go_on_whose_time_nobody_bounds() -> None:
    warm = {"id": "030", "phase": "set", "title": "Warm", "tag": "reactor.setpoint", "value": 37.0}
    played = VirtualLine(recipe([{"id": "p", "phase": "parallel", "title": "P", "branches": [[MIX_2H], [warm]]}]))
    played.start()
    played.crash("boot-2")
    assert (played.batch().state, played.batch().cause) == (State.HELD, "question")
    played.answer("030.1", "happened")
    assert (played.batch().state, played.batch().cause) == (State.HELD, "dark")
    enter_dark(played, 30, "ana", Role.OPERATOR)
    enter_dark(played, 30, "ben", Role.VERIFIER, verifies=True)
    assert (played.batch().state, played.active()) == (State.RUNNING, ["p", "010"])


def test_who_answers_how_a_step_goes_on_says_that_the_least_time_counts() -> None:
    played = VirtualLine(recipe([MIX_2H | {"on_restart": "ask"}]))
    played.start()
    pass_s(played, HOUR_S)
    signed_in(played, "ben", Role.VERIFIER)
    played.crash("boot-2")
    played.answer("010.1", "happened")
    assert played.batch().state is State.RUNNING
    assert "StepCompleted" in kinds(pass_s(played, HOUR_S)), "the hour before is certain"


def test_several_dark_times_are_one_sum_of_which_waits_count_nothing() -> None:
    played = cut_without_a_clock()
    pass_s(played, 600)
    enter_dark(played, 90, "ana", Role.OPERATOR)
    played.crash("boot-3")
    dark = played.batch().dark
    assert dark is not None
    assert (dark.stretches, dark.person) == (2, ""), "what was entered before is not of this time"
    enter_dark(played, 45, "ana", Role.OPERATOR)
    enter_dark(played, 45, "ben", Role.VERIFIER, verifies=True)
    assert played.batch().clocks["010.1"].before_boot == Elapsed(600, 600 + 46 * 60)


@pytest.mark.parametrize(
    ("minutes", "person", "role", "verifies", "code"),
    [
        (30, "ana", Role.VERIFIER, True, "signature.same_person"),
        (30, "ben", Role.OPERATOR, False, "dark.not_wanted"),
        (30, "ben", Role.AUDITOR, True, "people.not_permitted"),
        (-1, "ben", Role.VERIFIER, True, "dark.minutes"),
    ],
)
def test_an_entry_of_another_than_the_second_person_is_refused(
    minutes: int, person: str, role: Role, verifies: bool, code: str
) -> None:
    played = cut_without_a_clock()
    enter_dark(played, 90, "ana", Role.OPERATOR)
    before = played.batch()
    with pytest.raises(LinesideError) as refused:
        enter_dark(played, minutes, person, role, verifies=verifies)
    assert refused.value.code == code
    assert played.batch() == before


def test_two_entries_that_differ_are_both_not_taken() -> None:
    played = cut_without_a_clock()
    enter_dark(played, 90, "ana", Role.OPERATOR)
    assert kinds(enter_dark(played, 300, "ben", Role.VERIFIER, verifies=True)) == ["DarkRefused"]
    dark = played.batch().dark
    assert dark is not None
    assert (dark.person, played.batch().clocks["010.1"].expired) == ("", True)


def test_planted_bug_a_single_person_enters_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(d: Any, command: cm.EnterDark) -> None:
        facts: dict[str, Any] = {"batch": command.batch, "minutes": command.minutes, "role": "operator"}
        d.emit(ev.DarkVerified(**facts, low_s=0.0, high_s=60.0, entered_by="ana", person="ana"))

    monkeypatch.setattr(darkness, "enter", alone)
    with pytest.raises(AssertionError):
        test_two_people_say_how_long_the_box_was_off_and_everything_goes_on_with_that()


def test_a_process_that_died_within_a_boot_loses_nothing() -> None:
    played = taken()
    pass_s(played, HOUR_S)
    played.crash()
    assert pass_s(played, 2.1 * HOUR_S) == []
    assert kinds(pass_s(played, 0.1 * HOUR_S)) == ["ExpiryNear"]


def test_no_wall_clock_takes_part_within_a_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    played = taken()
    for utc in ("1970-01-01T00:00:00.000000Z", "2038-01-19T03:14:08.000000Z", "2026-03-29T03:00:00.000000Z"):
        monkeypatch.setattr(
            VirtualLine, "stamp", lambda self, utc=utc: Stamp(utc, ClockQuality.SYNCED, self.now_s, self.boot)
        )
        assert pass_s(played, HOUR_S) == []
    assert kinds(pass_s(played, 0.5 * HOUR_S)) == ["ExpiryNear"]


# The file ------------------------------------------------------------------------------------------------------------


def checked(*steps: dict[str, Any], **parameters: Any) -> tuple[list[str], list[str]]:
    content = {
        "recipe": "R", "version": "1", "title": "t", "parameters": parameters,
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": list(steps)}]}],
    }  # fmt: skip
    document = read_recipe(json.dumps(content, indent=1).encode(), "r.yaml")
    return [one.code for one in check_recipe(document, None)], [one.code for one in remarks(document)]


def wait(step: str, duration: str) -> dict[str, Any]:
    return {"id": step, "phase": "wait", "title": "Wait", "duration": duration}


@pytest.mark.parametrize(
    ("between", "found", "told"),
    [
        ([wait("w", "3 h")], [], []),
        ([wait("w", "3.5 h")], [], ["recipe.expires_close"]),
        ([wait("w", "4.5 h")], ["recipe.expires_before"], []),
        ([wait("w", "3 h"), wait("v", "2 h")], ["recipe.expires_before"], []),
    ],
)
def test_the_checker_knows_the_shortest_way(between: list[dict[str, Any]], found: list[str], told: list[str]) -> None:
    assert checked(VIAL, *between, USE) == (found, told)
    limit = {"type": "duration", "value": "4 h"}
    assert checked(vial(time="$shelf"), *between, USE, shelf=limit) == (found, told)


def test_ways_through_branches_loops_and_calls() -> None:
    both = {"id": "p", "phase": "parallel", "title": "P", "branches": [[wait("a", "1 h")], [wait("b", "3 h"), USE]]}
    loop = {"id": "l", "phase": "loop", "title": "L", "times": 3, "steps": [wait("c", "1 h")]}
    maybe = {"id": "m", "phase": "loop", "title": "M", "times": 3, "while": "n > 1", "steps": [wait("d", "1 h")]}
    choice = {
        "id": "s", "phase": "select", "title": "S",
        "branches": [{"when": "n > 1", "steps": [wait("e", "5 h")]}], "else": [wait("f", "2 h")],
    }  # fmt: skip
    whole = recipe([{"id": "q", "phase": "parallel", "title": "Q", "branches": [[VIAL, maybe], [wait("z", "9 h")]]},
                    loop, choice, both, wait("last", "7 h")], units={})  # fmt: skip
    ways = {"030": 6, "p": 6, "a": 4, "q": 0, "l": 1, "s": 3, "last": 13, "e": None, "d": None, "z": None}
    assert {until: shortest_s(whole, "010", until) for until in ways} == {
        until: None if hours is None else hours * HOUR_S for until, hours in ways.items()
    }
    assert shortest_s(whole, "010", None) == 13 * HOUR_S


def test_two_steps_of_one_id_are_told_and_looked_at_no_longer_than_others() -> None:
    again = {"id": "010", "phase": "loop", "title": "L", "times": 3, "while": "iteration < 2", "steps": [VIAL]}
    assert "recipe.duplicate_step" in checked(again, USE)[0]


def test_the_seal_covers_it_batchml_brings_it_back_and_words_say_it() -> None:
    plain = recipe([{key: value for key, value in VIAL.items() if key != "use_within"}, USE], units={})
    limited, longer = recipe([VIAL, USE], units={}), recipe([vial(time="6 h"), USE], units={})
    assert len({seal(plain), seal(limited), seal(longer)}) == 3
    assert seal(read_recipe(from_batchml(export(limited), "x.xml").text.encode(), "x").recipe) == seal(limited)
    (change,) = compare(limited, longer)
    assert "4 h" in change.text
    assert "6 h" in change.text
    assert "to be used within 4 h until step 030" in facts(limited, limited.steps()["010"])


def test_a_rehearsal_lets_it_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not_seen(rehearsal(of_steps(VIAL, USE))) == set()
    monkeypatch.setattr(expiring, "look", lambda _decision, _batch: None)
    assert not_seen(rehearsal(of_steps(VIAL, USE))) == {("010", "it expires")}


def test_a_sample_and_a_transfer_have_it_too() -> None:
    sample = {
        "id": "010", "phase": "sample", "title": "Seed", "text": "Take it.", "name": "seed", "quantity": 5,
        "unit": "mL", "container": "a tube", "prefix": "V-", "retain": True,
        "use_within": {"time": "1 h", "until": "030"},
    }  # fmt: skip
    played = made(sample, USE)
    for code in ("V-1", "5"):
        (played.scan if code == "V-1" else played.enter)("010", code)
    assert played.batch().clocks["010.1"].material == "Seed (V-1)"
    assert kinds(pass_s(played, HOUR_S))[:2] == ["ExpiryPassed", "ExceptionRaised"], "told once, as what it is"
