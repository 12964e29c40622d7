"""The plant reader: consistency, all findings in one run."""
# ruff: noqa: E501 - the line of a document is what is tested

from __future__ import annotations

import re

import pytest

from edge.core.errors import LinesideError
from edge.core.plant import read_plant
from tests.core.recipe.test_recipe import CELL, expected

BAD = b"""\
plant: test
connections:
  c: {driver: opcua, poll_s: 1}
  slow: {driver: modbus, poll_s: 10}
units:
  A.1: # <- plant.dotted_unit
    class: tank
  B-1:
    class: tank
    tags:
      level:
        connection: cc # <- plant.unknown_connection
        address: x
        unit: ltr # <- unit.unknown
        low: 5 # <- plant.upside_down
        high: 1
      late:
        connection: slow
        address: x
        stale_s: 10 # <- plant.always_stale
      door: {connection: c, address: x, type: bool, unit: s} # <- plant.not_a_number
      free: {connection: c, address: x, access: write, low: 1} # <- plant.unbounded
      odd: {connection: c, address: x, read_back: level} # <- plant.read_back_unused
      lost: {connection: c, address: x, access: write, low: 1, high: 2, read_back: nowhere} # <- plant.unknown_read_back
      unlike: {connection: c, address: x, access: write, low: 1, high: 2, unit: s, read_back: level} # <- plant.read_back_unit
      litres: {connection: c, address: x, access: write, low: 1, high: 2, unit: L, read_back: shown} # <- plant.read_back_unit
      shown: {connection: c, address: x, unit: mL} # <-
      heat: {connection: c, address: x, access: write, low: 1, high: 2, read_back: heat}
      power: {connection: c, address: x, type: bool, access: write}
      whole: {connection: c, address: x, type: int, access: write, low: 0, high: 9}
    safe_state:
      - {tag: hat, value: 1} # <- plant.safe_state_tag
      - {tag: level, value: 1} # <- plant.safe_state_tag
      - {tag: heat, value: true} # <- plant.safe_state_type
      - {tag: heat, value: 3} # <- plant.safe_state_outside
      - {tag: power, value: 0} # <- plant.safe_state_type
      - {tag: whole, value: 0.5} # <- plant.safe_state_type
      - {tag: whole, value: 5}
      - {tag: power, value: false}
"""


def test_every_inconsistency_is_found_in_one_run() -> None:
    with pytest.raises(LinesideError) as caught:
        read_plant(BAD, "plant.yaml")
    found = [caught.value, *caught.value.others]
    assert sorted((one.code, one.place.line if one.place else 0) for one in found) == expected(BAD)
    assert all(one.what.endswith(".") and one.todo for one in found)
    lines = [one.place.line for one in found if one.place]
    assert lines == sorted(lines)


def test_what_is_left_without_the_bad_lines_is_sound() -> None:
    text = re.sub(r"(?m)^      (level|late):\n(        .*\n)*", "", BAD.decode())
    text = "".join(line + "\n" for line in text.splitlines() if "# <-" not in line).replace("    class: tank\n", "", 1)
    plant = read_plant(text.encode(), "plant.yaml")
    assert sorted(plant.tags()) == ["B-1.heat", "B-1.power", "B-1.whole"]


def test_shape_is_told_before_meaning() -> None:
    with pytest.raises(LinesideError) as caught:
        read_plant(
            b"plant: p\nunits:\n  U:\n    class: c\n    tags:\n      t: {conection: x, address: y}\n", "plant.yaml"
        )
    found = [caught.value, *caught.value.others]
    assert [(one.code, one.place and one.place.line, one.todo) for one in found] == [
        ("document.missing_key", 6, "Add 'connection'."),
        ("document.unknown_key", 6, "Did you mean 'connection'?"),
    ]


def test_values_of_settings_keep_their_kind() -> None:
    plant = read_plant(
        b"plant: p\nconnections:\n  c: {driver: d, settings: {port: 502, unit: '1', host: 010, x: 1.0, y: true}}\n", "p"
    )
    settings = plant.connections["c"].settings
    assert list(settings.values()) == [502, "1", "010", 1.0, True]
    assert [type(value) for value in settings.values()] == [int, str, str, float, bool]


def test_the_simulated_cell_is_sound() -> None:
    assert read_plant(CELL, "plant.yaml").tag("BR-1.temperature_setpoint")
