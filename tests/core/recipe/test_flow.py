"""Control flow and formulas: what the checker finds in them, each with its line, and what runs."""
# ruff: noqa: E501 - the line of a document is what is tested

from __future__ import annotations

import pytest

from edge.core.recipe import check_recipe, read_recipe, remarks, seal
from tests.core.recipe.test_recipe import HEAD, assert_found, cell, expected, text_of

FLOW_HEAD = HEAD.replace(
    "\nprocedure:",
    """
  soak: {type: duration, value: 2 h, low: 1 h, high: 4 h}
  rounds: {type: integer, value: 3, low: 1, high: 9}
  medium: {type: choice, value: A, choices: [A, B]}
  strict: {type: bool, value: true}
  lot: {type: text, value: L-}
readings:
  reactor.temperature: degC
procedure:""",
)

SOUND = """
- {id: 010, phase: record, title: count, text: Count., name: vcd, unit: 1e6/mL}
- {id: 011, phase: scan, title: lot, text: Scan $medium., name: lot, prefix: $lot}
- {id: 020, phase: calculate, title: feed, formula: "vcd * 0.03 > 1 ? 2 : $flow", name: feed, unit: mL, limit: {high: 100}}
- {id: 030, phase: wait, title: warm, until: "reactor.temperature > 36 && $strict", timeout: $soak}
- {id: 031, phase: hold, title: soak, tag: reactor.temperature, duration: $soak, limit: {low: $warm}}
- id: 040
  phase: loop
  title: days
  times: $rounds
  until: "vcd >= 10 || iteration >= 2"
  steps:
    - {id: 041, phase: record, title: count, text: Count., name: vcd, unit: 1e6/mL}
    - id: 042
      phase: select
      title: feed or not
      branches:
        - when: "vcd < 3"
          title: hungry
          steps:
            - {id: 043, phase: set, title: feed, tag: pump.speed, value: $flow}
        - {when: "$medium == 'B'", steps: [{id: 044, phase: instruct, title: x, text: y}]}
      else: []
- {id: 050, phase: calculate, title: total, formula: "feed + vcd", name: total}
"""

