"""Rows and messages as bytes: what was written is read back the same, and nothing else is ever a traceback."""

from __future__ import annotations

import dataclasses
import types
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge import wire
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import RowBody, decode, encode
from edge.core.forms import parse_result
from edge.core.recipe.model import Record
from edge.core.terms import ClockQuality, Stamp

STAMP = Stamp("2026-01-01T00:00:00.000000Z", ClockQuality.SYNCED, 1.5, "boot")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
LEAVES: dict[object, st.SearchStrategy[object]] = {
    str: TEXT,
    int: st.integers(0, 2**53 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    types.NoneType: st.none(),
}


def values(hint: object) -> st.SearchStrategy[object]:
    """Any value that a fact of this type may have."""
    if hint in LEAVES:
        return LEAVES[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(TEXT, values(arguments[1]), max_size=3)
    assert origin in {types.UnionType, typing.Union}, hint
    return st.one_of([values(argument) for argument in arguments])


def events() -> st.SearchStrategy[ev.Event]:
    def of(kind: type[ev.Event]) -> st.SearchStrategy[ev.Event]:
        hints = typing.get_type_hints(kind)
        facts = {field.name: values(hints[field.name]) for field in dataclasses.fields(kind)}
        return st.builds(kind, **facts)

    return st.one_of([of(kind) for kind in ev.KINDS.values()])


@given(events(), TEXT)
def test_every_row_is_read_back_as_it_was_written(event: ev.Event, actor: str) -> None:
    body = RowBody(event, STAMP, actor)
    assert decode(encode(body)) == body


@given(st.binary(max_size=300))
def test_bytes_that_are_no_row_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(LinesideError) as refused:
        decode(data)
    assert refused.value.code == "row.unreadable"


@given(events(), st.data())
def test_a_damaged_row_is_read_or_refused_never_a_crash(event: ev.Event, data: st.DataObject) -> None:
    raw = bytearray(encode(RowBody(event, STAMP, "ana")))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decode(bytes(raw))
    except LinesideError as refused:
        assert refused.code == "row.unreadable"


@given(st.one_of(st.binary(max_size=400), st.recursive(st.none() | st.text(), st.lists).map(repr)))
def test_a_message_is_understood_or_refused_by_the_models(data: bytes | str) -> None:
    try:
        wire.REQUEST.validate_json(data)
    except ValidationError as error:
        assert error.error_count() >= 1


@given(st.text(max_size=300))
def test_an_entry_is_a_finite_number_or_refused(text: str) -> None:
    step = Record.model_validate(
        {"id": "010", "phase": "record", "title": "t", "text": "t", "name": "n", "type": "number"}
    )
    try:
        value = parse_result(step, text)
    except LinesideError as refused:
        assert refused.code in {"entry.empty", "entry.number"}
    else:
        assert isinstance(value, float)
        assert value - value == 0
