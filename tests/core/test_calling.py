"""A step that calls a method: intended first, once, its answer recorded; where nobody knows, a person is asked."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.by_hand import HandAct, refusal
from edge.core.errors import LinesideError
from edge.core.line import effects
from edge.core.plant import Plant
from edge.core.recipe import check_recipe, read_recipe
from edge.core.terms import Quality, Reading, State
from tests.core.parts import PLANT, VirtualLine, kinds, recipe

BOLUS: dict[str, Any] = {
    "connection": "plc", "address": "pump", "type": "text", "access": "write",
    "interlock": {"permit": "temperature > 30", "why": "It is too cold."},
    "method": {
        "node": "bolus",
        "arguments": {"volume": {"unit": "mL", "low": 0.5, "high": 100}, "fast": {"type": "bool"}},
        "results": {"total": {"unit": "mL", "low": 0}, "times": {"type": "int"}},
    },
}  # fmt: skip
STEP: dict[str, Any] = {
    "id": "010", "phase": "method", "title": "Bolus", "tag": "reactor.bolus",
    "arguments": {"volume": {"value": 0.005, "unit": "L"}, "fast": True},
    "results": [{"report": "total", "name": "fed", "unit": "mL", "limit": {"high": 6}},
                {"report": "times", "name": "boluses"}],
}  # fmt: skip
AFTER: dict[str, Any] = {"id": "020", "phase": "instruct", "title": "Look", "text": "Look."}
GIVEN = '{"volume": 5.0, "fast": true}'


def plant() -> Plant:
    data = PLANT.model_dump(mode="json", by_alias=True)
    for unit in ("BR-1", "BR-2"):
        data["units"][unit]["tags"]["bolus"] = BOLUS
    return Plant.model_validate(data)


def calling(monkeypatch: pytest.MonkeyPatch, step: dict[str, Any] = STEP, warm: float = 37.0) -> VirtualLine:
    """A batch whose first step is the call."""
    monkeypatch.setattr("tests.core.parts.PLANT", plant())
    line = VirtualLine(recipe([step, AFTER]))
    line.readings["BR-1.temperature"] = Reading(warm, "degC", Quality.GOOD, "", line.now_s)
    line.start()
    return line


def end(line: VirtualLine, outcome: Any, reading: Any = None, attempt: int = 1) -> list[ev.Event]:
    return line.do(
        cm.ConcludeWrite(
            batch="B1", step="010", attempt=attempt, tag="BR-1.bolus", outcome=outcome, reading=reading, why="no reply"
        )
    )


def recorded(events: list[ev.Event]) -> list[tuple[str, Any, str, bool]]:
    return [(one.name, one.value, one.unit, one.within) for one in events if isinstance(one, ev.ValueRecorded)]


def calls(line: VirtualLine) -> list[tuple[str, Any, int]]:
    return [(one.tag, one.value, one.attempt) for one in effects(line.line).writes if one.step == "010"]


def test_a_call_is_intended_made_once_and_its_answer_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    line = calling(monkeypatch)
    assert calls(line) == [("BR-1.bolus", GIVEN, 1)]
    made = end(line, "confirmed", '{"total": 5.0, "times": 1}')
    assert recorded(made) == [("fed", 5.0, "mL", True), ("boluses", 1.0, "", True)]
    assert kinds(made)[0] == "CommandConfirmed"
    assert line.active() == ["020"]
    assert calls(line) == []
    assert line.refold() == line.line


def test_an_answer_outside_of_its_limit_is_recorded_and_raises_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    made = end(calling(monkeypatch), "confirmed", '{"total": 7.5, "times": 2}')
    assert recorded(made)[0] == ("fed", 7.5, "mL", False)
    assert "limit.outside" in [one.code for one in made if isinstance(one, ev.ExceptionRaised)]


def test_a_locked_method_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    line = calling(monkeypatch, warm=20.0)
    assert calls(line) == []
    assert line.batch().state is State.HELD
    assert any(b"It is too cold." in row for row in line.rows)


def test_a_lost_reply_is_asked_about_and_only_a_person_calls_again(monkeypatch: pytest.MonkeyPatch) -> None:
    line = calling(monkeypatch)
    assert "QuestionRaised" in kinds(end(line, "unknown"))
    assert (calls(line), line.batch().state) == ([], State.HELD)
    made = line.answer("010.1", "happened")
    assert recorded(made) == []  # what it answered, nobody knows
    assert [one.code for one in made if isinstance(one, ev.ExceptionRaised)] == ["method.no_answer"] * 2
    assert line.active() == ["020"]

    line = calling(monkeypatch)
    end(line, "unknown")
    line.answer("010.1", "again")
    assert calls(line) == [("BR-1.bolus", GIVEN, 2)]
    assert recorded(end(line, "confirmed", '{"total": 5.0, "times": 2}', attempt=2))


def test_after_a_crash_it_is_in_doubt_and_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    line = calling(monkeypatch)
    assert "QuestionRaised" in kinds(line.crash())
    assert calls(line) == []
    assert end(line, "confirmed", '{"total": 5.0, "times": 1}') == []


def test_nobody_calls_a_method_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    line = calling(monkeypatch)
    end(line, "unknown")
    run = line.batch().steps["010"]
    for act in (HandAct.TAKE, HandAct.MANUAL):
        refused = refusal(line.line, line.batch(), run, act, line.readings.get)
        assert refused is not None
        assert refused.code == "hand.method"


# The checker -------------------------------------------------------------------------------------------------------


def found(**more: Any) -> list[LinesideError]:
    step = {key: value for key, value in {**STEP, **more}.items() if value is not None}
    content = {
        "recipe": "R", "version": "1", "title": "T", "units": {"reactor": {"class": "bioreactor"}},
        "parameters": {"cold": {"value": 3.0, "unit": "degC"}, "much": {"value": 0.2, "unit": "L"},
                       "enough": {"value": 20.0, "unit": "mL"}},
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [step]}]}],
    }  # fmt: skip
    return check_recipe(read_recipe(orjson.dumps(content), "r.yaml"), plant())


@pytest.mark.parametrize("volume", [5, "$enough", {"value": "$enough"}, {"value": 50, "unit": "uL"}])
def test_what_is_right_is_clean(volume: Any) -> None:
    volume = {"value": 0.05, "unit": "L"} if isinstance(volume, dict) and "unit" in volume else volume
    assert [one for one in found(arguments={"volume": volume, "fast": False}) if one.code != "recipe.unused"] == []


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"tag": "reactor.setpoint"}, "recipe.no_method"),
        ({"tag": "reactor.bonus"}, "recipe.unbound_tag"),
        ({"arguments": {"volume": 5}}, "recipe.argument"),
        ({"arguments": {"volume": 5, "fast": True, "slow": True}}, "recipe.argument"),
        ({"arguments": {"volume": 500, "fast": True}}, "recipe.outside_plant"),
        ({"arguments": {"volume": "$much", "fast": True}}, "recipe.outside_plant"),
        ({"arguments": {"volume": "$cold", "fast": True}}, "recipe.service_parameter"),
        ({"arguments": {"volume": "$none", "fast": True}}, "recipe.unknown_parameter"),
        ({"arguments": {"volume": True, "fast": True}}, "recipe.service_parameter"),
        ({"arguments": {"volume": {"formula": "1.0"}, "fast": True}}, "recipe.argument"),
        ({"arguments": {"volume": {"value": 1, "unit": "bananas"}, "fast": True}}, "unit.unknown"),
        ({"results": [{"report": "sum", "name": "fed"}]}, "recipe.unknown_report"),
        ({"results": [{"report": "total", "name": "fed", "unit": "degC"}]}, "recipe.report_type"),
        ({"results": [{"report": "total", "name": "fed", "type": "text"}]}, "recipe.report_type"),
        ({"phase": "set", "arguments": None, "results": None, "value": 1.0}, "recipe.tag_type"),
        ({"phase": "label", "text": "T", "name": "labels", "content": {"a": "batch"}, "copies": 1, "tag": None,
          "printer": "reactor.bolus", "arguments": None, "results": None}, "recipe.printer"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(more: dict[str, Any], code: str) -> None:
    try:
        errors = found(**more)
    except LinesideError as refused:
        errors = [refused, *refused.others]
    assert code in [one.code for one in errors]
    assert all(one.place is not None and one.place.line for one in errors)
