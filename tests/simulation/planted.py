"""Bugs on purpose for the line model: what is put in whose place, and what the model then says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge.core import amending, by_hand, decide
from edge.core import commands as cm
from edge.core import events as ev
from edge.core import line as head
from edge.core.mode import HandAct
from edge.core.recipe import amend
from edge.core.terms import Elapsed


def careless_start(self: decide._Decision, command: cm.StartRuntime) -> None:
    self.emit(ev.RuntimeStarted(version=command.version, clean=False, dark_low_s=0.0, dark_high_s=0.0))
    for batch in self.line.live():
        self.proceed(batch.batch)


def dark_time_counts(before: Elapsed, _since: Any, _last: Any, gap: Elapsed) -> Elapsed:
    return Elapsed(before.low_s + min(gap.high_s, 1e6), before.high_s + gap.high_s)


def answered_at_once(self: decide._Decision, batch: Any, question: Any, command: cm.AnswerQuestion) -> None:
    FOLLOW(self, batch, question, command)
    held = self.line.batches[batch.batch].state is head.State.HELD
    if command.answer == "again" and question.tag and held:
        run = batch.steps[question.step]
        attempt = int(question.question.rpartition(".")[2]) + 1
        self.intend(batch.batch, run.step, run.iteration, attempt, question.tag, question.intent)


FOLLOW = decide._Decision.follow_answer


def walk_that_sees_no_iteration(self: decide._Decision, batch_id: str, sequence: Any, _iteration: int = 1) -> bool:
    for step in sequence:
        run = self.line.batches[batch_id].steps.get(step.id)
        if run is None:
            self.activate(batch_id, step, 1)
            run = self.line.batches[batch_id].steps[step.id]
        if run.state == "active" and not self.finish(batch_id, step, 1):
            return False
    return True


def choose_again(self: decide._Decision, batch_id: str, step: Any, iteration: int) -> bool:
    batch = self.line.batches[batch_id]
    forgotten = {**batch.steps, step.id: replace(batch.steps[step.id], branch=None)}
    self.line = replace(self.line, batches={**self.line.batches, batch_id: replace(batch, steps=forgotten)})
    return GO_ONE_WAY(self, batch_id, step, iteration)


GO_ONE_WAY = decide._Decision.go_one_way


def made_when_it_is_requested(d: Any, command: cm.RequestAmendment) -> None:
    REQUEST(d, command)
    batch = d.line.batches[command.batch]
    plan = amending.plan_changes(d.line, batch, command.changes, d.now.at)
    amending._make(d, batch, batch.requested, plan, command.signed)


REQUEST = amending.request


def one_person_is_enough(d: Any, command: cm.SettleAmendment) -> None:
    batch = d.line.batches.get(command.batch)
    if batch is not None and batch.requested is not None:
        asked = replace(batch.requested, people=("nobody",))
        d.line = replace(d.line, batches={**d.line.batches, batch.batch: replace(batch, requested=asked)})
    SETTLE(d, command)


SETTLE = amending.settle


def without_bounds(recipe: Any) -> Any:
    return [replace(offer, low="", high="") for offer in OFFERS(recipe)]


OFFERS = amend.offers


def every_batch(line: Any, row: Any, seq: int) -> Any:
    changed = APPLY(line, row, seq)
    event = row.event
    if isinstance(event, ev.AmendmentMade):
        fields = ("seal", "changes", "amended")
        made = {name: getattr(changed.batches[event.batch], name) for name in fields}
        return replace(changed, batches={name: replace(batch, **made) for name, batch in changed.batches.items()})
    return changed


APPLY = head._apply


def alone(d: decide._Decision, command: cm.EnterByHand) -> None:
    """Whoever entered it verifies it, too."""
    batch = d.line.batches.get(command.batch)
    run = batch.steps.get(command.step) if batch else None
    if batch is not None and run is not None and run.hand is not None and run.hand.part and command.verifies:
        hand = replace(run.hand, person="nobody")
        steps = replace(batch, steps=batch.runs().with_run(replace(run, hand=hand)))
        d.line = replace(d.line, batches={**d.line.batches, batch.batch: steps})
    ENTER(d, command)


def never_refused(line: Any, batch: Any, run: Any, act: Any, *more: Any) -> Any:
    """What people say that they did may be done by the box once more."""
    if run.hand is not None and run.hand.claimed and act is HandAct.RETURN:
        run = replace(run, hand=replace(run.hand, claimed=False))
    return REFUSAL(line, batch, run, act, *more)


ENTER, REFUSAL = by_hand.enter, by_hand.refusal


def forgetful(batch: Any, *more: Any) -> Any:
    """A start begins without what people signed to be done again."""
    return replace(AFTER_START(batch, *more), agreed={})


AFTER_START = head._after_start


PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "open intents are taken up again": (
        {
            "edge.core.line._after_start": lambda batch, *_: batch,
            "edge.core.decide._Decision.start_runtime": careless_start,
        },
        "of an earlier run|written to twice|after a crash at row|an earlier run decided",
    ),
    "a dark stretch counts as time that passed": ({"edge.core.line._carried": dark_time_counts}, "TimerDue"),
    "a held batch writes when its question is answered": (
        {"edge.core.decide._Decision.follow_answer": answered_at_once},
        "written while held",
    ),
    "use leaves a unit clean": ({"edge.core.cleaning.used": lambda *_: None}, "it counts as clean"),
    "units are not kept apart": (
        {"edge.core.queueing.allocate": lambda _, recipe, *__, **___: dict.fromkeys(recipe.units, "BR-1")},
        "two batches share a unit",
    ),
    "a request is done again when it is repeated": (
        {"edge.core.line.ANSWERED_MAX": 0},
        "was done twice|was decided twice",
    ),
    "a loop takes the steps of its last pass for those of this one": (
        {"edge.core.decide._Decision.walk": walk_that_sees_no_iteration},
        "begun in iteration|not all done|out of turn|no step is under way",
    ),
    "a selection is made anew at every look": ({"edge.core.decide._Decision.go_one_way": choose_again}, "chosen twice"),
    "an amendment is made before it is signed by all": (
        {"edge.core.amending.request": made_when_it_is_requested},
        "not signed by",
    ),
    "one person signs an amendment twice": (
        {"edge.core.amending.settle": one_person_is_enough},
        "not signed by|not that of its rows",
    ),
    "an amendment goes beyond the bounds": (
        {"edge.core.recipe.amend.offers": without_bounds, "edge.core.recipe.amend.problems": lambda _: iter(())},
        "out of its bounds",
    ),
    "one person enters by hand and verifies it": (
        {"edge.core.by_hand.enter": alone},
        "not entered by another person",
    ),
    "the box does again what people did by hand": (
        {"edge.core.by_hand.refusal": never_refused},
        "although people did it",
    ),
    "what was to be done again is forgotten by a crash": (
        {"edge.core.line._after_start": forgetful},
        "an answer is forgotten",
    ),
    "what is done is amended": ({"edge.core.amending.standing": lambda *_: "todo"}, "what is done is changed"),
    "an amendment of one batch is one of every batch": ({"edge.core.line._apply": every_batch}, "another recipe after"),
}
