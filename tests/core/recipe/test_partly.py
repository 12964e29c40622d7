"""What is wrong in the steps that can be read is told beside what cannot be read, and never what is not so."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers import sim
from edge.core.errors import LinesideError
from edge.core.plant import read_plant
from edge.core.recipe import check_recipe, read_recipe, read_recipe_or_operation
from edge.core.recipe.partly import beside
from edge.library import read_checked_recipe, read_drafted_file

PLANT = read_plant(Path(sim.__file__).with_name("plant.yaml").read_bytes(), "plant.yaml")
RECIPE = """
recipe: PARTLY
version: "1"
title: Some of it can be read
units: {reactor: {class: bioreactor}}
parameters: {warm: {value: 37.0, unit: degC, low: 36.0, high: 38.0}}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: 010, phase: set, title: Warm, tag: reactor.temperature_setpoint, value: 37, unit: bar}
          - {id: "020", phase: recrod, title: Volume, text: Enter it., name: volume, unit: L}
          - {id: "030", phase: calculate, title: Twice, formula: "volume * 2.0", name: twice, unit: L}
          - id: "040"
            phase: parallel
            title: Both
            branches:
              - - {id: "041", phase: wait, title: W, tag: reactor.temperature, limit: {low: 38, high: 36, unit: degC}}
              - - {id: "042", phase: monitor, title: W, tag: reactor.ph, limit: {low: 6, unit: pH}, until: "043"}
              - - {id: "043", phase: wait, title: Rest, duration: 1 h, lenght: 2}
          - {id: "050", phase: sign, title: Done, text: Done., meaning: done, roles: [auditor]}
"""
OPERATION = """
library_operation: rest
version: "1.0"
title: Rest
parameters: {time: {type: duration, value: 1 h, low: 10 min, high: 4 h, why: Settles.}}
steps:
  - {id: "1", phase: wait, title: Rest, duration: $time, why: Settles.}
  - {id: "2", phase: record, title: Look, text: Look., name: seen, unit: furlong}
"""


def codes(path: Path) -> list[str]:
    with pytest.raises(LinesideError) as refused:
        read_checked_recipe(path, PLANT)
    return [refused.value.code, *(one.code for one in refused.value.others)]


def test_one_run_tells_what_cannot_be_read_and_what_is_wrong_in_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    assert codes(path) == [
        "recipe.unknown_phase",
        "document.unknown_key",
        "recipe.wrong_unit",
        "recipe.wait_timeout",
        "recipe.limit_upside_down",
        "recipe.signer_reads",
    ], "neither the formula that uses what step 020 gives nor the monitor that waits for 043 is called wrong"


def test_all_that_is_told_is_told_again_when_the_rest_can_be_read() -> None:
    """Nothing is told that is not so: what stands in the steps that could be read all along."""
    told = {(one.code, str(one.place)) for one in beside(RECIPE.encode(), "r", {}, PLANT)}
    mended = RECIPE.replace("recrod", "record").replace(", lenght: 2", "")
    whole = {(one.code, str(one.place)) for one in check_recipe(read_recipe(mended.encode(), "r"), PLANT)}
    assert told == whole


@pytest.mark.parametrize("data", [b"", b"[1]", b"recipe: X", b"a: &a [*a]", b"\xff", b"library_operation: 3", b"{"])
def test_what_is_no_recipe_at_all_is_only_said_to_be_none(data: bytes) -> None:
    assert beside(data, "r", {}, PLANT) == []


def test_an_operation_is_checked_as_a_recipe_is_with_the_places_of_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "rest.yaml"
    path.write_text(OPERATION)
    document, is_operation = read_drafted_file(path)
    assert is_operation
    assert [(one.code, one.place.line if one.place else 0) for one in check_recipe(document, PLANT)] == [
        ("unit.unknown", 8)
    ]
    path.write_text(OPERATION.replace("furlong", "L").replace("title: Look", "titel: Look"))
    with pytest.raises(LinesideError) as refused:
        read_drafted_file(path)
    assert {one.place.line for one in (refused.value, *refused.value.others) if one.place} == {8}
    recipe, no = read_recipe_or_operation(
        RECIPE.replace("recrod", "record").replace(", lenght: 2", "").encode(), "r", {}
    )
    assert not no
    assert recipe.recipe.recipe == "PARTLY"
