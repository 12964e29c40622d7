"""Watchdog tags: a device hears of the box while the box decides, and falls to its safe state when that stops. The
device is the judge."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from demo.rig import Rig
from drivers.sim.control import SimControl
from drivers.sim.pump import serve_pump_and_balance
from edge import wire
from edge.clock import SystemClock
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.plant import Plant, read_plant
from edge.desk_client import connect
from edge.equipment import Equipment, installed_drivers
from edge.watchdog import Watchdogs
from tests.edge.conftest import running
from tests.edge.test_engine import confirm, parts

HANGING = Path(__file__).with_name("hanging_runtime.py")
PLANT = """\
plant: pump-with-watchdog
connections:
  pump: {{driver: modbus, settings: {{host: 127.0.0.1, port: {port}, device: 1}}, timeout_s: 5, poll_s: 0.25}}
units:
  P-1:
    class: pump
    tags:
      speed: {{connection: pump, address: input 0 float32, unit: mL/min, low: 0, high: 200}}
      speed_setpoint: {{connection: pump, address: holding 0 float32, unit: mL/min, access: write, low: 0, high: 100,
        tolerance: 0.01}}
      alive: {{connection: pump, address: holding {alive} uint16, type: int, access: write, low: 0, high: 5}}
      blink: {{connection: pump, address: coil 1, type: bool, access: write}}
      heard: {{connection: pump, address: discrete 0, type: bool}}
    safe_state: [{{tag: speed_setpoint, value: 0}}]
    watchdog: {{tag: alive, kind: counter, every_s: 0.1}}
"""
RECIPE = """\
recipe: FEED
version: "1"
title: Feed
units: {pump: {class: pump}}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: set, title: Feed, tag: pump.speed_setpoint, value: 12, unit: mL/min}
          - {id: "020", phase: instruct, title: Look, text: Look at it.}
"""
FOR_EVER_S = 3600.0


def plant_at(port: int, alive: int = 4) -> bytes:
    return PLANT.format(port=port, alive=alive).encode()


@asynccontextmanager
async def device(folder: Path) -> AsyncIterator[tuple[int, SimControl]]:
    """A pump of this test's own."""
    control = SimControl(folder / "pump.sock")
    async with serve_pump_and_balance("127.0.0.1", 0, seed=1, speed=1.0, control=control.path) as port:
        await control.watchdog(FOR_EVER_S)
        yield port, control


@asynccontextmanager
async def connected(plant: Plant) -> AsyncIterator[Equipment]:
    clock = SystemClock()
    async with Equipment(plant, installed_drivers(), now_s=clock.now_s, utc=clock.utc) as equipment:
        await until(lambda: all(health.connected for health in equipment.health().values()))
        yield equipment


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while True:
            found = holds()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0)  # what is waited for is on this loop


async def set_point(port: int) -> float:
    """What the pump shows, asked by somebody else than the box."""
    plant = read_plant(plant_at(port), "plant.yaml")
    async with connected(plant) as equipment:
        while not (reading := await equipment.read("P-1.speed_setpoint")).good:  # noqa: ASYNC110  it connects by itself
            await asyncio.sleep(0)
        assert isinstance(reading.value, float)
        return reading.value


# The tag -------------------------------------------------------------------------------------------------------------


async def test_a_counter_counts_wraps_past_zero_and_is_let_go_at_a_clean_stop(tmp_path: Path) -> None:
    async with device(tmp_path) as (port, control):
        plant = read_plant(plant_at(port), "plant.yaml")
        async with connected(plant) as equipment:
            now_s = 100.0
            dogs = Watchdogs(plant, equipment, lambda: now_s)
            seen = []
            for count in range(1, 8):
                await until(lambda count=count: _after_beat(dogs, _beats(control, count)))
                seen.append((await equipment.read("P-1.alive")).value)
                now_s += 0.1
            assert seen == [1, 2, 3, 4, 5, 1, 2]
            assert (await control.counters())["P-1.alive"] == 7, "one write for each beat"
            await dogs.end(released=True)
            assert (await equipment.read("P-1.alive")).value == 0
            assert await control.watchdog(0.001) == (7, False), "a device that was let go minds nothing"


