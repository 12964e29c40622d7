"""Right after a start no device is there yet: what is wanted of it waits a moment, and nobody is asked for that."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from drivers.modbus import ModbusDriver
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.events import decode
from edge.core.recipe.model import Recipe
from edge.core.terms import Act, State
from edge.equipment import Equipment
from edge.journal import JournalReader
from tests.edge import test_engine
from tests.edge.test_engine import RECIPE, Parts, a_moment, confirm, parts

CONNECT = ModbusDriver._connect
STOP = cm.ActOnBatch(session="S", batch="B", act=Act.STOP, reason="not wanted")
RAMP: dict[str, Any] = {
    "id": "020", "phase": "ramp", "title": "Faster", "tag": "pump.speed_setpoint", "value": 12.0, "unit": "mL/min",
    "rate": 60.0, "per": "s", "every": "1 s",
}  # fmt: skip


def with_ramp() -> Recipe:
    said = RECIPE.model_dump(mode="json", by_alias=True)
    said["procedure"][0]["operations"][0]["steps"][1] = RAMP
    return Recipe.model_validate(said)


@asynccontextmanager
async def slow(folder: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe = RECIPE):
    """A batch at a pump that is reached when the event is set."""
    there = asyncio.Event()

    async def connect(self: ModbusDriver) -> str:
        await there.wait()
        return await CONNECT(self)

    async def at_once(*_: object, **__: object) -> None:
        """The batch does not wait for the device."""

    monkeypatch.setattr(ModbusDriver, "_connect", connect)
    monkeypatch.setattr(test_engine, "connected", at_once)
    async with parts(folder, recipe) as made:
        yield made, there


async def done(made: Parts, step: str = "020") -> None:
    while made.engine.shown.batches["B"].steps[step].state != "done":
        made.engine.changed.clear()
        async with asyncio.timeout(60):
            await made.engine.changed.wait()


def kinds(folder: Path) -> list[type]:
    with JournalReader(folder / "journal.db") as reader:
        return [type(decode(row.body).event) for row in reader.rows(0, 1000)]


@pytest.mark.parametrize("recipe", [RECIPE, with_ramp()], ids=["set", "ramp"])
async def test_what_is_wanted_at_once_waits_for_the_device(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.equipment.CONNECTING_S", 600.0)
    monkeypatch.setattr("edge.engine.BAD_QUALITY_S", 600.0)
    async with slow(tmp_path, monkeypatch, recipe) as (made, there):
        await made.engine.submit(confirm())
        await a_moment()
        assert made.engine.line.batches["B"].state is State.RUNNING
        there.set()
        await done(made)
        assert await made.writes() == 1
    assert not {ev.CommandRefused, ev.ExceptionRaised, ev.QuestionRaised} & set(kinds(tmp_path))


@pytest.mark.parametrize(("recipe", "cause"), [(RECIPE, "question"), (with_ramp(), "quality")], ids=["set", "ramp"])
async def test_a_device_that_does_not_come_holds_the_batch(
    recipe: Recipe, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.equipment.CONNECTING_S", 0.1)
    monkeypatch.setattr("edge.engine.BAD_QUALITY_S", 0.1)
    async with slow(tmp_path, monkeypatch, recipe) as (made, _):
        await made.engine.submit(confirm())
        await made.until(State.HELD)
        assert made.engine.shown.batches["B"].cause == cause
        assert await made.writes() == 0


async def test_planted_bug_a_write_that_does_not_wait_asks_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Equipment, "is_connecting", lambda *_: False)
    async with slow(tmp_path, monkeypatch) as (made, there):
        await made.engine.submit(confirm())
        await made.until(State.HELD)
        there.set()
    assert ev.CommandRefused in kinds(tmp_path)


async def test_a_batch_that_is_stopped_meanwhile_sends_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.equipment.CONNECTING_S", 600.0)
    async with slow(tmp_path, monkeypatch) as (made, there):
        await made.engine.submit(confirm())
        stopping = asyncio.create_task(made.engine.submit(STOP), name="stopping")
        await a_moment()
        there.set()
        await stopping
        await made.until(State.STOPPED)
        shown = await made.equipment.read("P-1.speed_setpoint")
        assert shown.value == 0.0
        assert await made.writes() == 1, "the safe state alone"
