"""The recipe reader and checker: every finding with its code and line, all in one run."""
# ruff: noqa: E501 - the line of a document is what is tested

from __future__ import annotations

import re
import textwrap
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.errors import LinesideError
from edge.core.plant import Plant, read_plant
from edge.core.recipe import (
    RecipeDocument,
    check_recipe,
    limit_in,
    read_recipe,
    remarks,
    resolve,
    seal,
    set_point_in,
)
from edge.core.recipe.model import Parallel, Record, Scan, Set, Wait
from edge.core.terms import duration_s

ROOT = Path(__file__).parents[3]
CART_B1 = (resources.files("edge.core.recipe.shipped") / "cart-b1.yaml").read_bytes()
CELL = (ROOT / "drivers" / "sim" / "plant.yaml").read_bytes()

PLANT = b"""
plant: test
connections:
  c: {driver: sim}
units:
  BR-1:
    class: bioreactor
    tags:
      temperature: {connection: c, address: t, unit: degC, low: 0, high: 60}
      temperature_setpoint: {connection: c, address: ts, unit: degC, access: write, low: 4, high: 42}
      count: {connection: c, address: n, type: int, access: write, low: 0, high: 9}
      door: {connection: c, address: d, type: bool}
  P-1:
    class: pump
    tags:
      speed: {connection: c, address: s, unit: mL/min, access: write, low: 0, high: 100}
"""

HEAD = """\
recipe: T
version: 1.0
title: Test
units:
  reactor: {class: bioreactor}
  pump: {class: pump}
parameters:
  warm: {value: 37.0, unit: degC, low: 36, high: 38}
  flow: {value: 0.6, unit: L/h}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
"""

SOUND = """
- {id: 010, phase: instruct, title: a, text: b}
- {id: s1, phase: set, title: warm, tag: reactor.temperature_setpoint, value: $warm, unit: degC}
- {id: s2, phase: set, title: feed, tag: pump.speed, value: $flow}
- id: w
  phase: wait
  title: wait
  tag: reactor.temperature
  limit: {low: 309.65, high: 310.65, unit: K}
  timeout: 4 h
- id: p
  phase: parallel
  title: both
  branches:
    - - {id: h, phase: hold, title: h, tag: reactor.temperature, duration: 2 d, limit: {low: 36, high: 38, unit: degC}}
    - - {id: m, phase: monitor, title: m, tag: reactor.temperature, limit: {low: 36, unit: degC}, until: h}
- {id: e, phase: sign, title: end, text: x, meaning: done}
"""


def text_of(steps: str, head: str = HEAD) -> bytes:
    return (head + textwrap.indent(textwrap.dedent(steps).strip("\n"), " " * 10) + "\n").encode()


def cell() -> Plant:
    return read_plant(PLANT, "plant.yaml")


def read(steps: str, head: str = HEAD) -> RecipeDocument:
    return read_recipe(text_of(steps, head), "r.yaml")


def findings(data: bytes, plant: Plant | None) -> list[LinesideError]:
    """Everything that is found, by the reader or the checker."""
    try:
        return check_recipe(read_recipe(data, "r.yaml"), plant)
    except LinesideError as refused:
        return [refused, *refused.others]


def expected(data: bytes) -> list[tuple[str, int]]:
    """The findings that a recipe's own comments announce: `# <- code, code` at the end of the line."""
    return sorted(
        (code, number)
        for number, line in enumerate(data.decode().splitlines(), 1)
        if (marked := re.search(r"# <- (.*)", line))
        for code in marked[1].split(", ")
    )


def assert_found(data: bytes, plant: Plant | None) -> None:
    found = findings(data, plant)
    assert sorted((one.code, one.place.line if one.place else 0) for one in found) == expected(data)
    for one in found:
        assert one.what.endswith(".")
        assert one.todo
        assert one.place is not None
        assert one.place.column


