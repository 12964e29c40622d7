"""Modules that want more than a command: parameters that take effect only when applied, and modes to switch."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core.errors import LinesideError
from edge.core.plant import Plant, read_plant
from edge.core.serving import TRANSITION_S, Module, module_of, waits_for
from edge.core.terms import Act, State
from tests.core.test_serve import MODULE, SET, WASH, ModuleLine, survivor

BOOL = {"connection": "plc", "type": "bool"}
SHOWN = {"connection": "plc", "low": 0, "high": 2_000}


def strict(*, mode: str = "", **more: Any) -> Plant:
    """A module whose parameters are to be applied. With `mode` the box may switch it: by `bits`, or by one `word`."""
    tags = {
        **MODULE["tags"],
        "apply": {**BOOL, "address": "wash.apply", "access": "write"},
        "apply_cycles": {**BOOL, "address": "cycles.apply", "access": "write"},
        "volume_now": {**SHOWN, "address": "wash.v.out", "unit": "mL"},
        "cycles_now": {**SHOWN, "address": "wash.n.out", "type": "int"},
    }
    service = {
        **MODULE["services"]["wash"], "applied_by": {"volume": "apply", "cycles": "apply"},
        "in_force": {"volume": "volume_now", "cycles": "cycles_now"}, **more,
    }  # fmt: skip
    if mode == "bits":
        tags["to_automatic"] = {**BOOL, "address": "ta", "access": "write", "read_back": "automatic"}
        tags["to_external"] = {**BOOL, "address": "tx", "access": "write", "read_back": "external"}
        service |= {"to_automatic": "to_automatic", "to_external": "to_external"}
    elif mode == "word":
        tags["mode"] = {**SET, "address": "OpMode", "type": "int", "high": 65_535}
        service = {key: value for key, value in service.items() if key not in {"automatic", "external"}}
        service["mode"] = "mode"
        tags = {name: tag for name, tag in tags.items() if name not in {"automatic", "external"}}
    unit = {**MODULE, "tags": tags, "services": {"wash": service}}
    return Plant.model_validate({"plant": "T", "connections": {"plc": {"driver": "sim"}}, "units": {"CP-1": unit}})


PREPARED = [("CP-1.wash_procedure", 2), ("CP-1.wash_volume", 500.0), ("CP-1.wash_cycles", 3.0)]


def test_parameters_are_applied_once_and_started_with() -> None:
    line = ModuleLine(WASH, strict())
    line.to_the_end()
    assert line.written == [*PREPARED, ("CP-1.apply", True), ("CP-1.wash_command", 4)]
    assert line.service().started_with == {"volume": 500.0, "cycles": 3.0}
    assert line.codes() == []
    assert line.refold() == line.line


def test_each_apply_is_for_its_own_parameters_and_for_those_of_the_recipe() -> None:
    plant = strict(applied_by={"volume": "apply", "cycles": "apply_cycles"})
    line = ModuleLine(WASH, plant)
    line.to_the_end()
    assert line.written == [*PREPARED, ("CP-1.apply", True), ("CP-1.apply_cycles", True), ("CP-1.wash_command", 4)]
    line = ModuleLine({**WASH, "procedure": "rinse", "parameters": {"volume": 100.0}}, plant)
    line.to_the_end()
    assert [tag for tag, _ in line.written][-2:] == ["CP-1.apply", "CP-1.wash_command"]


def test_what_is_not_in_force_after_applying_is_asked_about_and_nothing_is_started() -> None:
    line = ModuleLine(WASH, strict())
    line.service().faults.add("deaf")
    line.go(lambda: bool(line.batch().questions))
    assert "Applying the parameters of wash of CP-1 is unknown" in line.batch().reason
    assert (line.service().starts, line.batch().state) == (0, State.HELD)
    (question,) = line.batch().questions.values()
    line.service().faults.clear()
    line.answer(question.question, "again")
    line.to_the_end()
    assert line.service().started_with == {"volume": 500.0, "cycles": 3.0}


def test_a_box_that_does_not_apply_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: parameters are written and read back, and the module runs with those of before."""
    monkeypatch.setattr(Module, "to_apply", lambda _module, _used: iter(()))
    line = ModuleLine(WASH, strict())
    line.to_the_end()
    assert line.service().started_with == {"volume": 0, "cycles": 0}


