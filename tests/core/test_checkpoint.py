"""The head's bounds, and its bytes: what was folded comes back whole, and nothing else is taken for a head."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from math import inf

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import checkpoint
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.line import ENDED_KEPT, EXCEPTIONS_KEPT, RECIPES_KEPT, Book, Line, UsedIds, apply
from edge.core.terms import Act, Elapsed, Role
from tests.core.parts import PLANT, VirtualLine, recipe
from tests.simulation.line_model import Run

HASH = bytes(range(32))
BOOK = Book(PLANT)


def kept(line: Line) -> bytes:
    return b"".join(checkpoint.parts(line, HASH))


def back(data: bytes) -> Line:
    line, row_hash = checkpoint.read(data, BOOK)
    assert row_hash == HASH
    return line


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Lines that lived at random, faults and power cuts included."""
    return [Run(seed).play() for seed in range(30)]


def test_a_head_comes_back_as_it_was(runs: list[Run]) -> None:
    for run in runs:
        for made in run.chance.sample(run.made, 5):
            data = kept(made.line)
            assert back(data) == made.line
            assert kept(back(data)) == data, "not in the same order"


def test_a_kept_head_and_the_rows_after_it_give_the_head(runs: list[Run]) -> None:
    for run in runs:
        cut = run.chance.randrange(len(run.made))
        line = back(kept(run.made[cut].line))
        for made in run.made[cut + 1 :]:
            line = apply(line, decode(made.data))
        assert line == run.made[-1].line
        assert kept(line) == kept(run.made[-1].line)


def test_each_field_of_the_head_is_kept(runs: list[Run]) -> None:
    """Whoever adds a field need not think of checkpoints."""
    data = kept(runs[0].made[-1].line)
    head, *batches = (orjson.loads(part) for part in data.splitlines())
    assert {field.name for field in fields(Line)} - set(head["head"]) == {"book", "batches"}
    assert len(batches) == len(runs[0].line.batches)


def test_an_unbounded_time_comes_back() -> None:
    line = replace(Line(BOOK), dark=Elapsed(3.5, inf))
    assert back(kept(line)) == line


@pytest.mark.parametrize("key", ["schema", "semantics"])
def test_the_head_of_another_version_is_refused(key: str) -> None:
    top = orjson.loads(kept(Line(BOOK)))
    with pytest.raises(LinesideError, match="it is of schema") as refusal:
        checkpoint.read(orjson.dumps(top | {key: top[key] + 1}), BOOK)
    assert refusal.value.code == "checkpoint.unreadable"


@pytest.mark.parametrize("change", [{"more": 1}, {"seq": "1"}, {"seq": True}, {"running": 0}, {"used": {"packed": 3}}])
def test_a_head_with_other_fields_is_refused(change: dict[str, object]) -> None:
    top = orjson.loads(kept(Line(BOOK)))
    with pytest.raises(LinesideError) as refusal:
        checkpoint.read(orjson.dumps(top | {"head": top["head"] | change}), BOOK)
    assert refusal.value.code == "checkpoint.unreadable"


def test_more_bytes_than_a_checkpoint_may_have_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = kept(Line(BOOK))
    monkeypatch.setattr(checkpoint, "BYTES_MAX", len(data) - 1)
    with pytest.raises(LinesideError, match="more than"):
        checkpoint.read(data, BOOK)


SAMPLE = kept(Run(7).play().line)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200) | st.lists(JSON, max_size=3).map(lambda made: b"\n".join(map(orjson.dumps, made))))
def test_any_bytes_are_a_head_or_refused(data: bytes) -> None:
    with pytest.raises(LinesideError):
        checkpoint.read(data, BOOK)


@given(st.integers(0, 2**32))
def test_a_damaged_head_is_another_head_or_refused(seed: int) -> None:
    """A file's hash is compared before it is read; even so nothing but a refusal may come of damage."""
    chance = random.Random(seed)
    damaged = bytearray(SAMPLE)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(damaged))
        damaged[at : at + chance.randint(0, 3)] = chance.choice([b"", b"[", b"null", b'"', b"-1", b"1e999", b"\n"])
    try:
        line, _ = checkpoint.read(bytes(damaged), BOOK)
    except LinesideError as refusal:
        assert refusal.code == "checkpoint.unreadable"
    else:
        assert isinstance(line, Line)


