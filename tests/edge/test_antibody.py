"""MAB-FB on the real engine, journal and drivers with the simulated cell at high speed: two days in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from drivers.sim.cell import plant_bytes
from drivers.sim.control import SimControl
from drivers.sim.pump import serve_pump_and_balance
from drivers.sim.reactor import serve_bioreactor
from edge.clock import SystemClock
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.events import decode
from edge.core.forms import Ask, open_ask
from edge.core.line import OVER, Book, Line, StepRun
from edge.core.plant import Plant, read_plant
from edge.core.recipe import model, seal
from edge.core.recipe.model import Form, Instruct, Recipe, Record, Scan, Sign, Step
from edge.core.rehearse.stage import who
from edge.core.terms import Role, State
from edge.engine import Engine
from edge.equipment import Equipment, installed_drivers
from edge.identity import DeviceKey
from edge.journal import JournalReader, open_journal
from edge.library import read_recipe_file
from tests.kit.antibody import VALUES

CELL_SPEED = 2_000.0
TIMER_SPEED = 200_000.0
SHIPPED = Path(model.__file__).parent / "shipped" / "mab-fb.yaml"
SHORTER: Mapping[str, float] = {"last_day": 2.0, "first_feed_day": 1.0, "shift_day": 1.0, "shift_rate": 8.0}


def shorter() -> Recipe:
    """The recipe as shipped, with fewer days."""
    recipe = read_recipe_file(SHIPPED).recipe
    parameters = {
        name: one.model_copy(update={"value": SHORTER[name], "low": None}) if name in SHORTER else one
        for name, one in recipe.parameters.items()
    }
    unhurried = parameters["start_sample_within"].model_copy(update={"value": "366 d", "high": None})
    parameters["start_sample_within"] = unhurried  # of the time that is so fast here
    return recipe.model_copy(update={"parameters": parameters})


def plant_on(reactor_port: int, pump_port: int) -> Plant:
    plant = read_plant(plant_bytes(), "plant.yaml")
    endpoint = f"opc.tcp://127.0.0.1:{reactor_port}/"
    ports = {"reactor": {"endpoint": endpoint}, "pump": {"port": pump_port}}
    connections = {
        name: one.model_copy(update={"settings": {**one.settings, **ports[name]}, "poll_s": 0.1})
        for name, one in plant.connections.items()
    }
    return plant.model_copy(update={"connections": connections})


@dataclass
class People:
    """One person of each role, who do what is asked at once."""

    engine: Engine
    recipe: Recipe
    running: asyncio.Task[None]

    async def work(self) -> State:
        """Until the batch is over."""
        while (state := self.engine.shown.batches["B"].state) not in OVER:
            assert state is State.RUNNING, self.engine.shown.batches["B"].reason
            self.engine.changed.clear()
            if not await self.act():
                changed = asyncio.create_task(self.engine.changed.wait(), name="changed")
                await asyncio.wait((self.running, changed), timeout=60, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                assert not self.running.done(), "the engine ended"
        return state

    async def act(self) -> bool:
        """The first thing that a person is asked for."""
        batch = self.engine.shown.batches["B"]
        for run in batch.active():
            step = self.recipe.steps()[run.step]
            if isinstance(step, Form | Sign):
                ask = open_ask(self.recipe, batch, step, run)
                if ask is not None and ask.kind != "reading":
                    await self.answer(step, run, ask)
                    return True
            elif isinstance(step, Instruct | Record | Scan):
                await self.engine.submit(self.one_thing(step))
                return True
        return False

    def one_thing(self, step: Instruct | Record | Scan) -> cm.Command:
        session = who(step.role)
        match step:
            case Instruct():
                return cm.ConfirmStep(session=session, batch="B", step=step.id)
            case Record():
                return cm.EnterValue(session=session, batch="B", step=step.id, text=VALUES[step.name])
            case Scan():
                return cm.ScanCode(session=session, batch="B", step=step.id, text=f"{step.prefix}1")

    async def answer(self, step: Step, run: StepRun, ask: Ask) -> None:
        session, facts = who(ask.role), {"batch": "B", "step": step.id, "part": ask.part}
        match ask.kind:
            case "confirm":
                await self.engine.submit(cm.ConfirmStep(session=session, **facts))
            case "scan":
                text = ask.exactly or f"{ask.prefix}1"
                await self.engine.submit(cm.ScanCode(session=session, text=text, **facts))
            case "sign":
                signed = {one for one, _ in run.signed}
                person = who(ask.role, 2 if session in signed else 1)
                await self.engine.submit_signed(
                    lambda _at, seq, hashed: cm.SignStep(
                        session=session,
                        signed=cm.Signed(
                            person=person, roles=(ask.role,), role=ask.role, methods=("test",), meaning="signed",
                            session=person, subject_seq=seq, subject_hash=hashed.hex(), attestation="00" * 64,
                        ),
                        **facts,
                    )
                )  # fmt: skip
            case _:
                least = "1" if ask.low is None else f"{ask.low:g}"  # of a sample, and how many labels
                text = VALUES.get(ask.part) or ("0" if ask.part.endswith(".void") else least)
                await self.engine.submit(cm.EnterValue(session=session, text=text, **facts))


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[tuple[People, SimControl]]:
    """The engine on the simulated cell, with the batch started."""
    recipe, clock, control = shorter(), SystemClock(), folder / "pump.sock"
    name = seal(recipe)
    async with (
        serve_bioreactor("127.0.0.1", 0, seed=1, speed=CELL_SPEED, control=folder / "reactor.sock") as reactor_port,
        serve_pump_and_balance("127.0.0.1", 0, seed=2, speed=CELL_SPEED, control=control) as pump_port,
        open_journal(folder / "journal.db", folder / "epoch") as journal,
    ):
        plant = plant_on(reactor_port, pump_port)
        equipment = Equipment(
            plant,
            installed_drivers(),
            now_s=clock.now_s,
            utc=clock.utc,
            on_change=lambda: engine.wake(),  # noqa: PLW0108  made below
        )
        line = Line(Book(plant, {name: recipe}, frozenset({name})))
        engine = Engine(line, journal, equipment, clock, DeviceKey.create(folder / "device.key"))
        async with equipment:
            await equipment.watch(plant.tags())
            running = asyncio.create_task(engine.run(), name="engine")
            try:
                await engine.submit(cm.StartRuntime(version="t"))
                await engine.submit(
                    cm.LoadRecipe(recipe=recipe.recipe, version=recipe.version, title=recipe.title, seal=name)
                )
                for role in Role:
                    for number in (1, 2):
                        person = who(role, number)
                        await engine.submit(cm.OpenSession(session=person, person=person, roles=(role,), method="m"))
                await engine.submit(
                    cm.StartBatch(
                        session=who(Role.OPERATOR), batch="B", order="O", seal=name, patient="", speed=TIMER_SPEED
                    )
                )
                yield People(engine, recipe, running), SimControl(control)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


async def test_the_antibody_process_runs_to_its_end(tmp_path: Path) -> None:
    async with started(tmp_path) as (people, pump):
        assert await people.work() is State.COMPLETE
        batch = people.engine.shown.batches["B"]
        writes = (await pump.counters())["P-1.speed_setpoint"]
    with JournalReader(tmp_path / "journal.db") as journal:
        events = [decode(row.body).event for row in journal.rows(0, 10_000)]
    raised = {(one.step, one.code) for one in events if isinstance(one, ev.ExceptionRaised)}
    assert raised == {("030/030", "limit.outside")}, "nobody puts powder on the simulated balance"
    done = {one.step for one in events if isinstance(one, ev.StepCompleted)}
    others = {step for step in people.recipe.steps() if step not in done}
    assert others == set(), "each step was carried out once at least"
    assert sum(isinstance(one, ev.PassBegun) for one in events) == 2
    assert writes == 4, "feed and bolus were pumped and stopped once"
    met = [one for one in events if isinstance(one, ev.ConditionMet)]
    assert [one.step for one in met] == ["074/040", "07E"]
    values = {name: one.value for name, one in batch.values.items()}
    assert values["fed_volume"] >= 3.6
    assert values["bolus_given"] >= values["bolus_volume"] > 0
    assert values["yield_mass"] == 4 * 126
    assert batch.values["shifted"].value == 1.0
    assert batch.values["density_at_start_counted"].value == 0.5
    assert set(batch.open_results) >= {"sampling/start_sample.start_bioburden"}
