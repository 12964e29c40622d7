"""The page that leads through a first recipe: its file is right, and each of its commands does what it says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drivers.sim.cell import plant_bytes
from drivers.sim.pump import serve_pump_and_balance
from drivers.sim.reactor import serve_bioreactor
from edge import wire
from edge.__main__ import app
from edge.config import read_config
from edge.core.errors import LinesideError
from edge.core.line import OVER
from edge.core.terms import Role, State
from edge.desk_client import DeskClient, connect
from provisioning.device import NewPerson, init_device
from tests.edge.conftest import running
from tests.edge.test_desk import log_in, look, name

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "write-your-first-recipe.md").read_text(encoding="utf-8")
(RECIPE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
PIN = "pin-of-all"
SAYS = {
    "device person": "",
    "recipe schema": '"$schema"',
    "recipe check": "nothing wrong",
    "recipe draw": "line_clearance",
    "recipe rehearse": "Everything was seen.",
    "recipe submit": "everything was seen",
    "recipe approve": "WARM-UP 1",
    "recipe release": "WARM-UP 1",
    "recipe status": "effective",
    "batch show": "Recipe released",
}
"""What each command of the page must say."""


async def follow(command: str, folder: Path) -> None:
    words = shlex.split(command.partition(" > ")[0])
    assert words.pop(0) == "lineside"
    key = " ".join(words[:2])
    in_place = [str(folder / word) if word in {"box", "box/plant.yaml", "warm-up.yaml"} else word for word in words]
    typed = f"{PIN}\n" + ("yes\n" if key.startswith("recipe") else "")
    done = await asyncio.to_thread(CliRunner().invoke, app, in_place, input=typed)
    assert done.exit_code == 0, (command, done.output, done.exception)
    assert SAYS[key] in done.stdout, (command, done.stdout)


SPEED = 2_000.0
ENTERED = {
    "010/010": "2",
    "010/020": "done",
    "020": "M-0417",
    "030": "clear",
    "070": "120.5",
    "080": "0.5",
}
"""What Ana types and scans."""


async def work(client: DeskClient) -> None:
    """Ana and Ben do what the screen asks for until the batch is over, however slow the machine is: a reading that is
    late holds it, and a write whose reply is late asks."""
    async for picture in client.pictures():
        (batch,) = picture.batches
        if State(batch.state) in OVER:
            assert batch.state == "complete"
            return
        asking = [card for card in batch.active if card.asks != "nothing"]
        with contextlib.suppress(LinesideError):  # the picture was older than the line: the next one says what is so
            if batch.questions:
                asked = batch.questions[0].question
                facts = {"batch": "B-1", "question": asked, "answer": "again", "person": "ana", "pin": PIN}
                await client.ask(wire.AnswerQuestion.model_validate({"id": name(), **facts}))
            elif batch.state == "held":
                await client.ask(wire.ActOnBatch(id=name(), batch="B-1", act="resume", reason="it is back"))
            elif asking:
                await client.ask(request(asking[0]))


def request(card: wire.StepCard) -> wire.Request:
    shown = {"id": name(), "batch": "B-1", "step": card.step, "part": card.part, "iteration": card.iteration}
    match card.asks:
        case "confirm":
            return wire.ConfirmStep.model_validate(shown)
        case "scan":
            return wire.ScanCode.model_validate({**shown, "text": ENTERED[card.step]})
        case "sign":
            person = {"operator": "ana", "verifier": "ben"}[card.signers[0]]
            return wire.SignStep.model_validate({**shown, "person": person, "pin": PIN})
        case _:
            return wire.EnterValue.model_validate({**shown, "text": ENTERED[card.step]})


@asynccontextmanager
async def cell(folder: Path) -> AsyncIterator[bytes]:
    """The simulated cell of the tutorial at the box's speed; the plant file that fits it."""
    async with (
        serve_bioreactor("127.0.0.1", 0, seed=1, speed=SPEED, control=folder / "reactor.sock") as reactor,
        serve_pump_and_balance("127.0.0.1", 0, seed=2, speed=SPEED, control=folder / "pump.sock") as pump,
    ):
        yield plant_bytes().replace(b"4840", str(reactor).encode()).replace(b"5020", str(pump).encode())


@pytest.mark.timeout(600)
async def test_every_command_of_the_page_leads_to_a_batch_that_is_complete(tmp_path: Path) -> None:
    async with cell(tmp_path) as plant:
        await follow_the_page(tmp_path, plant)


async def follow_the_page(tmp_path: Path, plant: bytes) -> None:
    people = [
        NewPerson("ana", "Ana Ruiz", (Role.OPERATOR,), PIN, "B-1"),
        NewPerson("ben", "Ben Okafor", (Role.VERIFIER,), PIN, "B-2"),
        NewPerson("dot", "Dot Larsen", (Role.QUALITY,), PIN, "B-3"),
    ]
    box = tmp_path / "box"
    init_device(box, box="BOX-1", people=people)
    (box / "plant.yaml").write_bytes(plant)
    settings = box / "lineside.toml"
    settings.write_text(f"speed = {SPEED}\n{settings.read_text()}")
    (tmp_path / "warm-up.yaml").write_text(RECIPE)
    left = [*COMMANDS]
    while "submit" not in left[0]:
        await follow(left.pop(0), tmp_path)
    config = read_config(box)
    async with running(config) as socket:
        while "batch" not in left[0]:
            await follow(left.pop(0), tmp_path)
        async with connect(socket) as client:
            await log_in(client, "ana", PIN)
            (recipe,) = (await look(client)).recipes
            await client.ask(wire.StartBatch(id=name(), batch="B-1", order="O-1", recipe=recipe.seal))
            await work(client)
            (batch,) = (await look(client)).batches
            assert [line.step for line in batch.steps if line.state != "done"] == []
        for command in left:
            await follow(command, tmp_path)
    assert {" ".join(command.split()[1:3]) for command in COMMANDS} == set(SAYS)
