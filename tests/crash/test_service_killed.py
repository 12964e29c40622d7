"""SIGKILL of the real runtime between the intent and the outcome of a start; the module's own counter is the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from ruamel.yaml import YAML

from demo.rig import Rig
from demo.script import PINS
from edge import wire
from edge.core import events as ev
from edge.journal import verify_journal
from tests.crash.runtime_kills import CARELESS, bodies, stored
from tests.kit.operator import logged_in

RECIPE = """\
recipe: WASH
version: "1"
title: Wash
units: {processor: {class: cell_processor}}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: service, title: Wash, unit: processor, service: wash, timeout: 1 h,
             reports: [{report: used, name: used, unit: mL}]}
          - {id: "020", phase: instruct, title: Look, text: Look at it.}
"""
STARTS, COMMANDS = "CP-1.wash.starts", "CP-1.wash_command"


@asynccontextmanager
async def line_with_a_module(folder: Path) -> AsyncIterator[Rig]:
    """A box whose module is started by one write; a reply that is lost is waited for longer than the test lasts."""
    made = Rig(folder, speed=1.0, cell_speed=400.0, seed=1)
    made.lay_out()
    (made.box / "recipes" / "cart-b1.yaml").unlink()
    (made.box / "recipes" / "wash.yaml").write_text(RECIPE)
    made.settle(9)
    try:
        await made.start_cell()
        file, yaml = made.box / "plant.yaml", YAML()
        plant = yaml.load(file)
        plant["connections"]["reactor"]["timeout_s"] = 60
        for key in ("procedure", "procedures", "parameters"):
            del plant["units"]["CP-1"]["services"]["wash"][key]
        with file.open("wb") as out:
            yaml.dump(plant, out)
        await made.start_runtime()
        yield made
    finally:
        await made.end()


async def batch(line: Rig) -> wire.BatchCard:
    return (await line.picture()).batches[0]


async def start_and_kill(line: Rig) -> None:
    """The module takes the start, its reply is lost, and then the power goes."""
    await line.reactor.drop_replies(1)
    async with logged_in(line) as client:
        seal = (await line.picture()).recipes[0].seal
        await client.ask(wire.StartBatch(id=uuid4().hex, batch="B-001", order="ORD-1", recipe=seal, patient=""))

        async def started() -> bool:
            return (await line.reactor.counters())[STARTS] == 1

        await line.until(started, "the module is never started", line.processes["runtime"])
    await line.processes["runtime"].kill()


@pytest.mark.timeout(300)
async def test_killed_while_it_starts_a_service_the_box_asks_and_starts_it_once(tmp_path: Path) -> None:
    async with line_with_a_module(tmp_path) as line:
        await start_and_kill(line)
        await line.start_runtime()

        async def asked() -> bool:
            questions = (await batch(line)).questions
            return bool(questions) and questions[0].reading_now is not None and bool(questions[0].reading_now.value)

        await line.until(asked, "nobody is asked", line.processes["runtime"])
        card = await batch(line)
        (question,) = card.questions
        assert card.state == "held"
        assert (question.intent, question.reading_before) == ("start", "idle")
        assert question.reading_now is not None
        assert question.reading_now.text in {"starting", "execute", "completing", "completed"}
        async with logged_in(line) as client:
            answer = wire.AnswerQuestion(
                id=uuid4().hex, batch="B-001", question=question.question, answer="happened", person="ana",
                pin=PINS["ana"],
            )  # fmt: skip
            await client.ask(answer)

        async def done() -> bool:
            return [one.step for one in (await batch(line)).active] == ["020"]

        await line.until(done, "the service is not followed to its end", line.processes["runtime"])
        counters = await line.reactor.counters()
        await line.processes["runtime"].end()
        rows = [body.event for _, body in bodies(stored(line.journal))]
        assert verify_journal(line.journal).ok
    assert (counters[STARTS], counters[COMMANDS]) == (1, 1)
    assert [one.value for one in rows if isinstance(one, ev.CommandIntended)] == [4]
    assert [one.name for one in rows if isinstance(one, ev.ValueRecorded)] == ["used"]


@pytest.mark.timeout(300)
async def test_planted_bug_a_start_that_is_told_again_by_itself_is_counted(tmp_path: Path) -> None:
    async with line_with_a_module(tmp_path) as line:
        await start_and_kill(line)
        await line.start_runtime(str(CARELESS))

        async def told_twice() -> bool:
            return (await line.reactor.counters())[COMMANDS] == 2

        await line.until(told_twice, "the planted bug does nothing", line.processes["runtime"])
        assert (await line.reactor.counters())[STARTS] == 1, "the module itself does not start while it executes"
