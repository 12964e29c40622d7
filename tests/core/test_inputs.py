"""Inputs for formulas: found within limits first, through values that are worked out, and never in a circle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drivers import sim
from drivers.sim.physics import VirtualCell
from edge.core.inputs import InputFinder
from edge.core.plant import read_plant
from edge.core.recipe import check_recipe, read_recipe, seal
from edge.core.recipe.model import Recipe
from edge.core.rehearse import as_text, rehearse

PLANT = read_plant(Path(sim.__file__).with_name("plant.yaml").read_bytes(), "plant.yaml")


def number(step: str, name: str, **limit: float) -> dict[str, Any]:
    return {
        "id": step, "phase": "record", "title": name, "text": "T", "name": name, "unit": "L",
        **({"limit": limit} if limit else {}),
    }  # fmt: skip


def works_out(step: str, name: str, formula: str, **limit: float) -> dict[str, Any]:
    made = {"id": step, "phase": "calculate", "title": name, "formula": formula, "name": name, "unit": "L"}
    return {**made, "limit": limit} if limit else made


def recipe(*steps: dict[str, Any]) -> Recipe:
    content = {
        "recipe": "R", "version": "1", "title": "T", "units": {"pump": {"class": "pump"}},
        "readings": {"pump.volume": "L"},
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": list(steps)}]}],
    }  # fmt: skip
    return read_recipe(json.dumps(content).encode(), "r.yaml").recipe


def finder(*steps: dict[str, Any]) -> InputFinder:
    return InputFinder(recipe(*steps), lambda _: (None, None))


def test_a_value_that_is_worked_out_from_itself_ends_the_search_instead_of_the_process() -> None:
    """No recipe that is checked has one: its first pass would use a value that nobody recorded."""
    round_and_round = finder(number("010", "part"), works_out("020", "total", "total + part"))
    assert round_and_round.inputs_of(round_and_round.formula("total > 3.0")) == {"part"}
    assert round_and_round.find([("total > 3.0", "020", True)]) is None
    a_circle = finder(works_out("010", "a", "b + 1.0"), works_out("020", "b", "a + 1.0"))
    assert a_circle.find([("a > 3.0", "010", True)]) is None


def test_values_within_their_limits_are_found_before_odd_ones() -> None:
    found = finder(number("010", "a", low=40, high=60), number("020", "b")).find(
        [("a - b >= -2.0", "020", True), ("a - b <= 3.0", "020", True)]
    )
    assert found is not None
    assert 40 <= float(found["a"]) <= 60
    assert -2 <= float(found["a"]) - float(found["b"]) <= 3


def test_what_is_given_stays_and_the_rest_is_found_for_it() -> None:
    steps = number("010", "volume"), number("020", "harvested"), works_out("030", "share", "harvested / volume * 100.0")
    wishes = [("share >= 90.0", "030", True), ("share <= 102.0", "030", True)]
    found = finder(*steps).find(wishes, {"volume": 171.3})
    assert found is not None
    assert set(found) == {"harvested"}
    assert 0.9 <= float(found["harvested"]) / 171.3 <= 1.02
    assert finder(*steps).find(wishes, {"volume": 171.3, "harvested": 1.0}) is None


def test_a_running_sum_comes_out_within_its_limit_by_what_is_entered_last() -> None:
    """What goes in is summed up in a loop; what comes out is compared with the sum at the end."""
    inside = [number("031", "fed", low=3, high=4), works_out("032", "volume", "volume + fed")]
    steps = [
        number("010", "volume", low=118, high=122),
        {"id": "030", "phase": "loop", "title": "Feed", "times": 5, "steps": inside},
        number("040", "harvested", low=50, high=300),
        works_out("050", "share", "harvested / volume * 100.0", low=90, high=102),
    ]
    document = read_recipe(json.dumps(recipe(*steps).model_dump(mode="json", by_alias=True)).encode(), "r.yaml")
    assert check_recipe(document, PLANT) == []
    report = rehearse(document.recipe, seal(document.recipe), PLANT, VirtualCell(PLANT), lineside="test")
    assert report.ok, as_text(report)
    assert [one.what for one in report.exceptions if one.played == report.played[0].name] == []


def test_what_the_cell_does_by_itself_is_found_to_the_half_second() -> None:
    """An hour of pumping, of which each look is a twentieth: the pump is stopped where it must be all the same."""
    speed = {"phase": "set", "title": "S", "tag": "pump.speed_setpoint", "unit": "mL/min"}
    steps = [
        {**speed, "id": "010", "value": 90.0},
        {"id": "020", "phase": "wait", "title": "W", "until": "pump.volume >= 5.0", "timeout": "4 h"},
        {**speed, "id": "030", "value": 0.0},
        works_out("040", "pumped", "pump.volume", low=5.0, high=5.01),
    ]
    document = read_recipe(json.dumps(recipe(*steps).model_dump(mode="json", by_alias=True)).encode(), "r.yaml")
    report = rehearse(document.recipe, seal(document.recipe), PLANT, VirtualCell(PLANT), lineside="test")
    assert abs(report.took_s - 5_000 / 90 * 60) < 5
    assert [one.what for one in report.exceptions if one.played == report.played[0].name] == []
