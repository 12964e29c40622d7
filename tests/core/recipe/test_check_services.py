"""Findings about steps that run a module's service, and about services in a plant file; each with a hint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from ruamel.yaml import YAML

from drivers import sim
from edge.core.errors import LinesideError
from edge.core.plant import read_plant
from edge.core.recipe import check_recipe, read_recipe

PLANT_FILE = Path(sim.__file__).with_name("plant.yaml")
PLANT = read_plant(PLANT_FILE.read_bytes(), "plant.yaml")
WASH: dict[str, Any] = {
    "id": "010", "phase": "service", "title": "Wash", "unit": "processor", "service": "wash", "procedure": "wash",
    "parameters": {"volume": {"value": 0.5, "unit": "L"}, "cycles": "$times"}, "timeout": "1 h",
    "reports": [{"report": "used", "name": "used", "unit": "L", "limit": {"high": 1}}],
}  # fmt: skip
GROW: dict[str, Any] = {
    "id": "010", "phase": "service", "title": "Grow", "unit": "processor", "service": "culture", "timeout": "1 h",
    "parameters": {"temperature": {"formula": "310.0 + 0.15", "unit": "K"}},
    "until": "processor.culture_density > 2",
}  # fmt: skip


def found(*steps: dict[str, Any]) -> list[LinesideError]:
    recipe = {
        "recipe": "R", "version": "1", "title": "T",
        "units": {"processor": {"class": "cell_processor"}, "pump": {"class": "pump"}},
        "parameters": {
            "times": {"type": "integer", "value": 3}, "hot": {"value": 60.0, "unit": "degC"},
            "word": {"type": "text", "value": "a"}, "long": {"type": "duration", "value": "5 min"},
        },
        "readings": {"processor.culture_density": "1e6/mL"},
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": list(steps)}]}],
    }  # fmt: skip
    return check_recipe(read_recipe(orjson.dumps(recipe), "r.yaml"), PLANT)


@pytest.mark.parametrize("step", [WASH, GROW, {**WASH, "procedure": "rinse", "parameters": {"volume": 100}}])
def test_what_is_right_is_clean(step: dict[str, Any]) -> None:
    assert found(step) == []
    assert found({**step, "timeouts": {"starting": "10 min", "completing": "$long"}}) == []


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ({**WASH, "unit": "centrifuge"}, "recipe.unknown_role"),
        ({**WASH, "unit": "pump"}, "recipe.unknown_service"),
        ({**WASH, "service": "wish"}, "recipe.unknown_service"),
        ({**WASH, "procedure": "wish"}, "recipe.service_procedure"),
        ({k: v for k, v in WASH.items() if k != "procedure"}, "recipe.service_procedure"),
        ({**WASH, "parameters": {"volume": 500}}, "recipe.service_parameter_missing"),
        ({**WASH, "procedure": "rinse"}, "recipe.unknown_service_parameter"),
        ({**WASH, "parameters": {**WASH["parameters"], "speed": 1}}, "recipe.unknown_service_parameter"),
        ({**WASH, "parameters": {"volume": 5000, "cycles": 1}}, "recipe.outside_plant"),
        ({**WASH, "parameters": {"volume": 500, "cycles": 1.5}}, "recipe.not_whole"),
        ({**WASH, "parameters": {"volume": 500, "cycles": True}}, "recipe.service_parameter"),
        ({**WASH, "parameters": {"volume": "$hot", "cycles": 1}}, "recipe.service_parameter"),
        ({**WASH, "parameters": {"volume": "$word", "cycles": 1}}, "recipe.service_parameter"),
        ({**WASH, "parameters": {"volume": "$nothing", "cycles": 1}}, "recipe.unknown_parameter"),
        ({**WASH, "parameters": {"volume": {"value": 1, "unit": "kg"}, "cycles": 1}}, "recipe.service_parameter"),
        ({**WASH, "parameters": {"volume": {"value": 1, "unit": "furlong"}, "cycles": 1}}, "unit.unknown"),
        ({**WASH, "parameters": {"volume": {}, "cycles": 1}}, "recipe.service_setting"),
        ({**WASH, "parameters": {"volume": {"value": 1, "formula": "1.0"}, "cycles": 1}}, "recipe.service_setting"),
        ({**GROW, "parameters": {"temperature": {"formula": "1 < 2"}}}, "formula.type"),
        ({**GROW, "parameters": {"temperature": {"formula": "1.0", "unit": "bar"}}}, "recipe.service_parameter"),
        ({**WASH, "until": "processor.culture_density > 2"}, "recipe.service_end"),
        ({k: v for k, v in GROW.items() if k != "until"}, "recipe.service_end"),
        ({**GROW, "until": "$times > 2"}, "recipe.constant_condition"),
        ({**WASH, "timeout": "soon"}, "recipe.duration"),
        ({**WASH, "timeout": ""}, "recipe.duration"),
        ({**WASH, "timeouts": {"starting": "soon"}}, "recipe.duration"),
        ({**WASH, "timeouts": {"strating": "1 min"}}, "recipe.service_state"),
        ({**WASH, "timeouts": {"execute": "1 min"}}, "recipe.service_state"),
        ({**WASH, "reports": [{"report": "usd", "name": "u"}]}, "recipe.unknown_report"),
        ({**WASH, "reports": [{"report": "used", "name": "u", "unit": "kg"}]}, "recipe.report_type"),
        ({**WASH, "reports": [{"report": "used", "name": "u", "type": "text"}]}, "recipe.report_type"),
        ({**WASH, "reports": [{"report": "used", "name": "u", "type": "text", "limit": {"low": 1}}]},
         "recipe.not_a_number"),
        ({**WASH, "reports": [{"report": "used", "name": "u", "unit": "furlong"}]}, "unit.unknown"),
        ({**WASH, "reports": [{"report": "used", "name": "u", "unit": "mL", "limit": {"low": 2, "high": 1}}]},
         "recipe.limit_upside_down"),
        *(
            ({**WASH, "reports": [{"report": "used", "name": "u", "unit": "mL", "limit": {"low": low}}]}, code)
            for low, code in (("$hot", "recipe.wrong_unit"), ("$word", "recipe.parameter_type"),
                              ("$nothing", "recipe.unknown_parameter"))
        ),
        ({**WASH, "reports": [*WASH["reports"], *WASH["reports"]]}, "recipe.duplicate_result"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(step: dict[str, Any], code: str) -> None:
    problems = found(step)
    assert code in [one.code for one in problems]
    assert all(one.todo and one.place for one in problems)


def test_hints_name_what_was_meant() -> None:
    assert "wash" in found({**WASH, "service": "wsh"})[0].todo
    assert "starting" in found({**WASH, "timeouts": {"strating": "1 min"}})[0].todo


def test_one_service_runs_once_at_a_time() -> None:
    both = {
        "id": "001", "phase": "parallel", "title": "P", "branches": [[WASH], [{**WASH, "id": "020", "reports": []}]],
    }  # fmt: skip
    assert "recipe.parallel_service" in [one.code for one in found(both)]


# In the plant file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"state": "wash_stat"}, "plant.service_tag"),
        ({"state": "wash_automatic"}, "plant.service_tag_type"),
        ({"command": "wash_state"}, "plant.service_tag_type"),
        ({"command": "wash_cycles"}, "plant.service_read_back"),
        ({"kind": "packml"}, "plant.service_kind"),
        ({"request": "wash_automatic"}, "plant.service_kind"),
        ({"reports": {"used": "nothing"}}, "plant.service_tag"),
        ({"parameters": {"volume": "wash_used"}}, "plant.service_tag_type"),
        ({"procedure": None}, "plant.service_procedure"),
        ({"procedures": {"rinse": {"id": 1, "parameters": ["speed"]}}}, "plant.service_parameter"),
    ],
)
def test_a_service_that_a_plant_file_gets_wrong(change: dict[str, Any], code: str) -> None:
    plant = YAML(typ="safe").load(PLANT_FILE.read_bytes())
    service = plant["units"]["CP-1"]["services"]["wash"]
    plant["units"]["CP-1"]["services"] = {"wash": {k: v for k, v in {**service, **change}.items() if v is not None}}
    with pytest.raises(LinesideError) as refused:
        read_plant(orjson.dumps(plant), "plant.yaml")
    told = [refused.value, *refused.value.others]
    assert code in [one.code for one in told]
    assert all(one.todo and one.place for one in told)


PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "run-a-modules-service.md").read_text(encoding="utf-8")


def test_the_module_and_the_step_of_the_page_check_clean() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    module, machine, step = (YAML(typ="safe").load(text) for text in blocks)
    settings = {"endpoint": "opc.tcp://cp:4840", "security": "none"}
    connections = {key: {"driver": "opcua", "settings": settings} for key in ("processor", "filler")}
    units = {**module["units"], **machine["units"]}
    plant = read_plant(orjson.dumps({"plant": "P", "connections": connections, "units": units}), "plant.yaml")
    recipe = {
        "recipe": "R", "version": "1", "title": "T", "units": {"processor": {"class": "cell_processor"}},
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": step}]}],
    }  # fmt: skip
    assert check_recipe(read_recipe(orjson.dumps(recipe), "r.yaml"), plant) == []
