"""What may be written, and what a reading is worth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.errors import LinesideError
from edge.core.guard import aged, agrees, judged, may_write
from edge.core.plant import Plant, Tag
from edge.core.terms import Quality, Reading, Value

PLANT = Plant.model_validate(
    {
        "plant": "p",
        "connections": {"c": {"driver": "modbus"}},
        "units": {
            "U": {
                "class": "thing",
                "tags": {
                    "x": {"connection": "c", "address": "a", "access": "write", "low": 0, "high": 10, "unit": "g"},
                    "n": {"connection": "c", "address": "a", "access": "write", "type": "int", "low": 0, "high": 10},
                    "on": {"connection": "c", "address": "a", "access": "write", "type": "bool"},
                    "name": {"connection": "c", "address": "a", "access": "write", "type": "text"},
                    "seen": {"connection": "c", "address": "a"},
                },
            }
        },
    }
)
X = PLANT.tags()["U.x"]


@pytest.mark.parametrize(
    ("tag", "value", "code"),
    [
        ("U.x", 10.0001, "guard.out_of_range"),
        ("U.x", -0.0001, "guard.out_of_range"),
        ("U.x", math.nan, "guard.not_a_number"),
        ("U.x", math.inf, "guard.not_a_number"),
        ("U.x", 10**400, "guard.type"),
        ("U.x", True, "guard.type"),
        ("U.x", "5", "guard.type"),
        ("U.n", 5.5, "guard.type"),
        ("U.n", 11, "guard.out_of_range"),
        ("U.on", 1, "guard.type"),
        ("U.name", 1, "guard.type"),
        ("U.name", "x" * 5000, "guard.type"),
        ("U.seen", 1.0, "guard.read_only"),
        ("U.nothing", 1.0, "guard.unknown_tag"),
        ("", 1.0, "guard.unknown_tag"),
    ],
)
def test_refused(tag: str, value: Value, code: str) -> None:
    with pytest.raises(LinesideError) as refusal:
        may_write(PLANT, tag, value)
    assert refusal.value.code == code
    assert refusal.value.todo


@pytest.mark.parametrize(
    ("tag", "value"),
    [("U.x", 0), ("U.x", 10.0), ("U.n", 5), ("U.n", 5.0), ("U.on", False), ("U.name", "")],
)
def test_allowed(tag: str, value: Value) -> None:
    may_write(PLANT, tag, value)


VALUES = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=5))


@given(tag=st.sampled_from(sorted(PLANT.tags())), value=VALUES)
def test_what_is_allowed_lies_within_the_limits(tag: str, value: Value) -> None:
    try:
        may_write(PLANT, tag, value)
    except LinesideError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.code.startswith("guard.")
        return
    declared = PLANT.tags()[tag]
    assert declared.access == "write"
    if declared.low is not None:
        assert not isinstance(value, bool | str)
        assert declared.low <= value <= (declared.high or 0)


def reading(value: Value, quality: Quality = Quality.GOOD, at_s: float = 100.0) -> Reading:
    return Reading(value, "g", quality, "", at_s)


@given(tag=st.sampled_from(sorted(PLANT.tags())), value=VALUES, quality=st.sampled_from(Quality))
def test_judging_never_makes_better_and_always_gives_a_usable_type(tag: str, value: Value, quality: Quality) -> None:
    declared = PLANT.tags()[tag]
    verdict = judged(declared, reading(value, quality))
    order = [Quality.GOOD, Quality.UNCERTAIN, Quality.BAD]
    assert order.index(verdict.quality) >= order.index(quality)
    assert type(verdict.value) is {"float": float, "int": int, "bool": bool, "text": str}[declared.type]
    assert not isinstance(verdict.value, float) or math.isfinite(verdict.value)
    if verdict.good and declared.low is not None:
        assert not isinstance(verdict.value, bool | str)
        assert declared.low <= verdict.value <= (declared.high or 0)
    if verdict.quality is Quality.BAD and quality is not Quality.BAD:
        assert verdict.detail


def test_age_turns_bad_only_what_is_too_old() -> None:
    assert aged(X, reading(1.0), 100.0 + X.stale_s).good
    stale = aged(X, reading(1.0), 100.1 + X.stale_s)
    assert stale.quality is Quality.BAD
    assert "Stale" in stale.detail


def tag(**changes: object) -> Tag:
    return Tag.model_validate({"connection": "c", "address": "a", **changes})


def test_agreement_needs_a_good_reading_within_tolerance() -> None:
    assert agrees(tag(), 37.1, reading(37.099998474121094))  # the nearest 32-bit float
    assert not agrees(tag(), 37.1, reading(37.099))
    assert agrees(tag(tolerance=0.01), 37.1, reading(37.109))
    assert not agrees(tag(tolerance=0.01), 37.1, reading(37.1, Quality.UNCERTAIN))
    assert agrees(tag(type="bool"), True, reading(True))
    assert not agrees(tag(type="bool"), True, reading(1))
    assert not agrees(tag(type="text"), "a", reading("b"))


@pytest.mark.parametrize(
    ("bounds", "value"),
    [({"low": 0}, -1.0), ({"high": 10}, 11.0), ({}, math.nan), ({}, math.inf), ({"low": 0, "high": 10}, math.nan)],
)
def test_one_bound_is_a_bound_and_no_number_is_bad(bounds: dict[str, int], value: float) -> None:
    tag = Tag.model_validate({"connection": "c", "address": "a", **bounds})
    assert judged(tag, Reading(value, "", Quality.GOOD, "", 0.0)).quality is Quality.BAD
    assert judged(tag, Reading(5.0, "", Quality.GOOD, "", 0.0)).quality is Quality.GOOD
