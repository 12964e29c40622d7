"""A box with a batch under way, and a backup of it, made once."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from edge import wire
from edge.backup import back_up
from edge.config import Config, read_config
from edge.core.terms import Role
from edge.desk_client import DeskClient, connect
from edge.identity import read_public
from provisioning.device import NewPerson, init_device
from tests.edge.conftest import RECIPE, running

PINS = {"ana": "2580", "sue": "3690"}


@dataclass(frozen=True)
class Made:
    """A box folder, stopped while batch B1 runs, and a backup of it."""

    folder: Path
    backup: Path
    public: bytes


def name() -> str:
    return uuid4().hex


async def log_in(client: DeskClient, person: str = "ana") -> None:
    await client.ask(wire.LogIn(id=name(), person=person, pin=PINS[person]))


async def look(client: DeskClient) -> wire.Picture:
    return wire.Picture.model_validate((await client.ask(wire.AskStatus(id=name())))["picture"])


async def start(client: DeskClient, batch: str = "B1") -> None:
    seal = (await look(client)).recipes[0].seal
    await client.ask(wire.StartBatch(id=name(), batch=batch, order="O-1", recipe=seal, patient="=DIN1"))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("backup") / "box"
    people = (
        NewPerson("ana", "Ana Ruiz", (Role.OPERATOR,), PINS["ana"], "B-ANA"),
        NewPerson("sue", "Sue Park", (Role.SUPERVISOR,), PINS["sue"], "B-SUE"),
    )
    init_device(folder, box="BOX-T", people=people)
    (folder / "recipes" / "paper.yaml").write_text(RECIPE)
    (folder / "lineside.toml").write_text('box = "BOX-T"\nrecipe_approval = "from_folder"\n')
    config = read_config(folder)

    async def begin() -> None:
        async with running(config) as socket, connect(socket) as client:
            await log_in(client)
            await start(client)
            await client.ask(wire.ConfirmStep(id=name(), batch="B1", step="010"))

    asyncio.run(begin())
    out = folder.parent / "box.tar"
    back_up(config, out)
    return Made(folder, out, read_public(folder / "device.pub"))


@pytest.fixture
def box(made: Made, tmp_path: Path) -> Config:
    """A box of its own, as it was at the backup."""
    folder = tmp_path / "b"
    shutil.copytree(made.folder, folder)
    return read_config(folder)


@pytest.fixture
def spare(made: Made, tmp_path: Path) -> Config:
    """The box folder of the same device without state: what remains after its disk was lost."""
    folder = tmp_path / "spare"
    shutil.copytree(made.folder, folder, ignore=shutil.ignore_patterns("state"))
    return read_config(folder)
