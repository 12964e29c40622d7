"""The hub proposes to amend a batch: nothing changes before people at the box have signed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.amendable import waiting
from edge.core import amending, checkpoint
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.line import Book
from edge.core.proposals import Proposal, is_proposal, read_proposal
from edge.core.recipe.amend import Change
from edge.core.terms import Role, State
from tests.core.parts import PLANT, VirtualLine, kinds, recipe
from tests.core.test_amendments import AMENDMENTS, HIGHER, MORE, line_at, record, settle
from tests.core.test_expiry import shown

SAID: dict[str, Any] = {
    "lineside_proposal": 1,
    "proposal": "P-17",
    "batch": "B1",
    "version": "1",
    "until": "2026-12-31",
    "reason": "the cells of the sister batch stand it",
    "changes": [{"kind": "value", "subject": "052", "field": "limit.high", "new": "38.5"}],
}


def document(**facts: Any) -> bytes:
    return orjson.dumps({key: value for key, value in (SAID | facts).items() if value is not None})


def propose(line: VirtualLine, **facts: Any) -> list[ev.Event]:
    return line.do(cm.TakeProposal(proposal=read_proposal(document(**facts)), way="hub"))


def take_up(line: VirtualLine, proposal: str = "P-17", **facts: Any) -> list[ev.Event]:
    asked = {"batch": "B1", "changes": (), "adopts": "", "from_step": "", "reason": "so do ours"} | facts
    return line.do(
        cm.RequestAmendment(session="S", signed=line.signed("ana", Role.OPERATOR), proposal=proposal, **asked)
    )


def test_it_is_shown_with_its_difference_and_takes_effect_with_the_signatures_at_the_box() -> None:
    line = line_at("052")
    assert kinds(propose(line)) == ["AmendmentProposed"]
    assert propose(line) == [], "the same once more, as a broker repeats it"
    assert line.line.recipe(line.batch()) == line.recipe
    (said,) = waiting(line.line)
    assert "P-17: the cells of the sister batch" in said
    offer = shown(line).batches[0].offers[0]
    assert (offer.kind, offer.subject, offer.refused) == ("proposed", "P-17", "")
    assert offer.differences == ("step 052: upper temperature limit 38.0 → 38.5",)
    take_up(line, changes=(Change("skip", "060"),))  # what the hub proposes is asked for, whatever comes with it
    assert line.batch().proposed is None
    asked = line.batch().requested
    assert asked is not None
    assert [change.subject for change in asked.changes] == ["052"]
    assert line.batch().amended == "", "nobody agreed yet"
    with pytest.raises(LinesideError, match=r"same_person|role"):
        settle(line, "ana", Role.OPERATOR)
    settle(line)
    assert line.batch().amended
    (one,) = record(line).amendments
    assert one.reason == "so do ours (Proposal P-17 of the hub: the cells of the sister batch stand it)"
    assert line.refold() == line.line
    assert propose(line) == [], "it was made, and comes no second time"


def test_a_restart_and_a_checkpoint_keep_it() -> None:
    line = line_at("052")
    propose(line)
    line.crash()
    assert line.batch().proposed is not None
    assert line.refold() == line.line
    again, _ = checkpoint.read(b"".join(checkpoint.parts(line.line, bytes(32))), line.line.book)
    assert again == line.line


def test_a_batch_goes_over_to_the_version_that_the_hub_names() -> None:
    line = line_at("052")
    newer = recipe(amendments=AMENDMENTS | {"adopt": True}, version="2", **MORE)
    book = Book(PLANT, {"seal": line.recipe, "new": newer}, frozenset({"seal", "new"}))
    line.line = replace(line.line, book=book)
    line.do(cm.LoadRecipe(recipe="R", version="2", title="newer", seal="new"))
    propose(line, changes=None, adopts="2", from_step="060")
    take_up(line)
    settle(line)
    assert (line.batch().version, line.batch().seal) == ("2", "new")


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"batch": "B9"}, "No batch B9 is under way"),
        ({"version": "7"}, "runs by version 1"),
        ({"reason": "another"}, "another order or proposal P-17"),
    ],
)
def test_one_that_cannot_be_taken_is_a_row_once(facts: dict[str, Any], why: str) -> None:
    line = line_at("052")
    propose(line)
    (refused,) = propose(line, **facts, **({} if "reason" in facts else {"proposal": "P-18"}))
    assert isinstance(refused, ev.ProposalRefused)
    assert why in refused.why
    assert propose(line, **facts, **({} if "reason" in facts else {"proposal": "P-18"})) == []
    assert line.batch().proposed is not None
    assert line.refold() == line.line


def test_what_does_not_hold_any_more_is_not_taken_up() -> None:
    line = line_at("052")
    propose(line, until="2025-12-31")
    assert "it held until 2025-12-31" in shown(line).batches[0].offers[0].refused
    with pytest.raises(LinesideError, match=r"amendment\.proposal"):
        take_up(line)
    propose(line, proposal="P-18", changes=[{"kind": "value", "subject": "052", "field": "limit.high", "new": "99"}])
    with pytest.raises(LinesideError, match=r"amendment\.no_proposal"):
        take_up(line)
    with pytest.raises(LinesideError, match=r"amendment\.out_of_bounds"):
        take_up(line, "P-18")
    assert line.batch().state is State.RUNNING
    assert line.batch().requested is None


def test_planted_bug_a_proposal_that_takes_effect_by_itself_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = amending.take_proposal

    def made_at_once(d: Any, command: cm.TakeProposal) -> None:
        kept(d, command)
        batch = d.line.batches["B1"]
        plan = amending.plan_changes(d.line, batch, [HIGHER], d.now.at)
        d.emit(
            ev.AmendmentMade(
                batch="B1", amendment="A1", person="", role="", changes=plan.said(), skips=[], dropped=False,
                version=plan.version, seal=plan.seal, was_seal=plan.was_seal, new_seal=plan.new_seal, remaining=[],
                lengths={},
            )
        )  # fmt: skip

    monkeypatch.setattr(amending, "take_proposal", made_at_once)
    with pytest.raises(AssertionError):
        test_it_is_shown_with_its_difference_and_takes_effect_with_the_signatures_at_the_box()


def test_its_bytes_are_the_same_whatever_its_form() -> None:
    one, other = read_proposal(document()), read_proposal(orjson.dumps(SAID, option=orjson.OPT_INDENT_2))
    assert one.as_bytes() == other.as_bytes()
    assert read_proposal(one.as_bytes()) == one
    assert is_proposal(one.as_bytes())


@pytest.mark.parametrize(
    "facts",
    [
        {"changes": None}, {"adopts": "2", "from_step": "060"}, {"changes": None, "adopts": "2"}, {"until": "soon"},
        {"until": "2026-02-30"}, {"reason": ""}, {"batch": " B"}, {"lineside_proposal": 2}, {"more": 1},
        {"changes": [{"kind": "dirty", "subject": "reactor"}]}, {"changes": SAID["changes"] * 11},
    ],
)  # fmt: skip
def test_what_is_no_proposal_is_refused_in_words(facts: dict[str, Any]) -> None:
    with pytest.raises(LinesideError, match=r"proposal\.unreadable"):
        read_proposal(document(**facts))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SAID, "adopts", "kind"]), inner),
    max_leaves=8,
)


@settings(max_examples=50, derandomize=True)
@given(st.binary(max_size=200) | _JSON.map(orjson.dumps) | st.dictionaries(st.sampled_from([*SAID]), _JSON).map(
    lambda wrong: orjson.dumps(SAID | wrong)
))  # fmt: skip
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        read = read_proposal(data)
    except LinesideError as refusal:
        assert refusal.code == "proposal.unreadable"
    else:
        assert isinstance(read, Proposal)
