"""Calls of library operations: what they come to, and what is refused."""

# ruff: noqa: E501 - lines of documents

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from edge.core.errors import LinesideError
from edge.core.recipe import check_recipe, read_operation, read_recipe, seal, sealed_bytes
from edge.core.recipe.model import Call, Hold, LibraryOperation, Wait
from edge.library import Library, LibraryOperations, read_checked_recipe
from tests.core.recipe.test_recipe import HEAD, cell, text_of

SOAK = b"""
library_operation: soak
version: 1.2
title: Soak
units:
  vessel: {class: bioreactor}
parameters:
  warmth: {value: 36.5, unit: degC, low: 30, high: 40, why: It grows best there.}
  time: {type: duration, value: 1 h}
readings:
  vessel.temperature: degC
steps:
  - {id: 010, phase: set, title: Warm, tag: vessel.temperature_setpoint, value: $warmth, unit: degC, next: "020"}
  - {id: 020, phase: wait, title: Warm enough, until: "vessel.temperature > $warmth - 1", timeout: $time}
  - id: 030
    phase: parallel
    title: Soak
    branches:
      - - {id: 031, phase: hold, title: "Soak $time", tag: vessel.temperature, duration: $time, limit: {low: 30, unit: degC}}
      - - {id: 032, phase: monitor, title: Watch, tag: vessel.temperature, limit: {low: 20, unit: degC}, until: "031"}
"""
TWICE = b"""
library_operation: twice
version: 1
title: Soak twice
units:
  tank: {class: bioreactor}
parameters:
  long: {type: duration, value: 2 h}
steps:
  - {id: a, phase: call, title: First, operation: soak, version: 1.2, units: {vessel: tank}}
  - {id: b, phase: call, title: Second, operation: soak, version: 1.2, units: {vessel: tank}, parameters: {time: $long}}
"""
RING = TWICE.replace(b"twice", b"ring").replace(b"operation: soak, version: 1.2", b"operation: ring, version: 1")
LIBRARY = {("soak", "1.2"): SOAK, ("twice", "1"): TWICE, ("ring", "1"): RING}
ONE = """
- {id: 100, phase: call, title: Soak, operation: soak, version: 1.2, units: {vessel: reactor}, parameters: {warmth: $warm}}
- {id: 200, phase: call, title: Again, operation: soak, version: 1.2, units: {vessel: reactor}, parameters: {warmth: 38, time: 3 h}}
- {id: 300, phase: set, title: feed, tag: pump.speed, value: $flow}
"""


def test_a_call_is_the_steps_of_the_operation_in_the_names_of_the_recipe() -> None:
    document = read_recipe(text_of(ONE), "r", LIBRARY)
    assert check_recipe(document, cell()) == []
    recipe, steps = document.recipe, document.recipe.steps()
    assert list(steps)[:3] == ["100", "200", "300"]
    assert {"100/010", "100/032", "200/031"} <= set(steps)
    wait, hold = steps["200/020"], steps["200/031"]
    assert isinstance(wait, Wait)
    assert isinstance(hold, Hold)
    assert wait.until == "reactor.temperature > $warmth__200 - 1"
    assert hold.tag == "reactor.temperature"
    assert steps["200/010"].next == "200/020"
    assert steps["100/020"].formulas() == {("until",): "reactor.temperature > $warm - 1"}
    assert recipe.parameters["warmth__200"].value == 38.0
    assert recipe.parameters["warmth__200"].why
    assert recipe.parameters["time__200"].value == "3 h"
    assert recipe.parameters["time__100"].value == "1 h"
    assert recipe.readings == {"reactor.temperature": "degC"}
    line = text_of(ONE).decode().splitlines().index("          - {id: 100, phase: call, title: Soak, operation: soak, "
        "version: 1.2, units: {vessel: reactor}, parameters: {warmth: $warm}}") + 1  # fmt: skip
    place = next(path for path, step in document.steps() if step.id == "100/010")
    assert document.place(place).line == line