# Bounds --------------------------------------------------------------------------------------------------------------

SHORT = recipe([{"id": "010", "phase": "instruct", "title": "Clear", "text": "Clear it."}])


def test_batches_that_ended_leave_the_head_and_their_ids_stay_used() -> None:
    line = VirtualLine(recipe=SHORT)
    line.start("long")
    for number in range(ENDED_KEPT + 30):
        line.start(f"B{number}")
        line.do(cm.ConfirmStep(session="S", batch=f"B{number}", step="010"))
    line.do(cm.ConfirmStep(session="S", batch="long", step="010"))
    last = [f"B{number}" for number in range(31, ENDED_KEPT + 30)]
    assert list(line.line.batches) == [*last, "long"], "the last to end, whenever they began"
    assert line.refold() == line.line
    for name in ("B0", "B5", last[-1], "long"):
        with pytest.raises(LinesideError) as refusal:
            line.start(name)
        assert refusal.value.code == "batch.exists"
    with pytest.raises(LinesideError) as refusal:
        line.do(cm.ActOnBatch(session="S", batch="B0", act=Act.STOP, reason="late"))
    assert refusal.value.code == "batch.unknown"
    assert line.start("B-new")


def test_a_row_about_a_batch_that_left_the_head_changes_no_batch() -> None:
    line = VirtualLine(recipe=SHORT)
    row = decode(line.rows[-1])
    late = replace(row, event=ev.StepConfirmed(batch="long ago", step="010"))
    assert apply(line.line, late).batches == line.line.batches


def test_a_batch_with_many_exceptions_keeps_the_newest_and_counts_all() -> None:
    line = VirtualLine()
    line.start()
    line.to_step("020")
    for _ in range(EXCEPTIONS_KEPT + 50):
        line.scan("020", "=DIN2")
    assert len(line.batch().exceptions) == EXCEPTIONS_KEPT
    assert line.batch().raised == EXCEPTIONS_KEPT + 50
    assert line.batch().exceptions[-1].exception == f"X{EXCEPTIONS_KEPT + 50}"


def test_the_head_remembers_the_newest_recipes() -> None:
    line = VirtualLine()
    for number in range(RECIPES_KEPT + 3):
        line.do(cm.LoadRecipe(recipe="R", version=str(number), title="t", seal=f"s{number}"))
    assert len(line.line.recipes) == RECIPES_KEPT
    assert list(line.line.recipes)[-1] == f"s{RECIPES_KEPT + 2}"
    assert line.do(cm.LoadRecipe(recipe="R", version="0", title="t", seal="s0")), "loaded anew, and said so"


def test_an_effective_recipe_never_leaves_the_head() -> None:
    line = VirtualLine()
    effective = [f"e{number}" for number in range(500)]
    loads = [*effective, *(f"s{number}" for number in range(400)), *effective, *(f"t{number}" for number in range(300))]
    for seal in [*loads, *effective]:
        line.do(cm.LoadRecipe(recipe="R", version="1", title="t", seal=seal))
    assert set(effective) <= set(line.line.recipes)


@given(st.lists(st.text(max_size=4), max_size=40), st.lists(st.text(max_size=4), max_size=10))
def test_used_ids_are_a_set(names: list[str], others: list[str]) -> None:
    used = UsedIds()
    for name in names:
        used = used.with_id(name)
    assert len(used) == len(set(names))
    for name in [*names, *others]:
        assert (name in used) == (name in names)


def test_a_locked_person_and_an_open_session_come_back() -> None:
    line = VirtualLine()
    for _ in range(5):
        line.do(cm.RefuseLogIn(person="ben"))
    assert back(kept(line.line)) == line.line
    assert line.line.failures["ben"].locked
    assert back(kept(line.line)).sessions["S"].roles == (Role.OPERATOR,)
