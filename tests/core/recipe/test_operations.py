"""Each operation that ships: called with its defaults by a recipe made here, checked, and rehearsed to its end."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from drivers import sim
from drivers.sim.physics import VirtualCell
from edge.core.plant import read_plant
from edge.core.recipe import check_recipe, read_operation, read_recipe, seal
from edge.core.recipe.model import LibraryOperation, Step
from edge.core.rehearse import as_text, rehearse
from edge.library import LibraryOperations

PLANT = read_plant(Path(sim.__file__).with_name("plant.yaml").read_bytes(), "plant.yaml")
FILES = LibraryOperations(Path("no-such-folder"))
NAMES = sorted(FILES)


def _operation(name: tuple[str, str]) -> LibraryOperation:
    return read_operation(FILES[name], name[0])


def _calling(operation: LibraryOperation) -> bytes:
    """A recipe that calls it, and gives it nothing but units."""
    call = {
        "id": "100", "phase": "call", "title": operation.title,
        "operation": operation.library_operation, "version": operation.version,
    }  # fmt: skip
    recipe = {
        "recipe": "CALLS", "version": "1", "title": "Calls one operation",
        "units": {role: {"class": need.cls} for role, need in operation.units.items()},
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [call]}]}],
    }  # fmt: skip
    return orjson.dumps(recipe)


def _all(steps: tuple[Step, ...]) -> list[Step]:
    return [one for step in steps for one in (step, *(_all(tuple(i for _, seq in step.inner() for i in seq))))]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[0])
def test_an_operation_checks_clean_and_is_rehearsed_to_its_end(name: tuple[str, str]) -> None:
    document = read_recipe(_calling(_operation(name)), "calls.yaml", FILES)
    assert check_recipe(document, PLANT) == []
    report = rehearse(document.recipe, seal(document.recipe), PLANT, VirtualCell(PLANT), lineside="test")
    assert report.ok, as_text(report)
    assert report.made_up == ()


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[0])
def test_an_operation_says_why(name: tuple[str, str]) -> None:
    operation = _operation(name)
    assert operation.why
    assert operation.parameters, "what a site sets is a parameter"
    for parameter_name, parameter in operation.parameters.items():
        assert parameter.why, parameter_name
        if parameter.type in {"number", "integer", "duration"}:
            assert parameter.low is not None, parameter_name
            assert parameter.high is not None, parameter_name
    for step in _all(operation.steps):
        limit = getattr(step, "limit", None)
        assert limit is None or limit.why, step.id
        for test in getattr(step, "tests", ()):
            assert test.limit is None or test.limit.why, test.name


def test_the_usual_operations_are_there() -> None:
    assert len(NAMES) >= 25
    assert {name for name, _ in NAMES} >= {
        "clean_in_place", "sterilise_in_place", "inoculate", "feed", "temperature_shift", "harvest", "cell_count",
        "chromatography_load", "chromatography_wash", "chromatography_elute", "filter_integrity_test", "thaw",
        "weigh_and_dispense", "buffer_preparation", "cryopreserve", "label_and_reconcile", "line_clearance",
        "balance_check", "ph_probe_calibration", "environmental_check",
    }  # fmt: skip
