"""A module's service run by a step: started once, followed to its end, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from drivers.sim.services import ACTING_S, EXECUTE_S, ModuleModel
from edge.core import commands as cm
from edge.core import decide as deciding
from edge.core import events as ev
from edge.core import serve
from edge.core.line import Book, Intent, Line, Write, effects, elapsed
from edge.core.plant import Plant
from edge.core.recipe.model import Recipe
from edge.core.serving import waits_for, word_of
from edge.core.terms import Act, Quality, Reading, Role, State
from tests.core.parts import VirtualLine

LOOK_S = ACTING_S
INT = {"connection": "plc", "type": "int", "low": 0, "high": 200_000}
SET = {"connection": "plc", "access": "write", "low": 0, "high": 2_000}


def tags(name: str, **more: Any) -> dict[str, Any]:
    return {
        f"{name}_state": {**INT, "address": f"{name}.s"},
        f"{name}_command": {
            **INT, "address": f"{name}.c", "access": "write", "read_back": f"{name}_state", "settle_s": 10
        },
        **more,
    }  # fmt: skip


MODULE = {
    "class": "cell_processor",
    "tags": {
        **tags("wash"),
        "wash_procedure": {**SET, "address": "wash.p", "type": "int"},
        "wash_volume": {**SET, "address": "wash.v", "unit": "mL"},
        "wash_cycles": {**SET, "address": "wash.n", "type": "int"},
        "wash_enabled": {**INT, "address": "wash.e"},
        "automatic": {"connection": "plc", "address": "a", "type": "bool"},
        "external": {"connection": "plc", "address": "x", "type": "bool"},
        "washed": {"connection": "plc", "address": "w", "unit": "mL", "low": 0, "high": 500},
        **tags("grow"),
        "density": {"connection": "plc", "address": "d", "unit": "1e6/mL", "low": 0, "high": 10},
        "pack_state": {**INT, "address": "pack.s"},
        "pack_command": {**INT, "address": "pack.c", "access": "write"},
        "pack_request": {
            "connection": "plc", "address": "pack.r", "type": "bool", "access": "write", "read_back": "pack_state"
        },
        "pack_mode": {**INT, "address": "pack.m"},
    },
    "services": {
        "wash": {
            "kind": "mtp", "state": "wash_state", "command": "wash_command", "procedure": "wash_procedure",
            "enabled": "wash_enabled", "automatic": "automatic", "external": "external",
            "procedures": {"rinse": {"id": 1, "parameters": ["volume"]}, "full": {"id": 2}},
            "parameters": {"volume": "wash_volume", "cycles": "wash_cycles"}, "reports": {"washed": "washed"},
        },
        "grow": {
            "kind": "mtp", "state": "grow_state", "command": "grow_command", "reports": {"density": "density"},
            "procedures": {"go": {"id": 1, "self_completing": False}},
        },
        "pack": {
            "kind": "packml", "state": "pack_state", "command": "pack_command", "request": "pack_request",
            "unit_mode": "pack_mode",
        },
    },
}  # fmt: skip
PLANT = Plant.model_validate({"plant": "T", "connections": {"plc": {"driver": "sim"}}, "units": {"CP-1": MODULE}})
WASH: dict[str, Any] = {
    "id": "010", "phase": "service", "title": "Wash", "unit": "module", "service": "wash", "procedure": "full",
    "parameters": {"volume": {"value": 0.5, "unit": "L"}, "cycles": {"formula": "1.0 + 2.0"}}, "timeout": "1 h",
    "reports": [{"report": "washed", "name": "washed", "unit": "L", "limit": {"low": 0.4, "high": 0.6}}],
}  # fmt: skip
GROW: dict[str, Any] = {
    "id": "010", "phase": "service", "title": "Grow", "unit": "module", "service": "grow", "timeout": "1 h",
    "until": "module.density >= 5",
}  # fmt: skip
PACK: dict[str, Any] = {
    "id": "010", "phase": "service", "title": "Pack", "unit": "module", "service": "pack", "timeout": "1 h",
}  # fmt: skip
AFTER = {"id": "020", "phase": "instruct", "title": "After", "text": "Look."}


def made(step: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "R", "version": "1", "title": "A recipe", "units": {"module": {"class": "cell_processor"}},
            "readings": {"module.density": "1e6/mL"},
            "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [step, AFTER]}]}],
        }
    )  # fmt: skip


class ModuleLine(VirtualLine):
    """A line with the simulated module: what is intended is written to it, and its readings are looked at."""

    def __init__(self, step: dict[str, Any], plant: Plant = PLANT) -> None:
        self.plant = plant
        self.module = ModuleModel(plant.units["CP-1"])
        self.lost: set[str] = set()
        self.deaf_writes: dict[str, Any] = {}
        """Command -> what becomes of the write instead."""
        self.written: list[tuple[str, Any]] = []
        self.started_writes: set[tuple[Any, ...]] = set()
        super().__init__(made(step))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.line = Line(Book(self.plant, {"seal": self.recipe}, frozenset({"seal"})))
        self.rows = []
        self.do(cm.StartRuntime(version="t"))
        self.do(cm.LoadRecipe(recipe="R", version="1", title="A recipe", seal="seal"))
        self.do(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="badge and PIN"))
        self.see()
        self.start(patient="")

    def service(self, name: str = "wash") -> Any:
        return self.module.services[name]

    def see(self) -> None:
        for full_name, tag in self.plant.tags().items():
            value = self.module.read(full_name.partition(".")[2])
            quality = Quality.BAD if full_name in self.lost or value is None else Quality.GOOD
            self.readings[full_name] = Reading(0 if value is None else value, tag.unit, quality, "", self.now_s)

    def look(self, *, bad: bool = False) -> list[ev.Event]:
        """What the engine does: ask what is waited for, then what timers have passed."""
        self.see()
        made: list[ev.Event] = []
        for one in effects(self.line).conditions:
            made += self.do(cm.AskCondition(batch="B1", step=one.step, iteration=one.iteration, bad=bad))
        for timer in effects(self.line).timers:
            passed = elapsed(timer.since, timer.before_boot, self.stamp())
            if passed.low_s >= timer.length_s:
                made += self.do(
                    cm.PassTimer(
                        batch="B1", step=timer.step, iteration=timer.iteration, timer=timer.timer,
                        low_s=passed.low_s, high_s=passed.high_s,
                    )
                )  # fmt: skip
        return made

    def writes(self) -> list[Write]:
        return [one for one in effects(self.line).writes if self.key(one) not in self.started_writes]

    def key(self, write: Write) -> tuple[Any, ...]:
        return (write.step, write.iteration, write.attempt, write.tag)

    def write(self, one: Write) -> list[ev.Event]:
        """Carry a write out and read it back."""
        self.started_writes.add(self.key(one))
        self.written.append((one.tag, one.value))
        outcome = self.deaf_writes.pop(one.value if one.shown_by else one.tag, "")
        back = self.plant.tags()[one.tag].read_back or one.tag.partition(".")[2]
        if outcome != "refused":
            self.module.write(one.tag.partition(".")[2], one.value)
            if outcome == "lost":
                return []  # sent, and the box is gone before the answer
        seen = self.module.read(back)
        agreed = seen in one.shown_by if one.shown_by else seen == one.value
        for shown in one.shown_at:
            seen = self.module.read(shown.at.partition(".")[2])
            assert seen is not None
            agreed = shown.seen(self.plant, Reading(seen, "", Quality.GOOD, "", self.now_s))
            if not agreed:
                break
        return self.do(
            cm.ConcludeWrite(
                batch="B1", step=one.step, iteration=one.iteration, attempt=one.attempt, tag=one.tag,
                outcome=outcome or ("confirmed" if agreed else "unknown"), reading=seen, why="no reply",
            )
        )  # fmt: skip

    def go(self, until: Callable[[], bool], seconds: float = 4 * EXECUTE_S) -> None:
        """Let time pass, writes be carried out and the module be looked at until this is so."""
        end_s = self.now_s + seconds
        while not until():
            assert self.now_s < end_s, (self.batch().state, self.batch().reason, self.service().state)
            for one in self.writes():
                self.write(one)
            self.look()
            if not self.writes():
                self.now_s += LOOK_S
                self.module.pass_s(LOOK_S)

    def to_the_end(self) -> None:
        self.go(lambda: "020" in self.active())

    def to(self, state: str, name: str = "wash") -> None:
        self.go(lambda: self.batch().steps["010"].given.get("state") == state and self.service(name).state == state)

    def act(self, act: Act) -> list[ev.Event]:
        return self.do(cm.ActOnBatch(session="S", batch="B1", act=act, reason=""))

    def events(self, kind: type[ev.Event]) -> list[Any]:
        return [one for one in map(decoded, self.rows) if isinstance(one, kind)]

    def codes(self) -> list[str]:
        return [one.code for one in self.events(ev.ExceptionRaised)]


def decoded(data: bytes) -> ev.Event:
    return ev.decode(data).event


def test_a_service_is_prepared_started_followed_and_reported() -> None:
    line = ModuleLine(WASH)
    line.to_the_end()
    assert line.written == [
        ("CP-1.wash_procedure", 2), ("CP-1.wash_volume", 500.0), ("CP-1.wash_cycles", 3.0), ("CP-1.wash_command", 4)
    ]  # fmt: skip
    assert line.service().starts == 1
    moved = [(one.was, one.state) for one in line.events(ev.ServiceMoved)]
    assert moved == [("idle", "starting"), ("", "execute"), ("", "completing"), ("", "completed")]
    recorded = line.events(ev.ValueRecorded)[0]
    assert (recorded.name, recorded.value, recorded.unit, recorded.source) == ("washed", 0.5, "L", "CP-1.washed")
    assert (recorded.low, recorded.high, recorded.within) == (0.4, 0.6, True)
    assert line.codes() == []
    assert line.refold() == line.line


def test_a_report_outside_its_limit_is_an_exception() -> None:
    line = ModuleLine({**WASH, "reports": [{**WASH["reports"][0], "limit": {"high": 0.4, "category": "minor"}}]})
    line.to_the_end()
    assert line.codes() == ["limit.outside"]


def test_a_service_that_ended_before_is_reset_first() -> None:
    line = ModuleLine(WASH)
    line.service().state = "completed"
    line.to_the_end()
    assert [value for tag, value in line.written if tag == "CP-1.wash_command"] == [2, 4]
    assert line.service().starts == 1


def test_a_procedure_uses_its_own_parameters_alone() -> None:
    line = ModuleLine({**WASH, "procedure": "rinse", "parameters": {"volume": 100.0}})
    line.to_the_end()
    assert [tag for tag, _ in line.written] == ["CP-1.wash_procedure", "CP-1.wash_volume", "CP-1.wash_command"]


def test_one_that_does_not_complete_by_itself_is_told_to() -> None:
    line = ModuleLine(GROW)
    line.to_the_end()
    assert line.written == [("CP-1.grow_command", 4), ("CP-1.grow_command", 1024)]
    met = line.events(ev.ConditionMet)
    assert [one.formula for one in met] == ["module.density >= 5"]
    assert line.refold() == line.line


def test_packml_is_told_by_command_and_request() -> None:
    line = ModuleLine(PACK)
    line.service("pack").state = "aborted"
    line.go(lambda: line.batch().state is State.HELD)
    assert "Clear it at the module" in line.batch().reason
    line.service("pack").tell("clear")
    line.act(Act.RESUME)
    line.to_the_end()
    assert line.written == [
        ("CP-1.pack_command", 1), ("CP-1.pack_request", True), ("CP-1.pack_command", 2), ("CP-1.pack_request", True)
    ]  # fmt: skip
    assert line.service("pack").starts == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [("operator", "switch it to Automatic"), ("internal", "switch its source to External")],
)
def test_a_module_in_another_mode_is_not_told_anything(fault: str, says: str) -> None:
    line = ModuleLine(WASH)
    line.service().faults.add(fault)
    line.go(lambda: line.batch().state is State.HELD)
    assert says in line.batch().reason
    assert line.codes() == ["service.mode"]
    assert line.written == []
    line.service().faults.clear()
    line.act(Act.RESUME)
    line.to_the_end()
    assert line.service().starts == 1


def test_a_machine_that_is_not_in_production_is_not_told_anything() -> None:
    line = ModuleLine(PACK)
    line.service("pack").faults.add("operator")
    line.go(lambda: line.batch().state is State.HELD)
    assert "switch it to Production" in line.batch().reason
    assert line.written == []


def test_a_service_that_somebody_else_started_is_left_alone() -> None:
    line = ModuleLine(WASH)
    line.service().state = "execute"
    line.go(lambda: line.batch().state is State.HELD)
    assert line.codes() == ["service.busy"]
    line.act(Act.ABORT)
    assert line.written == []


def test_what_the_module_does_not_allow_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    line = ModuleLine(WASH)
    monkeypatch.setattr("edge.core.service.Machine.allowed", lambda _machine, _state: 8)
    line.go(lambda: line.batch().state is State.HELD)
    assert "does not allow start now; it allows: stop" in line.batch().reason
    assert ("CP-1.wash_command", 4) not in line.written


def test_a_command_that_is_ignored_asks_with_intent_and_state() -> None:
    line = ModuleLine(WASH)
    line.service().faults.add("deaf")
    line.go(lambda: bool(line.batch().questions))
    (question,) = line.batch().questions.values()
    assert (word_of(PLANT, question.tag, question.intent), question.before) == ("start", 16)
    assert "The command start to wash of CP-1 is unknown" in line.batch().reason
    line.service().faults.clear()
    line.answer(question.question, "again")
    line.to_the_end()
    assert line.service().starts == 1


def test_happened_while_the_module_shows_otherwise_ends_in_a_time_out() -> None:
    line = ModuleLine(WASH)
    line.service().faults.add("deaf")
    line.go(lambda: bool(line.batch().questions))
    line.answer(next(iter(line.batch().questions)), "happened")
    line.go(lambda: line.batch().state is State.HELD)
    assert line.batch().cause == "timeout"
    assert "idle for longer than 60 s after it was told to start" in line.batch().reason
    for _ in range(2):  # resumed, it is watched again
        line.act(Act.RESUME)
        since_s = line.now_s
        line.go(lambda: line.batch().state is State.HELD)
        assert line.now_s - since_s == pytest.approx(60, abs=2 * LOOK_S)
        assert line.batch().cause == "timeout"


@pytest.mark.parametrize("on_timeout", ["hold", "abort"])
def test_each_acting_state_has_a_time_out_of_its_own(on_timeout: str) -> None:
    line = ModuleLine({**WASH, "timeouts": {"completing": "50 s"}, "on_timeout": on_timeout})
    line.to("execute")
    line.service().faults.add("stuck")
    line.go(lambda: line.service().state == "completing")
    since_s = line.now_s
    over = State.HELD if on_timeout == "hold" else State.ABORTED
    line.go(lambda: line.batch().state is over)
    assert line.now_s - since_s == pytest.approx(50, abs=2 * LOOK_S)
    assert line.codes()[0] == "service.timeout"
    assert ("CP-1.wash_command", 16 if on_timeout == "hold" else 256) in line.written


def test_executing_too_long_is_a_time_out() -> None:
    line = ModuleLine({**GROW, "until": "module.density > 9000", "timeout": "30 min"})
    line.go(lambda: line.batch().state is State.HELD)
    assert "is execute for longer than 1800 s" in line.batch().reason


def test_holding_and_resuming_the_batch_holds_and_resumes_the_service() -> None:
    line = ModuleLine(WASH)
    line.to("execute")
    line.act(Act.HOLD)
    line.go(lambda: line.batch().state is State.HELD and line.service().state == "held")
    line.look()
    line.act(Act.RESUME)
    line.to_the_end()
    assert [value for tag, value in line.written if tag == "CP-1.wash_command"] == [4, 16, 32]
    assert line.service().starts == 1
    assert line.codes() == []


def test_a_batch_that_goes_on_before_the_service_stands_lets_it_go_on_as_soon_as_it_does() -> None:
    line = ModuleLine(WASH)
    line.to("execute")
    line.act(Act.HOLD)
    (hold,) = line.writes()
    line.write(hold)
    assert (line.batch().state, line.service().state) == (State.HELD, "holding")
    line.act(Act.RESUME)
    line.to_the_end()
    assert [value for tag, value in line.written if tag == "CP-1.wash_command"] == [4, 16, 32]
    assert line.codes() == []


@pytest.mark.parametrize(("act", "code", "ended"), [(Act.STOP, 8, "stopped"), (Act.ABORT, 256, "aborted")])
def test_stopping_and_aborting_the_batch_ends_the_service(act: Act, code: int, ended: str) -> None:
    line = ModuleLine(WASH)
    line.to("execute")
    line.act(act)
    line.go(lambda: not line.line.live())
    assert line.written[-1] == ("CP-1.wash_command", code)
    line.module.pass_s(ACTING_S)
    assert line.service().state == ended


def test_an_abort_does_not_wait_for_the_start_under_way() -> None:
    line = ModuleLine(WASH)
    line.go(lambda: any(one.shown_by for one in line.writes()))
    (start,) = line.writes()
    line.act(Act.ABORT)
    both = line.writes()
    assert [one.value for one in both] == [4, 256]
    assert len({line.key(one) for one in both}) == 2
    for one in both:
        line.write(one)
    assert line.batch().state is State.ABORTED
    assert start in both


def test_a_hold_that_fails_is_told_and_nobody_is_asked() -> None:
    line = ModuleLine(WASH)
    line.to("execute")
    line.deaf_writes[16] = "refused"
    line.act(Act.HOLD)
    line.go(lambda: line.batch().state is State.HELD)
    assert line.codes() == ["command.refused"]
    assert line.events(ev.ExceptionRaised)[0].category == "critical"
    assert not line.batch().questions


@pytest.mark.parametrize("on_held", ["hold", "wait"])
def test_a_module_that_holds_by_itself(on_held: str) -> None:
    line = ModuleLine({**WASH, "on_held": on_held})
    line.to("execute")
    line.service().tell("hold")
    if on_held == "hold":
        line.go(lambda: line.batch().state is State.HELD)
        line.act(Act.RESUME)
    else:
        line.to("held")
        line.look()
        line.service().tell("unhold")
    line.to_the_end()
    assert line.codes() == ["service.held"]
    assert line.service().starts == 1


@pytest.mark.parametrize("answer", ["happened", "again", "abort"])
def test_a_module_that_aborts_asks_a_person(answer: str) -> None:
    line = ModuleLine(WASH)
    line.to("execute")
    line.service().tell("abort")
    line.go(lambda: bool(line.batch().questions))
    assert line.batch().state is State.HELD
    line.answer(next(iter(line.batch().questions)), answer)
    if answer == "abort":
        line.go(lambda: line.batch().state is State.ABORTED)
        return
    line.to_the_end()
    assert line.service().starts == (1 if answer == "happened" else 2)
    assert line.refold() == line.line


def test_a_module_that_aborts_may_abort_the_batch() -> None:
    line = ModuleLine({**WASH, "on_aborted": "abort"})
    line.to("execute")
    line.service().tell("abort")
    line.go(lambda: line.batch().state is State.ABORTED)
    assert line.codes()[0] == "service.aborted"


def test_one_that_somebody_reset_is_not_taken_for_complete() -> None:
    line = ModuleLine(WASH)
    line.to("execute")
    line.service().state = "idle"
    line.go(lambda: bool(line.batch().questions))
    assert "is idle without having been complete" in line.batch().reason
    assert line.service().starts == 1


def test_a_state_that_cannot_be_read_holds() -> None:
    line = ModuleLine(WASH)
    line.to("execute")
    line.lost.add("CP-1.wash_state")
    line.look()
    assert line.batch().state is State.RUNNING
    line.look(bad=True)
    assert line.batch().cause == "quality"


@pytest.mark.parametrize("on_bad_quality", ["hold", "continue"])
def test_a_report_that_cannot_be_read(on_bad_quality: str) -> None:
    line = ModuleLine({**WASH, "on_bad_quality": on_bad_quality})
    line.to("execute")
    line.lost.add("CP-1.washed")
    line.to("completed")
    line.look()
    assert "020" not in line.active()
    line.look(bad=True)
    if on_bad_quality == "continue":
        assert "020" in line.active()
    else:
        assert line.batch().cause == "quality"
        line.lost.clear()
        line.go(lambda: line.batch().state is State.HELD)
        line.act(Act.RESUME)
        line.to_the_end()
        assert line.events(ev.ValueRecorded)[0].value == 0.5
    assert line.codes() == ["reading.bad_quality"]


def test_an_old_reading_is_not_taken_for_the_answer() -> None:
    """The subscription is behind the read-back: it still shows held after the service was let go on."""
    line = ModuleLine(WASH)
    line.to("execute")
    line.act(Act.HOLD)
    line.go(lambda: line.batch().state is State.HELD and line.service().state == "held")
    line.look()
    line.act(Act.RESUME)
    (unhold,) = line.writes()
    line.write(unhold)
    late = Reading(2048, "", Quality.GOOD, "", line.now_s)
    line.readings["CP-1.wash_state"] = late
    assert line.do(cm.AskCondition(batch="B1", step="010", bad=False)) == []
    line.to_the_end()
    assert line.codes() == []


def test_a_hold_is_passed_on_although_the_reading_is_older_than_the_start() -> None:
    line = ModuleLine(WASH)
    line.go(lambda: any(one.shown_by for one in line.writes()))
    line.write(line.writes()[0])  # told to start, and the subscription still shows idle
    assert line.readings["CP-1.wash_state"].value == 16
    line.act(Act.HOLD)
    assert [one.value for one in line.writes()] == [16]


def test_a_resume_is_passed_on_although_the_reading_is_of_a_state_on_the_way() -> None:
    """The read-back of a hold was ahead of the subscription, which still shows holding."""
    line = ModuleLine(WASH)
    line.to("execute")
    line.act(Act.HOLD)
    line.go(lambda: line.batch().state is State.HELD and line.batch().steps["010"].given.get("state") == "held")
    line.readings["CP-1.wash_state"] = Reading(1024, "", Quality.GOOD, "", line.now_s - 2 * LOOK_S)
    line.act(Act.RESUME)
    assert [one.value for one in line.writes()] == [32]


def test_the_operator_is_told_what_the_module_waits_for() -> None:
    line = ModuleLine(WASH)
    module = serve.module_of(PLANT, {"module": "CP-1"}, line.recipe.steps()["010"])  # type: ignore[arg-type]
    assert waits_for("idle", {}, module) == "Prepares wash of CP-1: it is idle."
    assert waits_for("resetting", {}, module) == "Waits until wash of CP-1 is idle: it is resetting."
    told = {"started": True, "state": "starting", "was": "idle", "command": "start"}
    assert waits_for("idle", told, module).endswith("it was told to start and still shows idle.")
    assert waits_for("starting", told, module) == "wash of CP-1 is starting; next it must be execute."
    assert waits_for("execute", told, module) == "wash of CP-1 is executing."
    assert waits_for("held", told, module) == "wash of CP-1 is held."


# The process is gone at any row ---------------------------------------------------------------------------------


def survivor(line: ModuleLine, step: dict[str, Any], after_row: int, *, sent: bool) -> tuple[ModuleLine, bool]:
    """The line, which loses its process after so many rows; an open write had been `sent` by then or not."""
    crashed = False
    first = len(line.rows)
    end_s = line.now_s + 6 * EXECUTE_S
    while "020" not in line.active() and line.now_s < end_s:
        if not crashed and len(line.rows) - first >= after_row:
            crashed = True
            for one in line.writes():
                if sent:
                    line.deaf_writes[one.value if one.shown_by else one.tag] = "lost"
                    line.write(one)
                line.started_writes.add(line.key(one))
            line.crash(boot="boot-2")
        elif line.batch().questions:
            (question,) = line.batch().questions.values()
            line.module.pass_s(ACTING_S / 2)
            line.answer(question.question, "happened" if sent else "again")
        elif line.batch().state is State.HELD:
            line.act(Act.RESUME)
        else:
            for one in line.writes():
                line.write(one)
            line.look()
            if not line.writes():
                by_s = EXECUTE_S / 4 if line.service(step["service"]).state == "execute" else LOOK_S
                line.now_s += by_s
                line.module.pass_s(by_s)
    return line, crashed


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("step", [WASH, GROW, PACK], ids=["wash", "grow", "pack"])
def test_a_crash_at_every_row_starts_the_service_once(step: dict[str, Any], sent: bool) -> None:
    for after_row in range(60):
        line, crashed = survivor(ModuleLine(step), step, after_row, sent=sent)
        if not crashed:
            assert after_row > 8
            return
        assert "020" in line.active(), (after_row, line.batch().reason)
        assert line.service(step["service"]).starts == 1, after_row
        assert line.refold() == line.line
    raise AssertionError("it never came to its end")


def test_planted_bug_a_start_that_is_written_again_after_a_restart_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = deciding._Decision.unknown

    def again(self: Any, batch_id: str, intent: Intent, why: str, reading: Any) -> None:
        if "stopped between" not in why:
            whole(self, batch_id, intent, why, reading)
            return
        self.emit(
            ev.CommandUnknown(
                batch=batch_id, step=intent.step, attempt=intent.attempt, tag=intent.tag, why=why, reading=reading
            )
        )
        self.intend(batch_id, intent.step, intent.iteration, intent.attempt + 1, intent.tag, intent.value)

    def told_to_start() -> list[int]:
        made = [survivor(ModuleLine(WASH), WASH, row, sent=True)[0] for row in range(9, 14)]
        return [line.written.count(("CP-1.wash_command", 4)) for line in made]

    assert set(told_to_start()) == {1}
    monkeypatch.setattr(deciding._Decision, "unknown", again)
    assert max(told_to_start()) == 2
