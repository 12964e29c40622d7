"""A runtime in this process on a box without equipment: the real journal, engine, directory and desk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge import runtime
from edge.config import Config, read_config
from edge.core.errors import LinesideError
from edge.core.terms import Role
from edge.desk_client import connect
from provisioning.device import NewPerson, init_device

RECIPE = """\
recipe: PAPER
version: "1"
title: Paper on glass
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: instruct, title: Clear, text: Clear the bench.}
          - {id: "020", phase: scan, title: Bag, text: Scan the bag., name: din, expect: patient}
          - {id: "030", phase: record, title: Viability, text: Count., name: viability, unit: "%",
             limit: {low: 80, unit: "%"}}
          - {id: "040", phase: wait, title: Rest, duration: 1 h}
          - {id: "050", phase: sign, title: Review, text: Look at it., meaning: reviewed, roles: [operator, verifier]}
"""
CLEAN_PLANT = """\
plant: BOX-T
units:
  BR-1:
    class: bioreactor
    cleaning: {clean_hold_s: 3600}
"""
CLEAN = """\
recipe: CLEAN
version: "1"
title: Clean the reactor
units:
  reactor: {class: bioreactor}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: instruct, title: Rinse, text: Rinse it.}
          - {id: "020", phase: instruct, title: Look, text: Look at it., cleans: [reactor]}
"""
PEOPLE = (
    NewPerson("ana", "Ana Ruiz", (Role.OPERATOR,), "2580", "B-ANA"),
    NewPerson("ben", "Ben Okafor", (Role.VERIFIER,), "1470", "B-BEN"),
)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box folder; hashing PINs takes time, so it is made once and copied."""
    folder = tmp_path_factory.mktemp("box") / "box"
    init_device(folder, box="BOX-T", people=PEOPLE)
    (folder / "recipes" / "paper.yaml").write_text(RECIPE)
    (folder / "lineside.toml").write_text('box = "BOX-T"\nspeed = 100000.0\nrecipe_approval = "from_folder"\n')
    return folder


@pytest.fixture
def box(made_once: Path, tmp_path: Path) -> Config:
    import shutil

    folder = tmp_path / "b"
    shutil.copytree(made_once, folder)
    return read_config(folder)


@pytest.fixture
def cell(box: Config) -> Config:
    """A box with one reactor and the recipe that cleans it."""
    for path in box.recipes.iterdir():
        if path.is_file():
            path.unlink()
    (box.recipes / "clean.yaml").write_text(CLEAN)
    box.plant.write_text(CLEAN_PLANT)
    return box


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Path]:
    """The runtime while the block runs; then a clean stop. Gives the desk's socket."""
    stop = asyncio.Event()
    task = asyncio.create_task(runtime.run(config, stop), name="runtime")
    try:
        await until_ready(config.desk_socket, task)
        yield config.desk_socket
    finally:
        stop.set()
        await task


async def until_ready(socket: Path, task: asyncio.Task[None]) -> None:
    """Return once the desk answers."""
    while not task.done():
        try:
            async with connect(socket):
                return
        except LinesideError:
            await asyncio.sleep(0)
    await task
