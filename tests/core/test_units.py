"""Units of measure: what they convert to, what they do not, and what a recipe says with them."""

from __future__ import annotations

import json

import pytest

from edge.core.errors import LinesideError
from edge.core.recipe import check_recipe, read_recipe
from edge.core.terms import MEASURES, convert, same_dimension

MICRO = "\N{MICRO SIGN}"


@pytest.mark.parametrize(
    ("value", "unit", "to", "expected"),
    [
        (1.3, "uS/cm", "mS/cm", 0.0013),
        (12.88, "mS/cm", "S/m", 1.288),
        (1.3, f"{MICRO}S/cm", "uS/cm", 1.3),
        (500.0, f"{MICRO}g/L", "mg/L", 0.5),
        (500.0, "ug/L", "ng/mL", 500.0),
        (2.0, "g/L", "mg/mL", 2.0),
        (-30.0, "mV", "V", -0.03),
        (1500.0, "mAU", "AU", 1.5),
        (5.4, "L/h", "mL/min", 90.0),
        (1.0, "bar", "psi", 14.503774),
        (1.0, "bar", "mbar", 1000.0),
        (15.0, "Pa", "mbar", 0.15),
        (2.0, "bar", "kPa", 200.0),
        (6.0, "kg/h", "g/min", 100.0),
        (0.5, "1e6/mL", "1/mL", 500_000.0),
        (3520.0, "1/m3", "1/mL", 0.00352),
        (10.0, "CFU/m3", "CFU/mL", 1e-5),
        (37.0, "degC", "K", 310.15),
        (98.6, "degF", "degC", 37.0),
        (5.0, "% v/v", "%", 5.0),
        (2.0, "kW", "W", 2000.0),
        (300.0, "cm/h", "m/s", 300e-2 / 3600),
        (0.2, "um", "mm", 0.0002),
        (25.0, "mmol/L", "mol/L", 0.025),
    ],
)
def test_a_value_means_the_same_in_another_unit_of_its_kind(value: float, unit: str, to: str, expected: float) -> None:
    assert convert(value, unit, to) == pytest.approx(expected)
    assert convert(convert(value, unit, to), to, unit) == pytest.approx(value)


@pytest.mark.parametrize(
    ("unit", "other"),
    [
        ("uS/cm", "ug/L"), ("mV", "pH"), ("AU", "NTU"), ("EU/mL", "IU/mL"), ("EU/mL", "EU/kg"), ("CFU", "cells"),
        ("L/h", "kg/h"), ("rpm", "1/mL"), ("CV", "L"), ("mol/L", "g/L"), ("bar", "%"), ("mOsm/kg", "mmol/L"),
    ],
)  # fmt: skip
def test_units_of_other_kinds_are_not_mixed(unit: str, other: str) -> None:
    assert not same_dimension(unit, other)
    with pytest.raises(LinesideError, match=r"unit\.mismatch"):
        convert(1.0, unit, other)


def test_every_unit_of_one_kind_converts_there_and_back() -> None:
    for unit in MEASURES:
        for other in MEASURES:
            if same_dimension(unit, other):
                assert convert(convert(7.0, unit, other), other, unit) == pytest.approx(7.0), f"{unit} in {other}"


def recording(unit: str, limit_unit: str) -> bytes:
    step = {
        "id": "010", "phase": "record", "title": "T", "text": "T", "name": "value", "unit": unit,
        "limit": {"low": 1.0, "unit": limit_unit},
    }  # fmt: skip
    content = {
        "recipe": "R", "version": "1", "title": "T",
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [step]}]}],
    }  # fmt: skip
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def test_a_recipe_says_conductivity_as_the_instrument_does_and_its_limit_in_another_unit() -> None:
    assert check_recipe(read_recipe(recording(f"{MICRO}S/cm", "mS/cm"), "r.yaml"), None) == []


@pytest.mark.parametrize(
    ("written", "ours"),
    [("\N{GREEK SMALL LETTER MU}S/cm", "uS/cm"), ("°C", "degC"), ("10^6/mL", "1e6/mL"), ("LMH", "L/m2/h")],
)
def test_a_unit_written_in_another_way_is_answered_with_ours(written: str, ours: str) -> None:
    (found,) = check_recipe(read_recipe(recording(written, ""), "r.yaml"), None)
    assert (found.code, found.place.line if found.place else 0) == ("unit.unknown", 18)
    assert f"'{ours}'" in found.todo