# A step, and on each line what is to be found there.
BAD_STEPS = {
    "unknown phase": """
        - id: a
          phase: holt # <- recipe.unknown_phase
          title: x
        - {id: b, phase: sett, title: x, txet: y} # <- recipe.unknown_phase
        - {id: c, phase: instruct, title: x, text: y, extra: z} # <- document.unknown_key""",
    "no phase": "- {id: a, title: x} # <- document.missing_key",
    "id of a kind that cannot be": "- {id: a b, phase: instruct, title: x, text: y} # <- document.wrong_form",
    "number with its unit": "- {id: a, phase: set, title: x, tag: pump.speed, value: 12 mL/min} # <- document.wrong_form",
    "number that looks octal": "- {id: a, phase: set, title: x, tag: pump.speed, value: 010} # <- document.wrong_form",
    "number in quotes": "- {id: a, phase: set, title: x, tag: pump.speed, value: '12'} # <- document.wrong_form",
    "truth for a number": "- {id: a, phase: set, title: x, tag: pump.speed, value: true} # <- document.wrong_form",
    "role of nobody": "- {id: a, phase: instruct, title: x, text: y, role: oprator} # <- document.unknown_word",
    "same id twice": """
        - {id: 010, phase: instruct, title: a, text: b}
        - id: p
          phase: parallel
          title: x
          branches:
            - [{id: a, phase: instruct, title: a, text: b}]
            - [{id: "010", phase: instruct, title: a, text: b}] # <- recipe.duplicate_step""",
    "tags that are nowhere": """
        - {id: a, phase: set, title: x, tag: reactor.temperatur_setpoint, value: 37, unit: degC} # <- recipe.unbound_tag
        - {id: b, phase: set, title: x, tag: recator.temperature_setpoint, value: 37, unit: degC} # <- recipe.unknown_role
        - {id: c, phase: set, title: x, tag: temperature_setpoint, value: 37, unit: degC} # <- recipe.unknown_role
        - {id: d, phase: set, title: x, tag: reactor., value: 37, unit: degC} # <- recipe.unknown_role""",
    "written where nothing can be written": """
        - {id: a, phase: set, title: x, tag: reactor.temperature, value: 37, unit: degC} # <- recipe.read_only""",
    "wrong units": """
        - {id: a, phase: set, title: x, tag: reactor.temperature_setpoint, value: 37, unit: mL} # <- recipe.wrong_unit
        - {id: b, phase: set, title: x, tag: reactor.temperature_setpoint, value: 37} # <- recipe.wrong_unit
        - {id: c, phase: set, title: x, tag: reactor.temperature_setpoint, value: $flow} # <- recipe.wrong_unit
        - {id: d, phase: set, title: x, tag: reactor.temperature_setpoint, value: 37, unit: °C} # <- unit.unknown
        - {id: e, phase: set, title: x, tag: pump.speed, value: $flow, unit: degC} # <- recipe.wrong_unit
        - id: f
          phase: record
          title: x
          text: y
          name: n
          unit: h
          limit:
            low: 1
            high: 2
            unit: degC # <- recipe.wrong_unit
        - id: g
          phase: record
          title: x
          text: y
          name: n
          unit: h
          limit:
            high: $warm # <- recipe.wrong_unit
        - id: h
          phase: hold
          title: x
          duration: 1 h
          tag: reactor.temperature
          limit:
            low: 36
            unit: bar # <- recipe.wrong_unit
        - {id: i, phase: record, title: x, text: y, name: n, unit: hours} # <- unit.unknown
        - id: j
          phase: hold
          title: x
          duration: 1 h
          tag: reactor.temperature
          limit: {low: 36} # <- recipe.wrong_unit
        - id: k
          phase: hold
          title: x
          duration: 1 h
          tag: reactor.temperature
          limit: {low: 36, unit: celsius} # <- unit.unknown""",
    "limits that limit nothing": """
        - {id: a, phase: record, title: x, text: y, name: n, limit: {low: 2, high: 1}} # <- recipe.limit_upside_down
        - {id: b, phase: record, title: x, text: y, name: n, limit: {}} # <- recipe.limit_open
        - id: c
          phase: hold
          title: x
          duration: 1 h
          tag: reactor.temperature
          limit:
            low: $warm # <- recipe.limit_upside_down
            high: 308 # 35 degC
            unit: K""",
    "beyond the plant": """
        - {id: a, phase: set, title: x, tag: reactor.temperature_setpoint, value: 43, unit: degC} # <- recipe.outside_plant
        - {id: b, phase: set, title: x, tag: pump.speed, value: 7, unit: L/h} # <- recipe.outside_plant
        - id: c
          phase: hold
          title: x
          duration: 1 h
          tag: reactor.temperature
          limit:
            low: -1 # <- recipe.outside_plant
            high: 61 # <- recipe.outside_plant
            unit: degC""",
    "tags that are no such number": """
        - {id: a, phase: set, title: x, tag: reactor.count, value: 1.5} # <- recipe.not_whole
        - {id: b, phase: wait, title: x, tag: reactor.door, limit: {low: 1}, timeout: 1 h} # <- recipe.tag_type""",
    "parameters that are not there": """
        - {id: a, phase: set, title: x, tag: pump.speed, value: $folw} # <- recipe.unknown_parameter
        - id: b
          phase: record
          title: x
          text: y
          name: n
          limit:
            low: 1
            high: $top # <- recipe.unknown_parameter""",
    "durations": """
        - {id: a, phase: wait, title: x, duration: 12h} # <- recipe.duration
        - {id: b, phase: wait, title: x, duration: -1 h} # <- recipe.duration
        - {id: c, phase: wait, title: x, duration: 0 s} # <- recipe.duration
        - {id: d, phase: wait, title: x, duration: 1e300 d} # <- recipe.duration
        - {id: e, phase: wait, title: x, duration: 1 fortnight} # <- recipe.duration
        - {id: f, phase: hold, title: x, duration: "", tag: pump.speed, limit: {low: 1, unit: L/h}} # <- recipe.duration""",
    "waits": """
        - {id: a, phase: wait, title: x} # <- recipe.wait_end
        - id: b # <- recipe.wait_end
          phase: wait
          title: x
          duration: 1 h
          tag: reactor.temperature
          limit: {low: 1, unit: degC}
          timeout: 1 h
        - {id: c, phase: wait, title: x, tag: reactor.temperature, timeout: 1 h} # <- recipe.wait_limit
        - {id: d, phase: wait, title: x, tag: reactor.temperature, limit: {low: 1, unit: degC}} # <- recipe.wait_timeout
        - {id: e, phase: wait, title: x, duration: 1 h, timeout: 1 h} # <- recipe.wait_tag""",
    "records": """
        - {id: a, phase: record, title: x, text: y, name: n, type: choice} # <- recipe.choices
        - {id: b, phase: record, title: x, text: y, name: n, choices: [a]} # <- recipe.choices
        - {id: c, phase: record, title: x, text: y, name: n, type: choice, choices: [a, a]} # <- recipe.choices
        - {id: z, phase: record, title: x, text: y, name: n, type: choice, choices: [a], accept: [b]} # <- recipe.accept
        - {id: d, phase: record, title: x, text: y, name: n, type: text, unit: h} # <- recipe.not_a_number
        - {id: e, phase: record, title: x, text: y, name: n, type: text, limit: {low: 1}} # <- recipe.not_a_number""",
    "people and codes": """
        - {id: a, phase: sign, title: x, text: y, meaning: z, roles: []} # <- recipe.no_signer
        - {id: b, phase: scan, title: x, text: y, name: n, expect: patient, prefix: P} # <- recipe.patient_prefix""",
    "next that leads nowhere": """
        - {id: a, phase: instruct, title: x, text: y, next: cc} # <- recipe.unknown_next
        - id: p
          phase: parallel
          title: x
          branches:
            - - {id: b, phase: instruct, title: x, text: y}
            - - {id: c, phase: instruct, title: x, text: y, next: b} # <- recipe.unknown_next""",
    "next that leads back": """
        - {id: a, phase: instruct, title: x, text: y}
        - {id: b, phase: instruct, title: x, text: y}
        - {id: c, phase: instruct, title: x, text: y, next: a} # <- recipe.cycle
        - {id: d, phase: instruct, title: x, text: y}""",
    "next to itself": "- {id: a, phase: instruct, title: x, text: y, next: a} # <- recipe.cycle",
    "next that leads back in a branch": """
        - id: p
          phase: parallel
          title: x
          branches:
            - - {id: a, phase: instruct, title: x, text: y}
            - - {id: b, phase: instruct, title: x, text: y}
              - {id: c, phase: instruct, title: x, text: y, next: b} # <- recipe.cycle""",
    "left out": """
        - {id: a, phase: instruct, title: x, text: y, next: c}
        - {id: b, phase: instruct, title: x, text: y} # <- recipe.unreachable
        - {id: c, phase: instruct, title: x, text: y}""",
    "branches": """
        - id: p
          phase: parallel
          title: x
          branches: # <- recipe.branches
            - - {id: a, phase: instruct, title: x, text: y}
        - id: q
          phase: parallel
          title: x
          branches:
            - - {id: b, phase: instruct, title: x, text: y}
            - [] # <- recipe.no_steps
        - id: r
          phase: parallel
          title: x
          branches:
            - - {id: c, phase: set, title: x, tag: pump.speed, value: $flow}
              - {id: d, phase: set, title: x, tag: pump.speed, value: 1, unit: L/h}
            - - id: s
                phase: parallel
                title: x
                branches:
                  - - {id: e, phase: set, title: x, tag: pump.speed, value: $flow} # <- recipe.parallel_write
                  - - {id: f, phase: instruct, title: x, text: y}""",
    "monitors without an end": """
        - {id: a, phase: monitor, title: x, tag: pump.speed, limit: {low: 0, unit: L/h}, until: b} # <- recipe.monitor_until
        - id: p
          phase: parallel
          title: x
          branches:
            - - {id: b, phase: instruct, title: x, text: y}
              - {id: c, phase: monitor, title: x, tag: pump.speed, limit: {low: 0, unit: L/h}, until: b} # <- recipe.monitor_until
            - - {id: d, phase: monitor, title: x, tag: pump.speed, limit: {low: 0, unit: L/h}, until: a} # <- recipe.monitor_until
            - - {id: e, phase: monitor, title: x, tag: pump.speed, limit: {low: 0, unit: L/h}, until: b}""",
    "monitors that wait for each other": """
        - id: p
          phase: parallel
          title: x
          branches:
            - - {id: a, phase: monitor, title: x, tag: pump.speed, limit: {low: 0, unit: L/h}, until: d} # <- recipe.monitor_deadlock
              - {id: b, phase: instruct, title: x, text: y}
            - - {id: c, phase: monitor, title: x, tag: pump.speed, limit: {low: 0, unit: L/h}, until: b}
              - {id: d, phase: instruct, title: x, text: y}""",
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_bad_steps(name: str) -> None:
    data = text_of(BAD_STEPS[name])
    assert expected(data)
    assert_found(data, cell())


BAD_HEADS = {
    "not a recipe at all": "[1, 2] # <- document.wrong_type\n",
    "misspelt key": HEAD.replace("title: Test", "titel: Test # <- document.unknown_key").replace(
        "recipe: T", "recipe: T # <- document.missing_key"
    ),
    "version of words": HEAD.replace("1.0", "one # <- document.wrong_form"),
    "parameter outside": HEAD.replace(
        "37.0, unit: degC, low: 36, high: 38}", "39, high: 38} # <- recipe.parameter_outside"
    ),
    "parameter upside down": HEAD.replace(
        "unit: degC, low: 36, high: 38}", "low: 38, high: 36} # <- recipe.limit_upside_down"
    ),
    "parameter in no known unit": HEAD.replace("unit: L/h}", "unit: l/h} # <- unit.unknown"),
    "class that the plant lacks": HEAD.replace("class: pump}", "class: pumps} # <- recipe.unbound_role"),
    "more units than the plant has": HEAD.replace(
        "class: pump}", "class: pump}\n  pump2: {class: pump} # <- recipe.unbound_role"
    ),
    "role with a dot": HEAD.replace("pump:", "pump.a: ").replace(
        "class: pump}", "class: pump} # <- recipe.dotted_role"
    ),
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_bad_heads(name: str) -> None:
    head = BAD_HEADS[name]
    data = text_of("- {id: a, phase: instruct, title: x, text: y}", head) if "steps:" in head else head.encode()
    assert expected(data)
    assert_found(data, cell())


def test_no_steps() -> None:
    data = HEAD.partition("procedure:")[0].encode() + b"procedure: [] # <- recipe.no_steps\n"
    assert_found(data, None)


def test_more_steps_than_anyone_reads() -> None:
    data = text_of("\n".join(f"- {{id: s{n}, phase: instruct, title: x, text: y}}" for n in range(1001)))
    assert [(one.code, one.place and one.place.line) for one in findings(data, None)] == [
        ("recipe.too_many_steps", HEAD.count("\n") + 1001)
    ]


def test_everything_wrong_is_found_in_one_run() -> None:
    steps = "\n".join(text for name, text in BAD_STEPS.items() if name in ("waits", "durations"))
    ids = iter("abcdefghijklmnop")
    steps = re.sub(r"id: \w", lambda _: f"id: {next(ids)}", textwrap.dedent(steps))
    data = text_of(steps)
    assert len(expected(data)) == 11
    assert_found(data, cell())


def test_hint_names_the_word_that_was_meant() -> None:
    hints = [one.todo for one in findings(text_of(BAD_STEPS["unknown phase"]), cell())]
    assert hints[:2] == ["Did you mean 'hold'?", "Did you mean 'set'?"]
    assert "Did you mean 'temperature_setpoint'?" in [
        one.todo for one in findings(text_of(BAD_STEPS["tags that are nowhere"]), cell())
    ]
    assert "Did you mean 'degC'?" in [one.todo for one in findings(text_of(BAD_STEPS["wrong units"]), cell())]


def test_every_unit_that_may_be_allocated_must_fit() -> None:
    two = PLANT + b"  P-2:\n    class: pump\n    tags:\n      flow: {connection: c, address: s, unit: mL/min}\n"
    data = text_of("- {id: a, phase: set, title: x, tag: pump.speed, value: $flow} # <- recipe.unbound_tag")
    assert_found(data, read_plant(two, "p"))


def test_sound_recipe_has_no_findings() -> None:
    document = read(SOUND)
    assert check_recipe(document, cell()) == []
    assert check_recipe(document, None) == []
    assert remarks(document) == []
    assert list(document.recipe.steps()) == ["010", "s1", "s2", "w", "p", "e", "h", "m"]
    assert document.recipe.version == "1.0"


def test_remarks_name_what_nothing_uses() -> None:
    found = remarks(read("- {id: a, phase: set, title: x, tag: pump.speed, value: $flow}"))
    assert [(one.code, one.place and one.place.line) for one in found] == [
        ("recipe.unused_parameter", 8),
        ("recipe.unused_role", 5),
    ]


def test_numbers_in_the_unit_needed() -> None:
    recipe = read(SOUND).recipe
    steps = recipe.steps()
    feed, wait, warm = steps["s2"], steps["w"], steps["s1"]
    assert isinstance(feed, Set)
    assert isinstance(warm, Set)
    assert isinstance(wait, Wait)
    assert wait.limit is not None
    assert set_point_in(recipe, feed, "mL/min") == pytest.approx(10.0)
    assert set_point_in(recipe, warm, "K") == pytest.approx(310.15)
    assert limit_in(recipe, wait.limit, "degC") == (pytest.approx(36.5), pytest.approx(37.5))
    assert limit_in(recipe, wait.limit.model_copy(update={"low": None, "high": "$warm"}), "degC") == (None, 37.0)
    assert resolve(recipe, 1.5, "h", "min") == pytest.approx(90.0)
    for number, code in (("$none", "recipe.unknown_parameter"), ("$flow", "unit.mismatch")):
        with pytest.raises(LinesideError) as caught:
            resolve(recipe, number, "degC", "degC")
        assert caught.value.code == code


# The seal ------------------------------------------------------------------------------------------------------


def test_seal_is_of_the_content_not_of_its_form() -> None:
    sealed = seal(read(SOUND).recipe)
    assert re.fullmatch(r"[0-9a-f]{64}", sealed)
    same = [
        text_of(SOUND).replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf# a comment\n" + text_of(SOUND),
        text_of(SOUND).replace(b"{id: 010, phase: instruct,", b"{phase: 'instruct', id: \"010\", role: operator,"),
        text_of(SOUND).replace(b"low: 36, high: 38, unit: degC", b"unit: degC, high: 38.00, low: 3.6e1, why: ''"),
    ]
    assert {seal(read_recipe(data, "other.yaml").recipe) for data in same} == {sealed}


def test_seal_changes_with_every_word() -> None:
    changes = [
        ("37.0", "37.1"),
        ("low: 36, high: 38}", "low: 36, high: 38, why: because}"),
        ("id: 010", "id: 10"),
        ("timeout: 4 h", "timeout: 240 min"),
        ("until: h", "until: h, on_bad_quality: continue"),
        ("text: b", "text: B"),
        ("version: 1.0", "version: 1.00"),
        ("unit: L/h", "unit: L/h, placeholder: true"),
    ]
    seals = {seal(read(SOUND).recipe)}
    for old, new in changes:
        changed = text_of(SOUND).decode().replace(old, new, 1)
        assert changed != text_of(SOUND).decode()
        seals.add(seal(read_recipe(changed.encode(), "r").recipe))
    assert len(seals) == len(changes) + 1


def test_seal_of_a_released_form_never_changes() -> None:
    """Batches pin seals: a later version of Lineside must name this very recipe by this very seal."""
    assert seal(read(SOUND).recipe) == "2135e275e570845665eb01cb5eb8b61c87cce7408ac1054479db1eddca40c9da"


# What ships ----------------------------------------------------------------------------------------------------


def test_cart_b1_is_clean_on_the_simulated_cell() -> None:
    document = read_recipe(CART_B1, "cart-b1.yaml")
    assert check_recipe(document, read_plant(CELL, "plant.yaml")) == []
    assert remarks(document) == []


def test_cart_b1_says_what_the_process_says() -> None:
    recipe = read_recipe(CART_B1, "cart-b1.yaml").recipe
    steps = recipe.steps()
    limits = {
        step.name: limit_in(recipe, step.limit, step.unit)
        for step in steps.values()
        if isinstance(step, Record) and step.limit
    }
    assert limits["car_day_5"][0] == 5.0
    assert limits["moi"] == (5.0, 10.0)
    assert [limits[name][0] for name in ("viability", "cd3", "car_day_12", "viability_thawed")] == [80, 80, 10, 70]
    assert limits["dose"] == (80.0, 120.0)
    endotoxin = limits["endotoxin"][1]
    assert endotoxin is not None
    assert endotoxin < 5.0
    assert limits["endotoxin_dose"][1] == 5.0
    assert sum(isinstance(step, Scan) and step.expect == "patient" for step in steps.values()) >= 4
    sets = [set_point_in(recipe, step, step.unit) for step in steps.values() if isinstance(step, Set)]
    assert sets == [37.0, 5.0, 12.0, 0.0]
    timed = [duration_s(step.duration) for step in steps.values() if getattr(step, "duration", "")]
    assert 11.5 < sum(timed) / 86_400 < 12.5
    for step in steps.values():
        limit = getattr(step, "limit", None)
        assert limit is None or limit.why
    assert all(parameter.why for parameter in recipe.parameters.values())
    assert {len(step.branches) for step in steps.values() if isinstance(step, Parallel)} == {2, 3}


# Anything at all -----------------------------------------------------------------------------------------------

LINES = CART_B1.decode().splitlines()
WORDS = sorted({word for line in LINES for word in re.findall(r"[\w.$†\"{}:\[\]-]+", line)})


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(LINES) - 1),
            st.sampled_from(["drop", "double", "indent", "word", "cut", "swap"]),
            st.sampled_from(WORDS),
            st.integers(0, 5),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_mutilated_recipe_is_judged_never_a_crash(changes: list[tuple[int, str, str, int]]) -> None:
    lines = list(LINES)
    for number, how, word, which in changes:
        line = lines[number]
        words = line.split(" ")
        lines[number] = {
            "drop": "",
            "double": f"{line}\n{line}",
            "indent": "  " + line,
            "word": " ".join([*words[: -1 - which], word, *words[len(words) - which :]]),
            "cut": line[: len(line) // 2],
            "swap": lines[(number * 7 + which) % len(lines)],
        }[how]
    found = findings("\n".join(lines).encode(), cell())
    assert all(one.place is not None and one.todo for one in found)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_recipe_or_a_refusal(data: bytes) -> None:
    findings(data, None)
    findings(text_of("- {id: a, phase: instruct, title: x, text: y}") + data, cell())