def test_calls_in_calls() -> None:
    recipe = read_recipe(text_of(CALL_TWICE), "r", LIBRARY).recipe
    assert {"c/a", "c/a/010", "c/b/031"} <= set(recipe.steps())
    assert recipe.steps()["c/b/031"].title == "Soak $long__c"
    assert recipe.parameters["long__c"].value == "2 h"
    assert recipe.parameters["warmth__c_a"].value == 36.5


CALL_TWICE = "- {id: c, phase: call, title: x, operation: twice, version: 1, units: {tank: reactor}}"


def test_the_seal_covers_what_the_operation_says_and_names_its_version() -> None:
    sealed = read_recipe(text_of(ONE), "r", LIBRARY).recipe
    other = read_recipe(text_of(ONE), "r", {("soak", "1.2"): SOAK.replace(b"timeout: $time", b"timeout: 9 h")}).recipe
    assert seal(other) != seal(sealed)
    newer = {**LIBRARY, ("soak", "1.3"): SOAK.replace(b"version: 1.2", b"version: 1.3")}
    assert seal(read_recipe(text_of(ONE.replace("1.2", "1.3")), "r", newer).recipe) != seal(sealed)
    kept = sealed_bytes(sealed, text_of(ONE))
    assert seal(read_recipe(kept, "kept").recipe) == seal(sealed)
    assert seal(read_recipe(kept, "kept", LIBRARY).recipe) == seal(sealed)
    plain = text_of("- {id: a, phase: instruct, title: x, text: y}")
    assert sealed_bytes(read_recipe(plain, "r").recipe, plain) is plain


def test_what_was_sealed_stays_when_the_library_changes(tmp_path: Path) -> None:
    (tmp_path / "operations").mkdir()
    (tmp_path / "operations" / "soak.yaml").write_bytes(SOAK)
    (tmp_path / "r.yaml").write_bytes(text_of(ONE))
    sealed = read_checked_recipe(tmp_path / "r.yaml", cell())
    library = Library(tmp_path / "library")
    library.put("recipe", sealed.seal, sealed.data)
    (tmp_path / "operations" / "soak.yaml").write_bytes(SOAK.replace(b"timeout: $time", b"timeout: 9 h"))
    assert library.recipe(sealed.seal) == sealed.recipe
    assert read_checked_recipe(tmp_path / "r.yaml", cell()).seal != sealed.seal
    (tmp_path / "operations" / "other.yaml").write_bytes(SOAK)
    with pytest.raises(LinesideError) as refused:
        read_checked_recipe(tmp_path / "r.yaml", cell())
    assert refused.value.code == "library.operation_twice"


def test_only_the_files_that_may_hold_a_called_operation_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def read(data: bytes, name: str) -> LibraryOperation:
        parsed.append(Path(name).name)
        return read_operation(data, name)

    monkeypatch.setattr("edge.library.read_operation", read)
    folder = tmp_path / "operations"
    folder.mkdir()
    (folder / "soak.yaml").write_bytes(SOAK)
    (folder / "spelled.yaml").write_bytes(SOAK.replace(b"library_operation: soak", b'library_operation: "s\\x6Fak2"'))
    (tmp_path / "r.yaml").write_bytes(text_of("- {id: a, phase: instruct, title: x, text: y}"))
    read_checked_recipe(tmp_path / "r.yaml", cell())
    assert not parsed, "nothing was called"
    (tmp_path / "r.yaml").write_bytes(text_of(ONE))
    read_checked_recipe(tmp_path / "r.yaml", cell())
    assert sorted(parsed) == ["soak.yaml", "spelled.yaml"], "one that names it, one that may spell it otherwise"
    library = LibraryOperations(folder)
    assert library["soak2", "1.2"] != library["soak", "1.2"]
    assert {("soak", "1.2"), ("soak2", "1.2"), ("feed", "1.0")} <= set(library)
    assert len(library) == len(set(library)) > 20
    assert ("saok", "1.2") not in library


