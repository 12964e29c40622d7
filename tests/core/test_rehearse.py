"""The rehearsal sees everything that a recipe can do, and reports each thing that it cannot be shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from drivers import sim
from drivers.sim.physics import VirtualCell
from edge.__main__ import app
from edge.core import commands as cm
from edge.core import decide as deciding
from edge.core import events as ev
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import RowBody
from edge.core.line import Line
from edge.core.plant import Plant, read_plant
from edge.core.recipe import check_recipe, model, seal
from edge.core.recipe.model import Recipe
from edge.core.rehearse import PHASES, Report, as_json, as_text, rehearse
from edge.library import read_recipe_file

PLANT_FILE = Path(sim.__file__).with_name("plant.yaml")
BOLUS = b"""
      bolus:
        connection: reactor
        address: "nsu=urn:lineside:sim:reactor;s=BR-1"
        type: text
        access: write
        method:
          node: "nsu=urn:lineside:sim:reactor;s=bolus"
          arguments: {volume: {unit: mL, low: 0.5, high: 100}}
          results: {total: {unit: mL, low: 0}, times: {type: int}, said: {type: text}}
"""
PLANT = read_plant(PLANT_FILE.read_bytes().replace(b"    tags:\n", b"    tags:" + BOLUS, 1), "plant.yaml")
SHIPPED = sorted(Path(model.__file__).parent.joinpath("shipped").glob("*.yaml"))
SECONDS_MAX = 40.0
"""Of the processor: several times what it takes, and a tenth of what it took when each half second was looked at."""
Steps = list[dict[str, Any]]
Decide = Callable[[Line, cm.Command, Now], list[RowBody]]


def recipe(*steps: dict[str, Any], **more: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "R",
            "version": "1",
            "title": "A recipe",
            "units": {
                "reactor": {"class": "bioreactor"}, "pump": {"class": "pump"}, "balance": {"class": "balance"}
            },
            "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": steps}]}],
            **more,
        }
    )  # fmt: skip


def played(of: Recipe, plant: Plant = PLANT, **more: Any) -> Report:
    return rehearse(of, seal(of), plant, VirtualCell(plant), lineside="test", **more)


def not_seen(report: Report) -> set[tuple[str, str]]:
    return {(point.step, point.what) for point, _ in report.not_covered}


def instruct(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "phase": "instruct", "title": f"Step {name}", "text": "Do it.", **more}


def number(name: str, step: str, **more: Any) -> dict[str, Any]:
    return {"id": step, "phase": "record", "title": "Count", "text": "Count.", "name": name, "unit": "%", **more}


LIMIT = {"low": 36.5, "high": 37.5, "unit": "degC"}
WARM: Steps = [
    {"id": "w1", "phase": "set", "title": "Warm", "tag": "reactor.temperature_setpoint", "value": 37.0, "unit": "degC"},
    {
        "id": "w2", "phase": "wait", "title": "Warm enough", "tag": "reactor.temperature", "limit": LIMIT,
        "timeout": "1 h",
    },
]  # fmt: skip
WATCHED: dict[str, Any] = {
    "id": "p1", "phase": "parallel", "title": "Grow", "branches": [
        [{"id": "p2", "phase": "wait", "title": "Grow", "duration": "12 d"}],
        [{"id": "p3", "phase": "monitor", "title": "Watch", "tag": "reactor.temperature", "limit": LIMIT,
          "until": "p2"}],
    ],
}  # fmt: skip
CHOOSE: dict[str, Any] = {
    "id": "s1", "phase": "select", "title": "Enough?", "branches": [
        {"when": "cells >= 80", "steps": [instruct("s2")]},
        {"when": "cells >= 60 && reactor.temperature < 40", "steps": [instruct("s3")]},
    ],
    "else": [{"id": "s4", "phase": "sign", "title": "Stop", "text": "T", "meaning": "m",
              "roles": ["operator", "quality"]}],
}  # fmt: skip
# One of each phase that the engine has.
EVERYTHING: Steps = [
    *WARM,
    WATCHED,
    number("cells", "010", limit={"low": 50, "high": 100}),
    CHOOSE,
    {"id": "020", "phase": "calculate", "title": "Half", "formula": "cells / 2", "name": "half", "unit": "%",
     "limit": {"low": 30}},
    {"id": "030", "phase": "loop", "title": "Again", "times": 3, "until": "more > 20",
     "steps": [number("more", "031")]},
    {"id": "040", "phase": "hold", "title": "Keep", "tag": "reactor.temperature", "limit": LIMIT, "duration": "2 h",
     "on_bad_quality": "continue"},
    {"id": "050", "phase": "scan", "title": "Bag", "text": "Scan.", "name": "din", "expect": "patient"},
    {"id": "051", "phase": "scan", "title": "Lot", "text": "Scan.", "name": "lot", "prefix": "L-"},
    {"id": "060", "phase": "record", "title": "Look", "text": "Look.", "name": "look", "type": "choice",
     "choices": ["clear", "cloudy"], "accept": ["clear"], "warn_after": "30 min"},
    {"id": "061", "phase": "record", "title": "Endotoxin", "text": "T", "name": "endotoxin", "type": "at_most",
     "unit": "EU/mL", "limit": {"high": 5}, "pending": True},
    {"id": "062", "phase": "record", "title": "Sterility", "text": "T", "name": "sterility",
     "type": "negative_to_date"},
    {"id": "070", "phase": "weigh", "title": "Salt", "text": "Salt.", "name": "salt", "target": 50, "unit": "g",
     "tolerance": {"below": 1, "above": 2}, "balance": "balance.weight", "steady": 0.5},
    {"id": "071", "phase": "weigh", "title": "Sugar", "text": "Sugar.", "name": "sugar", "target": 50, "unit": "g",
     "tolerance": {"below": 1, "above": 2, "unit": "g"}},
    {"id": "072", "phase": "sample", "title": "Sample", "text": "T", "name": "sample", "quantity": 2, "unit": "mL",
     "container": "a tube", "prefix": "S-", "tests": [
        {"name": "viability", "unit": "%", "limit": {"low": 80}},
        {"name": "mycoplasma", "type": "negative_to_date", "later": True}]},
    {"id": "073", "phase": "label", "title": "Label", "text": "T", "name": "labels", "content": {"Batch": "batch"},
     "copies": 3, "reconcile": True},
    {"id": "074", "phase": "transfer", "title": "Move", "text": "T", "name": "moved", "from": {"prefix": "BAG-"},
     "to": {"unit": "reactor"}, "unit": "mL", "limit": {"low": 10, "high": 20}},
    {"id": "075", "phase": "custody", "title": "Hand over", "text": "T", "what": "the bag"},
    {"id": "076", "phase": "clearance", "title": "Clear", "text": "T", "checks": ["nothing is left", "all is clean"]},
    {"id": "077", "phase": "dispose", "title": "Assess", "text": "T", "of": "endotoxin"},
    {"id": "080", "phase": "ramp", "title": "Cool", "tag": "reactor.temperature_setpoint", "value": 20, "unit": "degC",
     "rate": 60, "per": "h"},
    {"id": "085", "phase": "method", "title": "Bolus", "tag": "reactor.bolus", "arguments": {"volume": 5},
     "results": [{"report": "total", "name": "fed", "unit": "mL"}]},
    {"id": "090", "phase": "call", "title": "Called", "operation": "clean", "version": "1",
     "steps": [instruct("090/010")]},
]  # fmt: skip
READINGS = {"readings": {"reactor.temperature": "degC"}}


def test_every_phase_is_rehearsed() -> None:
    phases = set(get_args(get_args(model.Step)[0]))
    assert set(PHASES) == phases, "teach a new phase to rehearse in edge/core/rehearse/phases.py"
    there = {type(step) for step in recipe(*EVERYTHING).in_order()}
    there |= {type(step) for step in recipe(*SERVICES, **DENSITY).in_order()}
    assert phases - there == set(), "one of each stands in EVERYTHING or SERVICES"


def test_everything_a_recipe_can_do_is_seen() -> None:
    report = played(recipe(*EVERYTHING, **READINGS))
    assert not report.not_covered
    assert [one for one in report.played if not one.well] == []
    assert report.took_s > 12 * 86_400
    assert report.ok
    codes = {one.code for one in report.exceptions}
    assert codes >= {
        "command.refused", "command.unknown", "step.timeout", "step.waits", "limit.outside", "reading.bad_quality",
        "formula.not_usable", "scan.refused", "result.not_accepted", "loop.bound",
    }  # fmt: skip


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_check_clean_and_rehearse_whole(path: Path) -> None:
    document = read_recipe_file(path)
    assert check_recipe(document, PLANT) == []
    began_s = time.process_time()
    report = played(document.recipe)
    assert time.process_time() - began_s < SECONDS_MAX
    assert report.ok, as_text(report)
    assert report.made_up == ()
    assert [one.what for one in report.exceptions if one.played == report.played[0].name] == [], "all was well"
    assert report.took_s > {"mab-fb": 14 * 86_400, "cart-b1": 12 * 86_400}.get(path.stem, 0)


def test_the_same_recipe_gives_the_same_report() -> None:
    of = recipe(*WARM, number("cells", "010", limit={"low": 50}), CHOOSE, **READINGS)
    assert as_json(played(of)) == as_json(played(of))


# What does not hold is reported --------------------------------------------------------------------------------------


def test_a_wait_for_what_the_cell_never_does_stands_still() -> None:
    report = played(recipe(WARM[1]))
    assert not report.ok
    assert "waits for BR-1.temperature between 36.5 and 37.5; it shows 25" in report.played[0].ended
    assert "stands still" in as_text(report)


def test_a_branch_that_no_value_leads_to_is_reported_with_what_it_takes() -> None:
    never = {"when": "cells > 90 && cells < 80", "steps": [instruct("s9")]}
    choose = {**CHOOSE, "branches": [never, *CHOOSE["branches"]]}
    report = played(recipe(*WARM, number("cells", "010"), choose, **READINGS))
    assert not_seen(report) == {
        ("s1", "branch 1"), ("s9", "carried out"), ("s9", "another role is refused")
    }  # fmt: skip
    assert "'cells > 90 && cells < 80' must be true" in as_text(report)
    assert not report.ok


def test_branches_are_found_through_calculated_values_parameters_and_other_branches() -> None:
    steps = [
        number("a", "010"),
        number("b", "011"),
        {"id": "012", "phase": "calculate", "title": "Sum", "formula": "a + b * 2", "name": "sum", "unit": "%"},
        {
            "id": "020", "phase": "select", "title": "One", "else": [], "branches": [
                {"when": "sum > $much && a < b", "steps": [
                    {"id": "021", "phase": "select", "title": "Two", "else": [instruct("022")], "branches": [
                        {"when": "sum >= $much * 3 || look == 'red'", "steps": [instruct("023")]}]}]}],
        },
    ]  # fmt: skip
    look = {
        "id": "013", "phase": "record", "title": "L", "text": "T", "name": "look", "type": "choice",
        "choices": ["blue", "red"],
    }  # fmt: skip
    report = played(recipe(look, *steps, parameters={"much": {"value": 140.0, "unit": "%"}}))
    assert report.ok, as_text(report)
    assert {"023", "022"} <= {point.step for point, why in report.points if not why}


def test_a_reading_decides_after_the_cell_did_what_was_waited_for() -> None:
    """The wait is met by the cell itself, and the branch right after it is led to all the same."""
    until = {
        "id": "w3", "phase": "wait", "title": "Warm", "until": "reactor.temperature > 36.8", "timeout": "1 h"
    }  # fmt: skip
    hot = {
        "id": "020", "phase": "select", "title": "Hot?", "else": [], "branches": [
            {"when": "reactor.temperature > 40", "steps": [instruct("021")]}],
    }  # fmt: skip
    report = played(recipe(WARM[0], until, hot, **READINGS))
    assert report.ok, as_text(report)


def test_equipment_that_is_not_simulated_is_made_up_and_said_so() -> None:
    unit = PLANT.units["BR-1"]
    tags = {**unit.tags, "foam": unit.tags["ph"], "foam_setpoint": unit.tags["ph_setpoint"]}
    plant = PLANT.model_copy(update={"units": {**PLANT.units, "BR-1": unit.model_copy(update={"tags": tags})}})
    steps = [
        {"id": "010", "phase": "set", "title": "S", "tag": "reactor.foam_setpoint", "value": 7.0},
        {"id": "020", "phase": "wait", "title": "W", "tag": "reactor.foam", "limit": {"low": 6, "high": 8},
         "timeout": "1 h"},
    ]  # fmt: skip
    report = played(recipe(*steps), plant)
    assert report.ok, as_text(report)
    assert set(report.made_up) == {"BR-1.foam", "BR-1.foam_setpoint"}
    assert "BR-1.foam" in as_text(report)


def test_exceptions_that_are_raised_although_all_is_well_are_named() -> None:
    hold = {
        "id": "010",
        "phase": "hold",
        "title": "Keep",
        "tag": "reactor.temperature",
        "limit": LIMIT,
        "duration": "1 h",
    }
    text = as_text(played(recipe(WARM[0], hold)))
    assert "although all was well" in text.split("on purpose")[1]


def test_a_phase_that_nobody_taught_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PHASES, model.Instruct)  # type: ignore[arg-type]
    with pytest.raises(LinesideError, match=r"rehearse\.phase"):
        played(recipe(instruct("010")))


def test_a_step_for_which_a_power_cut_matters_is_held_after_one(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = {"id": "010", "phase": "wait", "title": "Rest", "duration": "1 h", "on_restart": "ask"}
    keeps = {
        "id": "020", "phase": "hold", "title": "Keep", "tag": "reactor.temperature", "limit": LIMIT, "duration": "1 h",
        "on_restart": "hold",
    }  # fmt: skip
    assert played(recipe(*WARM, waits, keeps)).ok
    monkeypatch.setattr(deciding._Decision, "wake_up", lambda _self, _batch: None)
    assert not_seen(played(recipe(*WARM, waits, keeps))) == {("010", "the power goes"), ("020", "the power goes")}


# Planted bugs --------------------------------------------------------------------------------------------------------


def dropping(drop: Callable[[ev.Event], bool]) -> Decide:
    """The decider without some of its rows."""

    def decide(line: Line, command: cm.Command, now: Now) -> list[RowBody]:
        return [row for row in deciding.decide(line, command, now) if not drop(row.event)]

    return decide


def deaf_to(kind: type[cm.Command], **facts: Any) -> Decide:
    """The decider that does not hear some commands."""

    def decide(line: Line, command: cm.Command, now: Now) -> list[RowBody]:
        deaf = isinstance(command, kind) and all(getattr(command, key) == value for key, value in facts.items())
        return [] if deaf else deciding.decide(line, command, now)

    return decide


def test_planted_bug_a_step_that_is_skipped_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Recipe.way

    def skipping(self: Recipe, sequence: Any) -> Any:
        return [step for step in whole(self, sequence) if step.id != "020"]

    monkeypatch.setattr(Recipe, "way", skipping)
    report = played(recipe(instruct("010"), instruct("020"), instruct("030")))
    assert {step for step, _ in not_seen(report)} == {"020"}
    assert report.played[0].ended == "complete, but not done: 020"


def test_planted_bug_a_monitor_that_never_fires_is_reported() -> None:
    report = played(recipe(*WARM, WATCHED), decide=deaf_to(cm.NoteReading, finding="outside"))
    assert not_seen(report) == {("p3", "below"), ("p3", "above"), ("p3", "back inside")}
    assert "and no exception was raised" in as_text(report)


def test_planted_bug_a_branch_that_is_never_taken_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = deciding._Decision.work_out

    def never(self: Any, batch_id: str, step: Any, text: str, *more: Any) -> Any:
        found = whole(self, batch_id, step, text, *more)
        return replace(found, value=False) if text == CHOOSE["branches"][1]["when"] else found

    monkeypatch.setattr(deciding._Decision, "work_out", never)
    report = played(recipe(*WARM, number("cells", "010"), CHOOSE, **READINGS))
    assert {("s1", "branch 2"), ("s3", "carried out")} <= not_seen(report)


@pytest.mark.parametrize(
    ("bug", "unseen"),
    [
        (deaf_to(cm.NoteReading, finding="bad_quality"), {("p3", "lost"), ("w2", "lost")}),
        (deaf_to(cm.NoteReading, finding="back"), {("p3", "back inside")}),
        (dropping(lambda event: isinstance(event, ev.ScanRefused)), {("050", "a wrong code is refused")}),
        (
            dropping(lambda event: isinstance(event, ev.ExceptionRaised) and event.step == "010"),
            {("010", "below"), ("010", "above")},
        ),
        (dropping(lambda event: isinstance(event, ev.QuestionAnswered)), set()),  # it is held for ever
    ],
    ids=["quality is ignored", "back is ignored", "scan is not refused", "no exception", "answers are not taken"],
)
def test_planted_bugs_are_reported(bug: Decide, unseen: set[tuple[str, str]]) -> None:
    scan = {"id": "050", "phase": "scan", "title": "Bag", "text": "Scan.", "name": "din", "expect": "patient"}
    report = played(recipe(*WARM, WATCHED, number("cells", "010", limit={"low": 50, "high": 90}), scan), decide=bug)
    assert unseen <= not_seen(report)
    assert not report.ok


def test_planted_bug_a_role_that_nobody_checks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding._Decision, "need_role", lambda _self, _role: None)
    assert ("010", "another role is refused") in not_seen(played(recipe(instruct("010"))))


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_writes_a_report_for_the_approval(tmp_path: Path) -> None:
    file, out = tmp_path / "r.yaml", tmp_path / "report.json"
    file.write_text(json.dumps(recipe(*WARM).model_dump(mode="json", by_alias=True, exclude_defaults=True)))
    done = CliRunner().invoke(app, ["recipe", "rehearse", str(file), "--out", str(out), "--speed", "10"])
    assert done.exit_code == 0, done.output
    assert "Everything was seen." in done.output
    report = json.loads(out.read_text())
    assert report["ok"]
    assert report["seal"] == seal(recipe(*WARM))
    assert (report["plant"], report["speed"]) == (PLANT.plant, 10)
    assert report["coverage"]["steps"] == {"seen": 2, "of": 2}


def test_the_command_ends_with_1_when_something_was_not_seen(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(recipe(WARM[1]).model_dump(mode="json", by_alias=True, exclude_defaults=True)))
    done = CliRunner().invoke(app, ["recipe", "rehearse", str(file), "--json", "--plant", str(PLANT_FILE)])
    assert done.exit_code == 1
    assert not json.loads(done.stdout)["ok"]


def test_a_report_that_cannot_be_written_is_refused_in_words(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["recipe", "rehearse", str(SHIPPED[0]), "--out", str(tmp_path / "nowhere" / "report.json")]
    )
    assert isinstance(done.exception, LinesideError)
    assert done.exception.code == "file.cannot_write"


# Services of modules -------------------------------------------------------------------------------------------------

MODULE: dict[str, Any] = {
    "reactor": {"class": "bioreactor"}, "pump": {"class": "pump"}, "balance": {"class": "balance"},
    "processor": {"class": "cell_processor"},
}  # fmt: skip
SERVICES: Steps = [
    {"id": "110", "phase": "service", "title": "Wash", "unit": "processor", "service": "wash", "procedure": "wash",
     "parameters": {"volume": 500, "cycles": 3}, "timeout": "1 h",
     "reports": [{"report": "used", "name": "used", "unit": "mL"}]},
    {"id": "120", "phase": "service", "title": "Grow", "unit": "processor", "service": "culture",
     "parameters": {"temperature": 37}, "until": "processor.culture_density >= 2", "timeout": "1 d"},
]  # fmt: skip
DENSITY = {"readings": {"processor.culture_density": "1e6/mL"}, "units": MODULE}


@pytest.mark.parametrize("policy", [{}, {"on_held": "wait", "on_aborted": "abort", "on_timeout": "abort"}])
def test_services_are_rehearsed_with_all_their_ends(policy: dict[str, str]) -> None:
    report = played(recipe(*({**step, **policy} for step in SERVICES), **DENSITY))
    assert report.ok, as_text(report)
    assert report.made_up == ()
    assert {one.code for one in report.exceptions} >= {
        "service.mode", "service.held", "service.aborted", "service.timeout", "command.unknown", "reading.bad_quality",
    }  # fmt: skip


def test_planted_bug_a_module_that_aborts_unseen_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.core.serve._broken_off", lambda *_: None)
    report = played(recipe(*SERVICES, **DENSITY))
    assert {("110", "it aborts"), ("120", "it aborts")} == not_seen(report)
