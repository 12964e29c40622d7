"""SIGKILL of the real runtime while a signed "do it again" waits for the batch to go on; the pump's counter judges."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from demo.rig import Rig
from demo.script import PINS
from drivers.sim.pump import serve_pump_and_balance
from edge import wire
from edge.core import events as ev
from edge.journal import verify_journal
from tests.crash.runtime_kills import bodies, judge_writes, stored
from tests.kit.operator import logged_in
from tests.kit.warm import spawn

RECIPE = """\
recipe: FLOW
version: "1"
title: Flow
units: {pump: {class: pump}}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: set, title: Flow, tag: pump.speed_setpoint, value: 12, unit: mL/min}
          - {id: "020", phase: instruct, title: Look, text: Look at it.}
"""
PLANT = """\
plant: flow
connections:
  pump: {{driver: modbus, settings: {{host: 127.0.0.1, port: {port}, device: 1}}, timeout_s: 60, poll_s: 0.25}}
units:
  P-1:
    class: pump
    tags:
      speed_setpoint:
        {{connection: pump, address: holding 0 float32, unit: mL/min, access: write, low: 0, high: 100,
          tolerance: 0.01}}
"""
WRITES = "P-1.speed_setpoint"


@asynccontextmanager
async def line_with_a_pump(folder: Path) -> AsyncIterator[Rig]:
    """A box that writes once to its pump; a reply that is lost is waited for longer than the test lasts."""
    made = Rig(folder, speed=1.0, cell_speed=1.0, seed=1, spawn=spawn)
    made.lay_out()
    (made.box / "recipes" / "cart-b1.yaml").unlink()
    (made.box / "recipes" / "flow.yaml").write_text(RECIPE)
    made.settle(9)
    (folder / "cell").mkdir()
    control = folder / "cell" / "pump.sock"
    async with serve_pump_and_balance("127.0.0.1", 0, seed=1, speed=1.0, control=control) as port:
        (made.box / "plant.yaml").write_text(PLANT.format(port=port))
        try:
            await made.start_runtime()
            yield made
        finally:
            await made.end()


async def batch(line: Rig) -> wire.BatchCard:
    return (await line.picture()).batches[0]


async def written(line: Rig) -> int:
    return (await line.pump.counters()).get(WRITES, 0)


async def hold_and_agree(line: Rig) -> None:
    """The pump takes the write, its reply is lost; somebody holds the batch, the power goes, and somebody signs that it
    is to be done again, which it is when the batch goes on."""
    await line.pump.drop_replies(1)
    async with logged_in(line) as client:
        seal = (await line.picture()).recipes[0].seal
        await client.ask(wire.StartBatch(id=uuid4().hex, batch="B-001", order="ORD-1", recipe=seal, patient=""))

        async def taken() -> bool:
            return await written(line) == 1

        await line.until(taken, "the pump is never written to", line.processes["runtime"])
        await client.ask(wire.ActOnBatch(id=uuid4().hex, batch="B-001", act="hold", reason="a leak"))
    await line.processes["runtime"].kill()
    await line.start_runtime()

    async def asked() -> bool:
        return bool((await batch(line)).questions)

    await line.until(asked, "nobody is asked", line.processes["runtime"])
    (question,) = (await batch(line)).questions
    async with logged_in(line) as client:
        name = {"id": uuid4().hex, "batch": "B-001", "question": question.question}
        await client.ask(wire.AnswerQuestion(**name, answer="again", person="ana", pin=PINS["ana"]))


@pytest.mark.timeout(300)
async def test_killed_while_it_is_to_be_done_again_it_is_done_once_when_the_batch_goes_on(tmp_path: Path) -> None:
    async with line_with_a_pump(tmp_path) as line:
        await hold_and_agree(line)
        await line.processes["runtime"].kill()
        await line.start_runtime()
        card = await batch(line)
        assert (card.state, card.questions, await written(line)) == ("held", (), 1)
        assert "12 mL/min" in card.next_action
        async with logged_in(line) as client:
            await client.ask(wire.ActOnBatch(id=uuid4().hex, batch="B-001", act="resume", reason="mended"))

        async def done() -> bool:
            return [one.step for one in (await batch(line)).active] == ["020"]

        await line.until(done, "it is not done again", line.processes["runtime"])
        counters = await line.pump.counters()
        await line.processes["runtime"].end()
        rows = bodies(stored(line.journal))
        assert verify_journal(line.journal).ok
    judge_writes(rows, counters)
    intents = [(one.event.attempt, one.event.value) for _, one in rows if isinstance(one.event, ev.CommandIntended)]
    assert (counters[WRITES], intents) == (2, [(1, 12.0), (2, 12.0)])
