"""Each kind of mistake that the checker finds: where it stands, its code, what to do; all of them in one run."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drivers import sim
from edge.core.document import Document
from edge.core.errors import LinesideError
from edge.core.plant import read_plant
from edge.core.recipe import check_recipe, read_recipe, remarks
from edge.core.recipe.read import whole
from tests.core.test_rehearse import EVERYTHING
from tests.core.test_rehearse import PLANT as CELL
from tests.core.test_rehearse import recipe as everything

PLANT = read_plant(Path(sim.__file__).with_name("plant.yaml").read_bytes(), "plant.yaml")
HEAD = """\
recipe: R
version: "1"
title: T
units: {reactor: {class: bioreactor}}
parameters: {warm: {value: 37.0, unit: degC}}
readings: {reactor.temperature: degC}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
"""
USED = """\
          - {id: u1, phase: set, title: T, tag: reactor.temperature_setpoint, value: $warm}
          - {id: u2, phase: wait, title: T, until: reactor.temperature > 20, timeout: 1 h}
"""
FIRST = HEAD.count("\n") + 1
"""The line on which a mistake begins."""


@dataclass(frozen=True)
class Mistake:
    steps: str
    code: str
    line: int
    """Counted from the first line of `steps`, from 0 on."""
    at: str
    """What stands there, on that line and from that column on."""
    says: str
    hint: str


MISTAKES = {
    "unreachable step": Mistake(
        """\
          - {id: a, phase: instruct, title: T, text: x, next: c}
          - {id: b, phase: instruct, title: T, text: x}
          - {id: c, phase: instruct, title: T, text: x}
""",
        "recipe.unreachable", 1, "{id: b", "Step b is never reached", "correct `next`",
    ),
    "dead end: it leads nowhere": Mistake(
        "          - {id: a, phase: instruct, title: T, text: x, next: u3}\n",
        "recipe.unknown_next", 0, "next: u3", "followed by 'u3'", "Known: a, u1, u2.",
    ),
    "dead end: a choice without a way": Mistake(
        """\
          - id: a
            phase: select
            title: T
            branches: [{when: reactor.temperature > 30, steps: [{id: b, phase: instruct, title: T, text: x}]}]
""",
        "recipe.no_else", 0, "id: a", "when none of its conditions is true", "Add `else`",
    ),
    "dead end: it waits for what nothing changes": Mistake(
        "          - {id: a, phase: wait, title: T, until: $warm > 40, timeout: 1 h}\n",
        "recipe.constant_condition", 0, "until:", "no reading changes", "Use a reading",
    ),
    "it never ends": Mistake(
        "          - {id: a, phase: instruct, title: T, text: x, next: a}\n",
        "recipe.cycle", 0, "next: a", "would never end", "Correct `next`",
    ),
    "unbound tag": Mistake(
        "          - {id: a, phase: hold, title: T, tag: reactor.temprature, limit: {low: 1}, duration: 1 h}\n",
        "recipe.unbound_tag", 0, "tag:", "the unit BR-1 has no tag 'temprature'", "Did you mean 'temperature'?",
    ),
    "tag of no role": Mistake(
        "          - {id: a, phase: hold, title: T, tag: recator.ph, limit: {low: 1}, duration: 1 h}\n",
        "recipe.unknown_role", 0, "tag:", "'recator' is not a role", "Did you mean 'reactor'?",
    ),
    "tag that can only be read": Mistake(
        "          - {id: a, phase: set, title: T, tag: reactor.temperature, value: $warm}\n",
        "recipe.read_only", 0, "tag:", "can only be read", "set-point tag",
    ),
    "unit mismatch": Mistake(
        "          - {id: a, phase: set, title: T, tag: reactor.temperature_setpoint, value: 37.0, unit: bar}\n",
        "recipe.wrong_unit", 0, "unit: bar", "gives bar", "degC",
    ),
    "unknown unit": Mistake(
        "          - {id: a, phase: record, title: T, text: x, name: n, unit: uS/com}\n",
        "unit.unknown", 0, "unit: uS", "no unit of measure 'uS/com'", "Did you mean 'uS/cm'?",
    ),
    "limit upside down": Mistake(
        "          - {id: a, phase: record, title: T, text: x, name: n, limit: {low: 9, high: 1}}\n",
        "recipe.limit_upside_down", 0, "low: 9", "9 is above the high end 1", "Exchange the two",
    ),
    "outside of the plant's range": Mistake(
        "          - {id: a, phase: set, title: T, tag: reactor.temperature_setpoint, value: 50.0, unit: degC}\n",
        "recipe.outside_plant", 0, "value: 50", "goes from 4 to 42 degC", "Correct the value",
    ),
    "missing time-out": Mistake(
        "          - {id: a, phase: wait, title: T, tag: reactor.ph, limit: {low: 6.9, unit: pH}}\n",
        "recipe.wait_timeout", 0, "{id: a", "", "Add `timeout`",
    ),
    "deadlock in parallel branches": Mistake(
        """\
          - id: p
            phase: parallel
            title: T
            branches:
              - - {id: a, phase: monitor, title: T, tag: reactor.ph, limit: {low: 6, unit: pH}, until: b}
              - - {id: b, phase: monitor, title: T, tag: reactor.ph, limit: {low: 6, unit: pH}, until: a}