def test_a_box_that_looks_at_the_bit_alone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: the bit that goes back by itself is compared with what was written."""
    monkeypatch.setattr(Module, "shown_at", lambda _module, _tag, _value, _given: ())
    line = ModuleLine(WASH, strict())
    line.go(lambda: bool(line.batch().questions))
    assert line.service().in_force("volume") == 500.0


@pytest.mark.parametrize(
    ("mode", "fault", "switched"),
    [
        ("bits", "offline", [("CP-1.to_automatic", True), ("CP-1.to_external", True)]),
        ("bits", "operator", [("CP-1.to_automatic", True), ("CP-1.to_external", True)]),
        ("bits", "internal", [("CP-1.to_external", True)]),
        ("bits", "", []),
        ("word", "offline", [("CP-1.mode", 16), ("CP-1.mode", 64), ("CP-1.mode", 8_192)]),
        ("word", "operator", [("CP-1.mode", 64), ("CP-1.mode", 8_192)]),
        ("word", "internal", [("CP-1.mode", 8_192)]),
        ("word", "", []),
    ],
)
def test_a_module_that_the_box_may_switch_is_switched_first(mode: str, fault: str, switched: list[Any]) -> None:
    line = ModuleLine(WASH, strict(mode=mode))
    line.service().faults |= {fault} - {""}
    line.to_the_end()
    assert line.written == [*switched, *PREPARED, ("CP-1.apply", True), ("CP-1.wash_command", 4)]
    assert (line.service().starts, line.codes()) == (1, [])
    assert line.refold() == line.line


@pytest.mark.parametrize("mode", ["bits", "word"])
def test_a_module_that_does_not_let_itself_be_switched_is_asked_about(mode: str) -> None:
    line = ModuleLine(WASH, strict(mode=mode))
    line.service().faults |= {"offline", "deaf"}
    line.go(lambda: bool(line.batch().questions))
    assert "Switching CP-1 to take commands is unknown" in line.batch().reason
    assert len(line.written) == 1
    (question,) = line.batch().questions.values()
    line.service().faults -= {"deaf"}
    line.answer(question.question, "again")
    line.to_the_end()
    assert line.service().starts == 1


@pytest.mark.parametrize("mode", ["bits", "word"])
def test_one_that_is_taken_back_by_people_is_not_fought_over_and_the_batch_says_what_is_waited_for(mode: str) -> None:
    line = ModuleLine(WASH, strict(mode=mode))
    line.service().faults |= {"internal"}
    line.go(lambda: len(line.written) == 1)
    line.service().faults |= {"operator"}
    line.look()
    line.service().faults |= {"internal"}
    begun_s = line.now_s
    line.go(lambda: line.batch().state is State.HELD)
    assert line.now_s - begun_s >= TRANSITION_S or mode == "bits"
    assert "switch it to Automatic" in line.batch().reason or "switch its source to External" in line.batch().reason
    assert line.service().starts == 0
    given, written = line.batch().steps["010"].given, [*line.written]
    module = module_of(line.plant, {"module": "CP-1"}, line.recipe.steps()["010"])  # type: ignore[arg-type]
    assert "Switched CP-1 to take commands, and waits" in waits_for("idle", given, module, line.readings.get)
    line.act(Act.RESUME)
    line.go(lambda: line.batch().state is State.HELD)  # nobody switched it: it says so again, and fights for nothing
    assert line.written == written or mode == "bits"
    line.service().faults.clear()
    line.act(Act.RESUME)
    line.to_the_end()
    assert line.service().starts == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [("offline", "switch it to Automatic"), ("operator", "to Automatic"), ("internal", "its source to External")],
)
def test_an_old_module_that_the_box_may_not_switch_is_left_to_people(fault: str, says: str) -> None:
    plant = strict(mode="word")
    unit = plant.units["CP-1"]
    shown = unit.tags["mode"].model_copy(update={"access": "read"})
    unit = unit.model_copy(update={"tags": {**unit.tags, "mode": shown}})
    line = ModuleLine(WASH, plant.model_copy(update={"units": {"CP-1": unit}}))
    line.service().faults.add(fault)
    line.go(lambda: line.batch().state is State.HELD)
    assert says in line.batch().reason
    assert (line.codes(), line.written) == (["service.mode"], [])
    line.service().faults.clear()
    line.act(Act.RESUME)
    line.to_the_end()


@pytest.mark.parametrize("sent", [True, False])
def test_a_crash_at_every_row_starts_it_once_with_what_the_recipe_says(sent: bool) -> None:
    for after_row in range(60):
        line = ModuleLine(WASH, strict(mode="bits"))
        line.service().faults.add("offline")
        line, crashed = survivor(line, WASH, after_row, sent=sent)
        if not crashed:
            assert after_row > 12
            return
        assert "020" in line.active(), (after_row, line.batch().reason)
        assert (line.service().starts, line.service().started_with) == (1, {"volume": 500.0, "cycles": 3.0}), after_row
    raise AssertionError("it never came to its end")


TEXT = """\
plant: T
connections: {plc: {driver: sim}}
units:
  CP-1:
    class: cell_processor
    tags:
      s: {connection: plc, address: s, type: int}
      c: {connection: plc, address: c, type: int, access: write, low: 0, high: 1024, read_back: s}
      auto: {connection: plc, address: a, type: bool}
      to_auto: {connection: plc, address: ta, type: bool, access: write, read_back: auto}
      v: {connection: plc, address: v, unit: mL, access: write, low: 0, high: 10}
      v_now: {connection: plc, address: vo, unit: mL}
      apply: {connection: plc, address: ap, type: bool, access: write}
    services:
      wash: {kind: mtp, state: s, command: c, automatic: auto, to_automatic: to_auto, parameters: {v: v},
        applied_by: {v: apply}, in_force: {v: v_now}}
"""


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("", "", ""),
        ("in_force: {v: v_now}", "in_force: {}", "plant.service_in_force"),
        ("vo, unit: mL}", "vo, unit: L}", "plant.service_in_force"),
        ("applied_by: {v: apply}", "applied_by: {w: apply}", "plant.service_parameter"),
        ("in_force: {v: v_now}", "in_force: {v: v_now, w: v_now}", "plant.service_parameter"),
        ("applied_by: {v: apply}", "applied_by: {v: v}", "plant.service_tag_type"),
        ("applied_by: {v: apply}", "applied_by: {v: gone}", "plant.service_tag"),
        (", read_back: auto}", "}", "plant.service_read_back"),
        ("kind: mtp", "kind: packml", "plant.service_kind"),
    ],
)
def test_what_could_not_work_is_said_by_the_plant_checker(old: str, new: str, code: str) -> None:
    text = TEXT.replace(old, new) if old else TEXT
    if not code:
        assert read_plant(text.encode(), "p").units["CP-1"].services["wash"].applied_by == {"v": "apply"}
        return
    with pytest.raises(LinesideError) as caught:
        read_plant(text.encode(), "p")
    assert code in {caught.value.code, *(one.code for one in caught.value.others)}