REFUSED = {
    "not in the library": (ONE.replace("soak", "saok"), "recipe.unknown_operation", "Did you mean 'soak'?"),
    "another version": (ONE.replace("1.2", "2.0"), "recipe.unknown_operation", "There is: 1.2."),
    "no such role": (ONE.replace("vessel:", "tank:"), "recipe.call_role", "Known: vessel."),
    "no such unit": (ONE.replace("vessel: reactor", "vessel: recator"), "recipe.call_role", "Known: reactor, pump."),
    "a unit of another class": (ONE.replace("vessel: reactor", "vessel: pump"), "recipe.call_role", "Known: reactor."),
    "no such parameter": (ONE.replace("warmth:", "warm:"), "recipe.call_parameter", "Did you mean 'warmth'?"),
    "a ring": (CALL_TWICE.replace("twice", "ring"), "recipe.call_depth", "Write the steps out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_cannot_be_is_refused_at_its_line(name: str) -> None:
    text, code, todo = REFUSED[name]
    with pytest.raises(LinesideError) as refused:
        read_recipe(text_of(text), "r", LIBRARY)
    assert refused.value.code == code
    assert todo in refused.value.todo
    assert refused.value.place is not None
    assert refused.value.place.line == HEAD.count("\n") + 1


def test_the_bounds_of_a_call_are_checked_like_any() -> None:
    data = text_of(ONE.replace("warmth: 38", "warmth: 48"))
    found = check_recipe(read_recipe(data, "r", LIBRARY), cell())
    assert {one.code for one in found} == {"recipe.parameter_outside", "recipe.outside_plant"}


def test_steps_by_hand_do_not_pass_for_the_operation() -> None:
    steps = "\n  steps:\n    - {id: 100/010, phase: instruct, title: x, text: y}"
    text = "- id: 100\n  phase: call\n  title: x\n  operation: soak\n  version: 1.2\n  units: {vessel: reactor}" + steps
    with pytest.raises(LinesideError) as refused:
        read_recipe(text_of(text), "r", LIBRARY)
    assert refused.value.code == "recipe.call_changed"


def test_an_operation_uses_its_own_names_alone() -> None:
    odd = SOAK.replace(b"$warmth - 1", b"$flow - 1")
    with pytest.raises(LinesideError) as refused:
        read_recipe(text_of(ONE), "r", {("soak", "1.2"): odd})
    assert refused.value.code == "recipe.operation_name"


def test_many_calls_of_calls_are_bounded() -> None:
    def stage(name: str, inner: str) -> bytes:
        calls = "".join(
            f"\n  - {{id: s{n}, phase: call, title: x, operation: {inner}, version: 1, units: {{tank: tank}}}}"
            for n in range(40)
        )
        return (
            textwrap.dedent(f"""
            library_operation: {name}
            version: 1
            title: x
            units: {{tank: {{class: bioreactor}}}}
            steps:""").encode()
            + calls.encode()
        )

    bottom = stage("d", "x").partition(b"steps:")[0] + b"steps: [{id: a, phase: instruct, title: x, text: y}]"
    many = {("a", "1"): stage("a", "b"), ("b", "1"): stage("b", "c"), ("c", "1"): stage("c", "d"), ("d", "1"): bottom}
    with pytest.raises(LinesideError) as refused:
        read_recipe(text_of(CALL_TWICE.replace("twice", "a")), "r", many)
    assert refused.value.code == "recipe.too_many_steps"


def test_a_called_operation_is_a_step_with_steps_inside() -> None:
    call = read_recipe(text_of(ONE), "r", LIBRARY).recipe.steps()["100"]
    assert isinstance(call, Call)
    assert [step.id for step in call.steps] == ["100/010", "100/020", "100/030"]
