"""Batches that wait: in their turn, holding nothing, begun by people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.core import checkpoint, queueing
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.line import Book, effects
from edge.core.record import Row
from edge.core.review import as_built, as_text
from edge.core.terms import Act, Role, State
from tests.core.parts import PLANT, VirtualLine, recipe

STEPS = [{"id": "010", "phase": "instruct", "title": "Clear", "text": "Clear it."}]


def line_of(*running: str) -> VirtualLine:
    line = VirtualLine(recipe=recipe(STEPS))
    for batch in running:
        line.start(batch)
    return line


def let_wait(line: VirtualLine, batch: str) -> list[ev.Event]:
    asked = cm.StartBatch(session="S", batch=batch, order="O", seal="seal", patient="=D1", speed=1.0, queue=True)
    return line.do(asked)


def start(line: VirtualLine, batch: str) -> list[ev.Event]:
    return line.do(cm.ActOnBatch(session="S", batch=batch, act=Act.START, reason=""))


def end(line: VirtualLine, batch: str) -> list[ev.Event]:
    return line.do(cm.ConfirmStep(session="S", batch=batch, step="010"))


def refusal(line: VirtualLine, command: cm.Command) -> LinesideError:
    with pytest.raises(LinesideError) as refused:
        line.do(command)
    return refused.value


def turn(line: VirtualLine, batch: str) -> str:
    return str(queueing.turn(line.line, line.recipe, line.stamp(), batch))


def test_a_batch_waits_says_for_what_and_a_person_starts_it_when_its_units_are_free() -> None:
    line = line_of("B1", "B2")
    (queued,) = let_wait(line, "B3")
    assert isinstance(queued, ev.BatchQueued)
    assert queued.waits == "Waits for BR-1, used by batch B1 or BR-2, used by batch B2; place 1"
    let_wait(line, "B4")
    assert turn(line, "B4").endswith("place 2")
    assert (line.batch("B3").state, line.batch("B3").units) == (State.IDLE, {})
    command = cm.ActOnBatch(session="S", batch="B3", act=Act.START, reason="")
    assert refusal(line, command).code == "unit.occupied"
    ended = end(line, "B1")
    assert {type(event) for event in ended} == {ev.StepConfirmed, ev.StepCompleted, ev.BatchStateChanged}
    assert line.batch("B3").state is State.IDLE, "nothing starts by itself"
    assert turn(line, "B3") == ""
    also = "BR-1, kept for batch B3, which waits longer or BR-2, used by batch B2"
    assert turn(line, "B4") == f"Waits for {also}; place 2"
    started = start(line, "B3")
    assert isinstance(started[0], ev.BatchStarted)
    assert started[0].units == {"reactor": "BR-1"}
    assert line.batch("B3").state is State.RUNNING
    assert line.refold() == line.line


def test_who_comes_later_passes_nobody_who_waits() -> None:
    line = line_of("B1", "B2")
    let_wait(line, "B3")
    end(line, "B1")
    new = cm.StartBatch(session="S", batch="B9", order="O", seal="seal", patient="=D", speed=1.0)
    told = refusal(line, new)
    assert told.code == "unit.occupied"
    assert "BR-1 is kept for batch B3, which waits longer" in str(told)
    line.do(cm.ActOnBatch(session="S", batch="B3", act=Act.STOP, reason="not wanted any more"))
    assert line.batch("B3").state is State.STOPPED
    assert line.batch("B3").reason == "not wanted any more"
    line.do(new)
    assert line.batch("B9").units == {"reactor": "BR-1"}


def test_no_more_is_kept_than_is_needed() -> None:
    line = line_of()
    let_wait(line, "B1")
    line.start("B9")
    assert line.batch("B9").units == {"reactor": "BR-2"}, "B1 needs one of the two"
    let_wait(line, "B2")
    assert turn(line, "B2").startswith(
        "Waits for BR-1, kept for batch B1, which waits longer or BR-2, used by batch B9"
    )
    end(line, "B9")
    assert (turn(line, "B1"), turn(line, "B2")) == ("", "")
    start(line, "B2")
    start(line, "B1")
    assert (line.batch("B1").units, line.batch("B2").units) == ({"reactor": "BR-1"}, {"reactor": "BR-2"})


def test_a_role_that_wants_a_clean_unit_chooses_first() -> None:
    wanted = recipe(STEPS, units={"any": {"class": "bioreactor"}, "clean": {"class": "bioreactor", "clean": True}})
    units = queueing.allocate(PLANT, wanted, {}, {"BR-2": "dirty: used by batch B0"})
    assert units == {"any": "BR-2", "clean": "BR-1"}
    assert list(units) == ["any", "clean"]


def test_a_batch_is_let_wait_although_its_units_are_free_and_does_not_start() -> None:
    line = line_of()
    (queued,) = let_wait(line, "B1")
    assert isinstance(queued, ev.BatchQueued)
    assert (queued.waits, turn(line, "B1")) == ("", "")
    assert line.batch().state is State.IDLE
    assert effects(line.line).timers == effects(line.line).watches == ()
    start(line, "B1")
    assert line.batch().state is State.RUNNING


def test_what_must_hold_is_looked_at_when_it_starts_not_when_it_waits() -> None:
    line = line_of()
    let_wait(line, "B1")
    line.line = replace(line.line, book=Book(PLANT, {"seal": line.recipe}, frozenset()))
    command = cm.ActOnBatch(session="S", batch="B1", act=Act.START, reason="")
    assert refusal(line, command).code == "recipe.not_effective"
    line.do(cm.OpenSession(session="A", person="dot", roles=(Role.AUDITOR,), method="PIN"))
    assert refusal(line, replace(command, session="A")).code == "people.not_permitted"
    assert line.batch().state is State.IDLE


def test_a_queue_has_an_end_and_takes_nobody_who_could_never_begin() -> None:
    line = line_of("B1")
    for number in range(queueing.WAITING_MAX):
        let_wait(line, f"W{number}")
    command = cm.StartBatch(session="S", batch="W99", order="O", seal="seal", patient="", speed=1.0, queue=True)
    line.do(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="PIN"))
    assert refusal(line, replace(command, patient="=D")).code == "queue.full"
    three = recipe(STEPS, units={f"r{n}": {"class": "bioreactor"} for n in range(3)})
    alone = VirtualLine(recipe=three)
    assert refusal(alone, command).code == "unit.occupied"
    assert refusal(alone, replace(command, queue=False)).code == "unit.occupied"


def test_a_request_that_comes_twice_lets_one_batch_wait_and_starts_it_once() -> None:
    line = line_of()
    asked = cm.StartBatch(
        command_id="c1", session="S", batch="B1", order="O", seal="seal", patient="=D", speed=1.0, queue=True
    )
    assert len(line.do(asked)) == 1
    assert line.do(asked) == []
    begin = cm.ActOnBatch(command_id="c2", session="S", batch="B1", act=Act.START, reason="")
    assert line.do(begin)
    assert line.do(begin) == []


def test_a_power_cut_leaves_the_queue_as_it_was_and_a_checkpoint_holds_it() -> None:
    line = line_of("B1", "B2")
    for batch in ("B3", "B4"):
        let_wait(line, batch)
    line.boot = "boot-2"
    line.do(cm.StartRuntime(version="t"))
    assert [batch.batch for batch in queueing.waiting(line.line)] == ["B3", "B4"]
    again, _ = checkpoint.read(b"".join(checkpoint.parts(line.line, b"\x00" * 32)), line.line.book)
    assert again == line.line


def test_a_batch_that_waits_in_a_restored_journal_is_ended_as_it_may_have_begun_since() -> None:
    line = line_of()
    let_wait(line, "B1")
    last = Row(line.line.seq, b"\x00" * 16, b"\x00" * 32, b"")
    line.do(cm.StartRuntime(version="t", continues=last))
    assert (line.batch().state, line.batch().cause) == (State.STOPPED, "restore")
    assert "B1" in line.line.used


def test_the_record_says_who_let_it_wait_and_what_came_of_it() -> None:
    line = line_of("B1", "B2")
    let_wait(line, "B3")
    let_wait(line, "B4")
    end(line, "B1")
    start(line, "B3")
    line.do(cm.ActOnBatch(session="S", batch="B4", act=Act.ABORT, reason="wrong order"))
    built = as_built((seq, decode(data)) for seq, data in enumerate(line.rows, 1))
    assert built["B3"].state == "running"
    assert "Queued 2026-01-01T00:00:00.000000Z by ana. Waits for BR-1, used by batch B1" in as_text(built["B3"])
    assert "Started 2026-01-01T00:00:00.000000Z by ana" in as_text(built["B3"])
    assert built["B4"].state == "aborted"
    assert "Never started; aborted" in as_text(built["B4"])
