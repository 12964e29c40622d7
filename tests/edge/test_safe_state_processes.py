"""STOP from the desk reaches the equipment of a real runtime, whatever else does not work; the devices' own counters
and registers are the judge."""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from demo.rig import Rig
from edge import unrecorded, wire
from edge.clock import SystemClock
from edge.core.errors import LinesideError
from edge.core.events import CommandIntended, ExceptionRaised, decode
from edge.core.plant import read_plant
from edge.desk_client import DeskClient, connect
from edge.equipment import Equipment, installed_drivers
from edge.journal import JournalReader, verify_journal
from edge.terminal import EXIT_JOURNAL

ANSWER_S = 5
"""A loaded machine's devices may take long; the tests are not about that."""
RECIPE = """\
recipe: SAFE
version: "1"
title: Both run
units: {pump: {class: pump}, reactor: {class: bioreactor}}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: set, title: Feed, tag: pump.speed_setpoint, value: 12, unit: mL/min}
          - {id: "020", phase: set, title: Stir, tag: reactor.agitation_setpoint, value: 200, unit: rpm}
          - {id: "030", phase: instruct, title: Look, text: Look at it.}
          - {id: "040", phase: instruct, title: Again, text: Look again.}
"""


@asynccontextmanager
async def working(folder: Path) -> AsyncIterator[tuple[Rig, DeskClient]]:
    """Both devices run, the hub that the box knows is away, and somebody stands at the desk."""
    made = Rig(folder, speed=1.0, cell_speed=60.0, seed=1)
    made.lay_out()
    (made.box / "recipes" / "cart-b1.yaml").unlink()
    (made.box / "recipes" / "safe.yaml").write_text(RECIPE)
    made.settle(9)
    try:
        await made.start_cell()
        plant = (made.box / "plant.yaml").read_text()
        patient = re.sub(r"timeout_s: \S+", f"timeout_s: {ANSWER_S}", plant)
        assert patient.count(f"timeout_s: {ANSWER_S}") == 2
        (made.box / "plant.yaml").write_text(patient)
        await made.start_runtime()
        async with connect(made.desk) as client:
            await client.ask(wire.LogIn(id=uuid4().hex, person="chi", pin="3690"))
            await made.until(lambda: connected(made), "the devices do not answer", made.processes["runtime"])
            (recipe,) = (await made.picture()).recipes
            await client.ask(wire.StartBatch(id=uuid4().hex, batch="B", order="O", recipe=recipe.seal))
            await made.until(
                lambda: at_step(made, "030"), "the set-points are not confirmed", made.processes["runtime"]
            )
            yield made, client
    finally:
        await made.end()


async def connected(made: Rig) -> bool:
    """Both devices are read."""
    said = (await made.picture()).connections
    return len(said) == 2 and all(words.startswith("connected") for words in said.values())


async def card(made: Rig) -> wire.BatchCard:
    (found,) = (await made.picture()).batches
    return found


async def at_step(made: Rig, step: str) -> bool:
    return any(line.step == step and line.state == "active" for line in (await card(made)).steps)


def stop() -> wire.ActOnBatch:
    return wire.ActOnBatch(id=uuid4().hex, batch="B", act="stop", reason="leak")


async def set_points(made: Rig, *tags: str) -> dict[str, object]:
    """What the devices show, asked by somebody else than the box."""
    clock = SystemClock()
    plant = read_plant((made.box / "plant.yaml").read_bytes(), "plant.yaml")
    found: dict[str, object] = {}
    async with Equipment(plant, installed_drivers(), now_s=clock.now_s, utc=clock.utc) as equipment:
        for tag in tags:
            async with asyncio.timeout(60):
                while not (reading := await equipment.read(tag)).good:  # noqa: ASYNC110  it connects by itself
                    await asyncio.sleep(0)
            found[tag] = reading.value
    return found


def events(made: Rig) -> list[object]:
    with JournalReader(made.journal) as reader:
        return [decode(row.body).event for row in reader.rows(0, 10_000)]


async def test_stop_reaches_what_answers_when_hub_and_one_device_are_away(tmp_path: Path) -> None:
    async with working(tmp_path / "l") as (made, client):
        await made.reactor.silent(0)
        await client.ask(stop())
        await made.until(lambda: ended(made), "the batch does not end", made.processes["runtime"])
        assert await set_points(made, "P-1.speed_setpoint") == {"P-1.speed_setpoint": 0.0}
        assert (await made.pump.counters())["P-1.speed_setpoint"] == 2
        await made.reactor.clear()
    raised = [one for one in events(made) if isinstance(one, ExceptionRaised)]
    assert any("BR-1.agitation_setpoint" in one.what and one.category == "critical" for one in raised)


async def ended(made: Rig) -> bool:
    return (await card(made)).state == "stopped"


async def test_stop_reaches_the_equipment_when_the_journal_dies_of_it_and_the_next_start_says_so(
    tmp_path: Path,
) -> None:
    async with working(tmp_path / "l") as (made, client):
        runtime = made.processes["runtime"]
        resource.prlimit(runtime.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(LinesideError) as refused:
            await client.ask(stop())
        assert refused.value.code in {"journal.failed", "desk.lost"}
        async with asyncio.timeout(60):
            assert await runtime.child.wait() == EXIT_JOURNAL, runtime.tail()
        safe = {"P-1.speed_setpoint": 0.0, "BR-1.agitation_setpoint": 60.0}
        assert await set_points(made, *safe) == safe
        counters = await made.pump.counters() | await made.reactor.counters()
        assert {tag: counters[tag] for tag in safe} == dict.fromkeys(safe, 2), "once to run, once to be safe"
        assert unrecorded.read(made.box / "state") is not None

        await made.start_runtime()
        held = await card(made)
        assert held.state == "held"
        assert "P-1.speed_setpoint = 0 (" in held.reason
        assert unrecorded.read(made.box / "state") is None
        await made.processes["runtime"].end()
        await made.start_runtime()  # it is said once
        assert verify_journal(made.journal).ok
    said = [one for one in events(made) if isinstance(one, ExceptionRaised) and one.code == "safe_state.unrecorded"]
    assert len(said) == 1
    assert not [one for one in events(made) if isinstance(one, CommandIntended) and one.late], "no row was made up"