""",
        "recipe.monitor_deadlock", 4, "until: b", "wait for each other", "does not wait for it",
    ),
    "two branches write one tag": Mistake(
        """\
          - id: p
            phase: parallel
            title: T
            branches:
              - - {id: a, phase: set, title: T, tag: reactor.co2_setpoint, value: 5.0, unit: "%"}
              - - {id: b, phase: ramp, title: T, tag: reactor.co2_setpoint, value: 5.0, unit: "%", rate: 1, per: h}
""",
        "recipe.parallel_write", 5, "tag:", "another branch of p writes too", "one branch only",
    ),
    "expiry shorter than the hold time": Mistake(
        """\
          - {id: a, phase: scan, title: T, text: x, name: n, use_within: {time: 90 min, until: p}}
          - id: p
            phase: parallel
            title: T
            branches:
              - - {id: b, phase: wait, title: T, duration: 30 min}
              - - {id: c, phase: hold, title: T, tag: reactor.ph, limit: {low: 6, unit: pH}, duration: 2 h}
""",
        "recipe.expires_before", 0, "time: 90 min", "the end of step p comes 2 h after it at the earliest", "earlier",
    ),
    "used until a step that comes before": Mistake(
        """\
          - {id: b, phase: instruct, title: T, text: x}
          - {id: a, phase: scan, title: T, text: x, name: n, use_within: {time: 1 h, until: b}}
""",
        "recipe.until_not_after", 1, "until: b", "does not follow it on every way", "Name a step that follows",
    ),
    "used until a step that is not there": Mistake(
        "          - {id: a, phase: scan, title: T, text: x, name: n, use_within: {time: 1 h, until: u3}}\n",
        "recipe.unknown_until", 0, "until: u3", "which is not there", "Known: a",
    ),
    "time of use that is none": Mistake(
        "          - {id: a, phase: scan, title: T, text: x, name: n, use_within: {time: soon}}\n",
        "recipe.use_within", 0, "time: soon", "no time between 0 and ten years", "4 h",
    ),
    "signature that nobody gives": Mistake(
        "          - {id: a, phase: sign, title: T, text: x, meaning: m, roles: [operator, auditor]}\n",
        "recipe.signer_reads", 0, "roles:", "an auditor only reads", "a role that works at the line",
    ),
    "nobody signs": Mistake(
        "          - {id: a, phase: sign, title: T, text: x, meaning: m, roles: []}\n",
        "recipe.no_signer", 0, "roles:", "asks nobody to sign", "Name one role for each signature",
    ),
    "unknown parameter": Mistake(
        "          - {id: a, phase: set, title: T, tag: reactor.temperature_setpoint, value: $wram}\n",
        "recipe.unknown_parameter", 0, "value: $wram", "no such parameter", "Did you mean 'warm'?",
    ),
    "parameter of a ramp that is not there": Mistake(
        "          - {id: a, phase: ramp, title: T, tag: reactor.temperature_setpoint, value: $wram, rate: 1}\n",
        "recipe.unknown_parameter", 0, "value: $wram", "no such parameter", "Did you mean 'warm'?",
    ),
    "name that no step records": Mistake(
        "          - {id: a, phase: calculate, title: T, formula: reactor.temperture * 2, name: n}\n",
        "recipe.undeclared_reading", 0, "formula:", "does not say in which unit", "Did you mean 'reactor.temperature'?",
    ),
    "the same id twice": Mistake(
        "          - {id: u1, phase: instruct, title: T, text: x}\n",
        "recipe.duplicate_step", 1, "id: u1", "a second time", "another id",
    ),
}  # fmt: skip


def found_in(steps: str) -> list[LinesideError]:
    return check_recipe(read_recipe((HEAD + steps + USED).encode(), "r.yaml"), PLANT)


def line_of(found: LinesideError) -> int:
    assert found.place is not None
    return found.place.line - FIRST


def what_stands_at(found: LinesideError, text: str) -> str:
    assert found.place is not None
    return text.splitlines()[found.place.line - 1][found.place.column - 1 :]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_place_and_what_to_do(name: str) -> None:
    wanted = MISTAKES[name]
    (found,) = found_in(wanted.steps)
    assert (found.code, line_of(found)) == (wanted.code, wanted.line)
    assert what_stands_at(found, HEAD + wanted.steps + USED).startswith(wanted.at)
    assert wanted.says in found.what
    assert wanted.hint in found.todo


def test_one_run_finds_all() -> None:
    """All of them in one recipe, under ids of their own."""
    alone = {name: one for name, one in MISTAKES.items() if one.code != "recipe.monitor_deadlock"}
    steps = ""
    for place, (name, one) in enumerate(alone.items()):
        text = one.steps
        for own in "abcp":
            text = text.replace(f"id: {own}\n", f"id: {own}{place}\n").replace(f"id: {own},", f"id: {own}{place},")
            text = text.replace(f"next: {own}}}", f"next: {own}{place}}}").replace(
                f"until: {own}}}", f"until: {own}{place}}}"
            )
        assert text != one.steps or "u1" in name or one.code == "recipe.duplicate_step"
        steps += text
    codes = [one.code for one in found_in(steps)]
    # after a step that leads nowhere or back nobody can say what is reached
    order = {"recipe.unknown_next", "recipe.cycle", "recipe.unreachable"}
    order |= {"recipe.expires_before", "recipe.until_not_after"}
    assert {one.code for one in alone.values()} - set(codes) <= order
    assert len(codes) >= len(alone) - len(order) + 1


def test_an_id_that_yaml_would_misread_is_text() -> None:
    one = "          - {id: IT, phase: instruct, title: T, text: x}\n"
    steps = one.replace("IT", "010") + one.replace("IT", "no")
    document = read_recipe((HEAD + steps + USED).encode(), "r.yaml")
    assert check_recipe(document, PLANT) == []
    assert [step.id for _, step in document.steps()][:2] == ["010", "no"]


REMARKS = {
    "unused parameter": Mistake("", "recipe.unused_parameter", 5 - FIRST, "warm:", "No step uses", "$warm"),
    "unused reading": Mistake("", "recipe.unused_reading", 6 - FIRST, "reactor.temp", "No formula uses", "Remove it"),
    "two branches that command one unit": Mistake(
        USED
        + """\
          - id: p
            phase: parallel
            title: T
            branches:
              - - {id: a, phase: set, title: T, tag: reactor.co2_setpoint, value: 5.0, unit: "%"}
              - - {id: b, phase: set, title: T, tag: reactor.ph_setpoint, value: 7.0, unit: pH}
                - {id: c, phase: set, title: T, tag: reactor.ph_setpoint, value: 7.1, unit: pH}