BAD = {
    "formulas": """
        - {id: a, phase: record, title: x, text: y, name: vcd, unit: 1e6/mL}
        - {id: b, phase: record, title: x, text: y, name: word, type: text}
        - {id: c, phase: calculate, title: x, formula: "vcd * ", name: n1} # <- formula.syntax
        - {id: d, phase: calculate, title: x, formula: "vdc * 2", name: n2} # <- formula.unknown_name
        - {id: e, phase: calculate, title: x, formula: "vcd > 2", name: n3} # <- formula.type
        - {id: f, phase: calculate, title: x, formula: "vcd * word", name: n4} # <- formula.type
        - {id: g, phase: calculate, title: x, formula: "max(vcd, 2)", name: n5} # <- formula.function
        - {id: h, phase: calculate, title: x, formula: "$folw * 2", name: n6} # <- formula.unknown_name
        - {id: i, phase: calculate, title: x, formula: "pump.speed * 2", name: n7} # <- recipe.undeclared_reading
        - {id: j, phase: calculate, title: x, formula: "iteration * 2", name: n8} # <- recipe.no_loop
        - {id: k, phase: calculate, title: x, formula: "vcd", name: n9, unit: celsius} # <- unit.unknown
        - id: l
          phase: calculate
          title: x
          formula: "vcd"
          name: n10
          unit: mL
          limit:
            low: 1
            unit: degC # <- recipe.wrong_unit
        - {id: m, phase: calculate, title: x, formula: "vcd", name: n11, limit: {low: 2, high: 1}} # <- recipe.limit_upside_down""",
    "values before they are there": """
        - {id: a, phase: calculate, title: x, formula: "vcd * 2", name: n1} # <- recipe.not_recorded
        - id: s
          phase: select
          title: x
          branches:
            - when: "reactor.temperature > 36"
              steps: [{id: b, phase: record, title: x, text: y, name: vcd}]
          else: []
        - {id: c, phase: calculate, title: x, formula: "vcd * 2", name: n2} # <- recipe.not_recorded
        - id: l
          phase: loop
          title: x
          times: 3
          while: "iteration < 2"
          steps:
            - {id: d, phase: record, title: x, text: y, name: od}
        - {id: e, phase: calculate, title: x, formula: "od", name: n3} # <- recipe.not_recorded
        - id: p
          phase: parallel
          title: x
          branches:
            - - {id: f, phase: record, title: x, text: y, name: ph}
            - - {id: g, phase: calculate, title: x, formula: "ph", name: n4} # <- recipe.not_recorded
        - {id: h, phase: calculate, title: x, formula: "ph", name: n5}""",
    "selections": """
        - id: s # <- recipe.no_else
          phase: select
          title: x
          branches:
            - {when: "reactor.temperature > 36", steps: [{id: a, phase: instruct, title: x, text: y}]}
        - {id: t, phase: select, title: x, branches: [], else: []} # <- recipe.branches
        - id: u
          phase: select
          title: x
          branches:
            - {when: "true", steps: [{id: b, phase: instruct, title: x, text: y}]} # <- recipe.constant_condition
            - {when: "reactor.temperature > 36", steps: []} # <- recipe.no_steps
          else:
            - {id: c, phase: instruct, title: x, text: y, next: e}
            - {id: d, phase: instruct, title: x, text: y} # <- recipe.unreachable
            - {id: e, phase: instruct, title: x, text: y}""",
    "loops": """
        - {id: a, phase: record, title: x, text: y, name: vcd}
        - {id: l1, phase: loop, title: x, times: 0, steps: [{id: b, phase: instruct, title: x, text: y}]} # <- recipe.times
        - {id: l2, phase: loop, title: x, times: 2.5, steps: [{id: c, phase: instruct, title: x, text: y}]} # <- recipe.times
        - {id: l3, phase: loop, title: x, times: $warm, steps: [{id: d, phase: instruct, title: x, text: y}]} # <- recipe.times
        - {id: l4, phase: loop, title: x, times: 3, until: "vcd > 2", steps: [{id: e, phase: instruct, title: x, text: y}]} # <- recipe.constant_condition
        - {id: l5, phase: loop, title: x, times: 3, steps: [{id: f, phase: calculate, title: x, formula: "vcd", name: n}]} # <- recipe.busy_loop""",
    "no steps in a loop": "- {id: l6, phase: loop, title: x, times: 3} # <- document.missing_key",
    "waits": """
        - {id: a, phase: record, title: x, text: y, name: vcd}
        - {id: b, phase: wait, title: x, until: "vcd > 2", timeout: 1 h} # <- recipe.constant_condition
        - {id: c, phase: wait, title: x, until: "reactor.temperature > 2"} # <- recipe.wait_timeout
        - {id: d, phase: wait, title: x, until: "reactor.temperature > 2", duration: 1 h, timeout: 1 h} # <- recipe.wait_end
        - {id: e, phase: wait, title: x, until: "reactor.temperature", timeout: 1 h} # <- formula.type
        - {id: f, phase: wait, title: x, duration: $warm} # <- recipe.duration
        - {id: g, phase: wait, title: x, duration: $saok} # <- recipe.unknown_parameter
        - {id: h, phase: instruct, title: x, text: Add $flw of medium.} # <- recipe.unknown_parameter""",
    "branches at once": """
        - id: p
          phase: parallel
          title: x
          branches:
            - - id: l
                phase: loop
                title: x
                times: 2
                steps:
                  - {id: a, phase: set, title: x, tag: pump.speed, value: $flow}
            - - id: s
                phase: select
                title: x
                branches:
                  - when: "reactor.temperature > 36"
                    steps:
                      - {id: b, phase: set, title: x, tag: pump.speed, value: $flow} # <- recipe.parallel_write
                else: []
            - - {id: m, phase: monitor, title: x, tag: pump.speed, limit: {low: 0, unit: L/h}, until: a} # <- recipe.monitor_until
            - - {id: n, phase: monitor, title: x, tag: pump.speed, limit: {low: 0, unit: L/h}, until: l}""",
    "one value in two units": """
        - {id: a, phase: record, title: x, text: y, name: v, unit: mL}
        - {id: b, phase: record, title: x, text: y, name: v, unit: L} # <- recipe.value_twice
        - {id: c, phase: calculate, title: x, formula: "v", name: n}""",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_flow(name: str) -> None:
    data = text_of(BAD[name], FLOW_HEAD)
    assert expected(data)
    assert_found(data, cell())


BAD_PARAMETERS = {
    "text for a number": "p: {value: soon} # <- recipe.parameter_type",
    "half a whole number": "p: {type: integer, value: 1.5} # <- recipe.parameter_type",
    "choice that is none": "p: {type: choice, value: C, choices: [A, B]} # <- recipe.parameter_type",
    "duration that is none": "p: {type: duration, value: 12h} # <- recipe.parameter_type",
    "duration beyond its range": "p: {type: duration, value: 12 h, high: 2 h} # <- recipe.parameter_outside",
    "truth that is a word": "p: {type: bool, value: 'yes'} # <- recipe.parameter_type",
    "number that is true": "p: {value: true} # <- recipe.parameter_type",
    "range of a text": "p: {type: text, value: a, low: b} # <- recipe.parameter_type",
    "unit of a text": "p: {type: text, value: a, unit: mL} # <- recipe.parameter_type",
    "range in words": "p: {value: 1, low: none} # <- recipe.parameter_type",
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_bad_parameters(name: str) -> None:
    head = FLOW_HEAD.replace("readings:", f"  {BAD_PARAMETERS[name]}\nreadings:")
    assert_found(text_of("- {id: a, phase: instruct, title: x, text: y}", head), cell())


BAD_READINGS = {
    "role of nobody": "recator.temperature: degC} # <- recipe.unknown_role",
    "tag that is nowhere": "reactor.temperatur: degC} # <- recipe.unbound_tag",
    "no number": "reactor.door: '1'} # <- recipe.tag_type",
    "another dimension": "reactor.temperature: mL} # <- recipe.wrong_unit",
    "unit of nobody": "reactor.temperature: celsius} # <- unit.unknown",
}


@pytest.mark.parametrize("name", BAD_READINGS)
def test_bad_readings(name: str) -> None:
    head = HEAD.replace("\nprocedure:", f"\nreadings: {{{BAD_READINGS[name]}\nprocedure:")
    data = text_of("- {id: a, phase: instruct, title: x, text: y}", head)
    line = expected(data)[0][1]
    found = check_recipe(read_recipe(data, "r"), cell())
    assert [(one.code, one.place and one.place.line) for one in found] == [(expected(data)[0][0], line)]


def test_a_sound_flow_has_no_findings_and_uses_everything() -> None:
    document = read_recipe(text_of(SOUND, FLOW_HEAD), "r")
    assert check_recipe(document, cell()) == []
    assert check_recipe(document, None) == []
    assert remarks(document) == []
    assert [step.id for step in document.recipe.in_order()][5:] == ["040", "041", "042", "043", "044", "050"]
    assert document.recipe.activations() == 7 + 1000 * 4
    again = read_recipe(text_of(SOUND, FLOW_HEAD).replace(b"else: []", b"else:  []"), "r")
    assert seal(again.recipe) == seal(document.recipe)
    other = read_recipe(text_of(SOUND, FLOW_HEAD).replace(b"vcd < 3", b"vcd < 4"), "r")
    assert seal(other.recipe) != seal(document.recipe)


def test_what_nothing_uses_is_said() -> None:
    found = remarks(read_recipe(text_of("- {id: a, phase: instruct, title: $medium, text: y}", FLOW_HEAD), "r"))
    named = [one.what for one in found if one.code == "recipe.unused_parameter"]
    assert len(named) == 6
    assert not any("medium" in what for what in named)
    assert "recipe.unused_reading" in {one.code for one in found}
