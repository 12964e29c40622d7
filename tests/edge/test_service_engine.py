"""The engine runs services of the simulated module over a real OPC UA server; the module's counters are the judge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drivers.sim.cell import plant_bytes
from drivers.sim.control import SimControl
from drivers.sim.reactor import serve_bioreactor
from edge.clock import SystemClock
from edge.core import commands as cm
from edge.core.line import Batch, Book, Line
from edge.core.plant import Plant, read_plant
from edge.core.recipe.model import Recipe
from edge.core.terms import Act, Role, State, Value
from edge.engine import Engine
from edge.equipment import Equipment, installed_drivers
from edge.identity import DeviceKey
from edge.journal import open_journal

PATIENCE_S = 60.0
WASH: dict[str, Any] = {
    "id": "010", "phase": "service", "title": "Wash", "unit": "processor", "service": "wash", "procedure": "wash",
    "parameters": {"volume": {"value": 0.5, "unit": "L"}, "cycles": 3}, "timeout": "1 h",
    "reports": [{"report": "recovered", "name": "recovered", "unit": "%"}],
}  # fmt: skip
GROW: dict[str, Any] = {
    "id": "010", "phase": "service", "title": "Grow", "unit": "processor", "service": "culture", "timeout": "1 h",
    "parameters": {"temperature": 37}, "until": "processor.culture_density >= 4",
    "reports": [{"report": "density", "name": "density", "unit": "1e6/mL"}],
}  # fmt: skip
STARTS = "CP-1.wash.starts"


def made(step: dict[str, Any]) -> Recipe:
    after = {"id": "020", "phase": "instruct", "title": "Look", "text": "Look."}
    role, classes = step["unit"], {"processor": "cell_processor", "filler": "filler"}
    return Recipe.model_validate(
        {
            "recipe": "R", "version": "1", "title": "R", "units": {role: {"class": classes[role]}},
            "readings": {"processor.culture_density": "1e6/mL"} if role == "processor" else {},
            "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [step, after]}]}],
        }
    )  # fmt: skip


def plant_on(port: int, settle_s: float) -> Plant:
    plant = read_plant(plant_bytes(), "plant.yaml")
    settings = {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "security": "none"}
    reactor = plant.connections["reactor"].model_copy(update={"settings": settings})
    unit = plant.units["CP-1"]
    command = unit.tags["wash_command"].model_copy(update={"settle_s": settle_s})
    unit = unit.model_copy(update={"tags": {**unit.tags, "wash_command": command}})
    return plant.model_copy(update={"connections": {"reactor": reactor}, "units": {"CP-1": unit}})


@dataclass
class Parts:
    engine: Engine
    equipment: Equipment
    module: SimControl

    @property
    def batch(self) -> Batch:
        return self.engine.shown.batches["B"]

    async def until(self, so: Callable[[Batch], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not so(self.batch):
                self.engine.changed.clear()
                await self.engine.changed.wait()

    async def shows(self, tag: str, value: Value) -> None:
        """Wait until this is seen at a tag."""
        async with asyncio.timeout(PATIENCE_S):
            while (seen := self.equipment.latest(tag)) is None or not seen.good or seen.value != value:
                self.engine.changed.clear()
                await self.engine.changed.wait()

    async def act(self, act: Act) -> None:
        await self.engine.submit(cm.ActOnBatch(session="S", batch="B", act=act, reason=""))


@asynccontextmanager
async def parts(
    folder: Path,
    step: dict[str, Any],
    *,
    speed: float,
    fault: str = "",
    settle_s: float = 30.0,
    plant_of: Callable[[int, float], Plant] = plant_on,
    service: str = "CP-1.wash",
) -> AsyncIterator[Parts]:
    clock, control = SystemClock(), folder / "reactor.sock"
    async with (
        serve_bioreactor("127.0.0.1", 0, seed=1, speed=speed, control=control) as port,
        open_journal(folder / "journal.db", folder / "epoch") as journal,
    ):
        module, plant = SimControl(control), plant_of(port, settle_s)
        if fault:
            await module.ask(do="service", service=service, fault=fault)
        line = Line(Book(plant, {"s": made(step)}, frozenset({"s"})))
        engines: list[Engine] = []
        equipment = Equipment(
            plant, installed_drivers(), now_s=clock.now_s, utc=clock.utc,
            on_change=lambda: [one.wake() for one in engines] and None,
        )  # fmt: skip
        async with equipment:
            await equipment.watch(plant.tags())
            engine = Engine(line, journal, equipment, clock, DeviceKey.create(folder / "device.key"))
            engines.append(engine)
            running = asyncio.create_task(engine.run(), name="engine")
            await engine.submit(cm.StartRuntime(version="t"))
            await engine.submit(cm.LoadRecipe(recipe="R", version="1", title="R", seal="s"))
            await engine.submit(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="m"))
            async with asyncio.timeout(PATIENCE_S):  # connecting may take long on a loaded machine
                while not all((seen := equipment.latest(tag)) is not None and seen.good for tag in plant.tags()):
                    engine.changed.clear()
                    await engine.changed.wait()
            async with asyncio.timeout(PATIENCE_S):  # the module shows its fault at its next tick
                while fault == "operator" and getattr(equipment.latest("CP-1.wash_automatic"), "value", True):
                    engine.changed.clear()
                    await engine.changed.wait()
            await engine.submit(cm.StartBatch(session="S", batch="B", order="O", seal="s", patient="", speed=1.0))
            try:
                yield Parts(engine, equipment, module)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


def done(batch: Batch) -> bool:
    return "020" in [run.step for run in batch.active()]


def held(batch: Batch) -> bool:
    return batch.state is State.HELD


def in_state(state: str) -> Callable[[Batch], bool]:
    return lambda batch: batch.steps["010"].given.get("state") == state


@pytest.mark.timeout(300)
async def test_in_operator_mode_it_is_held_and_told_nothing(tmp_path: Path) -> None:
    async with parts(tmp_path, WASH, speed=400.0, fault="operator") as made_parts:
        await made_parts.until(held)
        assert "switch it to Automatic" in made_parts.batch.reason
        assert (await made_parts.module.counters())["CP-1.wash_command"] == 0
        await made_parts.module.clear()
        await made_parts.shows("CP-1.wash_automatic", True)
        await made_parts.act(Act.RESUME)
        await made_parts.until(done)
        counters = await made_parts.module.counters()
        assert (counters[STARTS], counters["CP-1.wash_command"]) == (1, 1)
        assert made_parts.batch.values["recovered"].value == pytest.approx(95.0, abs=0.01)
        assert [one.code for one in made_parts.batch.exceptions] == ["service.mode"]


@pytest.mark.timeout(300)
async def test_held_right_after_the_start_and_resumed_it_starts_once(tmp_path: Path) -> None:
    """The module stays in each acting state until the fault is cleared: nothing depends on who is faster."""
    async with parts(tmp_path, WASH, speed=400.0, fault="stuck") as made_parts:
        await made_parts.until(in_state("starting"))
        await made_parts.act(Act.HOLD)
        await made_parts.until(lambda batch: held(batch) and in_state("holding")(batch))
        await made_parts.module.clear()
        await made_parts.until(in_state("held"))
        await made_parts.act(Act.RESUME)
        await made_parts.until(done)
        counters = await made_parts.module.counters()
        assert (counters[STARTS], counters["CP-1.wash_command"]) == (1, 3)
        assert made_parts.batch.exceptions == ()


@pytest.mark.timeout(300)
async def test_a_module_that_aborts_asks_and_aborting_ends_the_batch(tmp_path: Path) -> None:
    async with parts(tmp_path, WASH, speed=400.0, fault="stuck") as made_parts:
        await made_parts.until(in_state("starting"))
        await made_parts.module.ask(do="service", service="CP-1.wash", tell="abort")
        await made_parts.module.clear()
        await made_parts.until(lambda batch: bool(batch.questions) and held(batch))
        assert [one.code for one in made_parts.batch.exceptions] == ["service.aborted"]
        await made_parts.act(Act.ABORT)
        await made_parts.until(lambda batch: batch.state is State.ABORTED)
        assert (await made_parts.module.counters())[STARTS] == 1


@pytest.mark.timeout(300)
async def test_a_culture_with_int64_codes_is_told_to_complete(tmp_path: Path) -> None:
    async with parts(tmp_path, GROW, speed=200.0) as made_parts:
        await made_parts.until(done)
        counters = await made_parts.module.counters()
        assert (counters["CP-1.culture.starts"], counters["CP-1.culture_command"]) == (1, 2)
        assert (counters["CP-1.culture_temperature"], counters["CP-1.culture_apply"]) == (1, 1)
        await made_parts.shows("CP-1.culture_temperature_in_force", 37.0)
        density = made_parts.batch.values["density"].value
        assert isinstance(density, float)
        assert density >= 4
        assert made_parts.batch.exceptions == ()


@pytest.mark.timeout(300)
async def test_a_command_that_the_module_ignores_asks_a_person(tmp_path: Path) -> None:
    """Taken is what the state shows, and nothing else."""
    async with parts(tmp_path, WASH, speed=400.0, fault="deaf", settle_s=0.5) as made_parts:
        await made_parts.until(lambda batch: bool(batch.questions) and held(batch))
        (question,) = made_parts.batch.questions.values()
        assert (question.tag, question.intent, question.before) == ("CP-1.wash_command", 4, 16)
        counters = await made_parts.module.counters()
        assert (counters[STARTS], counters["CP-1.wash_command"]) == (0, 1)
