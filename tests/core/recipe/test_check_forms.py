"""What the checker says of steps of people and material, and that it says nothing of those that are right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge.core.recipe import check_recipe, read_recipe, remarks
from tests.core.test_forms import BALANCE, ENDOTOXIN, RAMP, SCALE, WEIGH

SAMPLE = {"phase": "sample", "text": "Take it.", "name": "sample", "quantity": 5.0, "unit": "mL", "container": "a tube"}
LABEL = {"phase": "label", "text": "Label.", "name": "labels", "content": {"Batch": "batch"}, "reconcile": True}
TRANSFER = {"phase": "transfer", "text": "Move it.", "name": "moved", "from": {"prefix": "BAG-"},
            "to": {"unit": "reactor"}, "unit": "mL"}  # fmt: skip
CUSTODY = {"phase": "custody", "text": "The bag.", "what": "bag"}
CLEARANCE = {"phase": "clearance", "text": "Clear.", "checks": ["No labels."]}
PENDING = {**ENDOTOXIN, "pending": True}
DISPOSE = {"phase": "dispose", "text": "Judge it.", "of": "endotoxin"}


def codes(*steps: dict[str, Any], **more: Any) -> list[str]:
    numbered = [{"id": f"{place}0", "title": f"Step {place}", **step} for place, step in enumerate(steps, 1)]
    content = {
        "recipe": "R", "version": "1", "title": "t",
        "units": {"reactor": {"class": "bioreactor"}, "scale": {"class": "scale"}},
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": numbered}]}],
        **more,
    }  # fmt: skip
    document = read_recipe(json.dumps(content, indent=1).encode(), "r.yaml")
    found = check_recipe(document, SCALE)
    assert all(one.place and one.place.line > 1 and one.what and one.todo for one in found)
    return [one.code for one in found]


def test_right_steps_are_clean() -> None:
    sample = {**SAMPLE, "tests": [{"name": "density", "unit": "1e6/mL"}, {"name": "sterility", "later": True}]}
    assert codes(WEIGH, BALANCE, sample, LABEL, TRANSFER, CUSTODY, CLEARANCE, RAMP, PENDING, DISPOSE) == []


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ([{**WEIGH, "tolerance": None}], "recipe.weigh_tolerance"),
        ([{**WEIGH, "tolerance": {"below": -1, "above": 1}}], "recipe.weigh_tolerance"),
        ([{**WEIGH, "tolerance": {"below": 1, "above": 1, "unit": "mL"}}], "recipe.wrong_unit"),
        ([{**WEIGH, "unit": "mL"}], "recipe.wrong_unit"),
        ([{**WEIGH, "unit": "stone"}], "unit.unknown"),
        ([{**WEIGH, "target": 0}], "recipe.weigh_target"),
        ([{**WEIGH, "target": "$nothing"}], "recipe.unknown_parameter"),
        ([{**WEIGH, "target": "$time"}], "recipe.wrong_unit"),
        ([{**WEIGH, "checked_by": "operator"}], "recipe.weigh_checked"),
        ([{**BALANCE, "steady": None}], "recipe.weigh_steady"),
        ([{**WEIGH, "steady": 0.1}], "recipe.weigh_steady"),
        ([{**BALANCE, "balance": "scale.wait"}], "recipe.unbound_tag"),
        ([{**BALANCE, "balance": "reactor.temperature"}], "recipe.wrong_unit"),
        ([{**BALANCE, "steady_for": "soon"}], "recipe.duration"),
        ([SAMPLE], "recipe.sample_result"),
        ([{**SAMPLE, "tests": [{"name": "sample"}]}], "recipe.duplicate_result"),
        ([{**SAMPLE, "tests": [{"name": "a", "type": "choice"}]}], "recipe.choices"),
        ([{**SAMPLE, "tests": [{"name": "a", "unit": "pieces"}]}], "unit.unknown"),
        ([{**SAMPLE, "tests": [{"name": "a", "limit": {"low": 2, "high": 1}}]}], "recipe.limit_upside_down"),
        ([{**SAMPLE, "tests": [{"name": "a", "type": "text", "limit": {"low": 2}}]}], "recipe.not_a_number"),
        ([{**SAMPLE, "tests": [{"name": "a", "unit": "%", "limit": {"low": "$time"}}]}], "recipe.wrong_unit"),
        ([{**SAMPLE, "tests": [{"name": "a", "unit": "%", "limit": {"low": "$words"}}]}], "recipe.parameter_type"),
        ([{**SAMPLE, "tests": [{"name": "a", "limit": {"low": "$what"}}]}], "recipe.unknown_parameter"),
        ([{**TRANSFER, "limit": {"low": "$time"}}], "recipe.wrong_unit"),
        ([{**ENDOTOXIN, "limit": {"high": "$words"}}], "recipe.parameter_type"),
        ([{**RAMP, "rate": "$words"}], "recipe.parameter_type"),
        ([{**LABEL, "content": {}}], "recipe.label_content"),
        ([{**LABEL, "content": {"Batch": "bach"}}], "recipe.label_fact"),
        ([{**TRANSFER, "from": {}}], "recipe.transfer_place"),
        ([{**TRANSFER, "from": {"unit": "reactor"}}], "recipe.transfer_place"),
        ([{**TRANSFER, "to": {"unit": "reaktor"}}], "recipe.unknown_role"),
        ([{**TRANSFER, "limit": {}}], "recipe.limit_open"),
        ([{**CUSTODY, "takes": "auditor"}], "recipe.signer_reads"),
        ([{**CLEARANCE, "roles": ["operator"]}], "recipe.no_signer"),
        ([{**CLEARANCE, "checks": []}], "recipe.no_checks"),
        ([{**ENDOTOXIN, "limit": None}], "recipe.at_most"),
        ([{**ENDOTOXIN, "type": "negative_to_date"}], "recipe.microbiology"),
        ([DISPOSE, PENDING], "recipe.dispose_of"),
        ([ENDOTOXIN, DISPOSE], "recipe.dispose_of"),
        ([{**RAMP, "rate": 0}], "recipe.ramp_rate"),
        ([{**RAMP, "tag": "reactor.temperature"}], "recipe.read_only"),
        ([{**RAMP, "value": 99}], "recipe.outside_plant"),
        ([{**RAMP, "every": "0 s"}], "recipe.duration"),
        ([{"phase": "service", "unit": "reactor", "service": "Clean", "timeout": "1 h"}], "recipe.unknown_service"),
        ([{"phase": "instruct", "text": "Do it.", "warn_after": "soon"}], "recipe.duration"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(steps: list[dict[str, Any]], code: str) -> None:
    parameters = {"time": {"value": 1.0, "unit": "h"}, "words": {"type": "text", "value": "a"}}
    assert code in codes(*steps, parameters=parameters)


def test_labels_that_are_not_counted_again_are_a_remark() -> None:
    content = {
        "recipe": "R", "version": "1", "title": "t",
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [
            {"id": "10", "title": "Label", **LABEL, "reconcile": False}]}]}],
    }  # fmt: skip
    document = read_recipe(json.dumps(content, indent=1).encode(), "r.yaml")
    assert [one.code for one in remarks(document)] == ["recipe.label_reconcile"]


def test_a_category_of_what_is_always_accepted_is_remarked_upon() -> None:
    plain = {"phase": "record", "text": "Look.", "name": "look", "type": "choice", "choices": ["a", "b"]}
    assert told({**plain, "category": "minor"}) == ["recipe.category_unused"]
    assert told({**plain, "category": "minor", "accept": ["a"]}) == []
    assert told({**SAMPLE, "tests": [{"name": "count", "category": "major"}]}) == ["recipe.category_unused"]
    assert told({**SAMPLE, "tests": [{"name": "mycoplasma", "type": "negative_to_date", "category": "major"}]}) == []


def told(step: dict[str, Any]) -> list[str]:
    content = {
        "recipe": "R", "version": "1", "title": "t",
        "procedure": [{"unit_procedure": "U", "operations": [
            {"operation": "O", "steps": [{"id": "10", "title": "Step", **step}]}]}],
    }  # fmt: skip
    return [one.code for one in remarks(read_recipe(json.dumps(content, indent=1).encode(), "r.yaml"))]