""",
        "recipe.shared_unit", 7, "- {id: b", "Branches 1 and 2 of step p both command 'reactor'", "in one branch only",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REMARKS)
def test_what_is_only_odd_is_told_apart(name: str) -> None:
    wanted = REMARKS[name]
    plain = "          - {id: z, phase: hold, title: T, tag: reactor.ph, limit: {low: 6, unit: pH}, duration: 1 h}\n"
    text = HEAD + (wanted.steps or plain)
    document = read_recipe(text.encode(), "r.yaml")
    assert check_recipe(document, PLANT) == [], "no error"
    (found,) = [one for one in remarks(document) if one.code == wanted.code]
    assert line_of(found) == wanted.line
    assert what_stands_at(found, text).startswith(wanted.at)
    assert wanted.says in found.what
    assert wanted.hint in found.todo
    assert found.effect == "The recipe can be executed."


def _numbers(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where a recipe says a number or a time."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _numbers(value, (*path, key))
    elif type(node) in {int, float} or re.match(r"[\d.]+ (s|min|h|d)$|\$", str(node)):
        yield path


def test_a_parameter_that_is_not_what_its_place_takes_is_told_with_the_rest() -> None:
    """The checker goes on to its end, and says where: another kind of parameter in place of some number, each time."""
    kinds = {"word": {"type": "text", "value": "a"}, "yes": {"type": "bool", "value": True},
             "no_number": {"type": "number", "value": "a"}}  # fmt: skip
    content = json.loads(everything(*EVERYTHING).model_dump_json(by_alias=True, exclude_defaults=True))
    content["parameters"] = {**content.get("parameters", {}), **kinds}
    known = len(check_recipe(whole(Document("r.yaml", content, {}), None), CELL))
    tried = 0
    for place, path in enumerate(list(_numbers(content["procedure"]))):
        changed = copy.deepcopy(content)
        node = changed["procedure"]
        for key in path[:-1]:
            node = node[key]
        name = list(kinds)[place % len(kinds)]
        node[path[-1]] = "$" + name
        try:
            document = whole(Document("r.yaml", changed, {}), None)
        except LinesideError:
            continue  # a place that takes no parameter
        found = check_recipe(document, CELL)
        assert len(found) > known or name == "no_number", path
        assert all(one.code and one.todo and one.place for one in found)
        tried += 1
    assert tried > 25