async def _after_beat(dogs: Watchdogs, holds: Awaitable[bool]) -> bool:
    """As the loop does it: again and again. One beat that is under way is never joined by another."""
    dogs.beat()
    return await holds


async def _beats(control: SimControl, count: int) -> bool:
    return (await control.watchdog(FOR_EVER_S))[0] >= count


async def test_what_the_device_does_not_take_is_said_until_it_does(tmp_path: Path) -> None:
    async with device(tmp_path) as (port, _):
        plant = read_plant(plant_at(port, alive=300), "plant.yaml")
        async with connected(plant) as equipment:
            dogs = Watchdogs(plant, equipment, lambda: 100.0)
            dogs.beat()
            await until(lambda: dogs.words("pump"))
            assert dogs.words("pump") == "watchdog P-1.alive not taken"
            (said,) = dogs.troubles()
            assert "P-1.alive" in said
            await dogs.end(released=False)


async def test_a_toggle_changes_and_is_simply_not_written_any_more_at_the_end(tmp_path: Path) -> None:
    async with device(tmp_path) as (port, control):
        text = plant_at(port).replace(b"watchdog: {tag: alive, kind: counter", b"watchdog: {tag: blink, kind: toggle")
        plant = read_plant(text, "plant.yaml")
        async with connected(plant) as equipment:
            now_s = 100.0
            dogs = Watchdogs(plant, equipment, lambda: now_s)
            for count in range(1, 4):
                await until(lambda count=count: _after_beat(dogs, _written(control, "W-1.tare", count)))
                now_s += 0.1
            await dogs.end(released=True)
            assert (await control.counters())["W-1.tare"] == 3


async def _written(control: SimControl, tag: str, count: int) -> bool:
    return (await control.counters())[tag] >= count


@pytest.mark.parametrize(
    ("was", "instead", "code"),
    [
        ("tag: alive", "tag: alife", "plant.watchdog_tag"),
        ("tag: alive", "tag: heard", "plant.watchdog_type"),
        ("kind: counter", "kind: toggle", "plant.watchdog_type"),
        ("low: 0, high: 5", "low: 1, high: 5", "plant.watchdog_range"),
        ("low: 0, high: 5", "low: 0, high: 1", "plant.watchdog_range"),
        ("{tag: speed_setpoint, value: 0}", "{tag: alive, value: 0}", "plant.watchdog_used"),
        ("every_s: 0.1", "every_s: 0.01", "document.wrong_value"),
        ("every_s: 0.1", "every_s: 3600", "document.wrong_value"),
    ],
)
def test_a_watchdog_that_could_not_work_is_found_in_the_plant_file(was: str, instead: str, code: str) -> None:
    text = plant_at(5020).decode()
    assert was in text
    with pytest.raises(LinesideError) as refused:
        read_plant(text.replace(was, instead).encode(), "plant.yaml")
    assert refused.value.code == code
    assert refused.value.place is not None


async def test_a_journal_that_takes_no_rows_stops_the_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.engine.JOURNAL_S_MAX", 0.2)
    beats = silent = 0

    def beat() -> float:
        nonlocal beats, silent
        beats, silent = beats + 1, 0
        return 0.05

    def look() -> None:
        nonlocal silent
        silent += 1

    async with parts(tmp_path) as made:
        made.engine._beat, made.engine._on_progress = beat, look
        await until(lambda: beats >= 3)
        with made.shut():  # the disk hangs: nothing becomes durable
            asking = asyncio.create_task(made.engine.submit(confirm()), name="asking")
            await until(lambda: silent >= 3)  # the loop goes on, and the device does not hear of it
            before = beats
            made.disk.open.set()
            await asking
        await until(lambda: beats > before)


