"""What a restored journal means for the batches in it: the pure decisions, without a disk."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.decide import _Decision
from edge.core.errors import LinesideError
from edge.core.line import effects
from edge.core.record import Row
from edge.core.terms import Act, Role, State
from tests.core.parts import VirtualLine

CAME_FROM = Row(41, b"e" * 16, b"h" * 32, b"")


def started() -> VirtualLine:
    line = VirtualLine()
    line.start()
    return line


def restore(line: VirtualLine) -> list[ev.Event]:
    events = line.do(cm.StartRuntime(version="t", continues=CAME_FROM))
    for session, role in (("S", Role.OPERATOR), ("V", Role.SUPERVISOR), ("Q", Role.QUALITY), ("E", Role.ENGINEER)):
        line.do(cm.OpenSession(session=session, person=session.lower(), roles=(role,), method="badge and PIN"))
    return events


def resume(line: VirtualLine, role: Role, reason: str = "compared with the hub's record") -> list[ev.Event]:
    return line.do(cm.ContinueBatch(session="S", batch="B1", reason=reason, signed=line.signed("somebody", role)))


def assert_waits_for_a_decision(line: VirtualLine) -> None:
    batch = line.batch()
    assert (batch.state, batch.cause) == (State.HELD, "restore")
    assert batch.restored
    assert "row 41" in batch.reason
    assert not effects(line.line).writes
    assert not effects(line.line).timers
    for role in (Role.OPERATOR, Role.ENGINEER):
        with pytest.raises(LinesideError, match=r"people\.not_permitted"):
            resume(line, role)
    with pytest.raises(LinesideError, match=r"batch\.restored:") as refused:  # without a signature nobody may
        line.do(cm.ActOnBatch(session="V", batch="B1", act=Act.RESUME, reason="compared"))
    assert "supervisor" in refused.value.todo
    with pytest.raises(LinesideError, match=r"batch\.restored_reason"):
        resume(line, Role.SUPERVISOR, "  ")
    assert line.batch() == batch


def act(line: VirtualLine, *acts: Act) -> None:
    for each in acts:
        line.do(cm.ActOnBatch(session="S", batch="B1", act=each, reason="so"))


def to_the_write(line: VirtualLine) -> None:
    line.confirm("010")
    line.scan("020", "=DIN1")


def in_question(line: VirtualLine) -> None:
    to_the_write(line)
    line.conclude("030", "unknown")


@pytest.mark.parametrize(
    "before",
    [
        lambda _: None,
        to_the_write,
        lambda line: act(line, Act.HOLD),
        lambda line: act(line, Act.PAUSE),
        lambda line: line.do(cm.StopRuntime()),
        lambda line: (to_the_write(line), act(line, Act.HOLD)),
    ],
    ids=["running", "writing", "held", "paused", "cleanly stopped", "holding"],
)
def test_every_live_batch_is_held_until_somebody_who_may_decides(before: Any) -> None:
    line = started()
    before(line)
    events = restore(line)
    assert isinstance(events[0], ev.RuntimeStarted)
    assert not events[0].clean, "a restored box cannot know that nothing is in doubt"
    assert events[1] == ev.JournalContinued(
        epoch=CAME_FROM.epoch.hex(),
        last_seq=41,
        last_hash=CAME_FROM.hash.hex(),
        backup_seq=41,
        mirror_seq=None,
        hub_seq=None,
        heard_seq=None,
    )
    assert_waits_for_a_decision(line)
    assert line.batch().exceptions[0].code == "journal.restored"
    assert line.batch().exceptions[0].category == "critical"
    line.do(cm.StartRuntime(version="t"))
    line.do(cm.OpenSession(session="S", person="s", roles=(Role.OPERATOR,), method="badge and PIN"))
    assert line.batch().restored, "the next start is an ordinary one, and the batch still waits"
    if line.batch().questions:
        with pytest.raises(LinesideError, match=r"batch\.question_open"):
            resume(line, Role.SUPERVISOR)
        return
    moved = resume(line, Role.SUPERVISOR)
    said = [event for event in moved if isinstance(event, ev.BatchStateChanged)]
    assert (said[0].now, said[0].reason) == ("restarting", "compared with the hub's record")
    assert isinstance(moved[0], ev.SignatureMade)
    assert (moved[0].step, moved[0].person) == ("", "somebody")
    assert line.batch().state is State.RUNNING
    assert line.refold() == line.line


def test_quality_may_decide_too_and_an_ordinary_hold_is_ended_as_ever() -> None:
    line = started()
    restore(line)
    resume(line, Role.QUALITY)
    assert line.batch().state is State.RUNNING
    act(line, Act.HOLD, Act.RESUME)
    assert line.batch().state is State.RUNNING
    act(line, Act.HOLD)
    with pytest.raises(LinesideError, match=r"batch\.not_restored"):
        resume(line, Role.QUALITY)


def test_an_answer_to_an_open_question_does_not_end_the_hold() -> None:
    line = started()
    in_question(line)
    restore(line)
    line.answer("030.1", "happened")
    assert not line.batch().questions
    assert_waits_for_a_decision(line)
    resume(line, Role.SUPERVISOR)
    assert line.active() == ["040"]


def test_a_batch_that_is_restored_twice_says_so_twice() -> None:
    line = started()
    restore(line)
    restore(line)
    assert [x.code for x in line.batch().exceptions] == ["journal.restored"] * 2
    assert_waits_for_a_decision(line)


def test_a_batch_that_was_being_aborted_ends() -> None:
    line = started()
    act(line, Act.ABORT)
    assert line.batch().state is State.ABORTING
    restore(line)
    assert line.batch().state is State.ABORTED


def test_planted_bug_a_restored_batch_that_goes_on_by_itself_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Decision, "hold_restored", lambda *_: None)
    line = started()
    restore(line)
    with pytest.raises(AssertionError):
        assert_waits_for_a_decision(line)


def test_planted_bug_a_hold_whose_cause_is_a_question_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_hold(self: _Decision, batch_id: str, why: str) -> None:
        self.hold(batch_id, "restore", why)  # as for any other hold: the first cause is kept

    monkeypatch.setattr(_Decision, "hold_restored", only_hold)
    line = started()
    in_question(line)
    restore(line)
    line.answer("030.1", "happened")
    with pytest.raises(AssertionError):
        assert_waits_for_a_decision(line)
