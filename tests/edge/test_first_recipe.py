"""The page that leads through a first recipe: its file is right, and each of its commands does what it says."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drivers.sim.cell import plant_bytes
from edge import wire
from edge.__main__ import app
from edge.config import read_config
from edge.core.terms import Role
from edge.desk_client import connect
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


@pytest.mark.timeout(120)
async def test_every_command_of_the_page_leads_to_a_batch(tmp_path: Path) -> None:
    people = [
        NewPerson("ana", "Ana Ruiz", (Role.OPERATOR,), PIN, "B-1"),
        NewPerson("dot", "Dot Larsen", (Role.QUALITY,), PIN, "B-3"),
    ]
    box = tmp_path / "box"
    init_device(box, box="BOX-1", people=people)
    (box / "plant.yaml").write_bytes(plant_bytes().replace(b"4840", b"9").replace(b"5020", b"9"))  # nobody answers
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
            (batch,) = (await look(client)).batches
            assert [(card.step, card.title) for card in batch.active] == [("010/010", "Hours since the cleaning")]
        for command in left:
            await follow(command, tmp_path)
    assert {" ".join(command.split()[1:3]) for command in COMMANDS} == set(SAYS)