# The real runtime ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def feeding(folder: Path, how: str) -> AsyncIterator[tuple[Rig, int, SimControl, Path]]:
    """A pump runs because a recipe started it, and hears its watchdog."""
    made, mark = Rig(folder / "l", speed=1.0, cell_speed=1.0, seed=1), folder / "hangs"
    made.lay_out()
    (made.box / "recipes" / "cart-b1.yaml").unlink()
    (made.box / "recipes" / "feed.yaml").write_text(RECIPE)
    made.settle(9)
    async with device(folder) as (port, control):
        (made.box / "plant.yaml").write_bytes(plant_at(port))
        try:
            await made.start_runtime(str(HANGING), how, str(mark))
            runtime = made.processes["runtime"]
            async with connect(made.desk) as client:
                await client.ask(wire.LogIn(id=uuid4().hex, person="chi", pin="3690"))
                await made.until(lambda: _connected(made), "the pump does not answer", runtime)
                (recipe,) = (await made.picture()).recipes
                await client.ask(wire.StartBatch(id=uuid4().hex, batch="B", order="O", recipe=recipe.seal))
                await made.until(lambda: _at_step(made, "020"), "the pump was not started", runtime)
                await made.until(lambda: _beats(control, 3), "there is no beat", runtime)
                yield made, port, control, mark
        finally:
            await made.end()


async def _connected(made: Rig) -> bool:
    return (await made.picture()).connections["pump"].startswith("connected")


async def _at_step(made: Rig, step: str) -> bool:
    (batch,) = (await made.picture()).batches
    return any(line.step == step and line.state == "active" for line in batch.steps)


async def tripped(control: SimControl, *, after_s: float) -> bool:
    """Whether the device falls to its safe state; False once it has heard more than was on its way."""
    before, _ = await control.watchdog(after_s)
    while True:
        beats, has = await control.watchdog(after_s)
        if has or beats >= before + 5:
            return has
        await asyncio.sleep(0)


async def hang(made: Rig, mark: Path) -> None:
    made.processes["runtime"].child.send_signal(signal.SIGUSR1)
    await made.until(mark.exists, "it does not hang", made.processes["runtime"])


async def test_a_decision_loop_that_hangs_lets_the_pump_fall_to_its_safe_state(tmp_path: Path) -> None:
    async with feeding(tmp_path, "honest") as (made, port, control, mark):
        assert await set_point(port) == 12.0
        await hang(made, mark)
        assert await tripped(control, after_s=0.5)
        assert await set_point(port) == 0.0
        await made.processes["runtime"].kill()


async def test_planted_a_watchdog_from_a_thread_of_its_own_goes_on_when_the_loop_hangs_and_is_found(
    tmp_path: Path,
) -> None:
    async with feeding(tmp_path, "beside") as (made, port, control, mark):
        await hang(made, mark)
        assert not await tripped(control, after_s=60.0), "the device was told that somebody looks after it"
        assert await set_point(port) == 12.0
        await made.processes["runtime"].kill()
        assert await tripped(control, after_s=0.5), "a process that is killed takes its threads along"


async def test_a_clean_stop_while_a_batch_is_under_way_does_not_tell_the_device_that_all_is_well(
    tmp_path: Path,
) -> None:
    async with feeding(tmp_path, "honest") as (made, _, control, _mark):
        assert await made.processes["runtime"].end() == 0
        assert await tripped(control, after_s=0.5)


async def test_a_clean_stop_without_a_batch_lets_go(box: Config, tmp_path: Path) -> None:
    async with device(tmp_path) as (port, control):
        box.plant.write_bytes(plant_at(port))
        for recipe in box.recipes.glob("*.yaml"):
            recipe.unlink()
        async with running(box):
            await until(lambda: _beats(control, 3))
        assert not (await control.watchdog(0.001))[1], "it minds nothing any more"
