"""A recipe's life: every act in every state, who may do it, and what stays in the head."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edge.core import approve as approving
from edge.core import checkpoint
from edge.core import commands as cm
from edge.core import events as ev
from edge.core import lifecycle as life
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.lifecycle import Approval, RecipeAct, RecipeState, meaning, newer, waiting_for
from edge.core.line import Batch, Book
from edge.core.review import FROM_FOLDER, as_built, as_text
from edge.core.terms import Role, State
from tests.core.parts import PLANT, VirtualLine, recipe

A, B = "a" * 64, "b" * 64
EVA, QIN, DOT, SUE = ("eva", Role.ENGINEER), ("qin", Role.QUALITY), ("dot", Role.QUALITY), ("sue", Role.SUPERVISOR)
OFFERED = cm.Offered(
    recipe="R", version="1", title="A recipe", plant="p", rehearsal="r", rehearsed="all seen.", rehearsal_ok=True
)


class Box(VirtualLine):
    """A line on which recipes are signed."""

    def __init__(self, approval: Approval = Approval.TWO_SIGNATURES) -> None:
        super().__init__()
        self.line = replace(
            self.line, book=Book(PLANT, {A: recipe(), B: recipe(), "seal": recipe()}, frozenset({A, B, "seal"}))
        )
        self.do(cm.SetRecipeApproval(approval=approval))

    def sign(
        self,
        act: RecipeAct,
        who: tuple[str, Role] = EVA,
        seal: str = A,
        *,
        offered: cm.Offered = OFFERED,
        compared: str = "",
        reason: str = "because",
        says: str = "",
        checked: bool = True,
    ) -> list[ev.Event]:
        known = self.line.lives.get(seal)
        name = (known.recipe, known.version) if known else (offered.recipe, offered.version)
        signed = cm.Signed(
            person=who[0],
            roles=(who[1],),
            role=who[1],
            methods=("name", "PIN"),
            meaning=says or meaning(act, *name, seal),
            session="S",
            subject_seq=1,
            subject_hash="00" * 32,
            attestation="",
        )
        return self.do(
            cm.ChangeRecipe(
                session="S",
                act=act,
                seal=seal,
                compared_with=compared,
                reason=reason,
                signed=signed,
                offered=offered if act is RecipeAct.SUBMIT and checked else None,
            )
        )

    def bring_to(self, state: RecipeState, seal: str = A, *, offered: cm.Offered = OFFERED) -> None:
        """Through its whole life up to there."""
        compared = next((one.seal for one in self.line.lives.values() if one.state is RecipeState.EFFECTIVE), "")
        ways: list[tuple[RecipeState, RecipeAct, tuple[str, Role]]] = [
            (RecipeState.IN_REVIEW, RecipeAct.SUBMIT, EVA),
            (RecipeState.APPROVED, RecipeAct.APPROVE, SUE),
            (RecipeState.APPROVED, RecipeAct.APPROVE, QIN),
            (RecipeState.EFFECTIVE, RecipeAct.RELEASE, QIN),
            (RecipeState.RETIRED, RecipeAct.RETIRE, QIN),
        ]
        for reached, act, who in ways:
            if list(RecipeState).index(reached) <= list(RecipeState).index(state):
                self.sign(act, who, seal, offered=offered, compared=compared)
        assert approving.state_of(self.line, seal) is state

    def start(self, seal: str = A, batch: str = "B1") -> Batch:
        self.do(cm.StartBatch(session="S", batch=batch, order="O", seal=seal, patient="=D", speed=1.0))
        return self.line.batches[batch]


def refused(do: Callable[[], Any]) -> str:
    with pytest.raises(LinesideError) as error:
        do()
    assert error.value.what
    assert error.value.effect
    assert error.value.todo
    return error.value.code


@pytest.mark.parametrize(("state", "act"), list(itertools.product(RecipeState, RecipeAct)))
def test_every_act_in_every_state_does_what_the_table_says_or_is_refused(state: RecipeState, act: RecipeAct) -> None:
    box = Box()
    box.bring_to(state)
    made = len(box.rows)
    by = {RecipeAct.SUBMIT: EVA}.get(act, DOT)
    if act not in life.LIFE[state]:
        assert refused(lambda: box.sign(act, by)) == "recipe.state"
        assert len(box.rows) == made
        return
    if act is RecipeAct.APPROVE:
        assert [type(one) for one in box.sign(act, SUE)] == [ev.SignatureMade, ev.RecipeApproved]
        assert approving.state_of(box.line, A) is RecipeState.IN_REVIEW, "two people approve"
    signature, changed = box.sign(act, by)
    assert isinstance(signature, ev.SignatureMade)
    assert A in signature.meaning
    assert type(changed) in {kind for kind, one in life.ACT_OF.items() if one is act}
    assert approving.state_of(box.line, A) is life.LIFE[state][act]
    assert box.refold() == box.line


@pytest.mark.parametrize("state", list(RecipeState))
def test_only_what_is_effective_starts(state: RecipeState) -> None:
    box = Box()
    box.bring_to(state)
    if state is RecipeState.EFFECTIVE:
        assert box.start().seal == A
    else:
        assert refused(box.start) == "recipe.not_effective"


def test_a_running_batch_keeps_its_own_when_a_newer_version_takes_its_place() -> None:
    box = Box()
    box.bring_to(RecipeState.EFFECTIVE)
    box.start()
    box.bring_to(RecipeState.APPROVED, B, offered=replace(OFFERED, version="1.10"))
    released = box.sign(RecipeAct.RELEASE, DOT, B, compared=A)
    assert [type(one) for one in released] == [ev.SignatureMade, ev.RecipeReleased, ev.RecipeRetired]
    assert (box.line.lives[A].state, box.line.lives[A].superseded_by) == (RecipeState.RETIRED, B)
    assert (box.line.batches["B1"].seal, box.line.batches["B1"].state) == (A, State.RUNNING)
    box.do(cm.ConfirmStep(session="S", batch="B1", step="010"))
    assert refused(lambda: box.start(A, "B2")) == "recipe.not_effective"
    assert refused(lambda: box.sign(RecipeAct.SUBMIT, EVA, A)) == "recipe.state", "retired is for good"


@pytest.mark.parametrize(
    ("act", "who", "code"),
    [
        (RecipeAct.SUBMIT, QIN, "people.not_permitted"),
        (RecipeAct.SUBMIT, ("ana", Role.OPERATOR), "people.not_permitted"),
        (RecipeAct.APPROVE, ("ana", Role.OPERATOR), "people.not_permitted"),
        (RecipeAct.APPROVE, ("vic", Role.VERIFIER), "people.not_permitted"),
        (RecipeAct.APPROVE, ("eva", Role.QUALITY), "recipe.own"),
        (RecipeAct.SEND_BACK, ("ana", Role.OPERATOR), "people.not_permitted"),
        (RecipeAct.RELEASE, SUE, "people.not_permitted"),
        (RecipeAct.RELEASE, ("eva", Role.QUALITY), "recipe.own"),
        (RecipeAct.RETIRE, SUE, "people.not_permitted"),
    ],
)
def test_who_may_not_is_refused(act: RecipeAct, who: tuple[str, Role], code: str) -> None:
    box = Box()
    state = next(state for state in (RecipeState.APPROVED, *RecipeState) if act in life.LIFE[state])
    box.bring_to(state)
    assert refused(lambda: box.sign(act, who)) == code
    assert approving.state_of(box.line, A) is state


def test_two_people_approve_and_quality_is_one_of_them() -> None:
    box = Box()
    box.bring_to(RecipeState.IN_REVIEW)
    box.sign(RecipeAct.APPROVE, SUE)
    assert refused(lambda: box.sign(RecipeAct.APPROVE, SUE)) == "recipe.signed_already"
    box.sign(RecipeAct.APPROVE, ("tom", Role.ENGINEER))
    assert box.line.lives[A].state is RecipeState.IN_REVIEW, "nobody of quality so far"
    box.sign(RecipeAct.APPROVE, DOT)
    assert box.line.lives[A].state is RecipeState.APPROVED


def test_where_one_signature_is_enough_it_is_that_of_quality() -> None:
    box = Box(Approval.ONE_SIGNATURE)
    box.bring_to(RecipeState.IN_REVIEW)
    box.sign(RecipeAct.APPROVE, SUE)
    assert box.line.lives[A].state is RecipeState.IN_REVIEW
    box.sign(RecipeAct.APPROVE, DOT)
    assert box.line.lives[A].state is RecipeState.APPROVED


def test_signatures_do_not_count_after_it_was_sent_back() -> None:
    box = Box()
    box.bring_to(RecipeState.IN_REVIEW)
    box.sign(RecipeAct.APPROVE, SUE)
    assert refused(lambda: box.sign(RecipeAct.SEND_BACK, DOT, reason=" ")) == "recipe.reason"
    box.sign(RecipeAct.SEND_BACK, DOT, reason="step 030 has no why")
    assert (box.line.lives[A].state, box.line.lives[A].reason) == (RecipeState.DRAFT, "step 030 has no why")
    assert refused(lambda: box.sign(RecipeAct.SUBMIT, checked=False)) == "recipe.not_offered", (
        "nobody looked at it anew"
    )
    box.sign(RecipeAct.SUBMIT)
    box.sign(RecipeAct.APPROVE, DOT)
    assert box.line.lives[A].state is RecipeState.IN_REVIEW, "an earlier signature was of what was sent back"


def test_a_recipe_waits_for_those_who_may_sign_it_and_have_not() -> None:
    line = Box()

    def waits_for(person: str, role: Role) -> list[str]:
        return [one.seal for one in waiting_for(line.line.lives, person, (role,))]

    assert waits_for(*QIN) == []
    line.bring_to(RecipeState.IN_REVIEW)
    assert waits_for(*QIN) == waits_for(*SUE) == [A]
    assert waits_for("ana", Role.OPERATOR) == waits_for(EVA[0], Role.QUALITY) == [], "nor for its author"
    line.sign(RecipeAct.APPROVE, SUE)
    assert (waits_for(*SUE), waits_for(*QIN)) == ([], [A])
    line.sign(RecipeAct.APPROVE, QIN)
    assert (waits_for(*SUE), waits_for(*QIN)) == ([], [A]), "quality releases it"
    line.sign(RecipeAct.RELEASE, QIN)
    assert waits_for(*QIN) == []


def test_its_author_does_not_become_another_by_submitting_again_what_was_sent_back() -> None:
    box = Box()
    box.bring_to(RecipeState.IN_REVIEW)
    box.sign(RecipeAct.SEND_BACK, DOT)
    assert refused(lambda: box.sign(RecipeAct.SUBMIT, ("tom", Role.ENGINEER))) == "recipe.other_author"
    box.sign(RecipeAct.SUBMIT, EVA)
    assert refused(lambda: box.sign(RecipeAct.APPROVE, EVA)) == "recipe.own"


def test_what_its_rehearsal_did_not_see_whole_is_not_approved() -> None:
    box = Box()
    box.bring_to(RecipeState.IN_REVIEW, offered=replace(OFFERED, rehearsal_ok=False))
    assert refused(lambda: box.sign(RecipeAct.APPROVE, DOT)) == "recipe.not_rehearsed"


def test_a_signature_is_for_the_recipe_and_the_difference_that_were_shown() -> None:
    box = Box()
    box.bring_to(RecipeState.EFFECTIVE)
    box.bring_to(RecipeState.IN_REVIEW, B, offered=replace(OFFERED, version="2"))
    other = meaning(RecipeAct.APPROVE, "R", "1", A)
    with pytest.raises(LinesideError, match=r"recipe\.other_signed: .* was approved\."):
        box.sign(RecipeAct.APPROVE, DOT, B, compared=A, says=other)
    assert refused(lambda: box.sign(RecipeAct.APPROVE, DOT, B, compared="")) == "recipe.shown_changed"
    box.sign(RecipeAct.RETIRE, DOT, A)
    assert refused(lambda: box.sign(RecipeAct.APPROVE, DOT, B, compared=A)) == "recipe.shown_changed"
    box.sign(RecipeAct.APPROVE, DOT, B)


def test_a_version_is_one_recipe_and_goes_forward() -> None:
    box = Box()
    box.bring_to(RecipeState.EFFECTIVE, offered=replace(OFFERED, version="2"))
    assert refused(lambda: box.sign(RecipeAct.SUBMIT, EVA, B, offered=replace(OFFERED, version="2"))) == (
        "recipe.version_taken"
    )
    box.bring_to(RecipeState.APPROVED, B, offered=replace(OFFERED, version="1.9"))
    assert refused(lambda: box.sign(RecipeAct.RELEASE, DOT, B, compared=A)) == "recipe.older_version"


def test_versions_are_compared_as_numbers_of_any_length() -> None:
    assert newer("1.10", "1.9")
    assert newer("2", "1.99")
    assert newer("1.0.1", "1")
    assert not newer("1.0", "1")
    assert not newer("01", "1")
    assert newer("9" * 9_000, "8" * 9_000)


def test_from_the_folder_nobody_signs_and_what_was_retired_stays_so() -> None:
    box = Box(Approval.FROM_FOLDER)
    assert box.start("seal").seal == "seal", "an older journal goes on as it did"
    assert refused(lambda: box.sign(RecipeAct.SUBMIT)) == "recipe.from_folder"
    box = Box()
    box.bring_to(RecipeState.RETIRED)
    box.do(cm.SetRecipeApproval(approval=Approval.FROM_FOLDER))
    box.do(cm.LoadRecipe(recipe="R", version="1", title="A recipe", seal=A))
    assert refused(box.start) == "recipe.not_effective"
    assert refused(lambda: box.start(B)) == "recipe.not_effective"


def test_how_recipes_become_effective_is_a_row_when_it_changes_and_the_old_way_starts_no_more() -> None:
    box = VirtualLine()
    assert box.do(cm.SetRecipeApproval(approval=Approval.FROM_FOLDER)) == []
    [row] = box.do(cm.SetRecipeApproval(approval=Approval.TWO_SIGNATURES))
    assert row == ev.RecipeApprovalSet(approval="two_signatures")
    assert box.do(cm.SetRecipeApproval(approval=Approval.TWO_SIGNATURES)) == []
    start = cm.StartBatch(session="S", batch="B1", order="O", seal="seal", patient="=D", speed=1.0)
    assert refused(lambda: box.do(start)) == "recipe.not_effective", "nobody signed it"


def test_the_head_stays_bounded_and_never_forgets_what_is_live_or_that_one_is_retired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(life, "LIVES_KEPT", 8)
    monkeypatch.setattr(approving, "RECIPES_LIVE_MAX", 6)
    box = Box()
    box.bring_to(RecipeState.EFFECTIVE)
    seals = [f"{number:064x}" for number in range(20)]
    for seal in seals:
        offered = replace(OFFERED, recipe=f"R{seal[-3:]}")
        box.sign(RecipeAct.SUBMIT, EVA, seal, offered=offered)
        box.sign(RecipeAct.APPROVE, SUE, seal)
        box.sign(RecipeAct.APPROVE, QIN, seal)
        box.sign(RecipeAct.RETIRE, QIN, seal)
    assert len(box.line.lives) == 8
    assert box.line.lives[A].state is RecipeState.EFFECTIVE
    assert all(approving.state_of(box.line, seal) is RecipeState.RETIRED for seal in seals)
    for number in range(5):
        offered = replace(OFFERED, recipe=f"Q{number}")
        box.sign(RecipeAct.SUBMIT, EVA, f"{number + 100:064x}", offered=offered)
    assert refused(lambda: box.sign(RecipeAct.SUBMIT, EVA, B, offered=replace(OFFERED, recipe="Z"))) == (
        "recipe.too_many"
    )


def told(box: Box) -> list[str]:
    """What the record of a batch says about the approval of its recipe, without times."""
    record = as_built(enumerate(map(decode, box.rows), 1))["B1"]
    assert all(sentence in as_text(record).splitlines() for sentence in record.approval)
    return [" ".join(word for word in sentence.split() if not word.startswith("20")) for sentence in record.approval]


def test_the_record_of_a_batch_says_who_approved_its_recipe() -> None:
    box = Box()
    box.sign(RecipeAct.SUBMIT, seal=B)
    box.sign(RecipeAct.SEND_BACK, QIN, B)
    box.bring_to(RecipeState.EFFECTIVE)
    box.start(A)
    box.sign(RecipeAct.RETIRE, QIN, A)
    assert told(box) == [
        "Recipe submitted for review by eva as engineer",
        "Recipe reviewed and approved by sue as supervisor",
        "Recipe reviewed and approved by qin as quality",
        "Recipe released by qin as quality",
    ]


def test_the_record_of_a_batch_says_that_nobody_was_asked_to_sign_for_its_recipe() -> None:
    box = Box(Approval.FROM_FOLDER)
    box.start("seal")
    assert told(box) == [FROM_FOLDER]


def test_a_checkpoint_holds_it_all() -> None:
    box = Box()
    box.bring_to(RecipeState.EFFECTIVE)
    box.bring_to(RecipeState.IN_REVIEW, B, offered=replace(OFFERED, version="2"))
    kept, _ = checkpoint.read(b"".join(checkpoint.parts(box.line, bytes(32))), box.line.book)
    assert kept == box.line
    assert kept.lives[A] == box.line.lives[A]


PLANTED = ("author approves own", "unsigned release", "retired starts")


@pytest.mark.parametrize("planted", PLANTED)
def test_the_tests_above_find_a_planted_bug(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if planted == "author approves own":
        monkeypatch.setattr(approving, "_refuse_own", lambda *_: None)
        found: Callable[[], None] = lambda: test_who_may_not_is_refused(  # noqa: E731
            RecipeAct.APPROVE, ("eva", Role.QUALITY), "recipe.own"
        )
    elif planted == "unsigned release":

        def unsigned(decision: approving.Decision, _command: object, one: life.RecipeLife, *_: str) -> None:
            decision.emit(ev.RecipeReleased(recipe=one.recipe, version=one.version, seal=one.seal, role="quality"))

        monkeypatch.setitem(approving._DECIDE, RecipeAct.RELEASE, unsigned)  # type: ignore[arg-type]
        found = lambda: test_every_act_in_every_state_does_what_the_table_says_or_is_refused(  # noqa: E731
            RecipeState.APPROVED, RecipeAct.RELEASE
        )
    else:
        monkeypatch.setattr("edge.core.decide.startable", lambda line, seal: line.lives.get(seal))
        found = lambda: test_only_what_is_effective_starts(RecipeState.RETIRED)  # noqa: E731
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        found()
