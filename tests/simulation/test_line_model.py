"""Random recipes × random commands × crashes at every row, over the pure core. `LINESIDE_SEED` replays one run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core import line
from edge.core.errors import LinesideError
from edge.core.recipe.model import Recipe
from edge.core.terms import Act, Role, State
from tests.core.parts import VirtualLine, recipe
from tests.simulation.line_model import DIN, PEOPLE, Broken, Run
from tests.simulation.planted import PLANTED

RUNS = int(os.environ.get("LINESIDE_RUNS", "300"))
ATTEMPTS = 12
SET_30 = {"id": "030", "phase": "set", "title": "Warm", "tag": "reactor.setpoint", "value": 37.0}
SET_31 = SET_30 | {"id": "031"}
ELSEWHERE = {
    "AlarmAcknowledged", "AlarmCleared", "AlarmFlooded", "AlarmRaised", "AttachmentsOffered",
    "ByHand", "CustodyPassed", "LabelsPrinted", "RampStepped", "ResultAdded", "ResultPending", "Transferred", "Weighed",
    "BatchQueued", "ExpiryBegun", "ExpiryEnded", "ExpiryNear", "ExpiryPassed", "ServiceMoved", "ServiceSet",
    "AmendmentProposed", "NumberRangeSet", "NumbersSkipped", "OrderCancelled", "OrderReceived", "OrderRefused",
    "ProfileSet", "ProposalRefused", "TrendJudged",
    "TrendPinned",
}  # fmt: skip
"""Kinds of rows that other tests play."""
SEEDS = [int(os.environ["LINESIDE_SEED"])] if "LINESIDE_SEED" in os.environ else range(RUNS)


def test_whatever_happens_to_a_line_what_must_hold_holds() -> None:
    seen: Counter[str] = Counter()
    for run in play(SEEDS):
        seen.update(type(made.body.event).__name__ for made in run.made)
        seen.update(batch.state.value for batch in run.line.batches.values())
    if len(SEEDS) >= 300:  # otherwise the model has gone blind
        of_the_box = {
            "CheckpointMade",
            "PlantLoaded",
            "SessionClosed",
            "LogInRefused",
            "ReceiptStored",
            "Sealed",
            "JournalContinued",
            "IdentityErased",
            "RecipeApprovalSet",
            "RecipeSubmitted",
            "RecipeApproved",
            "RecipeSentBack",
            "RecipeReleased",
            "RecipeRetired",
            "RowsPruned",
            "SelfChecked",
            "BackupDrilled",
            "ValuesMissing",
            "ValuesSealed",
            "ValuesThinned",
        }
        assert set(ev.KINDS) - set(seen) <= of_the_box | ELSEWHERE
        assert not of_the_box & set(seen)
        assert {state.value for state in State if state in line.OVER} <= set(seen)


class Timed(Run):
    """It begins with something that takes time, the power goes often, and people say for how long."""

    weights: ClassVar[Mapping[str, int]] = {
        "the_power_goes": 8,
        "somebody_says_how_long_it_was_off": 60,
        "somebody_amends": 0,
        "people_go_on_by_hand": 0,
    }

    def drawn(self) -> Recipe:
        return next(one for one in iter(super().drawn, None) if one.main()[0].phase in {"wait", "hold"})


class Handmade(Run):
    """It begins with a write, and people do much by hand."""

    weights: ClassVar[Mapping[str, int]] = {"people_go_on_by_hand": 60, "somebody_acts": 8, "somebody_amends": 1}

    def drawn(self) -> Recipe:
        return next(one for one in iter(super().drawn, None) if one.main()[0].phase == "set")


SOONER: dict[str, type[Run]] = {
    "a dark stretch counts as time that passed": Timed,
    "one person enters by hand and verifies it": Handmade,
    "the box does again what people did by hand": Handmade,
}
"""Bugs that a run of another kind shows sooner."""


@pytest.mark.parametrize("planted", PLANTED)
def test_the_model_finds_a_planted_bug(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patches, found = PLANTED[planted]
    for target, instead in patches.items():
        monkeypatch.setattr(target, instead)
    with pytest.raises(Broken, match=found):
        play(range(300), SOONER.get(planted, Run))


def play(seeds: Iterable[int], kind: type[Run] = Run) -> list[Run]:
    return [kind(seed).play() for seed in seeds]


class OneWrite(Run):
    """A line that writes one set-point and never learns what became of it."""

    def drawn(self) -> Recipe:
        return recipe([SET_30])

    def play(self) -> Run:
        """Somebody has it written again and again: every attempt arrives, and each is judged, also after a crash."""
        self.do(cm.StartBatch(session="ana", batch="B1", order="O", seal="seal", patient=DIN, speed=1.0))
        for _ in range(ATTEMPTS):
            self.rows_become_durable()
            self.writes_begin(arrive=1.1)
            (key,) = self.flying
            del self.flying[key]
            self.conclude(key, "unknown")
            (question,) = self.line.batches["B1"].questions.values()
            self.do(
                cm.AnswerQuestion(
                    command_id=question.question,
                    session="ana",
                    batch="B1",
                    question=question.question,
                    answer="again",
                    reading=37.0,
                    signed=replace(self.signed(Role.OPERATOR), person="ana", roles=PEOPLE["ana"], session="ana"),
                )
            )
        self.crash_at_every_row()
        return self


def test_what_is_written_again_is_another_attempt_and_arrives_once() -> None:
    run = OneWrite(1).play()
    assert {key[3]: count for key, count in run.executed.items()} == dict.fromkeys(range(1, ATTEMPTS + 1), 1)


# What the model found -------------------------------------------------------------------------------------------------


def test_a_write_that_the_guard_refuses_at_the_start_holds_the_batch_and_can_be_answered() -> None:
    steps = [{"id": "030", "phase": "set", "title": "Warm", "tag": "reactor.setpoint", "value": 99.0}]
    core = VirtualLine(recipe(steps))
    core.start()
    assert core.batch().state is State.HELD
    core.answer("030.1", "abort")
    assert core.batch().state is State.ABORTING


def test_a_question_ends_with_its_batch() -> None:
    core = VirtualLine()
    core.start()
    core.to_step("030")
    core.conclude("030", "unknown")
    core.do(cm.ActOnBatch(session="S", batch="B1", act=Act.STOP, reason="enough"))
    assert core.batch().state is State.STOPPING, "its unit is being made safe"
    core.conclude("safe-state", "confirmed")
    assert core.batch().state is State.STOPPED
    assert core.batch().questions == {}
    with pytest.raises(LinesideError) as refused:
        core.answer("030.1", "again")
    assert refused.value.code == "question.closed"


def test_a_question_waits_until_every_write_of_the_batch_is_concluded() -> None:
    core = VirtualLine(recipe([{"id": "p", "phase": "parallel", "title": "P", "branches": [[SET_30], [SET_31]]}]))
    core.start()
    core.conclude("030", "unknown")
    with pytest.raises(LinesideError, match="is holding"):
        core.answer("030.1", "again")
    core.conclude("031", "confirmed")
    core.answer("030.1", "happened")
    assert core.batch().state is State.COMPLETE
