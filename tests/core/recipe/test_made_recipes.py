"""Whatever recipe is made: it passes the checker and runs to its end in rehearsal, or it is refused and told why."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, find, given, settings

from drivers.sim.physics import VirtualCell
from edge.core import decide as deciding
from edge.core.errors import LinesideError
from edge.core.recipe import check_recipe, read_recipe, seal
from edge.core.recipe.read import PHASES, RecipeDocument
from edge.core.rehearse import as_text, rehearse
from tests.core.recipe.making import OPERATIONS, recipes
from tests.core.test_rehearse import PLANT

MADE = settings(
    max_examples=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip


def findings(content: dict[str, Any]) -> tuple[RecipeDocument | None, list[LinesideError]]:
    """The recipe, if it can be read, and all that is wrong with it."""
    try:
        document = read_recipe(json.dumps(content).encode(), "made.yaml", OPERATIONS)
    except LinesideError as refusal:
        return None, [refusal, *refusal.others]
    return document, check_recipe(document, PLANT)


def says_why(found: list[LinesideError]) -> bool:
    return all(one.code and one.what and one.todo and one.place and one.place.line > 0 for one in found)


@MADE
@given(recipes())
def test_a_recipe_that_the_checker_passes_runs_to_its_end(content: dict[str, Any]) -> None:
    document, found = findings(content)
    event("passed" if not found else found[0].code)
    if document is None or found:
        assert says_why(found)
        return
    report = rehearse(document.recipe, seal(document.recipe), PLANT, VirtualCell(PLANT), lineside="test")
    assert all(one.well for one in report.played), as_text(report)
    seen, of = report.coverage()["steps"]
    assert seen >= 1
    assert of == len(document.recipe.steps())


@settings(MADE, max_examples=100)
@given(recipes(spoiled=True))
def test_a_recipe_that_is_refused_says_why_and_one_that_passes_ends(content: dict[str, Any]) -> None:
    document, found = findings(content)
    event("passed" if not found else found[0].code)
    assert says_why(found)
    if document is not None and not found:
        report = rehearse(document.recipe, seal(document.recipe), PLANT, VirtualCell(PLANT), lineside="test")
        assert all(one.well for one in report.played), as_text(report)


def test_two_services_beside_each_other_do_not_hold_each_other_again_and_again() -> None:
    """What a seed found: whoever let the batch go on was faster than one of the services in getting to held."""
    service = {"title": "T", "phase": "service", "unit": "processor", "timeout": "4 h"}
    wash = {"service": "wash", "procedure": "wash", "parameters": {"volume": {"value": 0.5, "unit": "L"}, "cycles": 1}}
    grow = {"service": "culture", "parameters": {"temperature": 30}, "until": "processor.culture_density >= 2"}
    ramp = {
        "id": "040", "title": "T", "phase": "ramp", "tag": "reactor.temperature_setpoint", "value": 30.0,
        "unit": "degC", "rate": 1.0, "per": "min",
    }  # fmt: skip
    branches = [[{"id": "020", **service, **wash}], [{"id": "030", **service, **grow}], [ramp]]
    content = {
        "recipe": "MADE", "version": "1", "title": "T",
        "units": {"reactor": {"class": "bioreactor"}, "processor": {"class": "cell_processor"}},
        "readings": {"processor.culture_density": "1e6/mL"},
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [
            {"id": "010", "title": "T", "phase": "parallel", "branches": branches}]}]}],
    }  # fmt: skip
    document, found = findings(content)
    assert document is not None
    assert found == []
    report = rehearse(document.recipe, seal(document.recipe), PLANT, VirtualCell(PLANT), lineside="test")
    assert all(one.well for one in report.played), as_text(report)


def test_the_maker_makes_every_phase() -> None:
    """Most in three hundred recipes; a rare one is looked for, so that no other draw can push it out of them."""
    phases: set[str] = set()

    @settings(MADE, max_examples=300)
    @given(recipes())
    def look(content: dict[str, Any]) -> None:
        phases.update(re.findall(r'"phase": "(\w+)"', json.dumps(content)))

    look()
    assert phases <= set(PHASES)
    longer = settings(MADE, max_examples=3_000, phases=[Phase.generate], database=None)
    for rare in sorted(set(PHASES) - phases):
        find(recipes(), lambda content, rare=rare: f'"phase": "{rare}"' in json.dumps(content), settings=longer)


def test_planted_bug_an_engine_that_does_not_end_a_loop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    look = {"id": "011", "phase": "record", "title": "T", "text": "T", "name": "n", "unit": "%"}
    loop = {"id": "010", "phase": "loop", "title": "T", "times": 2, "steps": [look]}
    content = {
        "recipe": "MADE", "version": "1", "title": "T",
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [loop]}]}],
    }  # fmt: skip
    document, found = findings(content)
    assert document is not None
    assert found == []

    def ends() -> bool:
        report = rehearse(document.recipe, seal(document.recipe), PLANT, VirtualCell(PLANT), lineside="test")
        return all(one.well for one in report.played)

    assert ends()
    monkeypatch.setattr(deciding._Decision, "go_round", lambda *_: None)
    assert not ends()


@pytest.mark.parametrize("spoiled", [False, True])
def test_the_maker_makes_both_kinds(spoiled: bool) -> None:
    """Most that are not spoiled pass; most that are do not."""
    passed: list[bool] = []

    @settings(MADE, max_examples=60)
    @given(recipes(spoiled=spoiled))
    def look(content: dict[str, Any]) -> None:
        passed.append(not findings(content)[1])

    look()
    share = sum(passed) / len(passed)
    assert share < 0.6 if spoiled else share > 0.4
